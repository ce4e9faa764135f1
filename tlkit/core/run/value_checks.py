"""Checks on the values of one operation: the rows of ``docs/fidelity.md`` whose condition is about values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlkit.mil.program import Operation
from tlkit.mil.risks.kit import Survey, half, made
from tlkit.mil.risks.numbers import STRICT_MASK, reaches_softmax
from tlkit.mil.types import DType

Array = np.ndarray[Any, Any]

# docs/fidelity.md: where the Neural Engine's sums end, where its products vanish, what f32 holds of whole numbers.
_LARGEST_SUM = 32752.0
_SMALLEST_PRODUCT = 2.0**-14
_WHOLE = 2**24
_STEP = 2.0**-16
_LEAST_HALF = 2.0**-25  # what f16 rounds to more than zero
_SUMS = ("conv", "conv_transpose", "matmul", "linear", "einsum")
_WHOLE_NUMBERS = ("add", "sub", "mul", "floor_div", "mod", "reduce_sum", "reduce_prod", "cumsum", "square", "pow")
_INVALID = ("softmax", "log", "sqrt", "rsqrt", "real_div", "pow", "inverse", "sub", "mul")
_GROWING = (
    *(*_SUMS, "add", "sub", "mul", "real_div", "exp", "exp2", "pow", "square", "inverse", "rsqrt", "cast", "cosh"),
    *("sinh", "tan", "cumsum", "reduce_sum", "reduce_prod", "reduce_l1_norm", "reduce_l2_norm", "reduce_sum_square"),
)
_INDEXED = ("gather", "gather_along_axis", "gather_nd", "scatter", "scatter_along_axis", "scatter_nd")


@dataclass(frozen=True, slots=True)
class Moment:
    """One operation with its values: ``given`` the operands that are known by name, ``made`` its first result."""

    operation: Operation
    survey: Survey
    given: Mapping[str, Array]
    made: Array

    def floats(self, name: str) -> Array | None:
        """Return an operand as float64, or None where it is not known."""
        found = self.given.get(name)
        return None if found is None else found.astype(np.float64)


@dataclass(frozen=True, slots=True)
class ValueCheck:
    """A row's condition on values, and the text to report where it holds."""

    row: str
    units: str
    text: str
    mend: str
    types: tuple[str, ...]
    holds: Callable[[Moment], bool]


_CHECKS: list[ValueCheck] = []


def check(row: str, units: str, text: str, mend: str, *types: str) -> Callable[[Callable[[Moment], bool]], None]:
    """Register the decorated condition for operations of these types."""

    def register(holds: Callable[[Moment], bool]) -> None:
        _CHECKS.append(ValueCheck(row, units, text, mend, types, holds))

    return register


def checks() -> Sequence[ValueCheck]:
    """Return every registered check."""
    return tuple(_CHECKS)


def _half(moment: Moment) -> bool:
    return half(made(moment.operation))


@check(
    "P4",
    "Neural Engine",
    "f16 sums above 32752 on the inputs tried: its accumulator ends there, and gives infinity",
    "scale the operand down by a power of two, and the result up",
    *_SUMS,
)
def _large_sum(moment: Moment) -> bool:
    return _half(moment) and bool((np.abs(moment.made.astype(np.float64)) > _LARGEST_SUM).any())


@check(
    "P4",
    "Neural Engine",
    "typical products of a matmul below 2^-14 on the inputs tried: they lose their digits there, or vanish",
    "scale an operand up by a power of two, and the result down",
    "matmul",
)
def _small_products(moment: Moment) -> bool:
    operands = [moment.floats(name) for name in ("x", "y")]
    if not _half(moment) or any(value is None for value in operands):
        return False
    sizes = [np.abs(value[value != 0]) for value in operands if value is not None]
    return all(size.size for size in sizes) and math.prod(float(np.median(size)) for size in sizes) < _SMALLEST_PRODUCT


@check(
    "P8",
    "units differ",
    "a NaN arises on the inputs tried: what becomes of it depends on the unit (the Neural Engine gives 0)",
    "keep the operand in the function's range (clip, or add an epsilon)",
    *_INVALID,
)
def _new_nan(moment: Moment) -> bool:
    here = np.isnan(moment.made).any() if moment.made.dtype.kind == "f" else False
    return bool(here) and not any(np.isnan(value).any() for value in moment.given.values() if value.dtype.kind == "f")


