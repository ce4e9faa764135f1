"""The registry of layer kinds: a typed function a kind, under the name that ``NeuralNetworkLayer`` has for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tlkit.errors import LoadError
from tlkit.frontends.network.kit.blob import Blob, Shape
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.weights import Weights


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its name, its kind's message, what it is given and the names that it gives, with the shapes that the
    file declares of them, if it does.

    ``network`` is what runs networks inside it, :class:`~tlkit.frontends.network.build.Builder`.
    """

    name: str
    params: Any
    inputs: tuple[Blob, ...]
    outputs: tuple[str, ...]
    declared: tuple[Shape, ...]
    weights: Weights
    network: Any

    @property
    def x(self) -> Blob:
        """The first input."""
        return self.inputs[0]

    def input(self, place: int) -> Blob | None:
        """Return an input that may be left out."""
        return self.inputs[place] if place < len(self.inputs) else None


Made: TypeAlias = Blob | Sequence[Blob]
Function: TypeAlias = Callable[[Graph, Layer], Made]

_LAYERS: dict[str, tuple[Function, int]] = {}


def layer(*kinds: str, inputs: int = 1) -> Callable[[Function], Function]:
    """Register the decorated function for layers of ``kinds``, which need so many inputs; a second one is an error."""

    def register(function: Function) -> Function:
        for kind in kinds:
            if kind in _LAYERS:
                raise ValueError(f"the layer kind '{kind}' is registered twice")
            _LAYERS[kind] = (function, inputs)
        return function

    return register


def lookup(kind: str) -> tuple[Function, int] | None:
    """Return what makes layers of ``kind`` and how many inputs they need, or None."""
    return _LAYERS.get(kind)


def kinds() -> Mapping[str, tuple[Function, int]]:
    """Return every registered layer kind."""
    return _LAYERS


def lengths(values: Sequence[int], count: int, default: int) -> list[int]:
    """Return ``count`` numbers of a repeated field, ``default`` where it is empty; LoadError where they are others."""
    found = [int(value) for value in values] or [default] * count
    if len(found) != count or any(value >= 1 << 31 for value in found):
        raise LoadError(f"{len(found)} numbers where {count} below 2^31 are needed", "the file is damaged")
    return found
