"""Matrices that stay GGUF's blocks on a GPU: codes, scales and minima as arrays of their own, each as narrow as it is.

A weight is ``scale * level[code]``, less a minimum where the type has one. Eight codes that follow one another in a row
are one number, or two where their bits are no power of two: of 6 bits the lower four in one array, the upper two in
another. Scales are f16, or whole numbers of 8 bits times an f16 factor of 256 weights, as the file has them; where they
are neither, f32. So there is one form for all types, which costs what the file costs (4.625 bits per weight of Q4_K's
4.5), and every weight in f32 is what the file's own decoder makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from tlkit.engines.torch.fused.kernels import block_kernels
from tlkit.formats.base.dtypes import BLOCKS
from tlkit.frontends.gguf.kit.block_types import BlockType, Read
from tlkit.frontends.gguf.kit.blocks import codes_of, of_blocks, pieces_of_blocks
from tlkit.frontends.gguf.kit.net import DecodedWeight
from tlkit.mil.program import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlkit.frontends.gguf.kit.source import StoredTensor

UNIT = 8
"""Codes that are one number."""
WHOLE = 256
"""Weights that share an f16 factor."""
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""What holds eight codes of so many bits."""
_PIECE = 1 << 22
"""Weights that are f32 at a time where many rows are multiplied."""
_ONE = np.frombuffer(np.float16(1).tobytes(), np.uint8)


@dataclass(frozen=True, slots=True)
class InBlocks:
    """As what a decoder's weight stays on ``device``, for operations that take it so."""

    device: torch.device

    def __call__(self, value: Value) -> BlockWeight | None:
        """Return a constant as a matrix of blocks there; None for what is not stored in blocks."""
        data = value.data
        if not isinstance(data, DecodedWeight) or len(data.tensor.shape) != 2:
            return None
        kind = of_blocks(data.tensor)
        return None if kind is None else BlockWeight(data.tensor, kind, self.device)


