"""Seeded values for ports, in the forms that a package and its source module take. Importing this imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.core.convert.capture.flow import Use
from tlkit.ports.images import scaled
from tlkit.types import TensorSpec

Generator = np.random.Generator
# Spans of integers: of those that nothing restricts, those that become floats, those that Python reads as sizes.
_WIDE, _MODEST, _FEW = 100_000, (-32, 100), (1, 8)
_ADDED = -100.0  # what an additive mask adds where it hides: far enough under all scores, and no overflow in f16


@dataclass(frozen=True, slots=True)
class Values:
    """What to draw a port's values from: ``kind``, and for integers the lowest and the highest.

    ``normal``, ``positive`` (0 to 1) and ``additive`` (0 and -100) are floating; ``mask`` is 0 and 1, never all 0;
    ``whole`` are integers, ``length`` such in falling order, ``sorted`` in rising order along the last axis, ``once``
    no place twice. ``special`` are values to have among them, ``without`` is one to leave out.
    """

    kind: str
    low: int = 0
    high: int = 0
    special: tuple[int, ...] = ()
    without: int | None = None

    def __str__(self) -> str:
        if self.kind in ("whole", "length", "sorted", "once"):
            rising = ", rising" if self.kind == "sorted" else ""
            return f"{self.low} to {self.high}{rising}" if self.low != self.high else str(self.low)
        return {"mask": "0 and 1", "additive": "0 and -100", "positive": "0 to 1"}.get(self.kind, "")


def values_for(port: TensorSpec, use: Use) -> Values:
    """Return the values that the graph allows for ``port``, judged by how they are used."""
    mask = "mask" in port.name.lower()
    if port.image is not None:
        return Values("pixels")
    if port.dtype != "int32":
        if use.added and not use.marks and mask:
            return Values("additive")
        return Values("mask" if use.marks or mask else "normal")
    special = tuple(sorted(use.compared))
    if use.index or use.length:
        low, high = use.low or 0, use.high or 0
        kind = "length" if use.length else "once" if use.unique else "whole"
        return Values(kind, low, max(low, high), tuple(value for value in special if low <= value <= high))
    if use.marks or mask or port.intake.boolean:
        return Values("mask")
    if use.tested:
        # On both sides of what they are compared with, and those values themselves.
        return Values("whole", -2, 3, (0, 1, *special))
    low, high = _FEW if use.read else _MODEST if use.floats else (-_WIDE, _WIDE)
    return Values("whole", low, high, special, 0 if use.divides else None)


def draw(ports: tuple[TensorSpec, ...], values: Mapping[str, Values], seed: int) -> list[NDArray[Any]]:
    """Return a seeded value for each port: pixels 0 to 255 as uint8 (C, H, W), the rest as ``values`` says.

    They include the lowest and the highest integer as far as there is room; otherwise ``seed`` chooses.
    """
    rng = np.random.default_rng(seed)
    return [_draw(port, values[port.name], rng, seed) for port in ports]


def narrowed(values: Values, ladder: str) -> Values:
    """Return tamer values than ``values``: ``thousand``, ``hundred``, ``sorted``, ``bits``, ``ones`` or ``zeros``."""
    if values.kind in ("normal", "positive"):
        return replace(values, kind="positive") if ladder in ("positive", "bits", "ones") else values
    if values.kind not in ("whole", "sorted", "once", "length"):
        return values
    low, high = _LADDER.get(ladder, (values.low, values.high))
    low, high = max(low, values.low), min(high, values.high)
    kind = "sorted" if ladder == "sorted" else values.kind
    return replace(values, kind=kind, low=low, high=max(low, high), special=())


_LADDER = {
    "thousand": (-1000, 1000),
    "counted": (0, 1000),
    "hundred": (0, 100),
    "few": (1, 8),
    "bits": (0, 1),
    "ones": (1, 1),
    "zeros": (0, 0),
}


def example_inputs(ports: tuple[TensorSpec, ...], values: list[NDArray[Any]]) -> tuple[Tensor, ...]:
    """Return the module's inputs for ``values`` of ``ports``."""
    return tuple(to_source(port, value) for port, value in zip(ports, values, strict=True))


