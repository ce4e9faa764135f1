"""Weights of a program that are not the file's: rounded per channel, or blocks that one operation cannot hold exactly.

What rounding costs is measured while the weights are written, against the file's own values, and collected by tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tlkit.formats.base.dtypes import BLOCKS
from tlkit.formats.gguf.quants import dequantize
from tlkit.frontends.gguf.kit.block_types import BlockType
from tlkit.frontends.gguf.kit.blocks import codes_of, packed, pieces_of_blocks
from tlkit.frontends.gguf.kit.source import StoredTensor
from tlkit.mil.blob import Deferred
from tlkit.mil.types import DType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

Kind = Literal["int8", "int4"]
Weights = Literal["keep", "f16", "int8", "int4-channel"]
"""What a program's matrices become: what the file has; f16; one scale per output channel and codes of 8 or 4 bits."""
_KEPT = ("ffn_gate_inp", "ffn_gate_inp_shexp", "position_embd", "token_types")
_TRIED = np.linspace(1.0, 0.6, 9, dtype=np.float32)
"""Shares of a row's largest weight that the largest of four-bit codes stands for: with fewer, more weights are clipped
and the others are nearer."""


@dataclass(frozen=True, slots=True)
class WeightError:
    """What one tensor's weights lost: ``stored`` as the file has it, ``kind`` as it is written; the root of the mean
    square error over that of the weights, and the largest error, in the weights' own unit."""

    tensor: str
    stored: str
    kind: str
    relative: float
    largest: float


@dataclass(eq=False, slots=True)
class Rounding:
    """What matrices become, and what that cost, by tensor: one for all functions of a program, which share them.

    With ``keep``, blocks that one operation cannot hold exactly are rounded to what it can."""

    weights: Weights = "keep"
    scales: DType = DType.FP32
    """What scales per channel are numbers of, which a wider program keeps as they are."""
    errors: dict[str, WeightError] = field(default_factory=dict)

    def kind(self, tensor: StoredTensor) -> Weights:
        """Return what a tensor becomes; ``keep`` for what is no matrix, and for the few weights that routers, positions
        and kinds of text have."""
        name = tensor.name.removesuffix(".weight")
        if len(tensor.shape) < 2 or name.rpartition(".")[2] in _KEPT or not tensor.name.endswith(".weight"):
            return "keep"
        # Every token is a row of the one, and a place in the answer of the other: four bits are not enough there.
        return "int8" if self.weights == "int4-channel" and name in ("token_embd", "output") else self.weights


@dataclass(slots=True)
class _RoundingSums:
    """Sums over one tensor's pieces."""

    squares: float = 0.0
    error: float = 0.0
    largest: float = 0.0

    def add(self, wanted: Floats, made: Floats) -> None:
        """Take one more piece of the file's values and of what is written."""
        with np.errstate(all="ignore"):  # damaged weights may be infinite, and are reported where they are run
            apart = wanted - made
            self.squares += float(np.square(wanted, dtype=np.float64).sum())
            self.error += float(np.square(apart, dtype=np.float64).sum())
        self.largest = max(self.largest, float(np.abs(apart).max(initial=0)))

    def of(self, tensor: StoredTensor, kind: str) -> WeightError:
        """Return the tensor's error."""
        relative = (self.error / self.squares) ** 0.5 if self.squares else 0.0
        return WeightError(tensor.name, stored_type(tensor), kind, relative, self.largest)


def stored_type(tensor: StoredTensor) -> str:
    """Return the type that a tensor has in its file; ``made`` for values that no file stores."""
    return tensor.entries[0].dtype if tensor.entries else "made"


def largest_code(kind: Kind) -> int:
    """Return the largest code of a whole number's type; codes are symmetric."""
    return 7 if kind == "int4" else 127


def channel_scales(rows: Floats, kind: Kind, dtype: DType) -> Floats:
    """Return a scale for each row [rows, n], as numbers of ``dtype``: the largest weight is the largest code; of four
    bits, whichever share of it gives the smallest error."""
    most = np.float32(largest_code(kind))
    top = np.abs(rows).max(axis=1)
    shares = _TRIED if kind == "int4" else _TRIED[:1]
    best = least = None
    for share in shares:
        scale = (top * share / most).astype(dtype.numpy_like).astype(np.float32)
        apart = rows - coded(rows, scale, kind) * scale[:, None]
        error = np.einsum("ij,ij->i", apart, apart)
        if best is None or least is None:
            best, least = scale, error
        else:
            better = error < least
            best, least = np.where(better, scale, best), np.where(better, error, least)
    assert best is not None  # there is a first share
    return np.asarray(best, np.float32)


