"""GGUF's blocks as MIL's compressed constants, where these hold the same numbers bit for bit.

A block's weights are ``scale * code``, in f32 exactly; types with a minimum are ``scale * code - minimum``, which takes
one constexpr inside another. Codes are read by the decoders themselves: of blocks whose scales are overwritten with 1
they make the codes. So there is one place that knows how bits lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tlkit.formats.base.dtypes import BLOCKS
from tlkit.formats.gguf.quants import dequantize
from tlkit.frontends.gguf.kit.source import StoredTensor
from tlkit.mil.blob import Deferred
from tlkit.mil.types import DType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Blocks = NDArray[Any]

Part = Literal["codes", "scales", "minima", "ones"]
_ONE = (0x00, 0x3C)
"""1 in f16, little-endian."""
_PIECE = 1 << 22  # weights


@dataclass(frozen=True, slots=True)
class BlockType:
    """How one type is taken apart: weights that share a scale, the codes' type, where ones and zeros are written into
    the bytes so that decoding gives codes, scales or minima, whether the scale is an f16 as it stands, and which bytes
    are the codes where they are stored as such."""

    size: int
    codes: DType
    plain: Callable[[Blocks], None]
    scales: Callable[[Blocks], Any]
    minima: Callable[[Blocks], Any] | None = None
    half: bool = False
    direct: slice | None = None


def _write(blocks: Blocks, start: int, *values: int) -> None:
    for index, value in enumerate(values):
        blocks[:, start + index] = value


def _half(start: int) -> Callable[[Blocks], Any]:
    """Return what reads the f16 at ``start`` of each block."""
    return lambda blocks: np.ascontiguousarray(blocks[:, start : start + 2]).view("<f2").astype(np.float32)


def _simple(codes: DType, direct: slice | None = None) -> BlockType:
    """One f16 scale at the block's start."""
    return BlockType(32, codes, lambda blocks: _write(blocks, 0, *_ONE), _half(0), half=True, direct=direct)


def _with_minimum() -> BlockType:
    """An f16 scale and an f16 that is added."""
    return BlockType(
        32, DType.UINT8, lambda blocks: _write(blocks, 0, *_ONE, 0, 0), _half(0), lambda blocks: -_half(2)(blocks)
    )


def _six(blocks: Blocks) -> Any:
    """Q6_K's scales: 16 of 8 bits, times the f16 at the end; the products are exact in f32."""
    return np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32) * _half(208)(blocks)


def _plain_six(blocks: Blocks) -> None:
    _write(blocks, 192, *[1] * 16, *_ONE)


_SIXES = (1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1)
"""Q4_K's and Q5_K's twelve bytes of scales, all of them 1 and all minima 0."""


def _decoded(dtype: str, change: Callable[[Blocks], None]) -> Callable[[Blocks], Any]:
    """Return what decodes blocks after a change of them, and takes the first weight of each 32."""

    def read(blocks: Blocks) -> Any:
        changed = blocks.copy()
        change(changed)
        return dequantize(changed, dtype, (len(blocks), 256))[:, ::32]

    return read


def _codes_of(low: int, high: slice, value: int) -> Callable[[Blocks], None]:
    """Return what gives every weight the code ``value`` (0 or 1) in K types: bits from ``low`` on, the fifth in
    ``high``."""

    def change(blocks: Blocks) -> None:
        blocks[:, high] = 0
        blocks[:, low:] = value * 0x11

    return change


def _both(*changes: Callable[[Blocks], None]) -> Callable[[Blocks], None]:
    def change(blocks: Blocks) -> None:
        for each in changes:
            each(blocks)

    return change


def _of_k(dtype: str, codes: DType, low: int, high: slice) -> BlockType:
    """Q4_K and Q5_K: f16 scale and minimum, six bits of each for 32 weights."""
    no_minimum = _both(_codes_of(low, high, 1), lambda blocks: _write(blocks, 2, 0, 0))
    minima = _decoded(dtype, _codes_of(low, high, 0))
    plain: Callable[[Blocks], None] = lambda blocks: _write(blocks, 0, *_ONE, 0, 0, *_SIXES)  # noqa: E731
    return BlockType(32, codes, plain, _decoded(dtype, no_minimum), lambda blocks: -minima(blocks))


