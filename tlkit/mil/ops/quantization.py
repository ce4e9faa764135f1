"""MIL's compressed weights, which are decompressed when a program is lowered, and quantized activations.

Weights come in iOS16's forms, whose packed bytes need a ``shape``, and in iOS18's, whose element types (uint1 to uint8,
int4) are unpacked when the constant is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from tlkit.errors import LoadError
from tlkit.mil import decode
from tlkit.mil.ops.kit.registry import CARRIERS, Ints, Tensor, op
from tlkit.mil.types import DType


@op(since=17)
def quantize(
    input: Tensor, scale: Tensor, output_dtype: str, zero_point: Tensor | None = None, axis: int | None = None
) -> Tensor:
    """round(input / scale) + zero_point, clamped to int8 or uint8; scale is a scalar or a vector along axis."""
    steps = torch.round(input / along(scale, input, axis))
    if zero_point is not None:
        steps = steps + along(zero_point, input, axis)
    low, high = (-128, 127) if output_dtype == "int8" else (0, 255)
    return steps.clamp(low, high).to(CARRIERS[DType.named(output_dtype)])


@op(since=17)
def dequantize(input: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int | None = None) -> Tensor:
    """scale * (input - zero_point); scale and zero point are scalars or vectors along ``axis``."""
    values = input.to(torch.float32)
    if zero_point is not None:
        values = values - along(zero_point, input, axis)
    return values * along(scale, input, axis)


@op(since=16, constexpr=True)
def constexpr_affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int) -> Tensor:
    """scale * (quantized_data - zero_point)."""
    return dequantize(quantized_data, scale, zero_point, axis)


@op(since=16, constexpr=True, exact=True)
def constexpr_cast(source_val: Tensor, output_dtype: str) -> Tensor:
    """An fp16 constant as fp32."""
    return source_val.to(CARRIERS[DType.named(output_dtype)])


@op(since=16, constexpr=True, exact=True)
def constexpr_lut_to_dense(indices: Tensor, lut: Tensor, shape: Ints) -> Tensor:
    """The elements of ``lut`` [2 ** bits] at indices of ``bits`` bits, packed in bytes with the low bits first."""
    bits = lut.shape[0].bit_length() - 1
    if lut.ndim != 1 or bits not in (1, 2, 4, 6, 8) or lut.shape[0] != 2**bits:
        raise LoadError(f"a look-up table of shape {tuple(lut.shape)}", "it is a vector of 2, 4, 16, 64 or 256")
    return lut.index_select(0, _unpacked(indices, bits, shape).flatten()).reshape(tuple(shape))


@op("constexpr_lut_to_dense", since=18, constexpr=True, exact=True)
def constexpr_lut_to_dense_18(indices: Tensor, lut: Tensor, vector_axis: int | None = None) -> Tensor:
    """Each index's vector in its block's table, laid out along ``vector_axis``.

    ``lut`` [*blocks, 2 ** bits, vector] has a table for each block of the indices; vectors may have one element.
    """
    blocks, (entries, length) = lut.shape[:-2], lut.shape[-2:]
    sizes = _block_sizes(indices.shape, blocks)
    # One flat index into all tables: the index within a table, plus the number of entries in the tables of earlier
    # blocks.
    where = indices.to(torch.int32)
    stride = entries
    for at in reversed(range(indices.ndim)):
        block = torch.arange(indices.shape[at], dtype=torch.int32) // sizes[at]
        where = where + (block * stride).reshape(-1, *(1,) * (indices.ndim - 1 - at))
        stride *= blocks[at]
    values = lut.reshape(-1, length).index_select(0, where.flatten()).reshape(*indices.shape, length)
    if length == 1:
        return values.squeeze(-1)
    if vector_axis is None:
        raise LoadError("a look-up table of vectors without the axis to lay them along")
    axis = vector_axis % indices.ndim
    # [.., n, length, ..] becomes [.., n * length, ..]: each index's vector along the axis.
    return values.movedim(-1, axis + 1).flatten(axis, axis + 1)


@op(since=16, constexpr=True, exact=True)
def constexpr_sparse_to_dense(nonzero_data: Tensor, mask: Tensor, shape: Ints) -> Tensor:
    """``nonzero_data`` where the bits of ``mask`` are set, low bits first, and 0 elsewhere."""
    return _scattered(nonzero_data, _unpacked(mask, 1, shape))


@op("constexpr_sparse_to_dense", since=18, constexpr=True, exact=True)
def constexpr_sparse_to_dense_18(nonzero_data: Tensor, mask: Tensor) -> Tensor:
    """``nonzero_data`` where ``mask`` is 1 and 0 elsewhere."""
    return _scattered(nonzero_data, mask)


@op(since=18, constexpr=True)
def constexpr_blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """scale * (data - offset), with one scale and offset per block: each axis of ``scale`` divides that of ``data``."""
    sizes = _block_sizes(data.shape, scale.shape)
    # [blocks_0, size_0, blocks_1, size_1, ...], and scale as [blocks_0, 1, blocks_1, 1, ...]
    split = [n for pair in zip(scale.shape, sizes, strict=True) for n in pair]
    each = [n for length in scale.shape for n in (length, 1)]
    values = data.to(torch.float32).reshape(split)
    if offset is not None:
        values = values - offset.reshape(each)
    return (values * scale.reshape(each)).reshape(data.shape)


@op(since=18, constexpr=True, exact=True)
def constexpr_lut_to_sparse(
    indices_mask: Tensor, indices_nonzero_data: Tensor, lut: Tensor, vector_axis: int | None = None
) -> tuple[Tensor, Tensor]:
    """``constexpr_lut_to_dense`` of sparse indices, as a mask and its nonzero elements."""
    dense = constexpr_lut_to_dense_18(_scattered(indices_nonzero_data, indices_mask), lut, vector_axis)
    mask = indices_mask
    if lut.shape[-1] > 1 and vector_axis is not None:
        mask = mask.repeat_interleave(lut.shape[-1], vector_axis)
    return mask, dense[mask != 0]


@op(since=18, constexpr=True)
def constexpr_sparse_blockwise_shift_scale(
    data_mask: Tensor, nonzero_data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``constexpr_blockwise_shift_scale`` of sparse data, as a mask and its nonzero elements."""
    dense = constexpr_blockwise_shift_scale(_scattered(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask != 0]


def along(vector: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Align a vector with ``axis`` of ``x``; a scalar stays. LoadError for an axis that ``x`` does not have."""
    if vector.ndim == 0 or axis is None:
        return vector
    if not -x.ndim <= axis < x.ndim:
        raise LoadError(f"the axis {axis} of a tensor of rank {x.ndim}", "the program is damaged")
    return vector.reshape(-1, *(1,) * (x.ndim - 1 - axis % x.ndim))


def _unpacked(data: Tensor, bits: int, shape: Ints) -> Tensor:
    """Return packed unsigned integers as int32."""
    flat = decode.unpack(data.numpy().tobytes(), DType.named(f"uint{bits}"), math.prod(shape))
    return torch.from_numpy(flat.copy()).to(torch.int32).reshape(tuple(shape))


def _scattered(nonzero: Tensor, mask: Tensor) -> Tensor:
    places = mask != 0
    count = int(places.sum())
    if nonzero.ndim != 1 or count != nonzero.shape[0]:
        raise LoadError(f"a sparse constant marks {count} elements and has {nonzero.numel()}", "the program is damaged")
    return torch.zeros(mask.shape, dtype=nonzero.dtype).masked_scatter_(places, nonzero)


def _block_sizes(shape: Sequence[int], blocks: Sequence[int]) -> list[int]:
    if len(shape) != len(blocks) or any(n % b if b else True for n, b in zip(shape, blocks, strict=True)):
        raise LoadError(f"{tuple(blocks)} blocks do not divide {tuple(shape)} elements", "the program is damaged")
    return [n // b for n, b in zip(shape, blocks, strict=True)]
