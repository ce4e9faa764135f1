"""The graphs whose placement is published: one operation between layers, as coremltools builds them.

Each case is a family of MIL's, a builder and its inputs. In context, each f16 input of rank 3 or 4 goes through two
layers (conv3x3 + relu, or linear + relu) before the operation, and what comes out through two more. Weights are ones:
placement sees shapes only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Build = Callable[[Any, list[Any]], Any]
IMAGE, MATRIX, SEQUENCE, HEADS = (1, 64, 32, 32), (1, 128, 256), (16, 1, 64), (1, 8, 128, 64)
_WIDEST = {3: 2048, 4: 512}  # channels (rank 4) and columns (rank 3) that plain layers are built for


class Case(NamedTuple):
    """A family, a builder, and shapes of inputs with their types (f16 where none is named)."""

    family: str
    build: Build
    shapes: tuple[tuple[int, ...], ...]
    types: tuple[str, ...] = ()


def half(*shape: int) -> np.ndarray[Any, Any]:
    """A constant of ones in f16."""
    return np.ones(shape, np.float16)


def conv(*kernel: int, outer: int = 64, **how: Any) -> Build:
    """A convolution of as many channels as come in, 64 if not said."""
    groups = how.get("groups", 1)
    how = {"pad_type": "same"} | how
    return lambda mb, x: mb.conv(x=x[0], weight=half(outer, outer // groups, *kernel), **how)


def transposed(*kernel: int, outer: int = 64, **how: Any) -> Build:
    """A transposed convolution of stride 2."""
    strides = [2] * len(kernel)
    return lambda mb, x: mb.conv_transpose(x=x[0], weight=half(outer, outer, *kernel), strides=strides, **how)


def one(op: str, **how: Any) -> Build:
    """An operation on ``x``."""
    return lambda mb, x: getattr(mb, op)(x=x[0], **how)


def two(op: str, **how: Any) -> Build:
    """An operation on ``x`` and ``y``."""
    return lambda mb, x: getattr(mb, op)(x=x[0], y=x[1], **how)


def compared(op: str) -> Build:
    """A comparison, and its answer as f16."""
    return lambda mb, x: mb.cast(x=getattr(mb, op)(x=x[0], y=x[1]), dtype="fp16")


def logic(mb: Any, x: list[Any]) -> Any:
    """Two comparisons, and whether both hold."""
    zero = np.float16(0)
    both = mb.logical_and(x=mb.greater(x=x[0], y=zero), y=mb.greater(x=x[1], y=zero))
    return mb.cast(x=both, dtype="fp16")


def recurrent(op: str, gates: int) -> Build:
    """A recurrent layer of 64 units."""
    how = {"weight_ih": half(gates * 64, 64), "weight_hh": half(gates * 64, 64), "output_sequence": True}
    return lambda mb, x: getattr(mb, op)(x=x[0], initial_h=half(1, 64), **how)[0]


def upsampled(scale: float, **how: Any) -> Build:
    """Nearest or, with ``align_corners`` said, bilinear."""
    op = "upsample_bilinear" if how else "upsample_nearest_neighbor"
    return lambda mb, x: getattr(mb, op)(x=x[0], scale_factor_height=scale, scale_factor_width=scale, **how)


def boxes(mb: Any, x: list[Any]) -> Any:
    """Four crops of one image."""
    corners = np.array([[0, 0, 16, 16]] * 4, np.float16)
    how: dict[str, Any] = {"target_height": 8, "target_width": 8, "normalized_coordinates": False}
    how |= {"boxes": corners, "box_indices": np.zeros(4, np.int32), "box_coordinate_mode": "CORNERS_HEIGHT_FIRST"}
    return mb.crop_resize(x=x[0], **how)


def affine(mb: Any, x: list[Any]) -> Any:
    """The affine map that changes nothing."""
    how: dict[str, Any] = {"sampling_mode": "bilinear", "padding_mode": "constant", "padding_value": np.float16(0)}
    how |= {"coordinates_mode": "normalized_minus_one_to_one", "align_corners": True}
    matrix = np.array([[1, 0, 0, 0, 1, 0]], np.float16)
    return mb.affine(x=x[0], transform_matrix=matrix, output_height=32, output_width=32, **how)


def noisy(mb: Any, x: list[Any]) -> Any:
    """The input and noise."""
    return mb.add(x=x[0], y=mb.cast(x=mb.random_normal(shape=np.array(IMAGE, np.int32)), dtype="fp16"))


def counted(mb: Any, x: list[Any]) -> Any:
    """A range up to an input."""
    return mb.cast(x=mb.range_1d(start=0, end=mb.squeeze(x=x[0]), step=1), dtype="fp16")


def log_softmax(mb: Any, x: list[Any]) -> Any:
    """As a sum of exponentials that is subtracted."""
    return mb.sub(x=x[0], y=mb.reduce_log_sum_exp(x=x[0], axes=[1], keep_dims=True))


I32 = "int32"
UNARY = ["abs", "acos", "cos", "exp", "exp2", "floor", "sin", "sinh", "tan", "square", "sqrt", "sign", "round", "ceil"]
UNARY += ["erf", "asin", "cosh", "atan", "log", "rsqrt", "tanh"]
ACTIVATIONS = ["sigmoid", "silu", "softplus"]
CASES: dict[str, Case] = {
    **{name: Case("elementwise_unary", one(name), (IMAGE,)) for name in UNARY},
    **{name: Case("activation", one(name), (IMAGE,)) for name in ACTIVATIONS},
    **{
        name: Case("elementwise_binary", two(name), (IMAGE, IMAGE))
        for name in ("add", "mul", "pow", "floor_div", "sub", "maximum", "real_div")
    },
    **{
        name: Case("elementwise_binary", compared(name), (IMAGE, IMAGE))
        for name in ("equal", "not_equal", "greater", "less")
    },
    "add_bc_batch": Case("elementwise_binary", two("add"), ((4, 64, 32, 32), IMAGE)),
    "add_bc_ch": Case("elementwise_binary", two("add"), (IMAGE, (1, 64, 1, 1))),
    "add_bc_hw": Case("elementwise_binary", two("add"), (IMAGE, (1, 1, 32, 32))),
    "add_bc_w": Case("elementwise_binary", two("add"), (IMAGE, (1, 1, 1, 32))),
    "add_bc_both": Case("elementwise_binary", two("add"), ((1, 64, 1, 32), (1, 1, 32, 1))),
    "add_f32": Case("types", two("add"), (IMAGE, IMAGE), ("fp32", "fp32")),
    "add_i32": Case("types", two("add"), (IMAGE, IMAGE), (I32, I32)),
    "mul_i32": Case("types", two("mul"), (IMAGE, IMAGE), (I32, I32)),
    "matmul_f32": Case("types", two("matmul"), (MATRIX, (1, 256, 128)), ("fp32", "fp32")),
    "matmul_i32": Case("types", two("matmul"), (MATRIX, (1, 256, 128)), (I32, I32)),
    "logical_and": Case("elementwise_binary", logic, (IMAGE, IMAGE)),
    "clip": Case("elementwise_unary", one("clip", alpha=np.float16(-1), beta=np.float16(1)), (IMAGE,)),
    "leaky_relu": Case("activation", one("leaky_relu", alpha=np.float16(0.1)), (IMAGE,)),
    "prelu": Case("activation", lambda mb, x: mb.prelu(x=x[0], alpha=np.full(64, 0.1, np.float16)), (IMAGE,)),
    "scaled_tanh": Case("activation", one("scaled_tanh", alpha=np.float16(1), beta=np.float16(1)), (IMAGE,)),
    "pow_const": Case("elementwise_binary", lambda mb, x: mb.pow(x=x[0], y=np.float16(3)), (IMAGE,)),
    "pow_half": Case("elementwise_binary", lambda mb, x: mb.pow(x=x[0], y=np.float16(0.5)), (IMAGE,)),
    "conv1x1": Case("conv", conv(1, 1), (IMAGE,)),
    "conv3x3": Case("conv", conv(3, 3), (IMAGE,)),
    "conv3x3_d2": Case("conv", conv(3, 3, dilations=[2, 2]), (IMAGE,)),
    "conv3x3_dw": Case("conv", conv(3, 3, groups=64), (IMAGE,)),
    "conv7x7_s2": Case("conv", conv(7, 7, strides=[2, 2]), (IMAGE,)),
    "conv_s5": Case("conv", conv(5, 5, strides=[5, 5], pad_type="valid"), (IMAGE,)),
    "conv_k17": Case("conv", conv(17, 17), (IMAGE,)),
    "conv_k1x31": Case("conv", conv(1, 31), (IMAGE,)),
    "conv_dynw": Case("conv", lambda mb, x: mb.conv(x=x[0], weight=x[1]), (IMAGE, (64, 64, 1, 1))),
    "conv_transpose": Case("conv", transposed(2, 2), (IMAGE,)),
    "conv_transpose_k3s2": Case("conv", transposed(3, 3, pad_type="same"), (IMAGE,)),
    "conv_transpose_1d": Case("conv", transposed(4), ((1, 64, 256),)),
    "conv_transpose_3d": Case("conv", transposed(2, 2, 2, outer=16), ((1, 16, 4, 8, 8),)),
    "l2_norm": Case("normalization", one("l2_norm"), (IMAGE,)),
    "layer_norm_c": Case("normalization", one("layer_norm", axes=[1]), (IMAGE,)),
    "layer_norm_chw": Case("normalization", one("layer_norm", axes=[1, 2, 3]), (IMAGE,)),
    "layer_norm_hw": Case("normalization", one("layer_norm", axes=[2, 3]), (IMAGE,)),
    "lrn": Case("normalization", one("local_response_norm", size=5), (IMAGE,)),
    "log_softmax": Case("reduction", log_softmax, (IMAGE,)),
    "max_pool": Case("pool", one("max_pool", kernel_sizes=[3, 3], strides=[1, 1], pad_type="same"), (IMAGE,)),
    "max_pool_k15": Case("pool", one("max_pool", kernel_sizes=[15, 15], strides=[1, 1], pad_type="same"), (IMAGE,)),
    "avg_pool": Case("pool", one("avg_pool", kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid"), (IMAGE,)),
    "l2_pool": Case("pool", one("l2_pool", kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid"), (IMAGE,)),
    "matmul_const": Case("linear", lambda mb, x: mb.matmul(x=x[0], y=half(256, 512)), (MATRIX,)),
    "matmul_dyn": Case("linear", two("matmul"), (MATRIX, (1, 256, 128))),
    "matmul_dyn_tr": Case("linear", two("matmul", transpose_y=True), (MATRIX, MATRIX)),
    "matmul_batched4d": Case("linear", two("matmul"), (HEADS, (1, 8, 64, 128))),
    "matmul_bc": Case("linear", two("matmul"), (HEADS, (1, 1, 64, 128))),
    "band_part": Case("tensor_operation", one("band_part", lower=-1, upper=0), ((1, 128, 128),)),
    "fill_like": Case("tensor_operation", lambda mb, x: mb.fill_like(ref_tensor=x[0], value=1.0), (IMAGE,)),
    "nonzero": Case(
        "tensor_operation", lambda mb, x: mb.cast(x=mb.non_zero(x=x[0]), dtype="fp16"), ((1, 256),)
    ),
    "one_hot": Case(
        "tensor_operation", lambda mb, x: mb.one_hot(indices=x[0], one_hot_vector_size=128), ((1, 64),), (I32,)
    ),
    "range_1d": Case("tensor_operation", counted, ((1,),), (I32,)),
    "pad_const": Case(
        "tensor_operation", one("pad", pad=[1, 1, 1, 1], mode="constant", constant_val=np.float16(0)), (IMAGE,)
    ),
    "pad_reflect": Case("tensor_operation", one("pad", pad=[2, 2, 2, 2], mode="reflect"), (IMAGE,)),
    "pad_replicate": Case("tensor_operation", one("pad", pad=[2, 2, 2, 2], mode="replicate"), (IMAGE,)),
    "pad_c": Case("tensor_operation", one("pad", pad=[0, 0, 4, 4, 0, 0, 0, 0], mode="constant"), (IMAGE,)),
    "split_c": Case("tensor_operation", lambda mb, x: mb.split(x=x[0], num_splits=2, axis=1)[0], (IMAGE,)),
    "stack": Case("tensor_operation", lambda mb, x: mb.stack(values=x, axis=1), (IMAGE, IMAGE)),
    "cumsum_c": Case("elementwise_unary", one("cumsum", axis=1), (IMAGE,)),
    "cumsum_w": Case("elementwise_unary", one("cumsum", axis=3), (IMAGE,)),
    "random_normal": Case("random", noisy, (IMAGE,)),
    "quantize_i8": Case(
        "quantization",
        lambda mb, x: mb.quantize(input=x[0], scale=np.float16(0.1), output_dtype="int8"),
        (IMAGE,),
    ),
    "depth_to_space": Case("tensor_transformation", one("depth_to_space", block_size=2), (IMAGE,)),
    "slice_c": Case(
        "tensor_transformation", one("slice_by_index", begin=[0, 8, 0, 0], end=[1, 40, 32, 32]), (IMAGE,)
    ),
    "slice_w_stride2": Case(
        "tensor_transformation",
        one("slice_by_index", begin=[0, 0, 0, 0], end=[1, 64, 32, 32], stride=[1, 1, 1, 2]),
        (IMAGE,),
    ),
    "slice_by_size": Case(
        "tensor_transformation", one("slice_by_size", begin=[0, 0, 4, 4], size=[1, 64, 16, 16]), (IMAGE,)
    ),
    "sliding_windows": Case(
        "tensor_transformation", one("sliding_windows", axis=2, size=8, stride=4), ((1, 64, 256),)
    ),
    "transpose_cw": Case("tensor_transformation", one("transpose", perm=[0, 3, 2, 1]), (IMAGE,)),
    "transpose_hw": Case("tensor_transformation", one("transpose", perm=[0, 1, 3, 2]), (IMAGE,)),
    "transpose_nc": Case("tensor_transformation", one("transpose", perm=[1, 0, 2, 3]), ((8, 64, 16, 16),)),
    "transpose_r5": Case("tensor_transformation", one("transpose", perm=[0, 2, 1, 4, 3]), ((1, 4, 16, 16, 16),)),
    "gather_c": Case(
        "scatter_gather", lambda mb, x: mb.gather(x=x[0], indices=np.arange(32, dtype=np.int32), axis=1), (IMAGE,)
    ),
    "gather_w": Case(
        "scatter_gather", lambda mb, x: mb.gather(x=x[0], indices=np.arange(16, dtype=np.int32), axis=3), (IMAGE,)
    ),
    "gather_dyn": Case(
        "scatter_gather",
        lambda mb, x: mb.gather(x=x[0], indices=x[1], axis=0),
        ((1000, 256), (1, 64)),
        ("fp16", I32),
    ),
    "gather_along_axis": Case(
        "scatter_gather",
        lambda mb, x: mb.gather_along_axis(x=x[0], indices=x[1], axis=3),
        (IMAGE, IMAGE),
        ("fp16", I32),
    ),
    "upsample_bilinear": Case("image_resizing", upsampled(2, align_corners=False), (IMAGE,)),
    "upsample_bilinear_ac": Case("image_resizing", upsampled(2, align_corners=True), (IMAGE,)),
    "upsample_nearest": Case("image_resizing", upsampled(2), (IMAGE,)),
    "upsample_nearest_x3": Case("image_resizing", upsampled(3), (IMAGE,)),
    "upsample_nearest_frac": Case("image_resizing", upsampled(1.5), (IMAGE,)),
    "crop_resize": Case("image_resizing", boxes, (IMAGE,)),
    "affine": Case("image_resizing", affine, (IMAGE,)),
    "gru": Case("recurrent", recurrent("gru", 3), (SEQUENCE,)),
    "rnn": Case("recurrent", recurrent("rnn", 1), (SEQUENCE,)),
}  # fmt: skip


def package(given: Case, path: Path, context: bool = True) -> Path:
    """Write the graph of one case to ``path``, in context or the operation by itself, as an f16 mlprogram."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program, types

    kinds = {"fp16": types.fp16, "fp32": types.fp32, I32: types.int32}
    named = given.types or ("fp16",) * len(given.shapes)
    places = {
        f"x{index}": mb.placeholder(shape=shape, dtype=kinds[kind])
        for index, (shape, kind) in enumerate(zip(given.shapes, named, strict=True))
    }
    with Function(places, opset_version=ct.target.iOS18) as function:
        inputs = list(function.inputs.values())
        made = given.build(mb, [layers(mb, x, types.fp16) for x in inputs] if context else inputs)
        function.set_outputs([layers(mb, made, types.fp16) if context else made])
    program = Program()
    program.add_function("main", function)
    how: dict[str, Any] = {"convert_to": "mlprogram", "minimum_deployment_target": ct.target.iOS18}
    how |= {"compute_precision": ct.precision.FLOAT16, "skip_model_load": True}
    ct.convert(program, **how).save(str(path))
    return path


def layers(mb: Any, x: Any, f16: Any) -> Any:
    """Two layers, where the value is f16 of rank 3 or 4 and of fixed shape."""
    if x.dtype != f16 or x.rank not in _WIDEST or not all(isinstance(size, int) for size in x.shape):
        return x
    for _ in range(2):
        width = x.shape[1] if x.rank == 4 else x.shape[2]
        if x.rank == 3 and width > _WIDEST[3]:
            return x
        if x.rank == 4:
            inner, groups = (width, 1) if width <= _WIDEST[4] else (1, width)
            x = mb.conv(x=x, weight=half(width, inner, 3, 3), groups=groups, pad_type="same")
        else:
            x = mb.linear(x=x, weight=half(width, width))
        x = mb.relu(x=x)
    return x