def _draw(port: TensorSpec, values: Values, rng: Generator, seed: int) -> NDArray[Any]:
    if values.kind == "pixels":
        return rng.integers(0, 256, port.shape[1:], dtype=np.uint8)
    if values.kind == "mask":
        return _mask(port.shape, rng).astype(port.dtype)
    if values.kind == "additive":
        return np.where(_mask(port.shape, rng), 0, _ADDED).astype(port.dtype)
    if values.kind == "positive":
        return rng.uniform(0, 1, port.shape).astype(port.dtype)
    if values.kind == "normal":
        return rng.standard_normal(port.shape, dtype=np.float32).astype(port.dtype or "float32")
    return _integers(port.shape, values, rng, seed).astype(np.int32)


def _mask(shape: tuple[int, ...], rng: Generator) -> NDArray[np.bool_]:
    """Return rows that begin with True and end with False from somewhere on, as padded ones do, with a hole.

    None is padded before its first: in a causal model such a row attends to nothing at first, where torch and Core ML
    may both give anything, and a sound package would be said to differ.
    """
    rows = np.zeros(shape, bool).reshape(-1, shape[-1] if shape else 1)
    count, width = rows.shape
    if width == 1:
        flat = rng.integers(0, 2, count).astype(bool)
        flat[rng.integers(count)] = True
        return flat.reshape(shape)
    kept = rng.integers(max(1, width // 2), width + 1, count)
    # At least one row is padded: a package that ignores the mask would pass otherwise.
    kept[rng.integers(count)] = max(1, width - 1 - int(rng.integers(max(1, width // 4))))
    rows[:] = np.arange(width) < kept[:, None]  # count x width
    if width >= 4:
        rows[np.arange(count), rng.integers(1, np.maximum(2, kept))] = False
    return rows.reshape(shape)


def _integers(shape: tuple[int, ...], values: Values, rng: Generator, seed: int) -> NDArray[np.int64]:
    size, span = int(np.prod(shape, dtype=np.int64)), values.high - values.low + 1
    if values.kind == "once":
        return _once(size, values, rng).reshape(shape)
    flat = rng.integers(values.low, values.high + 1, size)
    if values.low <= -1000 and values.high >= 1000:  # data: small and large magnitudes alike
        largest = math.log(min(-values.low, values.high))
        flat = np.rint(np.exp(rng.uniform(0, largest, size))).astype(np.int64) * rng.choice((-1, 1), size)
    ends = tuple(dict.fromkeys((values.high, values.low, *values.special)))
    if size < len(ends):
        # Too few places for all: seeds take turns, and every third draws freely (`cases._few` makes three).
        ends = tuple(ends[(seed + step) % len(ends)] for step in range(size)) if seed % 3 != 2 else ()
    flat[rng.permutation(size)[: len(ends)]] = ends
    if values.without is not None and span > 1:
        flat[flat == values.without] = values.high or values.low
    if values.kind == "length":
        # As pack_padded_sequence wants lengths, unless it is told otherwise.
        flat = np.sort(flat)[::-1]
    found = flat.reshape(shape)
    return np.sort(found, axis=-1) if values.kind == "sorted" and found.ndim else found


def _once(size: int, values: Values, rng: Generator) -> NDArray[np.int64]:
    """Return indices of which no two are one place; where negatives count from the end, half of them do."""
    places = values.high + 1 if values.low < 0 else values.high - values.low + 1
    first = max(values.low, 0)
    chosen = rng.permutation(places)[:size] if size <= places else rng.integers(0, places, size)
    chosen = chosen + first
    if values.low < 0:
        chosen = np.where(rng.integers(0, 2, size) == 1, chosen - places, chosen)
    return np.asarray(chosen, np.int64)


def channel_ratios(port: TensorSpec) -> Tensor | None:
    """Return what the captured model multiplies an image by, (1, C, 1, 1), where its channels' scales differ."""
    if not port.intake.ratios:
        return None
    return torch.tensor(port.intake.ratios, dtype=torch.float32).reshape(1, -1, 1, 1)


def to_source(port: TensorSpec, value: NDArray[Any]) -> Tensor:
    """Return the tensor that the source module gets for ``value``: f32 or int64; pixels after scale and bias."""
    if port.image:
        value = scaled(port, value)
    # Writable: a mapped file is not, and torch warns of that.
    array = np.require(value, requirements=["C", "W"])
    return torch.from_numpy(array).to(torch.int64 if port.dtype == "int32" else torch.float32)
