"""What a side of a comparison is, and how a case's values find its inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.core.convert.capture.cases import Case
from tlkit.core.model.plain import KINDS
from tlkit.errors import TlkitError, UsageError
from tlkit.ports.shapes import shape_text
from tlkit.types import TensorSpec

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class HowToOpen:
    """How one side is run: ``precision`` and ``engine`` of a package, its function; ``trust`` a .pt's code; ``emulate``
    the profile of a unit by whose arithmetic a package is run, on ``chip``. The others are those of ``load_model``."""

    precision: str = "f16"
    engine: str = "eager"
    unit: str = "cpu"
    function: str | None = None
    trust: bool = False
    emulate: str | None = None
    chip: str | None = None
    strict_mil: bool = False
    stage: int | str | None = None
    cache: bool = True
    custom: Mapping[str, Any] = field(default_factory=dict)


class Side(ABC):
    """One of the two: ``text`` is what the user called it, ``told`` how it runs, ``inputs`` its ports (None: it takes
    those of the other side), ``half`` whether it computes in f16."""

    text: str
    told: str
    inputs: tuple[TensorSpec, ...] | None = None
    half: bool = False

    @abstractmethod
    def run(self, case: Case) -> Mapping[str, Any]:
        """Return the outputs by name for one case."""

    @property
    def rests_on(self) -> str:
        """After a run, what it rested on where a unit was emulated; else empty."""
        return ""

    def ports(self) -> tuple[TensorSpec, ...]:
        """Return the inputs as ports of cases; empty where it has none of its own."""
        return self.inputs or ()


def paired_inputs(case: Case, ports: Sequence[TensorSpec], text: str) -> dict[str, tuple[TensorSpec, Array]]:
    """Return the case's values by the names of ``ports``: paired by name, and what is left by shape and then by order.

    Raises UsageError, with both sides, where they do not fit.
    """
    given = dict(zip((port.name for port in case.ports), case.values, strict=True))
    found = {port.name: (port, given.pop(port.name)) for port in ports if port.name in given}
    left = [port for port in ports if port.name not in found]
    for port in list(left):
        alike = [name for name, value in given.items() if _fits(port, value)]
        others = [item for item in left if any(_fits(item, given[name]) for name in alike)]
        if len(alike) == 1 and len(others) == 1:
            found[port.name] = (port, given.pop(alike[0]))
            left.remove(port)
    wanted = [port for port in left if not port.optional]
    if len(wanted) == len(given):
        found |= {port.name: (port, value) for port, value in zip(wanted, given.values(), strict=True)}
        given.clear()
    apart = any(_apart(port, value) for port, value in found.values())
    if given or apart or any(port.name not in found for port in wanted):
        here = ", ".join(f"{port.name} {shape_text(port.shape)}" for port in ports) or "none"
        there = ", ".join(f"{port.name} {shape_text(port.shape)}" for port in case.ports) or "none"
        raise UsageError(
            f"the inputs do not match: {text} takes {here}; given are {there}",
            "compare models with the same inputs; --shape fixes one of a flexible shape",
        )
    return found


def _fits(port: TensorSpec, value: Any) -> bool:
    if not isinstance(value, np.ndarray):
        return port.kind in KINDS
    shape = value.shape if value.dtype != np.uint8 or value.ndim != 3 else (1, *value.shape)
    same = (port.dtype or "float32").startswith("int") == (value.dtype.kind == "i")
    return same and len(port.shape) == len(shape) and all(a in (b, 1) for a, b in zip(port.shape, shape, strict=True))


def _apart(port: TensorSpec, value: Any) -> bool:
    """Whether ``port`` cannot take ``value``: it has another number of elements, or as a picture other channels or
    another size. Where the lengths are open, the side says so itself when it runs."""
    if not isinstance(value, np.ndarray) or port.kind not in ("tensor", "image") or not port.shape or port.sequences:
        return False
    picture = value.dtype == np.uint8 and value.ndim == 3
    shape = (1, *value.shape) if picture else value.shape
    if port.image is not None and picture:
        return shape[1] != port.shape[1] or not takes(port, shape)
    return not port.flexible and not takes(port, shape) and int(np.prod(port.shape)) != value.size


def takes(port: TensorSpec, shape: Sequence[int]) -> bool:
    """Whether a port's own shapes have ``shape`` among them."""
    if port.listed:
        return tuple(shape) in port.listed
    spans = port.spans
    return len(spans) == len(shape) and all(low <= size <= high for size, (low, high) in zip(shape, spans, strict=True))


def meeting(ports: Sequence[TensorSpec], others: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Return ``ports``, those of a flexible shape at that of the other side's port of the same name (or, of as many, in
    the same place), where they take that."""
    named = {port.name: port for port in others}
    found = []
    for place, port in enumerate(ports):
        alike = others[place] if len(others) == len(ports) else None
        other = named.get(port.name, alike)
        at = other.shape if other is not None and port.flexible and takes(port, other.shape) else port.shape
        found.append(port if at == port.shape else port.taking(at, port.ranges, port.enumerated))
    return tuple(found)


def side_error(side: Side, error: TlkitError) -> TlkitError:
    """Return ``error`` with the side's name in it."""
    if side.text in error.message:
        return error
    return type(error)(f"{side.text}: {error.message}", error.hint)