@check(
    "P12",
    "every unit",
    "an f16 operation overflows on the inputs tried: infinity, and an output of zeros was seen on the Neural Engine",
    "scale its operands down, or compute it in f32",
    *_GROWING,
)
def _overflow(moment: Moment) -> bool:
    inputs = [value for value in moment.given.values() if value.dtype.kind == "f"]
    return _half(moment) and bool(np.isinf(moment.made).any()) and not any(np.isinf(value).any() for value in inputs)


@check(
    "O6",
    "units differ",
    "a softmax meets fully masked rows on the inputs tried: NaN, or anything",
    "keep one element of each row unmasked, or fill masks with -6e4",
    "softmax",
)
def _masked_row(moment: Moment) -> bool:
    x = moment.floats("x")
    axis = moment.given.get("axis")
    if x is None:
        return False
    return bool((x.max(int(axis) if axis is not None else -1) == -np.inf).any())


@check(
    "P14",
    "units differ",
    "a cast meets values that its 8 or 16 bits do not hold: the runtime may drop the cast, and nothing wraps",
    "keep them in int32",
    "cast",
)
def _narrowed(moment: Moment) -> bool:
    kind, x = made(moment.operation), moment.floats("x")
    if kind is None or x is None or kind.dtype not in (DType.INT8, DType.UINT8, DType.INT16, DType.UINT16):
        return False
    limits = np.iinfo(kind.dtype.numpy_like)
    return bool(((x < limits.min) | (x > limits.max)).any())


@check(
    "P15",
    "units differ",
    "whole numbers above 2^24 on the inputs tried: some integer operations are computed in f32 and lose digits",
    "keep them smaller, or split them in two parts",
    *_WHOLE_NUMBERS,
)
def _large_whole(moment: Moment) -> bool:
    return moment.made.dtype.kind in "iu" and bool((np.abs(moment.made.astype(np.int64)) > _WHOLE).any())


@check(
    "O8",
    "units differ",
    "indices out of range on the inputs tried, unchecked: what they read or write is undefined",
    "clip the indices into the range",
    *_INDEXED,
)
def _out_of_range(moment: Moment) -> bool:
    item, indices = moment.operation, moment.given.get("indices")
    sizes = moment.survey.shape(item, "data" if item.type.startswith("scatter") else "x")
    if indices is None or not indices.size or not sizes:
        return False
    skipped = int(moment.given.get("batch_dims", np.array(0))) if item.type == "gather_nd" else 0
    if item.type.endswith("_nd"):
        limits = sizes[skipped : skipped + indices.shape[-1]]
    else:
        limits = (sizes[int(moment.given.get("axis", np.array(0)))],)
    # From iOS17 on negative indices no longer count from the end.
    wraps = moment.survey.release < 17 and not item.type.endswith("_nd")
    columns = indices.reshape(-1, len(limits)) if item.type.endswith("_nd") else indices.reshape(-1, 1)
    pairs = zip(columns.T, limits, strict=True)
    return any(bool(((part < (-n if wraps else 0)) | (part >= n)).any()) for part, n in pairs if n is not None)


@check(
    "O9",
    "every unit",
    "an f16 mod of more than 1024 on the inputs tried: poor on Core ML",
    "write it as x - y * floor(x / y), in f32",
    "mod",
)
def _large_mod(moment: Moment) -> bool:
    x = moment.floats("x")
    return _half(moment) and x is not None and bool((np.abs(x) > 1024).any())


@check(
    "R1",
    "Neural Engine",
    "an f16 softplus of more than 10.3 on the inputs tried: 0 there (and mish with it)",
    "write it as max(x, 0) + log(1 + exp(-abs(x)))",
    "softplus",
    "softplus_parametric",
)
def _large_softplus(moment: Moment) -> bool:
    x = moment.floats("x")
    return _half(moment) and x is not None and bool((x > 10.3).any())


