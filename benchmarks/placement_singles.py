"""The single operations whose supported units are published and that ``placement_cases.py`` does not have in context.

Families, shapes and builders as there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.placement_cases import (
    CASES,
    HEADS,
    I32,
    IMAGE,
    MATRIX,
    SEQUENCE,
    Build,
    Case,
    compared,
    conv,
    half,
    one,
    two,
)

TABLE = (1000, 256)


def reduced(op: str, *axes: int) -> Build:
    """A reduction over ``axes``, which stay as 1."""
    return one(op, axes=list(axes), keep_dims=True)


def chosen(op: str, axis: int, **how: Any) -> Build:
    """Indices along an axis, as f16."""
    return lambda mb, x: mb.cast(x=getattr(mb, op)(x=x[0], axis=axis, **how), dtype="fp16")


def joined(axis: int, **how: Any) -> Build:
    """Two values, one after the other."""
    return lambda mb, x: mb.concat(values=x, axis=axis, **how)


def best(count: int, axis: int) -> Build:
    """The largest ``count`` along an axis."""
    return lambda mb, x: mb.topk(x=x[0], k=count, axis=axis)[0]


def cast(*kinds: str) -> Build:
    """Casts, one after the other."""

    def build(mb: Any, x: list[Any]) -> Any:
        for kind in kinds:
            x = [mb.cast(x=x[0], dtype=kind)]
        return x[0]

    return build


def attention(mb: Any, x: list[Any]) -> Any:
    """Attention of queries, keys and values, with a mask where there is a fourth."""
    how = {"attn_mask": x[3]} if len(x) > 3 else {}
    return mb.scaled_dot_product_attention(query=x[0], key=x[1], value=x[2], **how)


def scatter(mb: Any, x: list[Any]) -> Any:
    """Rows written at places that are inputs."""
    return mb.scatter(data=x[0], indices=x[1], updates=x[2], axis=0, mode="update")


def scatter_along(mb: Any, x: list[Any]) -> Any:
    """Elements written along the last axis."""
    places = np.zeros((1, 64, 32, 8), np.int32)
    return mb.scatter_along_axis(data=x[0], indices=places, updates=x[1], axis=3, mode="update")


def sampled(mb: Any, x: list[Any]) -> Any:
    """An image sampled at places that are an input."""
    how: dict[str, Any] = {"sampling_mode": "bilinear", "padding_mode": "constant", "padding_value": np.float16(0)}
    how |= {"coordinates_mode": "normalized_minus_one_to_one", "align_corners": True}
    return mb.resample(x=x[0], coordinates=x[1], **how)


def resized(mb: Any, x: list[Any]) -> Any:
    """An image at half its size."""
    how: dict[str, Any] = {"interpolation_mode": "LINEAR", "sampling_mode": "DEFAULT"}
    return mb.resize(x=x[0], shape=np.array([16, 16], np.int32), resized_dims=np.uint32(2), **how)


def normed(mb: Any, x: list[Any]) -> Any:
    """A batch norm of 64 channels."""
    zero, one_ = np.zeros(64, np.float16), np.ones(64, np.float16)
    return mb.batch_norm(x=x[0], mean=zero, variance=one_, gamma=one_, beta=zero)


def requantized(mb: Any, x: list[Any]) -> Any:
    """Quantized and back."""
    scale = np.float16(0.1)
    return mb.dequantize(input=mb.quantize(input=x[0], scale=scale, output_dtype="int8"), scale=scale)


def selected(mb: Any, x: list[Any]) -> Any:
    """One or the other, by a comparison."""
    return mb.select(cond=mb.greater(x=x[0], y=np.float16(0)), a=x[0], b=x[1])


def relu_of(*shape: int, kind: str = "fp16") -> Case:
    """A rectifier of one shape."""
    return Case("sizes", one("relu"), (shape,), (kind,))


def _alpha(**how: float) -> dict[str, np.float16]:
    return {name: np.float16(value) for name, value in how.items()}


def _pool(op: str, *kernel: int) -> Build:
    return one(op, kernel_sizes=list(kernel), strides=list(kernel), pad_type="valid")


_REDUCTIONS = ("l1_norm", "l2_norm", "log_sum", "log_sum_exp", "max", "mean", "min", "sum", "sum_square", "prod")
_MOVED: dict[str, Callable[[Any, list[Any]], Any]] = {
    "pixel_shuffle": one("pixel_shuffle", upscale_factor=2),
    "pixel_unshuffle": one("pixel_unshuffle", downscale_factor=np.uint32(2)),
    "space_to_depth": one("space_to_depth", block_size=2),
    "space_to_batch": one("space_to_batch", block_shape=[2, 2], paddings=[[0, 0], [0, 0]]),
    "reshape": one("reshape", shape=[1, 64, 1024]),
    "reshape_split_c": one("reshape", shape=[1, 8, 8, 32, 32]),
    "reverse_w": one("reverse", axes=[3]),
    "tile": one("tile", reps=[1, 1, 2, 2]),
    "squeeze_expand": lambda mb, x: mb.expand_dims(x=mb.squeeze(x=x[0], axes=[0]), axes=[2]),
}
SINGLES: dict[str, Case] = {
    "avg_pool3d": Case("pool", _pool("avg_pool", 2, 2, 2), ((1, 16, 4, 8, 8),)),
    "batch_norm": Case("normalization", normed, (IMAGE,)),
    "instance_norm": Case("normalization", one("instance_norm", epsilon=np.float16(1e-5)), (IMAGE,)),
    "layer_norm_w": Case("normalization", one("layer_norm", axes=[-1]), (MATRIX,)),
    "batch_to_space": Case(
        "tensor_transformation", one("batch_to_space", block_shape=[2, 2], crops=[[0, 0], [0, 0]]), ((4, 64, 16, 16),)
    ),
    "concat_c": Case("tensor_operation", joined(1), (IMAGE, IMAGE)),
    "concat_n": Case("tensor_operation", joined(0), (IMAGE, IMAGE)),
    "concat_w": Case("tensor_operation", joined(3), (IMAGE, IMAGE)),
    "concat_interleave": Case("tensor_operation", joined(1, interleave=True), (IMAGE, IMAGE)),
    "conv1d": Case("conv", conv(3), ((1, 64, 256),)),
    "conv3d": Case("conv", conv(3, 3, 3, outer=16), ((1, 16, 4, 8, 8),)),
    **{f"gelu_{mode}": Case("activation", one("gelu", mode=word), (IMAGE,)) for mode, word in
       {"exact": "EXACT", "sigmoid": "SIGMOID_APPROXIMATION", "tanh": "TANH_APPROXIMATION"}.items()},
    "elu": Case("activation", one("elu", **_alpha(alpha=1)), (IMAGE,)),
    "hard_sigmoid": Case("activation", one("sigmoid_hard", **_alpha(alpha=0.2, beta=0.5)), (IMAGE,)),
    "relu": Case("activation", one("relu"), (IMAGE,)),
    "relu6": Case("activation", one("relu6"), (IMAGE,)),
    "softsign": Case("activation", one("softsign"), (IMAGE,)),
    "thresholded_relu": Case("activation", one("thresholded_relu", **_alpha(alpha=0.5)), (IMAGE,)),
    "inverse": Case("elementwise_unary", one("inverse"), (IMAGE,)),
    "atanh": Case("elementwise_unary", one("atanh"), (IMAGE,)),
    "minimum": Case("elementwise_binary", two("minimum"), (IMAGE, IMAGE)),
    "mod": Case("elementwise_binary", two("mod"), (IMAGE, IMAGE)),
    "greater_equal": Case("elementwise_binary", compared("greater_equal"), (IMAGE, IMAGE)),
    "less_equal": Case("elementwise_binary", compared("less_equal"), (IMAGE, IMAGE)),
    "select": Case("elementwise_binary", selected, (IMAGE, IMAGE)),
    "linear": Case("linear", lambda mb, x: mb.linear(x=x[0], weight=half(512, 256)), (MATRIX,)),
    "sdpa": Case("linear", attention, (HEADS, HEADS, HEADS)),
    "sdpa_mask": Case("linear", attention, (HEADS, HEADS, HEADS, (1, 1, 128, 128))),
    "lstm": Case("recurrent", lambda mb, x: mb.lstm(
        x=x[0], initial_h=half(1, 64), initial_c=half(1, 64), weight_ih=half(256, 64), weight_hh=half(256, 64),
        output_sequence=True)[0], (SEQUENCE,)),
    **{f"reduce_{op}_c": Case("reduction", reduced(f"reduce_{op}", 1), (IMAGE,)) for op in _REDUCTIONS},
    "reduce_sum_w": Case("reduction", reduced("reduce_sum", 3), (IMAGE,)),
    "reduce_sum_all": Case("reduction", reduced("reduce_sum", 0, 1, 2, 3), (IMAGE,)),
    "global_avg": Case("reduction", reduced("reduce_mean", 2, 3), (IMAGE,)),
    "argmax_flat": Case("reduction", chosen("reduce_argmax", -1), ((1, 65536),)),
    "reduce_argmax_c": Case("reduction", chosen("reduce_argmax", 1), (IMAGE,)),
    "reduce_argmax_w": Case("reduction", chosen("reduce_argmax", 3), (IMAGE,)),
    "argsort_w": Case("tensor_operation", chosen("argsort", 3), (IMAGE,)),
    "topk_c": Case("tensor_operation", best(4, 1), (IMAGE,)),
    "topk_w": Case("tensor_operation", best(4, 3), (IMAGE,)),
    "topk_large": Case("tensor_operation", best(256, 1), ((1, 256, 64, 64),)),
    "relu_c65536": relu_of(1, 65536, 1, 1),
    "relu_h65536": relu_of(1, 1, 65536, 1),
    "relu_n64": relu_of(64, 64, 32, 32),
    "relu_r1": relu_of(64),
    "relu_r2": relu_of(64, 32),
    "relu_r3": relu_of(64, 32, 32),
    "relu_r5": relu_of(1, 16, 4, 8, 8),
    **{f"relu_w{size}": relu_of(1, 1, 1, size) for size in (16384, 16385, 65536, 65537)},
    "relu_c65537": relu_of(1, 65537, 1, 1),
    "relu_h65537": relu_of(1, 1, 65537, 1),
    "relu_f32": relu_of(*IMAGE, kind="fp32"),
    "resample": Case("image_resizing", sampled, (IMAGE, (1, 32, 32, 2))),
    "resize_bilinear": Case("image_resizing", one("resize_bilinear", target_size_height=64, target_size_width=64),
                            (IMAGE,)),
    "resize_nearest": Case("image_resizing", one("resize_nearest_neighbor", target_size_height=64,
                                                 target_size_width=64), (IMAGE,)),
    "resize_down": Case("image_resizing", resized, (IMAGE,)),
    **{f"softmax_{axis}": Case("activation", one("softmax", axis=index), (IMAGE if index else (8, 64, 32, 32),))
       for index, axis in enumerate("nchw")},
    **{name: Case("tensor_transformation", build, (IMAGE,)) for name, build in _MOVED.items()},
    "slice_dyn": Case("tensor_transformation", lambda mb, x: mb.slice_by_size(
        x=x[0], begin=x[1], size=[1, 64, 16, 16]), (IMAGE, (4,)), ("fp16", I32)),
    "cast_f16_f32": Case("types", cast("fp32"), (IMAGE,)),
    "cast_f16_i32": Case("types", cast("int32"), (IMAGE,)),
    "cast_f16_i8": Case("types", cast("int8"), (IMAGE,)),
    "cast_i32_f16": Case("types", cast("fp16"), (IMAGE,), (I32,)),
    "q_dq_i8": Case("quantization", requantized, (IMAGE,)),
    "embedding": Case("scatter_gather", lambda mb, x: mb.gather(x=half(*TABLE), indices=x[0], axis=0),
                      ((1, 64),), (I32,)),
    "gather_nd": Case("scatter_gather", lambda mb, x: mb.gather_nd(x=x[0], indices=x[1]), (IMAGE, (16, 2)),
                      ("fp16", I32)),
    "scatter": Case("scatter_gather", scatter, ((64, 256), (8,), (8, 256)), ("fp16", I32, "fp16")),
    "scatter_along_axis": Case("scatter_gather", scatter_along, (IMAGE, (1, 64, 32, 8))),
    "linear_act": Case("activation", one("linear_activation", **_alpha(alpha=2, beta=1)), (IMAGE,)),
}  # fmt: skip
EVERY = CASES | SINGLES
