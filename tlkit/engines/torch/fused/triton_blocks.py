"""Products with matrices of blocks on NVIDIA's GPUs, in Triton's words; it comes with PyTorch for CUDA.

One program sums some rows. It reads eight codes as one number, with one scale, and the eight values of x beside it.

Triton reads the kernels' annotations, so that they are neither put off nor those of a type checker.
"""

from typing import Any

import torch
import triton
import triton.language as tl

_MANY = 4096
"""Rows from which on a program sums eight of them, else four, so that programs fill a large GPU."""
_COLUMNS = 1024
"""Columns of one program that writes rows."""


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _read(words, place, there, narrow: tl.constexpr):  # type: ignore[no-untyped-def]
    """Numbers of eight codes, without a sign."""
    word = tl.load(words + place, mask=there, other=0)
    if narrow:
        word = word.to(tl.int32)
    return word


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _code(word, upper, place, bits: tl.constexpr, more: tl.constexpr):  # type: ignore[no-untyped-def]
    """The code at ``place`` of a number, whose upper bits are another's."""
    code = ((word >> (place * bits)) & ((1 << bits) - 1)).to(tl.int32)
    if more:
        code |= ((upper >> (place * more)) & ((1 << more) - 1)).to(tl.int32) << bits
    return code


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _level(code, least: tl.constexpr, first: tl.constexpr, second: tl.constexpr):  # type: ignore[no-untyped-def]
    """What a code stands for: so many above the least, or one of sixteen bytes."""
    if least is None:
        bytes_ = tl.where(code < 8, tl.full((1,), first, tl.int64), tl.full((1,), second, tl.int64))
        value = (bytes_ >> ((code & 7) * 8).to(tl.int64)).to(tl.int8).to(tl.float32)
    else:  # a whole number is the last bits of its sum with 2^23
        value = (code | 0x4B000000).to(tl.float32, bitcast=True) - (8388608 - least)
    return value


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _factor(part, whole, row, unit, there, units, size: tl.constexpr, split: tl.constexpr):  # type: ignore[no-untyped-def]
    """Scales or minima of numbers of eight codes."""
    found = tl.load(part + row * (units * 8 // size) + unit * 8 // size, mask=there, other=0).to(tl.float32)
    if split:
        found *= tl.load(whole + row * (units // 32) + unit // 32, mask=there, other=0).to(tl.float32)
    return found


@triton.jit(do_not_specialize=["units"])  # type: ignore[untyped-decorator, unused-ignore]
def _product(  # type: ignore[no-untyped-def]
    x, words, uppers, scales, whole, minima, whole_minimum, bias, residual, made, rows, units,
    bits: tl.constexpr, more: tl.constexpr, least: tl.constexpr, first: tl.constexpr, second: tl.constexpr,
    size: tl.constexpr, split: tl.constexpr, lowered: tl.constexpr, biased: tl.constexpr, adds: tl.constexpr,
    tall: tl.constexpr, turn: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * tall + tl.arange(0, tall)
    at = tl.program_id(1)
    total = tl.zeros((tall, turn), tl.float32)
    line = row[:, None].to(tl.int64)
    for start in range(0, units, turn):
        unit = start + tl.arange(0, turn)
        inside = unit < units
        there = (row < rows)[:, None] & inside[None, :]
        word = _read(words, line * units + unit[None, :], there, bits < 8)
        upper = _read(uppers, line * units + unit[None, :], there, True) if more else word
        scale = _factor(scales, whole, line, unit[None, :], there, units, size, split)
        lower = scale
        if lowered:
            lower = _factor(minima, whole_minimum, line, unit[None, :], there, units, size, split)
        part = tl.zeros((tall, turn), tl.float32)
        around = tl.zeros((turn,), tl.float32)
        for place in tl.static_range(8):
            value = tl.load(x + at * units * 8 + unit * 8 + place, mask=inside, other=0.0)
            part += _level(_code(word, upper, place, bits, more), least, first, second) * value[None, :]
            around += value
        part *= scale
        if lowered:  # before it is added: sums of the two alone may be much larger than their difference
            part -= lower * around[None, :]
        total += part
    found = tl.sum(total, 1)
    if biased:
        found += tl.load(bias + row, mask=row < rows, other=0.0)
    if adds:
        found += tl.load(residual + at * rows + row, mask=row < rows, other=0.0)
    tl.store(made + at * rows + row, found, mask=row < rows)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _rows(  # type: ignore[no-untyped-def]
    places, words, uppers, scales, whole, minima, whole_minimum, made, start, units,
    bits: tl.constexpr, more: tl.constexpr, least: tl.constexpr, first: tl.constexpr, second: tl.constexpr,
    size: tl.constexpr, split: tl.constexpr, lowered: tl.constexpr, picks: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64)
    row = tl.load(places + at).to(tl.int64) if picks else start + at
    column = tl.program_id(1) * block + tl.arange(0, block)
    unit = column // 8
    there = unit < units
    word = _read(words, row * units + unit, there, bits < 8)
    upper = _read(uppers, row * units + unit, there, True) if more else word
    value = _level(_code(word, upper, column % 8, bits, more), least, first, second)
    value *= _factor(scales, whole, row, unit, there, units, size, split)
    if lowered:
        value -= _factor(minima, whole_minimum, row, unit, there, units, size, split)
    tl.store(made + at * units * 8 + column, value, mask=there)


def _given(weight: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return a matrix's arrays and its form."""
    words = [weight.words(place) for place in range(len(weight.bits))]
    parts = [weight.scales, weight.scales_whole, weight.minima, weight.minima_whole]
    arrays = [words[0], words[-1], *(weight.scales if part is None else part for part in parts)]
    form = {
        "bits": weight.bits[0],
        "more": weight.bits[1] if len(weight.bits) > 1 else 0,
        "least": weight.least,
        "first": weight.packed_levels[0],
        "second": weight.packed_levels[1],
        "size": weight.size,
        "split": weight.scales_whole is not None,
        "lowered": weight.minima is not None,
    }
    return arrays, form


def product(x: Any, weight: Any, bias: Any, residual: Any) -> Any:
    """x [few, in] f32 times a transposed matrix of blocks [out, in], plus a bias [out] and a residual [few, out]; all
    sums in f32."""
    count, (rows, columns) = x.shape[0], weight.shape
    made = torch.empty((count, rows), dtype=torch.float32, device=x.device)
    # The fastest of some shapes, as measured on an H100.
    tall, turn, warps = (4, 256, 8) if rows < _MANY else (8, 64, 2) if weight.bits[0] < 8 else (8, 128, 4)
    turn = min(turn, triton.next_power_of_2(columns // 8))
    arrays, form = _given(weight)
    x = x.contiguous()
    others = [x if item is None else item.contiguous() for item in (bias, residual)]
    form |= {"biased": bias is not None, "adds": residual is not None, "tall": tall, "turn": turn}
    _product[(triton.cdiv(rows, tall), count)](x, *arrays, *others, made, rows, columns // 8, **form, num_warps=warps)
    return made


def rows(weight: Any, start: int, stop: int) -> Any:
    """Some rows of a matrix of blocks in f32."""
    return _written(weight, weight.scales, stop - start, start=start, picks=False)


def picked(weight: Any, places: Any) -> Any:
    """The rows of a matrix of blocks at ``places`` [count] in f32."""
    return _written(weight, places.contiguous(), len(places), start=0, picks=True)


def _written(weight: Any, places: Any, count: int, *, start: int, picks: bool) -> Any:
    columns = weight.shape[1]
    made = torch.empty((count, columns), dtype=torch.float32, device=weight.table.device)
    arrays, form = _given(weight)
    grid = (count, triton.cdiv(columns, _COLUMNS))
    _rows[grid](places, *arrays, made, start, columns // 8, **form, picks=picks, block=_COLUMNS)
    return made
