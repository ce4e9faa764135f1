"""Rows about convolutions, pools, resizes and slices that a unit was measured to compute incorrectly."""

from __future__ import annotations

from tlkit.mil.program import Operation, StateType
from tlkit.mil.risks.kit import Found, Level, Survey, half, made, rule


@rule(
    "O2",
    Level.WRONG,
    "CPU",
    "an average pool with kernel 7, padding 3 and stride 4: its results differ from PyTorch's",
    "pad first (pad), then pool without padding",
)
def _pool_7_3_4(survey: Survey) -> Found:
    for item in survey.of("avg_pool"):
        # Sets, so that any number of axes compares alike.
        kernel, strides, pad = (set(survey.ints(item, name)) for name in ("kernel_sizes", "strides", "pad"))
        if (kernel, strides, pad) == ({7}, {4}, {3}):
            yield item.name


@rule(
    "O2",
    Level.WRONG,
    "CPU",
    "a pool over one axis with pad_type same_lower: wrong in mlprograms",
    "write the padding out (pad_type custom)",
)
def _pool_same_lower(survey: Survey) -> Found:
    for item in survey.of("avg_pool", "max_pool", "l2_pool"):
        if survey.constant(item, "pad_type") == "same_lower" and len(survey.ints(item, "kernel_sizes")) == 1:
            yield item.name


