"""Rows about operations that stay off the Neural Engine, or stall its compiler."""

from __future__ import annotations

from tlkit.mil.program import Operation, StateType, TensorType
from tlkit.mil.risks.kit import Found, Level, Survey, rule

_OFF = (
    *("acos", "asin", "tan", "sinh", "cosh", "atanh", "mod", "reduce_prod", "cumsum", "lstm", "gru", "rnn"),
    *("band_part", "one_hot", "non_zero", "range_1d", "sliding_windows", "crop_resize"),
    *("scatter", "scatter_nd", "scatter_along_axis"),
    *("random_bernoulli", "random_categorical", "random_normal", "random_uniform"),
)
_LONG_CHAIN = 387  # on an M6 chains of 387 to 392 hang, or go to the CPU silently


@rule(
    "C7",
    Level.PLACED,
    "Neural Engine",
    "axes longer than 16384: up to A15 and M3 they stay off it (from A16 and M4 on, the limit is 65536)",
    "split the axis, or fold it into two",
)
def _long_axes(survey: Survey) -> Found:
    return (item.name for item in survey.operations if 16384 < _longest(item) <= 65536)


@rule(
    "C7",
    Level.PLACED,
    "Neural Engine",
    "axes longer than 65536: they stay off every Neural Engine measured",
    "split the axis, or fold it into two",
)
def _longer_axes(survey: Survey) -> Found:
    return (item.name for item in survey.operations if _longest(item) > 65536)


@rule(
    "C8",
    Level.PLACED,
    "Neural Engine",
    "operations that it was measured not to run",
    "expect them on the CPU, and the model split into parts around them",
)
def _off_engine(survey: Survey) -> Found:
    yield from (item.name for item in survey.of(*_OFF))
    # Measured on an M4: inner dimensions to 32768, kernels to 15 wide and 31 high, pools to 8 wide.
    for item in survey.of("matmul"):
        if ((survey.shape(item, "x") or (0,))[-1] or 0) > 32768:
            yield item.name
    for item in survey.of("conv"):
        kernel = survey.shape(item, "weight")[2:]
        if kernel and ((kernel[-1] or 0) > 15 or (len(kernel) > 1 and (kernel[-2] or 0) > 31)):
            yield item.name
    for item in survey.of("max_pool"):
        if (survey.ints(item, "kernel_sizes") or (0,))[-1] > 8:
            yield item.name


@rule(
    "C10",
    Level.PLACED,
    "Neural Engine",
    "a convolution with a kernel of 16 x 16 or more: its compiler needed minutes and 12 GB for one",
    "split the kernel, or reshape blocks to channels (space_to_depth) first",
)
def _wide_kernel(survey: Survey) -> Found:
    for item in survey.of("conv"):
        kernel = survey.shape(item, "weight")[2:]
        if len(kernel) == 2 and all((size or 0) >= 16 for size in kernel):
            yield item.name


@rule(
    "C10",
    Level.PLACED,
    "Neural Engine",
    "a 1-d convolution with a wide kernel and stride over a long signal: its compiler was seen to hang",
    "cut the signal into frames first",
)
def _long_signal(survey: Survey) -> Found:
    for item in survey.of("conv"):
        kernel, shape = survey.shape(item, "weight")[2:], survey.shape(item, "x")
        strided = (survey.ints(item, "strides") or (1,))[0] >= 6
        long = bool(shape) and (shape[-1] is None or shape[-1] > 18000)
        if len(kernel) == 1 and (kernel[0] or 0) >= 12 and strided and long:
            yield item.name


@rule(
    "C10",
    Level.PLACED,
    "Neural Engine",
    "a chain of 387 operations or more, one after another: its compiler was seen to hang, or to leave the model to the "
    "CPU silently",
    "split the model in two",
)
def _long_chain(survey: Survey) -> Found:
    depth: dict[str, int] = {}
    for item in survey.operations:
        before = [depth.get(arg.name, 0) for given in item.inputs.values() for arg in given if hasattr(arg, "name")]
        length = 1 + max(before, default=0)
        depth |= {output.name: length for output in item.outputs}
        if length == _LONG_CHAIN:
            yield item.name
            return


@rule(
    "C11",
    Level.PLACED,
    "Neural Engine",
    "states with a dimension that is not a multiple of 32: seen to fail on an M4 (270 fails, 256 works)",
    "make the dimension a multiple of 32",
)
def _uneven_state(survey: Survey) -> Found:
    for given in survey.function.inputs:
        if isinstance(given.type, StateType) and any((size or 0) > 32 and size % 32 for size in _dims(given.type)):
            yield given.name


@rule(
    "C12",
    Level.PLACED,
    "Neural Engine",
    "two or more scaled_dot_product_attention: its compiler was seen to fail, and the model to run on the CPU silently",
    "write the attention out (matmul, softmax, matmul)",
)
def _several_attentions(survey: Survey) -> Found:
    found = [item.name for item in survey.of("scaled_dot_product_attention")]
    if len(found) > 1:
        yield from found


def _longest(item: Operation) -> int:
    kinds = [output.type for output in item.outputs]
    return max((size or 0 for kind in kinds if isinstance(kind, TensorType) for size in kind.shape or ()), default=0)


def _dims(kind: StateType) -> tuple[int, ...]:
    return tuple(size or 0 for size in kind.wrapped.shape or ())
