"""Rows about attention, normalization, quantization and the limits of f16."""

from __future__ import annotations

import math

from tlkit.mil.program import Operation, TensorType
from tlkit.mil.risks.kit import Found, Level, Survey, half, made, rule
from tlkit.mil.types import DType

_INT4 = (DType.INT4, DType.UINT4)
# f16 ends at -65504; below this fill, adding a score of a few thousand overflows.
STRICT_MASK = -6e4
"""The least fill of a mask that stays finite when a score is added."""


@rule(
    "O5",
    Level.WRONG,
    "GPU",
    "attention written out (matmul, add, softmax, matmul) over a batch of 10 or more: fused, and wrong on macOS 26.2",
    "use smaller batches, or scaled_dot_product_attention (iOS18)",
)
def _fused_attention(survey: Survey) -> Found:
    for item in survey.of("softmax"):
        biased = survey.maker(item, "x")
        scores = [survey.maker(biased, side) for side in ("x", "y")] if biased and biased.type == "add" else []
        product = any(maker is not None and maker.type == "matmul" for maker in scores)
        batch = (made(item) or TensorType(DType.FP16)).shape or ()
        if product and len(batch) > 2 and (batch[0] or 0) >= 10 and any(u.type == "matmul" for u in survey.after(item)):
            yield item.name


@rule(
    "O7",
    Level.WRONG,
    "CPU, Neural Engine",
    "gather_nd with indices that are computed: slice 0, or zeros, were seen whatever the indices said",
    "use gather along one axis, with flattened indices",
)
def _computed_gather_nd(survey: Survey) -> Found:
    return (item.name for item in survey.of("gather_nd") if not survey.is_constant(item, "indices"))


@rule(
    "O10",
    Level.WRONG,
    "every unit",
    "range_1d with a fractional step: inexact",
    "use a range of integers and multiply it",
)
def _small_steps(survey: Survey) -> Found:
    for item in survey.of("range_1d"):
        step = survey.constant(item, "step")
        if isinstance(step, float) and step != int(step):
            yield item.name


@rule(
    "O10",
    Level.WRONG,
    "every unit",
    "random_uniform: it may return its upper bound, which PyTorch's never does",
    "clip the result below the bound, if an index is made of it",
)
def _upper_bound(survey: Survey) -> Found:
    return (item.name for item in survey.of("random_uniform"))


@rule(
    "O13",
    Level.WRONG,
    "Neural Engine",
    "a quantized product of two dequantized values: the wrong scale was seen applied (up to 8 times too large)",
    "clip the product before it is quantized",
)
def _scaled_product(survey: Survey) -> Found:
    for item in survey.of("mul"):
        makers = [survey.maker(item, side) for side in ("x", "y")]
        if all(m is not None and m.type == "dequantize" for m in makers) and any(
            user.type == "quantize" for user in survey.after(item)
        ):
            yield item.name


@rule(
    "O14",
    Level.WRONG,
    "CPU",
    "4-bit weights with a scale for each element (blocks of 1): wrong",
    "use larger blocks",
)
def _blocks_of_one(survey: Survey) -> Found:
    for item in survey.of("constexpr_blockwise_shift_scale"):
        data = survey.tensor(item, "data")
        if data and data.dtype in _INT4 and data.shape and survey.shape(item, "scale") == data.shape:
            yield item.name


@rule(
    "O14",
    Level.WRONG,
    "CPU",
    "an LSTM whose weights are pruned and quantized together: wrong",
    "quantize the LSTM's weights only, or prune them only",
)
def _sparse_lstm(survey: Survey) -> Found:
    for item in survey.of("lstm"):
        makers = [survey.maker(item, name) for name in item.inputs]
        if any(m is not None and "sparse" in m.type and _from_quantized(survey, m) for m in makers):
            yield item.name


@rule(
    "O15",
    Level.WRONG,
    "CPU, Neural Engine",
    "4-bit palettes with one table for a whole tensor: cosines of 0.03 (CPU) and 0.63 (Neural Engine) were seen",
    "palettize by groups of channels, or with 6 or 8 bits",
)
def _one_small_table(survey: Survey) -> Found:
    for item in survey.of("constexpr_lut_to_dense"):
        kind = survey.tensor(item, "lut")
        value = item.attributes.get("lut")  # iOS16 keeps everything in attributes
        shape = kind.shape if kind else value.type.shape if value and isinstance(value.type, TensorType) else ()
        # [entries] in iOS16; [*blocks, entries, vector] from iOS18 on
        entries = (shape or (0,))[0] if len(shape or ()) == 1 else (shape or (0, 0))[-2]
        if entries == 16 and math.prod(size or 1 for size in (shape or ())) == 16:
            yield item.name


@rule(
    "O15",
    Level.WRONG,
    "Neural Engine",
    "8-bit weights with scales by blocks: a cosine of 0.367 was seen on the Neural Engine (0.999 on the GPU)",
    "quantize by channels",
)
def _blocks_of_bytes(survey: Survey) -> Found:
    for item in survey.of("constexpr_blockwise_shift_scale"):
        data, scale = survey.tensor(item, "data"), survey.shape(item, "scale")
        # Scales that vary along several axes are blocks; channels need one.
        if data and data.dtype in (DType.INT8, DType.UINT8) and sum((size or 0) > 1 for size in scale) > 1:
            yield item.name


