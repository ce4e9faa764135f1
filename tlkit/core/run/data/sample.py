"""One of many samples, and what a set of them is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Sample:
    """One of many: its name, and values by input, as :func:`tlkit.core.model.inputs.to_port` takes them."""

    name: str
    values: Mapping[str, Any]


class SampleSet(Protocol):
    """Samples in an order: ``place`` is the file or folder they are in, ``inputs`` the inputs that they are for."""

    @property
    def place(self) -> Path:
        """The file or folder that the samples are in."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs that each sample has a value for."""

    @property
    def count(self) -> int:
        """How many there are."""

    def samples(self, start: int, stop: int) -> Iterator[Sample]:
        """Yield the samples from ``start`` up to ``stop``."""
