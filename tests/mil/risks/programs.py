"""Programs that each rule is about, and the nearest that it is not about, by words of what the rule says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.mil.programs import call, constant, function, tensor
from tlkit.mil.program import Function, NamedType, Operation, StateType, TensorType, Type, Value
from tlkit.mil.types import DType

F16, F32, I32 = "fp16", "fp32", "int32"


def value(data: Any, dtype: str) -> Value:
    array = np.asarray(data)
    return Value(TensorType(DType.named(dtype), array.shape), tuple(array.reshape(-1).tolist()))


def strings(text: str) -> Value:
    return Value(TensorType(DType.STRING, ()), (text,))


def ints(*numbers: int) -> Value:
    return value(list(numbers), I32)


def one(type_: str, x: Type, out: Type | None = None, opset: str = "CoreML7", **inputs: Any) -> Function:
    """A function of one operation on ``x``; other inputs are values, or types of more inputs of the function."""
    given = {name: kind for name, kind in inputs.items() if isinstance(kind, TensorType)}
    arguments = {name: name if name in given else item for name, item in inputs.items()}
    operation = call(type_, "y", out or x, x="x", **arguments)
    return function({"x": x, **given}, [operation], ["y"], opset)


def chain(x: Type, *steps: tuple[str, Type, dict[str, Any]], opset: str = "CoreML7") -> Function:
    """Operations one after another, each on the one before."""
    operations, last = [], "x"
    for index, (type_, kind, inputs) in enumerate(steps):
        operations.append(call(type_, f"y{index}", kind, x=last, **inputs))
        last = f"y{index}"
    return function({"x": x}, operations, [last], opset)


def stateful(*shape: int, update: bool = False) -> Function:
    kind = tensor(F16, *shape)
    operations = [call("read_state", "r", kind, input="s")]
    if update:
        operations.append(call("slice_update", "u", kind, x="r", update="x", begin=ints(0), end=ints(1)))
    operations.append(call("add", "y", kind, x="u" if update else "r", y="x"))
    return function({"s": StateType(kind), "x": kind}, operations, ["y"], "CoreML8")


def attention(batch: int, bias: bool = True) -> Function:
    scores, x = tensor(F16, batch, 4, 4), tensor(F16, batch, 4, 8)
    steps = [call("matmul", "s", scores, x="x", y="x")]
    steps += [call("add", "b", scores, x="s", y=value(0.5, F16))] if bias else []
    steps += [call("softmax", "p", scores, x="b" if bias else "s"), call("matmul", "y", x, x="p", y="x")]
    return function({"x": x}, steps, ["y"])


def masked(fill: float, dtype: str = F16, softmax: bool = True) -> Function:
    kind = tensor(dtype, 2, 2)
    mask = constant("mask", [[0.0, fill], [0.0, 0.0]], dtype)
    steps = [mask, call("add", "a", kind, x="x", y="mask"), call("reshape", "r", kind, x="a", shape=ints(2, 2))]
    return function({"x": kind}, [*steps, call("softmax" if softmax else "relu", "y", kind, x="r")], ["y"])


def products(factor: str, then: str) -> Function:
    x, wide = tensor("int8", 4), tensor(F16, 4)
    first = [call("dequantize", "a", wide, input="x"), call(factor, "b", wide, input="x")]
    return function({"x": x}, [*first, call("mul", "m", wide, x="a", y="b"), call(then, "y", x, input="m")], ["y"])


def decompressed(type_: str, *, inner: str = "", **inputs: Any) -> Function:
    """A weight made by ``type_``, from what ``inner`` made if that is given, in a product."""
    dense = tensor(F16, 8, 8)
    steps: list[Operation] = []
    if inner:
        name = next(iter(inputs))
        steps.append(call(inner, "made", dense, indices=value([0], "uint4"), lut=value(np.zeros((1, 1, 4, 1)), F16)))
        inputs[name] = "made"
    steps.append(call(type_, "w", dense, **inputs))
    return function({"x": dense}, [*steps, call("matmul", "y", dense, x="x", y="w")], ["y"], "CoreML8")


def conv(x: Type, weight: Type | Value, out: Type | None = None, type_: str = "conv", **inputs: Any) -> Function:
    return one(type_, x, out, weight=weight, **inputs)


def weight(*shape: int) -> Value:
    return Value(tensor(F16, *shape), b"")


A5 = tensor(F32, 1, 2, 3, 4, 5)
PICTURE = tensor(F16, 1, 3, 8, 8)
SIGNAL = tensor(F16, 1, 8, 64)
ROW = tensor(F16, 4)

FALL: dict[str, tuple[str, Sequence[Function], Sequence[Function]]] = {
    "more than 5 axes": (
        "C1",
        [
            one("relu", tensor(F32, 1, 1, 1, 1, 1, 1)),
            one("gather", A5, tensor(F32, 1, 2, 3, 4), indices=value(1, I32), axis=value(4, I32)),
        ],
        [
            one("relu", A5),
            one("gather", A5, A5, indices=ints(1), axis=value(4, I32), validate_indices=value(False, "bool")),
        ],
    ),
    "replicate mode beyond": (
        "C1",
        [one("pad", PICTURE, pad=ints(1, 1, 0, 0, 0, 0), mode=strings("reflect"))],
        [
            one("pad", PICTURE, pad=ints(0, 0, 1, 1, 1, 1), mode=strings("replicate")),
            one("pad", PICTURE, pad=ints(1, 1, 0, 0, 0, 0), mode=strings("constant")),
        ],
    ),
    "2 GiB": (
        "C2",
        [
            function(
                {"x": ROW},
                [
                    Operation(
                        "const",
                        {},
                        (NamedType("w", tensor(F16, 32768, 32768)),),
                        {"val": Value(tensor(F16, 32768, 32768), b"")},
                    )
                ],
                ["x"],
            )
        ],
        [
            function(
                {"x": ROW},
                [
                    Operation(
                        "const",
                        {},
                        (NamedType("w", tensor(F16, 32767, 32767)),),
                        {"val": Value(tensor(F16, 32767, 32767), b"")},
                    )
                ],
                ["x"],
            )
        ],
    ),
    "int32: Core ML fails": (
        "C4",
        [one("matmul", tensor(I32, 2, 2), y=tensor(I32, 2, 2))],
        [one("matmul", tensor(F32, 2, 2), y=tensor(F32, 2, 2))],
    ),
    "with one axis": (
        "C4",
        [one("matmul", tensor(F32, 2, 2), tensor(F32, 2), y=tensor(F32, 2))],
        [one("matmul", tensor(F32, 2, 2), y=tensor(F32, 2, 2))],
    ),
    "size 0": ("C5", [one("relu", tensor(F32, 2, 0))], [one("relu", tensor(F32, 2, 1))]),
    "by a 0": (
        "C5",
        [one("resize", PICTURE, shape=ints(0, 16), resized_dims=value(2, I32))],
        [one("resize", PICTURE, shape=ints(8, 16), resized_dims=value(2, I32))],
    ),
    "no input": (
        "C5",
        [function({}, [constant("y", [1.0], F32)], ["y"])],
        [one("relu", ROW)],
    ),
    "in the weight file": (
        "C6",
        [
            function(
                {"x": tensor(F16, 10)},
                [constant("c", [0.0] * 10, F16), call("add", "y", tensor(F16, 10), x="x", y="c")],
                ["y"],
            )
        ],
        [
            function(
                {"x": tensor(F16, 9)},
                [constant("c", [0.0] * 9, F16), call("add", "y", tensor(F16, 9), x="x", y="c")],
                ["y"],
            ),
            function(
                {"x": tensor(F32, 10)},
                [constant("c", [0.0] * 10, F32), call("add", "y", tensor(F32, 10), x="x", y="c")],
                ["y"],
            ),
        ],
    ),
    "left out": (
        "C6",
        [
            one("reduce_max", ROW, tensor(F16, 1), axes=ints(0)),
            one("gather", ROW, indices=ints(0)),
            one("log", ROW),
        ],
        [
            one("reduce_max", ROW, tensor(F16, 1), axes=ints(0), keep_dims=value(True, "bool")),
            one("gather", ROW, opset="CoreML6", indices=ints(0)),
            one("log", ROW, epsilon=value(1e-6, F16)),
        ],
    ),
    "begin with a digit": (
        "C6",
        [function({"x": ROW}, [call("relu", "1y", ROW, x="x")], ["1y"])],
        [function({"x": ROW}, [call("relu", "y1", ROW, x="x")], ["y1"])],
    ),
    "several queries": (
        "C12",
        [
            function(
                {"q": tensor(F16, 1, 2, 4, 256)},
                [call("scaled_dot_product_attention", "y", tensor(F16, 1, 2, 4, 256), query="q", key="q", value="q")],
                ["y"],
            )
        ],
        [
            function(
                {"q": tensor(F16, 1, 2, 4, size)},
                [call("scaled_dot_product_attention", "y", tensor(F16, 1, 2, 4, size), query="q", key="q", value="q")],
                ["y"],
            )
            for size in (64, 128)
        ]
        + [
            function(
                {"q": tensor(F16, 1, 2, 1, 256)},
                [call("scaled_dot_product_attention", "y", tensor(F16, 1, 2, 1, 256), query="q", key="q", value="q")],
                ["y"],
            )
        ],
    ),
    "open dimensions": ("C17", [one("relu", tensor(F32, 1, None))], [one("relu", tensor(F32, 1, 8))]),
    "range_1d up to": (
        "C17",
        [
            function(
                {"n": tensor(I32)},
                [call("range_1d", "y", tensor(I32, None), start=value(0, I32), end="n", step=value(1, I32))],
                ["y"],
            )
        ],
        [
            function(
                {"x": ROW},
                [call("range_1d", "y", tensor(I32, 4), start=value(0, I32), end=value(4, I32), step=value(1, I32))],
                ["y"],
            )
        ],
    ),
    "gather of bool": (
        "O7",
        [one("gather", tensor("bool", 4), indices=ints(0), validate_indices=value(False, "bool"))],
        [one("gather", tensor(I32, 4), indices=ints(0), validate_indices=value(False, "bool"))],
    ),
    "kernel 7, padding 3": (
        "O2",
        [
            one(
                "avg_pool",
                PICTURE,
                kernel_sizes=ints(7, 7),
                strides=ints(4, 4),
                pad=ints(3, 3, 3, 3),
                pad_type=strings("custom"),
            )
        ],
        [
            one(
                "avg_pool",
                PICTURE,
                kernel_sizes=ints(7, 7),
                strides=ints(3, 3),
                pad=ints(3, 3, 3, 3),
                pad_type=strings("custom"),
            )
        ],
    ),
    "same_lower": (
        "O2",
        [one("max_pool", SIGNAL, kernel_sizes=ints(2), strides=ints(1), pad_type=strings("same_lower"))],
        [one("max_pool", PICTURE, kernel_sizes=ints(2, 2), strides=ints(1, 1), pad_type=strings("same_lower"))],
    ),
    "entirely in the padding": (
        "O2",
        [one("max_pool", SIGNAL, kernel_sizes=ints(2), pad=ints(0, 2), pad_type=strings("custom"))],
        [one("max_pool", SIGNAL, kernel_sizes=ints(2), pad=ints(1, 1), pad_type=strings("custom"))],
    ),
    "with output_shape": (
        "O3",
        [conv(PICTURE, weight(3, 3, 2, 2), type_="conv_transpose", output_shape=ints(1, 3, 9, 9))],
        [conv(PICTURE, weight(3, 3, 2, 2), type_="conv_transpose")],
    ),
    "unequal padding": (
        "O3",
        [conv(PICTURE, weight(3, 3, 2, 2), type_="conv_transpose", pad=ints(1, 0, 1, 0))],
        [
            conv(PICTURE, weight(3, 3, 2, 2), type_="conv_transpose", pad=ints(1, 1, 1, 1)),
            conv(tensor(F32, 1, 3, 8, 8), weight(3, 3, 2, 2), type_="conv_transpose", pad=ints(1, 0, 1, 0)),
        ],
    ),
    "kernel (3, 2)": (
        "O4",
        [conv(PICTURE, weight(3, 3, 3, 2), strides=ints(2, 2), pad=ints(1, 1, 1, 1))],
        [
            conv(PICTURE, weight(3, 1, 3, 2), strides=ints(2, 2), pad=ints(1, 1, 1, 1)),
            conv(PICTURE, weight(3, 3, 2, 3), strides=ints(2, 2), pad=ints(1, 1, 1, 1)),
            conv(PICTURE, weight(3, 3, 3, 2), strides=ints(1, 1), pad=ints(1, 1, 1, 1)),
        ],
    ),
    "crop_resize: wrong": ("O16", [one("crop_resize", PICTURE)], [one("crop", PICTURE)]),
    "fractional factor": (
        "O16",
        [one("upsample_nearest_neighbor", PICTURE, scale_factor_height=value(1.5, F32))],
        [one("upsample_nearest_neighbor", PICTURE, scale_factor_height=value(2.0, F32))],
    ),
    "slice_update: it was": ("O17", [one("slice_update", ROW, update=ROW)], [stateful(32, update=True)]),
    "written by slice_update": (
        "I9",
        [stateful(32, update=True)],
        [one("slice_update", ROW, update=ROW), stateful(32)],
    ),
    "from -1 to -2": (
        "O17",
        [one("slice_by_index", ROW, begin=ints(-1), end=ints(-2), stride=ints(-1))],
        [one("slice_by_index", ROW, begin=ints(-1), end=ints(-3), stride=ints(-1))],
    ),
    "axis of length 1": (
        "C14",
        [one("slice_by_index", tensor(F16, 1, 4), begin=ints(0, 1), end=ints(1, 2))],
        [
            one("slice_by_index", tensor(F16, 2, 4), begin=ints(0, 1), end=ints(1, 2)),
            one(
                "slice_by_index",
                tensor(F16, 1, 4),
                begin=ints(0, 1),
                end=ints(0, 2),
                begin_mask=value([True, False], "bool"),
                end_mask=value([True, False], "bool"),
            ),
        ],
    ),
    "prelu": (
        "O18",
        [
            one("prelu", PICTURE, alpha=value([0.1] * 3, F16)),
            one("prelu", tensor(F32, 1, 3, 8), alpha=value([0.1, 0.2, 0.1], F32)),
        ],
        [
            one("prelu", tensor(F32, 1, 3, 8, 8), alpha=value([0.1, 0.2, 0.1], F32)),
            one("prelu", tensor(F32, 1, 3, 8), alpha=value([0.5] * 3, F32)),
        ],
    ),
    "weight is computed": ("O18", [conv(PICTURE, tensor(F16, 3, 3, 1, 1))], [conv(PICTURE, weight(3, 3, 1, 1))]),
    "GRU": (
        "O18",
        [one("gru", tensor(F32, 5, 2, 4))],
        [one("gru", tensor(F32, 5, 1, 4))],
    ),
    "BatchNorm3d": ("C16", [one("batch_norm", A5)], [one("batch_norm", PICTURE)]),
    "kernel 6, stride 8": (
        "C16",
        [conv(SIGNAL, weight(8, 4, 6), strides=ints(8), dilations=ints(2), groups=value(2, I32))],
        [conv(SIGNAL, weight(8, 8, 6), strides=ints(8), dilations=ints(2), groups=value(1, I32))],
    ),
    "argmax over": (
        "C16",
        [
            chain(
                PICTURE,
                ("reshape", tensor(F16, 192), {"shape": ints(-1)}),
                ("reduce_argmax", tensor(I32), {"axis": value(0, I32), "keep_dims": value(False, "bool")}),
            )
        ],
        [one("reduce_argmax", ROW, tensor(I32), axis=value(0, I32), keep_dims=value(False, "bool"))],
    ),
    "batch of 10": ("O5", [attention(10)], [attention(9), attention(10, bias=False)]),
    "gather_nd with": (
        "O7",
        [one("gather_nd", PICTURE, indices=tensor(I32, 1, 2), validate_indices=value(False, "bool"))],
        [one("gather_nd", PICTURE, indices=value([[0, 1]], I32), validate_indices=value(False, "bool"))],
    ),
    "fractional step": (
        "O10",
        [
            function(
                {"x": ROW},
                [
                    call(
                        "range_1d",
                        "y",
                        tensor(F32, 4),
                        start=value(0.0, F32),
                        end=value(1.0, F32),
                        step=value(0.25, F32),
                    )
                ],
                ["y"],
            )
        ],
        [
            function(
                {"x": ROW},
                [
                    call(
                        "range_1d",
                        "y",
                        tensor(F32, 4),
                        start=value(0.0, F32),
                        end=value(4.0, F32),
                        step=value(1.0, F32),
                    )
                ],
                ["y"],
            )
        ],
    ),
    "random_uniform": (
        "O10",
        [function({"n": tensor(I32, 1)}, [call("random_uniform", "y", ROW, shape="n")], ["y"])],
        [function({"n": tensor(I32, 1)}, [call("random_normal", "y", ROW, shape="n")], ["y"])],
    ),
    "two dequantized": (
        "O13",
        [products("dequantize", "quantize")],
        [products("cast", "quantize"), products("dequantize", "cast")],
    ),
    "blocks of 1": (
        "O14",
        [
            decompressed(
                "constexpr_blockwise_shift_scale",
                data=value(np.zeros((8, 8), int), "int4"),
                scale=value(np.ones((8, 8)), F16),
            )
        ],
        [
            decompressed(
                "constexpr_blockwise_shift_scale",
                data=value(np.zeros((8, 8), int), "int4"),
                scale=value(np.ones((8, 2)), F16),
            ),
            decompressed(
                "constexpr_blockwise_shift_scale",
                data=value(np.zeros((8, 8), int), "int8"),
                scale=value(np.ones((8, 8)), F16),
            ),
        ],
    ),
    "pruned and quantized": (
        "O14",
        [
            function(
                {"x": ROW},
                [
                    call("constexpr_sparse_blockwise_shift_scale", "q", ROW, nonzero_data=value([0], "int8")),
                    call("constexpr_sparse_to_dense", "w", ROW, nonzero_data="q"),
                    call("lstm", "y", ROW, x="x", weight_ih="w"),
                ],
                ["y"],
                "CoreML8",
            )
        ],
        [
            function(
                {"x": ROW},
                [
                    call("constexpr_sparse_to_dense", "w", ROW, nonzero_data=value([0.0], F16)),
                    call("lstm", "y", ROW, x="x", weight_ih="w"),
                ],
                ["y"],
                "CoreML8",
            )
        ],
    ),
    "one table": (
        "O15",
        [
            decompressed(
                "constexpr_lut_to_dense",
                indices=value(np.zeros((8, 8), int), "uint4"),
                lut=value(np.zeros((1, 1, 16, 1)), F16),
            )
        ],
        [
            decompressed(
                "constexpr_lut_to_dense",
                indices=value(np.zeros((8, 8), int), "uint4"),
                lut=value(np.zeros((2, 1, 16, 1)), F16),
            ),
            decompressed(
                "constexpr_lut_to_dense",
                indices=value(np.zeros((8, 8), int), "uint6"),
                lut=value(np.zeros((1, 1, 64, 1)), F16),
            ),
        ],
    ),
    "scales by blocks": (
        "O15",
        [
            decompressed(
                "constexpr_blockwise_shift_scale",
                data=value(np.zeros((8, 8), int), "int8"),
                scale=value(np.ones((8, 2)), F16),
            )
        ],
        [
            decompressed(
                "constexpr_blockwise_shift_scale",
                data=value(np.zeros((8, 8), int), "int8"),
                scale=value(np.ones((8, 1)), F16),
            )
        ],
    ),
    "scale for each channel": (
        "C14",
        [
            decompressed(
                "constexpr_blockwise_shift_scale",
                inner="constexpr_lut_to_dense",
                data=None,
                scale=value(np.ones((8, 1)), F16),
            )
        ],
        [
            decompressed(
                "constexpr_blockwise_shift_scale",
                data=value(np.zeros((8, 8), int), "int8"),
                scale=value(np.ones((8, 1)), F16),
            )
        ],
    ),
    "1000 boxes": (
        "O19",
        [
            function(
                {"b": tensor(F16, 1, 1000, 4)},
                [call("non_maximum_suppression", "y", tensor(F16, 1, 5, 4), boxes="b", scores="b")],
                ["y"],
            )
        ],
        [
            function(
                {"b": tensor(dtype, 1, size, 4)},
                [call("non_maximum_suppression", "y", tensor(dtype, 1, 5, 4), boxes="b", scores="b")],
                ["y"],
            )
            for dtype, size in ((F32, 1000), (F16, 999))
        ],
    ),
    "logarithm of an f16 softmax": (
        "P9",
        [chain(ROW, ("softmax", ROW, {}), ("log", ROW, {"epsilon": value(0.0, F16)}))],
        [chain(tensor(F32, 4), ("softmax", tensor(F32, 4), {}), ("log", tensor(F32, 4), {"epsilon": value(0.0, F32)}))],
    ),
    "running sum": (
        "R3",
        [chain(ROW, ("exp", ROW, {}), ("cumsum", ROW, {}), ("log", ROW, {"epsilon": value(0.0, F16)}))],
        [chain(ROW, ("exp", ROW, {}), ("log", ROW, {"epsilon": value(0.0, F16)}))],
    ),
    "not the last": (
        "R4",
        [one("layer_norm", PICTURE, opset="CoreML6", axes=ints(1))],
        [
            one("layer_norm", PICTURE, opset="CoreML7", axes=ints(1)),
            one("layer_norm", PICTURE, opset="CoreML6", axes=ints(-1)),
        ],
    ),
    "fully masked": (
        "R7",
        [masked(-np.inf), masked(-65504.0), masked(-60160.0)],
        [masked(-59968.0), masked(-np.inf, F32), masked(-np.inf, softmax=False)],
    ),
    "f32 outputs": (
        "O22",
        [chain(ROW, ("relu", ROW, {}), ("cast", tensor(F32, 4), {"dtype": strings(F32)}))],
        [one("relu", ROW), chain(tensor(F32, 4), ("relu", tensor(F32, 4), {}))],
    ),
    "384 channels": (
        "O25",
        [conv(tensor(F16, 1, 384, 8, 8), weight(8, 384, 1, 1))],
        [conv(tensor(F16, 1, 383, 8, 8), weight(8, 383, 1, 1))],
    ),
    "longer than 16384": (
        "C7",
        [one("relu", tensor(F16, 16385)), one("relu", tensor(F16, 65536))],
        [one("relu", tensor(F16, 16384)), one("relu", tensor(F16, 65537))],
    ),
    "longer than 65536": ("C7", [one("relu", tensor(F16, 65537))], [one("relu", tensor(F16, 65536))]),
    "measured not to run": (
        "C8",
        [
            one("cumsum", ROW),
            one("matmul", tensor(F16, 1, 32769), tensor(F16, 1, 1), y=tensor(F16, 32769, 1)),
            conv(PICTURE, weight(3, 3, 1, 16)),
            conv(PICTURE, weight(3, 3, 32, 1)),
            one("max_pool", PICTURE, kernel_sizes=ints(1, 9), strides=ints(1, 1), pad_type=strings("valid")),
        ],
        [
            one("relu", ROW),
            one("matmul", tensor(F16, 1, 32768), tensor(F16, 1, 1), y=tensor(F16, 32768, 1)),
            conv(PICTURE, weight(3, 3, 31, 15)),
            one("max_pool", PICTURE, kernel_sizes=ints(9, 8), strides=ints(1, 1), pad_type=strings("valid")),
        ],
    ),
    "16 x 16": ("C10", [conv(PICTURE, weight(3, 3, 16, 16))], [conv(PICTURE, weight(3, 3, 16, 15))]),
    "over a long signal": (
        "C10",
        [conv(tensor(F16, 1, 22, 18001), weight(256, 22, 12), strides=ints(6))],
        [
            conv(tensor(F16, 1, 22, 18000), weight(256, 22, 12), strides=ints(6)),
            conv(tensor(F16, 1, 22, 18001), weight(256, 22, 12), strides=ints(5)),
        ],
    ),
    "chain of 387": ("C10", [chain(ROW, *[("relu", ROW, {})] * 387)], [chain(ROW, *[("relu", ROW, {})] * 386)]),
    "multiple of 32": ("C11", [stateful(1, 270)], [stateful(1, 256), stateful(8, 1)]),
    "two or more": (
        "C12",
        [
            function(
                {"q": tensor(F16, 1, 2, 4, 64)},
                [
                    call("scaled_dot_product_attention", name, tensor(F16, 1, 2, 4, 64), query="q", key="q", value="q")
                    for name in "ab"
                ],
                ["a", "b"],
            )
        ],
        [
            function(
                {"q": tensor(F16, 1, 2, 4, 64)},
                [call("scaled_dot_product_attention", "a", tensor(F16, 1, 2, 4, 64), query="q", key="q", value="q")],
                ["a"],
            )
        ],
    ),
}