class BlockWeight(torch.nn.Module):
    """A matrix [out, in] of one tensor's blocks. It is moved piece by piece, and decoded nowhere as a whole."""

    table: torch.Tensor
    minima: torch.Tensor | None

    def __init__(self, tensor: StoredTensor, kind: BlockType, device: torch.device) -> None:
        super().__init__()
        dtype = tensor.entries[0].dtype
        rows, columns = tensor.shape
        self.shape, self.size = torch.Size((rows, columns)), kind.size
        levels = kind.levels
        bits = (len(levels) - 1).bit_length()
        self.bits = tuple(bit for bit in (8, 4, 2, 1) if bits & bit)
        # The widest part has the lowest bits. Levels that lie side by side need no table.
        self.least = levels[0] if isinstance(levels, range) and levels.step == 1 else None
        held = np.zeros(16, np.int8)
        if self.least is None:
            held[: len(levels)] = levels
        self.packed_levels = tuple(held.view("<i8").tolist())
        wholes = len(kind.wholes)
        half = torch.float16 if kind.half and kind.fits is None else torch.float32
        factors = torch.int8 if wholes else half
        self._lay("table", torch.tensor(list(levels), dtype=torch.float32, device=device))
        for place, bit in enumerate(self.bits):
            self._lay(f"codes{place}", _empty(rows * columns * bit // 8, torch.uint8, device))
        for name, read in (("scales", kind.scales), ("minima", kind.minima)):
            self._lay(name, None if read is None else _empty(rows * columns // kind.size, factors, device))
            with_whole = read is not None and wholes
            self._lay(f"{name}_whole", _empty(rows * columns // WHOLE, torch.float16, device) if with_whole else None)
        self._fill(_taken_apart(tensor, kind, dtype), levels)

    def _lay(self, name: str, value: torch.Tensor | None) -> None:
        self.register_buffer(name, value, persistent=False)

    def _fill(self, pieces: Iterator[dict[str, NDArray[Any]]], levels: Sequence[int]) -> None:
        index = torch.zeros(256, dtype=torch.uint8, device=self.table.device)
        index[torch.tensor([level + 128 for level in levels], device=index.device)] = torch.arange(
            len(levels), dtype=torch.uint8, device=index.device
        )
        at: dict[str, int] = {}

        def put(name: str, values: torch.Tensor) -> None:
            start = at.get(name, 0)
            getattr(self, name)[start : start + len(values)] = values
            at[name] = start + len(values)

        for piece in pieces:
            parts = {name: torch.from_numpy(values).to(index.device) for name, values in piece.items()}
            codes = index[parts.pop("codes").int() + 128]
            up = 0
            for place, bit in enumerate(self.bits):
                put(f"codes{place}", _packed(codes >> up & (1 << bit) - 1, bit))
                up += bit
            for name, values in parts.items():
                put(name, values)

    def words(self, place: int) -> torch.Tensor:
        """Return one part of the codes, eight in a number: [out, in / 8]."""
        part: torch.Tensor = getattr(self, f"codes{place}")
        return part.view(_WORDS[self.bits[place]]).view(self.shape[0], -1)

    def factors(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Return the scales or minima of some rows in f32, [rows, in / size]."""
        part: torch.Tensor = getattr(self, name).view(self.shape[0], -1)[start:stop].float()
        whole: torch.Tensor | None = getattr(self, f"{name}_whole")
        if whole is None:
            return part
        wide: torch.Tensor = whole.view(self.shape[0], -1)[start:stop].float()
        return part * wide.repeat_interleave(WHOLE // self.size, 1)

    def dense(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Return some rows in f32, in PyTorch's own words."""
        codes, up = None, 0
        for place, bit in enumerate(self.bits):
            steps = torch.arange(0, UNIT * bit, bit, device=self.table.device)
            part = (self.words(place)[start:stop, :, None].long() >> steps & (1 << bit) - 1) << up
            codes, up = part if codes is None else codes | part, up + bit
        assert codes is not None  # a code has at least two bits
        made = self.table[codes].view(len(codes), -1, self.size) * self.factors("scales", start, stop)[:, :, None]
        if self.minima is not None:
            made = made - self.factors("minima", start, stop)[:, :, None]
        return made.view(len(codes), -1)


def _empty(count: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.empty(count, dtype=dtype, device=device)


def _taken_apart(tensor: StoredTensor, kind: BlockType, dtype: str) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield a tensor's parts by their names here, some blocks at a time."""
    half = np.float16 if kind.half and kind.fits is None else np.float32
    elements = BLOCKS[dtype][0]
    for blocks in pieces_of_blocks(tensor):
        found: dict[str, Any] = {"codes": codes_of(kind, dtype, blocks).astype(np.int8)}
        plain = blocks.copy() if kind.wholes else blocks
        for at in kind.wholes:
            plain[:, at : at + 2] = _ONE
        reads: list[tuple[str, Read | None]] = [("scales", kind.scales), ("minima", kind.minima)]
        for place, (name, read) in enumerate(reads):
            if read is None:
                continue
            with np.errstate(all="ignore"):  # a damaged scale may be infinite, and is the same dense
                found[name] = np.asarray(read(plain)).astype(np.int8 if kind.wholes else half)
            if kind.wholes:
                at = kind.wholes[place]
                found[f"{name}_whole"] = np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16)
                assert elements == WHOLE
        yield {name: np.ascontiguousarray(values).reshape(-1) for name, values in found.items()}


def _packed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Return codes of so many bits as bytes, the first ones below."""
    each = 8 // bits
    apart = codes.view(-1, each)
    made = apart[:, 0]
    for place in range(1, each):
        made = made | apart[:, place] << place * bits
    return made


def many(x: torch.Tensor, weight: BlockWeight, bias: torch.Tensor | None) -> torch.Tensor:
    """x [many, in] times a transposed matrix, some rows of which are f32 at a time, plus a bias."""
    rows, columns = weight.shape
    step = max(_PIECE // columns, 1)
    if step >= rows:
        return F.linear(x, _rows(weight, 0, rows), bias)
    made = torch.empty((len(x), rows), dtype=torch.float32, device=x.device)
    for start in range(0, rows, step):
        part = slice(start, min(start + step, rows))
        made[:, part] = F.linear(x, _rows(weight, part.start, part.stop), None if bias is None else bias[part])
    return made


def _rows(weight: BlockWeight, start: int, stop: int) -> torch.Tensor:
    kernels = block_kernels(weight.table)
    return weight.dense(start, stop) if kernels is None else kernels.rows(weight, start, stop)


def picked(x: BlockWeight, indices: torch.Tensor) -> torch.Tensor:
    """Rows of a matrix in f32; an index out of range is that of the nearest row."""
    places = indices.reshape(-1).clamp(0, x.shape[0] - 1)
    kernels = block_kernels(x.table)
    if kernels is not None:
        made: torch.Tensor = kernels.picked(x, places)
    else:
        made = torch.cat([x.dense(at, at + 1) for at in places.tolist()])
    return made.view(*indices.shape, x.shape[1])


def dense(x: BlockWeight) -> torch.Tensor:
    """The whole matrix in f32, for what takes no blocks."""
    return _rows(x, 0, x.shape[0])