@check(
    "R2",
    "Neural Engine in f16, every unit in f32",
    "reduce_log_sum_exp leaves its type's range on the inputs tried: its maximum is not subtracted first",
    "subtract the maximum first, and add it at the end",
    "reduce_log_sum_exp",
)
def _large_exponent(moment: Moment) -> bool:
    x = moment.floats("x")
    if x is None or not x.size:
        return False
    terms = max(1, x.size // max(1, moment.made.size))
    largest = 65504.0 if _half(moment) else float(np.finfo(np.float32).max)
    # The sum of so many exponentials is at most that many times the largest.
    return bool(x.max() > math.log(largest / terms))


@check(
    "R5",
    "CPU, GPU",
    "an f16 norm of rows without variance on the inputs tried: NaN was seen",
    "do not pad with constants, or raise epsilon",
    "layer_norm",
    "instance_norm",
)
def _no_variance(moment: Moment) -> bool:
    x = moment.floats("x")
    if x is None or not _half(moment):
        return False
    axes = moment.given.get("axes")
    # Without axes it is an instance norm: over all after N x C.
    over = tuple(int(axis) for axis in axes) if axes is not None else tuple(range(2, x.ndim))
    return bool(math.prod(x.shape[axis] for axis in over) > 1 and (x.max(over) == x.min(over)).any())


@check(
    "R9",
    "units differ",
    "round meets ties (x.5) on the inputs tried: to even, says MIL; the Neural Engine rounds away from zero",
    "write it as floor(x + 0.5), if ties matter",
    "round",
)
def _tie(moment: Moment) -> bool:
    x = moment.floats("x")
    return x is not None and bool((np.abs(x - np.trunc(x)) == 0.5).any())


@check(
    "P9",
    "units differ",
    "the logarithm of zeros on the inputs tried: -infinity by MIL's rule, -45440 on the Neural Engine",
    "write a softmax's as one log_softmax: x - max - log(sum(exp(x - max))); of others, add an epsilon",
    "log",
)
def _log_of_zero(moment: Moment) -> bool:
    x, epsilon = moment.floats("x"), moment.floats("epsilon")
    # An epsilon that f16 does not hold is none.
    added = epsilon is not None and bool((epsilon > _LEAST_HALF).any())
    return _half(moment) and x is not None and not added and bool((x == 0).any())


@check(
    "R7",
    "units differ",
    "a mask below -6e4 on the inputs tried: what is added to it makes it -infinity",
    "fill masks with -6e4",
    "add",
    "select",
)
def _low_mask(moment: Moment) -> bool:
    fills = [moment.given[name] for name in ("x", "y", "a", "b") if name in moment.given]
    low = _half(moment) and any(fill.dtype.kind == "f" and bool((fill < STRICT_MASK).any()) for fill in fills)
    return low and reaches_softmax(moment.survey, moment.operation)


@check(
    "P4",
    "Neural Engine",
    "long sums whose products are near its step of 2^-16 on the inputs tried: results lose digits to it",
    "scale an operand up by a power of two, and the result down (tlkit edit --mend-risks)",
    "matmul",
)
def _lost_digits(moment: Moment) -> bool:
    x, y = moment.floats("x"), moment.floats("y")
    if not _half(moment) or x is None or y is None or x.ndim < 2 or not moment.made.size:
        return False
    turned = moment.given.get("transpose_x")
    terms = x.shape[-2 if turned is not None and bool(turned) else -1]
    typical = float(np.sqrt(np.mean(np.square(moment.made.astype(np.float64)))))
    return terms >= _LONG and math.isfinite(typical) and typical > 0 and lost(x, y, terms) > _SHARE * typical


NOTICED = 2.0**-11
"""Of a result's typical size: f16's own rounding. What loses less is never worth another form."""
_LONG, _SHARE = 256, 0.01  # terms of a sum, and what it may lose, from which a model's owner wants to know of it


def lost(x: Array, weight: Array, terms: int) -> float:
    """Return the error that the Neural Engine's step of 2^-16 makes of a sum of ``terms`` products (row P4).

    A typical product's, independent of the others', times the root of their number.
    """
    sizes = [np.abs(value[value != 0]) for value in (x, weight)]
    if not all(size.size for size in sizes):
        return 0.0
    product = math.prod(float(np.median(size)) for size in sizes)
    # Half a step at the most, and the whole product where it vanishes.
    each = _STEP / math.sqrt(12) if product > _STEP * 2 else max(product, _STEP / math.sqrt(12))
    return each * math.sqrt(max(1, terms))
