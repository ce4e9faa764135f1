"""Compare two model files: their descriptions, and their tensors by name and value."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tlkit.formats.base.arrays import chunks
from tlkit.formats.base.tensors import TensorEntry, TensorFile
from tlkit.formats.gguf import names as _gguf_names
from tlkit.types import ModelInfo

_PIECE = 1 << 16
_FACTS = ("kind", "inputs", "outputs", "states", "labels", "functions", "spec_version", "opset", "parameters")
Status = Literal["same", "type", "differs", "shape", "missing", "added"]


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """One name in two files. ``same``: equal values; ``type``: equal values, stored as another type; ``differs``;
    ``shape``; ``missing`` from the second file; ``added`` by it.

    ``max_abs`` is the largest absolute difference where both are finite, ``relative`` that by the first's largest
    magnitude, ``not_finite`` counts elements that are NaN or infinite on one side only.
    """

    name: str
    status: Status
    dtypes: tuple[str, str] = ("", "")
    shapes: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    max_abs: float | None = None
    relative: float | None = None
    cosine: float | None = None
    unequal: int = 0
    not_finite: int = 0


@dataclass(frozen=True, slots=True)
class FileDifference:
    """``facts`` are (what, of the first, of the second) where two descriptions differ; ``tensors`` one per name.

    ``other`` is the second file's description.
    """

    facts: tuple[tuple[str, Any, Any], ...]
    tensors: tuple[TensorDifference, ...]
    other: ModelInfo | None = None

    @property
    def same(self) -> bool:
        """Whether every tensor of one is in the other with the same values, and the ports agree."""
        ports = {"inputs", "outputs", "states", "labels", "functions"}
        apart = any(what in ports for what, _, _ in self.facts)
        return not apart and all(tensor.status in ("same", "type") for tensor in self.tensors)


def diff_infos(first: ModelInfo, second: ModelInfo) -> tuple[tuple[str, Any, Any], ...]:
    """Return what two descriptions say differently, as (what, of the first, of the second)."""
    found: list[tuple[str, Any, Any]] = []
    for field in fields(first.metadata):
        a, b = getattr(first.metadata, field.name), getattr(second.metadata, field.name)
        if field.name == "user":
            keys = sorted({*a, *b})
            found += [(key, a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)]
        elif a != b:
            found.append((field.name, a, b))
    for name in _FACTS:
        if getattr(first, name) != getattr(second, name):
            found.append((name, getattr(first, name), getattr(second, name)))
    return tuple(found)


def diff_tensors(
    first: TensorFile, second: TensorFile, advance: Callable[[int], None] = lambda nbytes: None
) -> Iterator[TensorDifference]:
    """Compare two files' tensors by name, in the first file's order; ``advance`` is called with the bytes compared.

    Where one has GGUF's names and the other Hugging Face's, the first file's are used.
    """
    names = _names(first, second)
    others = {names.get(entry.name, entry.name): entry for entry in second.entries()}
    for entry in first.entries():
        other = others.pop(entry.name, None)
        if other is None:
            yield TensorDifference(entry.name, "missing", (entry.dtype, ""), (entry.shape, ()))
        elif entry.shape != other.shape:
            dtypes, shapes = (entry.dtype, other.dtype), (entry.shape, other.shape)
            yield TensorDifference(entry.name, "shape", dtypes, shapes)
        else:
            yield _compare(first, entry, second, other)
        advance(entry.nbytes)
    for other in others.values():
        yield TensorDifference(other.name, "added", ("", other.dtype), ((), other.shape))


def _names(first: TensorFile, second: TensorFile) -> dict[str, str]:
    """Return the first file's names for the second's tensors, where they follow another naming scheme."""
    names = [[entry.name for entry in file.entries()] for file in (first, second)]
    styles = [_gguf_names.are_gguf_names(side) for side in names]
    if styles[0] == styles[1]:
        return {}
    # The side with GGUF's names says which architecture it is.
    said = str((first if styles[0] else second).metadata.get("general.architecture", ""))
    arch = _gguf_names.find_architecture(said) if said else ""
    if not arch:
        return {}
    return _gguf_names.to_gguf(names[1], arch) if styles[0] else _gguf_names.to_hugging_face(names[1], arch)


class _Sums:
    def __init__(self) -> None:
        self.max_abs = self.largest = 0.0
        self.ab = self.aa = self.bb = 0.0
        self.unequal = self.not_finite = 0

    def add(self, a: NDArray[Any], b: NDArray[Any]) -> None:
        # Equal pieces, which most are, need no masks.
        if np.array_equal(a, b):
            a = a.astype(np.float64)
            square = float(a @ a)
            self.ab, self.aa, self.bb = self.ab + square, self.aa + square, self.bb + square
            self.largest = max(self.largest, float(np.abs(a).max(initial=0)))
            return
        a, b = a.astype(np.float64), b.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        finite = np.isfinite(a) & np.isfinite(b)
        self.unequal += int((~same).sum())
        self.not_finite += int((~finite & ~same).sum())
        a, b = a[finite], b[finite]
        self.max_abs = max(self.max_abs, float(np.abs(a - b).max(initial=0)))
        self.largest = max(self.largest, float(np.abs(a).max(initial=0)))
        self.ab, self.aa, self.bb = self.ab + float(a @ b), self.aa + float(a @ a), self.bb + float(b @ b)


def _compare(first: TensorFile, a: TensorEntry, second: TensorFile, b: TensorEntry) -> TensorDifference:
    sums = _Sums()
    with np.errstate(over="ignore", invalid="ignore"):
        for x, y in zip(_pieces(first, a), _pieces(second, b), strict=True):
            sums.add(x, y)
    length = math.sqrt(sums.aa) * math.sqrt(sums.bb)
    cosine = min(1.0, sums.ab / length) if length else float(sums.aa == sums.bb)
    status: Status = "differs" if sums.unequal else "same" if a.dtype == b.dtype else "type"
    relative = sums.max_abs / sums.largest if sums.largest else (math.inf if sums.max_abs else 0.0)
    return TensorDifference(
        a.name,
        status,
        (a.dtype, b.dtype),
        (a.shape, b.shape),
        sums.max_abs,
        relative,
        cosine,
        sums.unequal,
        sums.not_finite,
    )


def _pieces(source: TensorFile, entry: TensorEntry) -> Iterator[NDArray[Any]]:
    """Yield the values in pieces of equal size, whatever pieces the file yields."""
    for piece in chunks(source, entry, _PIECE):
        # Complex numbers as pairs of reals.
        values = piece.view(piece.real.dtype) if piece.dtype.kind == "c" else piece
        for start in range(0, values.size, _PIECE):
            yield values[start : start + _PIECE]
