"""A decoder's step on NVIDIA's GPUs, in Triton's words; it comes with PyTorch for CUDA.

Triton reads the kernels' annotations, so that they are neither put off nor those of a type checker.
"""

from typing import Any

import torch
import triton
import triton.language as tl

_SPAN = 512
"""Columns of a weight in one turn."""
_PROGRAMS = 512
"""Programs that fill a large GPU: where there are few rows each takes fewer, down to one."""
_KEYS = 32
"""Keys of one turn."""
_SPLIT = 64
"""Keys of one program: of more, several programs take parts, which another kernel puts together."""


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _product(  # type: ignore[no-untyped-def]
    x, weight, bias, residual, made, rows, columns,
    biased: tl.constexpr, adds: tl.constexpr, tall: tl.constexpr, span: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * tall + tl.arange(0, tall)
    at = tl.program_id(1)
    there = row < rows
    total = tl.zeros((tall, span), tl.float32)
    for start in range(0, columns, span):
        column = start + tl.arange(0, span)
        inside = column < columns
        where = row[:, None].to(tl.int64) * columns + column[None, :]
        part = tl.load(weight + where, mask=there[:, None] & inside[None, :], other=0.0).to(tl.float32)
        value = tl.load(x + at * columns + column, mask=inside, other=0.0)
        total += part * value[None, :]
    found = tl.sum(total, 1)
    if biased:
        found += tl.load(bias + row, mask=there, other=0.0)
    if adds:
        found += tl.load(residual + at * rows + row, mask=there, other=0.0)
    tl.store(made + at * rows + row, found, mask=there)


def product(x: Any, weight: Any, bias: Any, residual: Any) -> Any:
    """x [few, in] f32 times a transposed weight [out, in] of f16 or bf16, plus a bias [out] and a residual [few, out];
    all sums in f32."""
    count, (rows, columns) = x.shape[0], weight.shape
    made = torch.empty((count, rows), dtype=torch.float32, device=x.device)
    tall = 1
    while tall < 8 and rows // (2 * tall) >= _PROGRAMS:
        tall *= 2
    x, weight = x.contiguous(), weight.contiguous()
    others = [x if item is None else item.contiguous() for item in (bias, residual)]
    flags = {"biased": bias is not None, "adds": residual is not None, "tall": tall, "span": _SPAN}
    _product[(triton.cdiv(rows, tall), count)](x, weight, *others, made, rows, columns, **flags)
    return made


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _rms_norm(x, weight, made, width, epsilon, block: tl.constexpr):  # type: ignore[no-untyped-def]
    column = tl.arange(0, block)
    there = column < width
    start = tl.program_id(0).to(tl.int64) * width
    value = tl.load(x + start + column, mask=there, other=0.0)
    scale = tl.rsqrt(tl.sum(value * value, 0) / width + epsilon)
    gain = tl.load(weight + column, mask=there, other=0.0)
    tl.store(made + start + column, value * scale * gain, mask=there)


def rms_norm(x: Any, weight: Any, epsilon: float) -> Any:
    """x * rsqrt(mean(x^2) + epsilon) * weight over the last axis."""
    x = x.contiguous()
    made, width = torch.empty_like(x), x.shape[-1]
    block = triton.next_power_of_2(width)
    warps = min(max(block // 256, 1), 8)
    _rms_norm[(x.numel() // width,)](x, weight.contiguous(), made, width, float(epsilon), block=block, num_warps=warps)
    return made


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _rotate(  # type: ignore[no-untyped-def]
    x, cosine, sine, made, tokens, half, head_stride, token_stride, block: tl.constexpr
):
    head, token = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, block)
    there = column < half
    source = x + head * head_stride + token * token_stride
    first = tl.load(source + column, mask=there)
    second = tl.load(source + half + column, mask=there)
    table = token * 2 * half + column
    goal = made + (head * tokens + token) * 2 * half + column
    across = first * tl.load(cosine + table, mask=there) - second * tl.load(sine + table, mask=there)
    tl.store(goal, across, mask=there)
    along = second * tl.load(cosine + table + half, mask=there) + first * tl.load(sine + table + half, mask=there)
    tl.store(goal + half, along, mask=there)


def rotate(x: Any, cosine: Any, sine: Any) -> Any:
    """Heads x [1, heads, T, size] turned by [1, 1, T, size], halves against each other."""
    _, heads, tokens, size = x.shape
    made = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    block = triton.next_power_of_2(size // 2)
    tables = (cosine.contiguous(), sine.contiguous())
    _rotate[(heads, tokens)](x, *tables, made, tokens, size // 2, x.stride(1), x.stride(2), block=block, num_warps=1)
    return made


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _attend(  # type: ignore[no-untyped-def]
    queries, keys, values, hidden, made, tops, sums, rows, span, size, width,
    key_group, key_row, value_group, value_row,
    parts: tl.constexpr, split: tl.constexpr, turn: tl.constexpr, deep: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    head, part = tl.program_id(0), tl.program_id(1)
    group, row = head // rows, head % rows
    across, along = tl.arange(0, deep), tl.arange(0, wide)
    query = tl.load(queries + head * size + across, mask=across < size, other=0.0)
    top, total = -float("inf"), 0.0
    found = tl.zeros((wide,), tl.float32)
    for start in range(part * split, min((part + 1) * split, span), turn):
        place = start + tl.arange(0, turn)
        there = place < span
        where = keys + group * key_group + place[:, None] * key_row + across[None, :]
        key = tl.load(where, mask=there[:, None] & (across < size)[None, :], other=0.0)
        score = tl.sum(key * query[None, :], 1) + tl.load(hidden + row * span + place, mask=there, other=0.0)
        score = tl.where(there, score, -float("inf"))
        higher = tl.maximum(top, tl.max(score, 0))
        share = tl.exp(score - higher)
        kept = tl.exp(top - higher)
        where = values + group * value_group + place[:, None] * value_row + along[None, :]
        value = tl.load(where, mask=there[:, None] & (along < width)[None, :], other=0.0)
        found = found * kept + tl.sum(share[:, None] * value, 0)
        total = total * kept + tl.sum(share, 0)
        top = higher
    place = head * parts + part
    if parts == 1:
        found = found / total
    else:
        tl.store(tops + place, top)
        tl.store(sums + place, total)
    tl.store(made + place * width + along, found, mask=along < width)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _joined(found, tops, sums, made, width, parts, many: tl.constexpr, wide: tl.constexpr):  # type: ignore[no-untyped-def]
    head = tl.program_id(0)
    part, along = tl.arange(0, many), tl.arange(0, wide)
    there = part < parts
    top = tl.load(tops + head * parts + part, mask=there, other=-float("inf"))
    kept = tl.exp(top - tl.max(top, 0))
    total = tl.sum(kept * tl.load(sums + head * parts + part, mask=there, other=0.0), 0)
    where = (head * parts + part)[:, None] * width + along[None, :]
    value = tl.load(found + where, mask=there[:, None] & (along < width)[None, :], other=0.0)
    tl.store(made + head * width + along, tl.sum(kept[:, None] * value, 0) / total, mask=along < width)


def attend(queries: Any, keys: Any, values: Any, hidden: Any) -> Any:
    """softmax(q k^T + hidden) v for q [1, groups, rows, size], k [1, groups, S, size], v [1, groups, S, width], hidden
    [1, 1, rows, S]."""
    _, groups, rows, size = queries.shape
    span, width, heads = keys.shape[2], values.shape[3], groups * rows
    parts = triton.cdiv(span, _SPLIT)
    wide = triton.next_power_of_2(width)
    made = torch.empty((1, groups, rows, width), dtype=torch.float32, device=queries.device)
    found = made if parts == 1 else torch.empty((heads, parts, width), dtype=torch.float32, device=queries.device)
    tops = found if parts == 1 else torch.empty((2, heads, parts), dtype=torch.float32, device=queries.device)
    _attend[(heads, parts)](
        queries.contiguous(), keys, values, hidden.contiguous(), found, tops[0], tops[-1], rows, span, size, width,
        keys.stride(1), keys.stride(2), values.stride(1), values.stride(2),
        parts=parts, split=_SPLIT, turn=_KEYS, deep=triton.next_power_of_2(size), wide=wide,
    )  # fmt: skip
    if parts > 1:
        many = triton.next_power_of_2(parts)
        _joined[(heads,)](found, tops[0], tops[1], made, width, parts, many=many, wide=wide)
    return made


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _gated(x, y, made, count, block: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    there = place < count
    value = tl.load(x + place, mask=there)
    tl.store(made + place, value / (1 + tl.exp(-value)) * tl.load(y + place, mask=there), mask=there)


def gated(x: Any, y: Any) -> Any:
    """silu(x) * y."""
    x, y = x.contiguous(), y.contiguous()
    made = torch.empty_like(x)
    _gated[(triton.cdiv(x.numel(), 1024),)](x, y, made, x.numel(), block=1024)
    return made


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _put(  # type: ignore[no-untyped-def]
    x, update, begin, most, width, group_stride, row_stride, from_group, from_row, block: tl.constexpr
):
    group, row = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, block)
    there = column < width
    start = tl.minimum(tl.maximum(tl.load(begin), 0), most)
    value = tl.load(update + group * from_group + row * from_row + column, mask=there)
    goal = x + group * group_stride + (start + row).to(tl.int64) * row_stride + column
    tl.store(goal, value.to(goal.dtype.element_ty), mask=there)


def put_(x: Any, update: Any, begin: Any) -> None:
    """Write rows [1, groups, T, width] into x [1, groups, context, width], from the row on that ``begin`` (one element)
    holds; rows lie in one piece each."""
    _, groups, rows, width = update.shape
    strides = (x.stride(1), x.stride(2), update.stride(1), update.stride(2))
    block = triton.next_power_of_2(width)
    _put[(groups, rows)](x, update, begin, x.shape[2] - rows, width, *strides, block=block, num_warps=1)