@rule(
    "C14",
    Level.REFUSED,
    "GPU",
    "palettes with a scale for each channel: seen to crash when loaded",
    "palettize without per-channel scales",
)
def _scaled_palette(survey: Survey) -> Found:
    for item in survey.of("constexpr_blockwise_shift_scale"):
        maker = survey.maker(item, "data")
        if maker is not None and maker.type == "constexpr_lut_to_dense":
            yield item.name
    for item in survey.of("constexpr_lut_to_dense"):
        maker = survey.maker(item, "lut")
        if maker is not None and maker.type == "constexpr_blockwise_shift_scale":
            yield item.name


@rule(
    "O19",
    Level.WRONG,
    "every unit",
    "non_maximum_suppression of 1000 boxes or more in f16: its choice was seen to mismatch",
    "keep the boxes and scores in f32",
)
def _many_boxes(survey: Survey) -> Found:
    for item in survey.of("non_maximum_suppression"):
        kind = survey.tensor(item, "boxes")
        if half(kind) and kind is not None and any((size or 0) >= 1000 for size in kind.shape or ()):
            yield item.name


@rule(
    "P9",
    Level.WRONG,
    "Neural Engine, and the units among each other",
    "the logarithm of an f16 softmax: CPU and GPU keep it wide (down to -30), op-by-op rounding gives -inf below "
    "-16.6, and the Neural Engine gives -45440",
    "write it as one log_softmax: x - max - log(sum(exp(x - max)))",
)
def _log_of_softmax(survey: Survey) -> Found:
    for item in survey.of("log"):
        maker = survey.maker(item, "x")
        if maker is not None and maker.type == "softmax" and half(made(maker)):
            yield item.name


@rule(
    "R3",
    Level.WRONG,
    "every unit",
    "the logarithm of a running sum of f16 exponentials (logcumsumexp): infinite or NaN above 11.09",
    "subtract the maximum first, and add it at the end",
)
def _log_of_cumsum(survey: Survey) -> Found:
    for item in survey.of("log"):
        total = survey.maker(item, "x")
        first = survey.maker(total, "x") if total is not None and total.type == "cumsum" else None
        if first is not None and first.type == "exp" and half(made(first)):
            yield item.name


@rule(
    "R4",
    Level.WRONG,
    "CPU, Neural Engine, up to macOS 13",
    "an f16 layer_norm over an axis that is not the last: it overflowed where inputs reach 1e4",
    "convert for iOS17 (macOS 14) or later, or move the axis last",
)
def _inner_norm(survey: Survey) -> Found:
    for item in survey.of("layer_norm"):
        axes, rank = survey.ints(item, "axes"), len(survey.shape(item, "x"))
        if survey.release < 17 and half(made(item)) and axes and rank - 1 not in [axis % rank for axis in axes]:
            yield item.name


@rule(
    "R7",
    Level.WRONG,
    "every unit",
    "a mask whose fill is -inf in f16, or becomes it when something is added: a fully masked row is NaN",
    "fill masks with values of -6e4 or above",
)
def _infinite_mask(survey: Survey) -> Found:
    for item in survey.of("add", "select", "mul", "sub"):
        fills = [survey.constant(item, name) for name in ("x", "y", "a", "b") if name in item.inputs]
        numbers = [n for fill in fills for n in _flat(fill) if isinstance(n, float)]
        if half(made(item)) and any(n < STRICT_MASK for n in numbers) and reaches_softmax(survey, item):
            yield item.name


@rule(
    "O22",
    Level.COMMON,
    "Neural Engine of iPhones with iOS 18",
    "an f16 program with f32 outputs: broken on one phone, where f16 outputs were fine",
    "give f16 outputs: --output-name y:f16",
)
def _wide_outputs(survey: Survey) -> Found:
    for name in survey.function.block.outputs:
        maker = survey.makers.get(name)
        if maker is not None and maker.type == "cast" and half(survey.tensor(maker, "x")) and not half(made(maker)):
            yield name


@rule(
    "O25",
    Level.COMMON,
    "Neural Engine",
    "f16 convolutions over 384 channels or more: an application's accuracy gate failed there",
    "check the accuracy on the device",
)
def _many_channels(survey: Survey) -> Found:
    for item in survey.of("conv"):
        shape = survey.shape(item, "x")
        if half(made(item)) and len(shape) > 1 and (shape[1] or 0) >= 384:
            yield item.name


_KEEPING = ("add", "mul", "reshape", "transpose", "expand_dims", "cast", "select", "tile", "concat")


def reaches_softmax(survey: Survey, item: Operation) -> bool:
    """Whether a value reaches a softmax or an attention through operations that keep its elements."""
    seen: set[str] = set()
    queue = [item]
    # A mask is close to its softmax; the bound keeps a large program's survey linear.
    while queue and len(seen) < 64:
        for user in survey.after(queue.pop()):
            if user.type in ("softmax", "scaled_dot_product_attention"):
                return True
            if user.type in _KEEPING and user.name not in seen:
                seen.add(user.name)
                queue.append(user)
    return False


def _from_quantized(survey: Survey, item: Operation) -> bool:
    makers = [survey.maker(item, name) for name in item.inputs]
    return any(m is not None and ("shift_scale" in m.type or "lut" in m.type) for m in makers) or (
        "shift_scale" in item.type or "lut" in item.type
    )


def _flat(value: object) -> list[object]:
    return [leaf for part in value for leaf in _flat(part)] if isinstance(value, list) else [value]
