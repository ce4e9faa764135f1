"""GGUF's blocks as MIL's compressed constants: which tensors stay in them, and the constants' bytes.

Where one ``constexpr_blockwise_shift_scale`` holds the same numbers bit for bit it is taken; minima, and scales that
take more than f16's 11 bits, need one constexpr inside another. ``rounded`` blocks keep the codes and round what one
operation cannot hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tlkit.formats.base.dtypes import BLOCKS
from tlkit.formats.gguf.quants import dequantize
from tlkit.frontends.gguf.kit.block_types import BlockType, block_types
from tlkit.frontends.gguf.kit.source import StoredTensor
from tlkit.mil.blob import Deferred
from tlkit.mil.types import DType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Blocks = NDArray[Any]

Part = Literal["codes", "scales", "minima", "ones"]
Way = Literal["one", "minimum", "cast"]
"""How blocks are written exactly: one operation; a second one that takes the minimum away; all that in f32, and a last
one that rounds to f16 once."""
_PIECE = 1 << 22  # weights


def of_blocks(tensor: StoredTensor) -> BlockType | None:
    """Return how a tensor is taken apart; None where it is not of whole blocks in its rows' order."""
    if len(tensor.entries) != 1 or len(tensor.shape) < 2:
        return None
    if not all(change.moves for change in tensor.changes) or tensor.entries[0].big_endian:
        return None
    found = block_types().get(tensor.entries[0].dtype)
    return None if found is None or tensor.shape[-1] % found.size else found


def way_of(dtype: str, computed: DType, *, nested: bool) -> Way | None:
    """Return how blocks of ``dtype`` are written exactly in a program that computes in f32 or f16 (there: rounded
    once); None where that takes ``nested`` constexprs and these are not wanted, or where there is no way.

    In f16 one operation is exact only where the scale is an f16 number itself.
    """
    found = block_types().get(dtype)
    if found is None:
        return None
    if found.minima is None and (computed is DType.FP32 or found.half):
        return "one"
    if not nested:
        return None
    return "minimum" if computed is DType.FP32 else "cast"


def way_of_tensor(tensor: StoredTensor, computed: DType, *, nested: bool) -> Way | None:
    """Return :func:`way_of` for one tensor, whose blocks may have scales that f16 cannot hold."""
    found = of_blocks(tensor)
    way = way_of(tensor.entries[0].dtype, computed, nested=nested) if found is not None else None
    if found is None or way != "one" or found.fits is None or computed is DType.FP32:
        return way
    entry = tensor.entries[0]
    fits = found.fits(np.frombuffer(tensor.file.raw(entry), np.uint8).reshape(-1, BLOCKS[entry.dtype][1]))
    return "one" if fits else "cast" if nested else None


def pieces_of_blocks(tensor: StoredTensor) -> Iterator[Blocks]:
    """Yield a tensor's blocks, uint8 [count, bytes], in pieces and in the order of its rows."""
    entry = tensor.entries[0]
    elements, size = BLOCKS[entry.dtype]
    blocks = np.frombuffer(tensor.file.raw(entry), np.uint8).reshape(entry.shape[0], -1)
    for change in tensor.changes:
        blocks = change.apply(blocks)  # whole rows move
    blocks = blocks.reshape(-1, size)
    step = _PIECE // elements
    for start in range(0, len(blocks), step):
        yield blocks[start : start + step]
        tensor.file.release(entry, min((start + step) * size, entry.nbytes))


def codes_of(kind: BlockType, dtype: str, blocks: Blocks) -> Blocks:
    """Return blocks' codes, [count, weights of a block]."""
    if kind.direct is not None:
        return np.ascontiguousarray(blocks[:, kind.direct]).view(np.int8)
    changed = blocks.copy()
    kind.plain(changed)
    return dequantize(changed, dtype, (len(blocks), BLOCKS[dtype][0]))


def packed(values: Blocks, dtype: DType) -> Blocks:
    """Return numbers as they are stored, flat: two codes of four bits in a byte, the first one below."""
    if dtype.bits == 4:
        codes = values.astype(np.int8).reshape(-1).astype(np.uint8) & 15
        return codes[0::2] | codes[1::2] << 4
    return np.ascontiguousarray(values, dtype.numpy_like).reshape(-1)


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
        """Yield the bytes; codes have the weight's shape, other parts one number for each block."""
        dtype = self.tensor.entries[0].dtype
        kind = block_types()[dtype]
        for blocks in pieces_of_blocks(self.tensor):
            with np.errstate(all="ignore"):  # a damaged scale may be infinite, and is the same dense
                yield packed(self._read(kind, dtype, blocks), self.dtype).data.cast("B")

    def _read(self, kind: BlockType, dtype: str, blocks: Blocks) -> Blocks:
        if self.part == "codes":
            return codes_of(kind, dtype, blocks)
        if self.part == "ones":
            return np.ones(len(blocks) * BLOCKS[dtype][0] // kind.size, np.float32)
        read = kind.scales if self.part == "scales" else kind.minima
        assert read is not None  # minima are only asked of types that have them
        return np.asarray(read(blocks))