def _types() -> Mapping[str, BlockType]:
    return {
        "Q8_0": _simple(DType.INT8, slice(2, 34)),
        "Q4_0": _simple(DType.INT4),
        "Q5_0": _simple(DType.INT8),
        "IQ4_NL": _simple(DType.INT8),
        "Q6_K": BlockType(16, DType.INT8, _plain_six, _six),
        "Q4_1": _with_minimum(),
        "Q5_1": _with_minimum(),
        "Q4_K": _of_k("Q4_K", DType.UINT4, 16, slice(0, 0)),
        "Q5_K": _of_k("Q5_K", DType.UINT8, 48, slice(16, 48)),
    }


def block_type(tensor: StoredTensor, dtype: DType, *, nested: bool) -> BlockType | None:
    """Return how a tensor is taken apart in a program that computes in ``dtype``; None where it stays dense.

    In f16 only types whose scale is an f16 are exact; those with a minimum need ``nested`` constexprs, in f32.
    """
    if len(tensor.entries) != 1 or len(tensor.shape) < 2:
        return None
    if any(change.kind not in ("q rows", "k rows") for change in tensor.changes) or tensor.entries[0].big_endian:
        return None
    found = _types().get(tensor.entries[0].dtype)
    if found is None or tensor.shape[-1] % found.size:
        return None
    if dtype is DType.FP16:
        return found if found.half else None
    return found if found.minima is None or nested else None


@dataclass(frozen=True, slots=True)
class BlockPart(Deferred):
    """One part of a tensor's blocks, as a constant of ``dtype``."""

    tensor: StoredTensor
    part: Part
    dtype: DType

    @property
    def stored(self) -> int:
        """The bytes that the file stores; of the tensor as a whole, counted at its codes."""
        return self.tensor.stored if self.part == "codes" else 0

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the bytes, two codes of four bits in each; codes have the weight's shape, other parts one number for
        each block."""
        kind, entry = _types()[self.tensor.entries[0].dtype], self.tensor.entries[0]
        elements, size = BLOCKS[entry.dtype]
        blocks = np.frombuffer(self.tensor.file.raw(entry), np.uint8).reshape(entry.shape[0], -1)
        for change in self.tensor.changes:
            blocks = change.apply(blocks)  # whole rows move
        blocks = blocks.reshape(-1, size)
        step = _PIECE // elements
        for start in range(0, len(blocks), step):
            yield self._packed(kind, blocks[start : start + step]).data.cast("B")
        self.tensor.file.release(entry, entry.nbytes)

    def _packed(self, kind: BlockType, blocks: Blocks) -> Blocks:
        with np.errstate(all="ignore"):  # a damaged scale may be infinite, and is the same dense
            if self.part == "codes" and kind.direct is not None:
                made = np.ascontiguousarray(blocks[:, kind.direct])
            elif self.part == "codes":
                changed = blocks.copy()
                kind.plain(changed)
                dtype = self.tensor.entries[0].dtype
                made = dequantize(changed, dtype, (len(blocks), BLOCKS[dtype][0]))
            elif self.part == "ones":
                made = np.ones(len(blocks) * BLOCKS[self.tensor.entries[0].dtype][0] // kind.size, np.float32)
            elif self.part == "scales":
                made = np.asarray(kind.scales(blocks))
            else:
                assert kind.minima is not None  # only asked of types that have one
                made = np.asarray(kind.minima(blocks))
        if self.dtype.bits == 4:
            codes = made.astype(np.int8).reshape(-1).astype(np.uint8) & 15
            return codes[0::2] | codes[1::2] << 4
        if made.dtype == np.uint8:
            return made.reshape(-1)
        return np.ascontiguousarray(made, self.dtype.numpy_like).reshape(-1)