def coded(rows: Floats, scale: Floats, kind: Kind) -> Floats:
    """Return the codes [rows, n] of rows under their scales, as whole floats; 0 where a scale is 0."""
    most = largest_code(kind)
    with np.errstate(all="ignore"):
        codes = np.rint(rows / scale[:, None])
    return np.asarray(np.clip(np.nan_to_num(codes, nan=0.0), -most, most), np.float32)


@dataclass(frozen=True, slots=True)
class ChannelPart(Deferred):
    """Codes or scales of a tensor with one scale per output channel; ``dtype`` is the scales' type."""

    tensor: StoredTensor
    kind: Kind
    part: Literal["codes", "scales"]
    dtype: DType
    rounding: Rounding

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield codes in the weight's shape, or a scale for each row."""
        sums = _RoundingSums()
        for rows in self.tensor.pieces():
            scales = channel_scales(rows, self.kind, self.rounding.scales)
            if self.part == "scales":
                sums.add(rows, coded(rows, scales, self.kind) * scales[:, None])
                yield np.ascontiguousarray(scales, self.dtype.numpy_like).data.cast("B")
            else:
                stored = DType.INT4 if self.kind == "int4" else DType.INT8
                yield packed(coded(rows, scales, self.kind), stored).data.cast("B")
        if self.part == "scales":
            self.rounding.errors[self.tensor.name] = sums.of(self.tensor, f"{self.kind} per channel")


@dataclass(frozen=True, slots=True)
class HalfWeight(Deferred):
    """A tensor's values rounded to f16."""

    tensor: StoredTensor
    rounding: Rounding

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the values."""
        sums = _RoundingSums()
        for rows in self.tensor.pieces():
            with np.errstate(over="ignore"):  # what f16 cannot hold becomes infinite, and is found when it is run
                made = rows.astype(np.float16)
            sums.add(rows, made.astype(np.float32))
            yield np.ascontiguousarray(made).data.cast("B")
        if sums.error:
            self.rounding.errors[self.tensor.name] = sums.of(self.tensor, "f16")


@dataclass(frozen=True, slots=True)
class RoundedPart(Deferred):
    """Codes, scales or offsets of blocks for one operation, ``scale * (code - offset)``, in numbers of ``dtype``:
    the offset is minimum / scale, and a block without a scale is its minimum times (0 - 1)."""

    tensor: StoredTensor
    block: BlockType
    part: Literal["codes", "scales", "offsets"]
    dtype: DType
    rounding: Rounding

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield codes in the weight's shape, or a number for each block."""
        sums, stored = _RoundingSums(), stored_type(self.tensor)
        for blocks in pieces_of_blocks(self.tensor):
            with np.errstate(all="ignore"):  # a damaged scale may be infinite, and is the same dense
                codes, scales, offsets = self._taken_apart(blocks)
            if self.part == "codes":
                yield packed(codes, self.block.codes).data.cast("B")
                continue
            if self.part == "scales":
                wanted = dequantize(blocks, stored, (len(blocks), BLOCKS[stored][0])).reshape(codes.shape)
                with np.errstate(all="ignore"):
                    made = (codes - offsets[:, None]) * scales[:, None]
                sums.add(wanted, made.astype(self.dtype.numpy_like).astype(np.float32))
            narrow = scales if self.part == "scales" else offsets
            yield np.ascontiguousarray(narrow, self.dtype.numpy_like).data.cast("B")
        if self.part == "scales":
            self.rounding.errors[self.tensor.name] = sums.of(self.tensor, f"{stored} with rounded scales")

    def _taken_apart(self, blocks: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
        """Return codes [groups, weights], and scales and offsets by group, as numbers of the part's type."""
        codes = codes_of(self.block, stored_type(self.tensor), blocks).reshape(-1, self.block.size).astype(np.float32)
        scales = self._rounded(self.block.scales(blocks))
        if self.block.minima is None:
            return codes, scales, np.zeros_like(scales)
        minima = self._rounded(self.block.minima(blocks))
        offsets = self._rounded(minima / scales)
        flat = ~np.isfinite(offsets)
        codes[flat] = 0
        return codes, np.where(flat, minima, scales), np.where(flat, np.float32(1), offsets)

    def _rounded(self, values: Any) -> Floats:
        return np.asarray(values, np.float32).reshape(-1).astype(self.dtype.numpy_like).astype(np.float32)