@rule(
    "O2",
    Level.WRONG,
    "CPU",
    "a max pool with windows that lie entirely in the padding: they are not -inf on Core ML",
    "pad by less than the kernel",
)
def _pool_of_padding(survey: Survey) -> Found:
    for item in survey.of("max_pool"):
        # kernel has one length per axis, pad two amounts.
        kernel, pad = survey.ints(item, "kernel_sizes"), survey.ints(item, "pad")
        if survey.constant(item, "pad_type") == "custom" and any(
            amount >= kernel[place // 2] for place, amount in enumerate(pad[: 2 * len(kernel)])
        ):
            yield item.name


@rule(
    "O3",
    Level.WRONG,
    "CPU or the others",
    "conv_transpose with output_shape: CPU_ONLY and ALL were seen to disagree entirely",
    "leave output_shape out and cut or pad the result (PyTorch: output_padding 0, then pad)",
)
def _transposed_shape(survey: Survey) -> Found:
    return (item.name for item in survey.of("conv_transpose") if "output_shape" in item.inputs)


@rule(
    "O3",
    Level.WRONG,
    "Neural Engine, GPU",
    "an f16 conv_transpose with unequal padding at the two sides: the result was seen shifted",
    "use the same padding at both sides, and crop the result",
)
def _transposed_pad(survey: Survey) -> Found:
    for item in survey.of("conv_transpose"):
        pad = survey.ints(item, "pad")
        if half(made(item)) and pad[::2] != pad[1::2]:
            yield item.name


@rule(
    "O4",
    Level.WRONG,
    "every unit",
    "a convolution with kernel (3, 2), padding 1 and stride 2: its last element was seen wrong",
    "use a square kernel (pad the weight with a column of zeros)",
)
def _conv_3_2(survey: Survey) -> Found:
    for item in survey.of("conv"):
        shape = survey.shape(item, "weight")
        settings = (shape[2:], set(survey.ints(item, "strides")), set(survey.ints(item, "pad")))
        if settings == ((3, 2), {2}, {1}) and (shape[1] or 0) > 1:
            yield item.name


@rule(
    "O16",
    Level.WRONG,
    "GPU, Neural Engine",
    "crop_resize: wrong or unstable off the CPU, and in f16",
    "run this model on the CPU (CPU_ONLY), or crop and resize in the app",
)
def _crop_resize(survey: Survey) -> Found:
    return (item.name for item in survey.of("crop_resize"))


@rule(
    "O16",
    Level.REFUSED,
    "GPU",
    "nearest upsampling by a fractional factor: it fails on the GPU",
    "scale by a whole factor, or resize bilinearly",
)
def _fractional_nearest(survey: Survey) -> Found:
    for item in survey.of("upsample_nearest_neighbor"):
        factors = [survey.constant(item, f"scale_factor_{side}") for side in ("height", "width")]
        if any(isinstance(factor, float) and factor != int(factor) for factor in factors):
            yield item.name


@rule(
    "O17",
    Level.WRONG,
    "GPU, Neural Engine, older CPUs",
    "slice_update: it was seen to fail off the CPU, and to be wrong on older CPUs",
    "check it on the device; scatter or concat of the parts does the same",
)
def _slice_update(survey: Survey) -> Found:
    return (item.name for item in survey.of("slice_update") if not _of_state(survey, item))


@rule(
    "I9",
    Level.WRONG,
    "Macs with Intel processors, older systems",
    "states written by slice_update: stateful models are wrong on Intel, and such updates had a regression",
    "check it on the device",
)
def _state_update(survey: Survey) -> Found:
    return (item.name for item in survey.of("slice_update") if _of_state(survey, item))


@rule(
    "O17",
    Level.WRONG,
    "every unit",
    "a slice from -1 to -2 by -1: an edge case that units interpret differently",
    "reverse the axis (reverse) and slice forwards",
)
def _backward_slice(survey: Survey) -> Found:
    for item in survey.of("slice_by_index"):
        parts = (survey.ints(item, name) for name in ("begin", "end", "stride"))
        if (-1, -2, -1) in zip(*parts, strict=False):
            yield item.name


@rule(
    "C14",
    Level.REFUSED,
    "GPU of iPhones",
    "a slice along an axis of length 1: seen to crash",
    "leave the slice out: it changes nothing, or squeeze the axis",
)
def _slice_of_one(survey: Survey) -> Found:
    for item in survey.of("slice_by_index"):
        kind = survey.tensor(item, "x")
        whole = [kept is False for kept in _flags(survey, item, "begin_mask")]
        ends = [kept is False for kept in _flags(survey, item, "end_mask")]
        # Without masks every axis has its begin and end.
        sliced = [a and b for a, b in zip(whole, ends, strict=False)] or [True] * len(survey.ints(item, "begin"))
        if kind and any(size == 1 and cut for size, cut in zip(kind.shape or (), sliced, strict=False)):
            yield item.name


@rule(
    "O18",
    Level.WRONG,
    "every unit",
    "prelu in f16, or with alphas that differ on 3 or 5 axes: seen to mismatch",
    "write it as relu(x) - alpha * relu(-x)",
)
def _prelu(survey: Survey) -> Found:
    for item in survey.of("prelu"):
        alphas = survey.constant(item, "alpha")
        unequal = not isinstance(alphas, list) or len(set(alphas)) > 1
        if half(made(item)) or (unequal and len(survey.shape(item, "x")) in (3, 5)):
            yield item.name


@rule(
    "O18",
    Level.WRONG,
    "GPU",
    "a convolution whose weight is computed: seen to mismatch",
    "make the weight a constant, or multiply matrices instead",
)
def _dynamic_weight(survey: Survey) -> Found:
    return (item.name for item in survey.of("conv", "conv_transpose") if not survey.is_constant(item, "weight"))


@rule(
    "O18",
    Level.WRONG,
    "every unit",
    "a GRU over a batch of more than one: zeros were seen after the first",
    "use batch 1",
)
def _gru_batch(survey: Survey) -> Found:
    for item in survey.of("gru"):
        shape = survey.shape(item, "x")
        if len(shape) == 3 and shape[1] != 1:
            yield item.name


@rule(
    "C16",
    Level.REFUSED,
    "CPU",
    "batch_norm over five axes (BatchNorm3d): seen to crash or misbehave",
    "reshape to four axes around it, or fold it into the convolution before it",
)
def _batch_norm_3d(survey: Survey) -> Found:
    return (item.name for item in survey.of("batch_norm") if len(survey.shape(item, "x")) == 5)


@rule(
    "C16",
    Level.REFUSED,
    "CPU",
    "a 1-d convolution with kernel 6, stride 8, dilation 2 and two groups: seen to crash or misbehave",
    "run the groups as two convolutions",
)
def _conv_6_8_2(survey: Survey) -> Found:
    for item in survey.of("conv"):
        settings = tuple(survey.ints(item, name) for name in ("strides", "dilations", "groups"))
        if survey.shape(item, "weight")[2:] == (6,) and settings == ((8,), (2,), (2,)):
            yield item.name


@rule(
    "C16",
    Level.REFUSED,
    "CPU",
    "argmax over a flattened tensor (argmax without an axis): seen to crash or misbehave",
    "apply it along one axis at a time",
)
def _flat_argmax(survey: Survey) -> Found:
    for item in survey.of("reduce_argmax", "reduce_argmin"):
        maker = survey.maker(item, "x")
        if len(survey.shape(item, "x")) == 1 and maker is not None and maker.type == "reshape":
            yield item.name


def _of_state(survey: Survey, item: Operation) -> bool:
    """Whether an update changes a state, or its result becomes one."""
    states = {given.name for given in survey.function.inputs if isinstance(given.type, StateType)}
    maker = survey.maker(item, "x")
    return bool(states) and (
        (maker is not None and maker.type == "read_state")
        # An f32 program narrows the result (cast) before it writes it.
        or any(user.type in ("write_state", "coreml_update_state", "cast") for user in survey.after(item))
    )


def _flags(survey: Survey, item: Operation, name: str) -> tuple[bool, ...]:
    found = survey.constant(item, name)
    return tuple(map(bool, found)) if isinstance(found, list) else ()
