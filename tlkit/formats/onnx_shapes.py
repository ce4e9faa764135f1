"""Shapes of ONNX values that follow from those before them: one rule per family of operations.

ONNX files may leave out the shapes of values in between. A rule gives what its operation's specification says, from
shapes and small constants; where that is not enough (sizes computed at run time) the answer is None, never a guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tlkit.formats.onnx_graph import Dims, Node, NodeGraph

Found = tuple["Dims | None", ...]


def infer(graph: NodeGraph, node: Node) -> Found:
    """Return the shapes of the node's outputs, None for those that are not known."""
    rule = _RULES.get(node.type)
    given = graph.shapes.get(node.inputs[0]) if node.inputs else None
    if rule is None or given is None:
        return ()
    try:
        return (rule(graph, node, given),)
    except (LookupError, ValueError, TypeError, ZeroDivisionError):  # attributes that do not fit the shapes
        return ()


def _same(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    return x


def _broadcast(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    shapes = [graph.shapes.get(name) for name in node.inputs]
    if any(shape is None for shape in shapes):
        return None
    columns = zip_longest(*(reversed(shape or ()) for shape in shapes), fillvalue=1)
    return tuple(reversed([_common(column) for column in columns]))


def _common(sizes: Iterable[int | None]) -> int | None:
    others = [size for size in sizes if size != 1]
    return next((size for size in others if size is not None), None) if others else 1


def _window(graph: NodeGraph, node: Node, x: Dims, kernel: list[int], channels: int | None) -> Dims:
    count = len(kernel)
    strides = node.attributes.get("strides") or [1] * count
    dilations = node.attributes.get("dilations") or [1] * count
    pads = node.attributes.get("pads") or [0] * (2 * count)
    auto = node.attributes.get("auto_pad") or "NOTSET"
    sizes: list[int | None] = []
    for axis, size in enumerate(x[2:]):
        if size is None:
            sizes.append(None)
            continue
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        if auto.startswith("SAME"):
            sizes.append(-(-size // strides[axis]))
            continue
        padded = size + (0 if auto == "VALID" else pads[axis] + pads[axis + count]) - reach
        up = node.attributes.get("ceil_mode")
        sizes.append((-(-padded // strides[axis]) if up else padded // strides[axis]) + 1)
    return (x[0], channels, *sizes)


def _conv(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    weight = graph.shapes.get(node.inputs[1])
    if weight is None:
        return None
    return _window(graph, node, x, [size or 1 for size in weight[2:]], weight[0])


def _pool(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    return _window(graph, node, x, node.attributes["kernel_shape"], x[1])


def _global_pool(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    return (*x[:2], *(1 for _ in x[2:]))


def _conv_transpose(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    weight = graph.shapes.get(node.inputs[1])
    if weight is None or node.attributes.get("auto_pad", "NOTSET") != "NOTSET":
        return None
    count, read = len(x) - 2, node.attributes.get
    strides, dilations = read("strides") or [1] * count, read("dilations") or [1] * count
    pads, more = read("pads") or [0] * 2 * count, read("output_padding") or [0] * count
    sizes = [
        None
        if size is None or (kernel := weight[axis + 2]) is None
        else strides[axis] * (size - 1)
        + more[axis]
        + dilations[axis] * (kernel - 1)
        + 1
        - pads[axis]
        - pads[axis + count]
        for axis, size in enumerate(x[2:])
    ]
    return (x[0], None if weight[1] is None else weight[1] * (read("group") or 1), *sizes)


def _gemm(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    other = graph.shapes.get(node.inputs[1])
    if other is None:
        return None
    return (x[1 if node.attributes.get("transA") else 0], other[0 if node.attributes.get("transB") else 1])


def _matmul(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    other = graph.shapes.get(node.inputs[1])
    if other is None or len(x) < 2 or len(other) < 2:
        return None
    pairs = list(zip_longest(reversed(x[:-2]), reversed(other[:-2]), fillvalue=1))
    return (*reversed([_common(pair) for pair in pairs]), x[-2], other[-1])


def _flatten(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    axis = node.attributes.get("axis", 1)
    axis += len(x) if axis < 0 else 0
    return (_product(x[:axis]), _product(x[axis:]))


def _product(sizes: Dims) -> int | None:
    return None if None in sizes else math.prod(size or 0 for size in sizes)


def _transpose(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    order = node.attributes.get("perm") or range(len(x) - 1, -1, -1)
    return tuple(x[axis] for axis in order)


def _concat(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    shapes = [graph.shapes.get(name) for name in node.inputs]
    axis = node.attributes["axis"] % len(x)
    sizes = [shape[axis] if shape is not None else None for shape in shapes]
    return (*x[:axis], None if None in sizes else sum(size or 0 for size in sizes), *x[axis + 1 :])


def _reshape(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    wanted = graph.numbers(node.inputs[1])
    if wanted is None:
        return None
    sizes: list[int | None] = [
        x[axis] if size == 0 and not node.attributes.get("allowzero") else size for axis, size in enumerate(wanted)
    ]
    if -1 in sizes:
        place = sizes.index(-1)
        whole, rest = _product(x), _product(tuple(size for size in sizes if size != -1))
        sizes[place] = None if whole is None or rest is None else whole // rest
    return tuple(sizes)


def _axes(graph: NodeGraph, node: Node, rank: int) -> list[int] | None:
    """Return the axes that an operation has as an attribute, or since opset 13 as its second input."""
    given = node.attributes.get("axes")
    if given is None and len(node.inputs) > 1 and node.inputs[1]:
        given = graph.numbers(node.inputs[1])
        if given is None:
            return None
    return [axis % rank for axis in given] if given is not None else []


def _squeeze(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    axes = _axes(graph, node, len(x))
    if axes is None:
        return None
    return tuple(size for axis, size in enumerate(x) if (axis not in axes if axes else size != 1))


def _unsqueeze(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    given = node.attributes.get("axes") or graph.numbers(node.inputs[1])
    if given is None:
        return None
    rank = len(x) + len(given)
    axes, rest = {axis % rank for axis in given}, iter(x)
    return tuple(1 if axis in axes else next(rest) for axis in range(rank))


def _reduce(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    axes = _axes(graph, node, len(x))
    if axes is None:
        return None
    axes = axes or list(range(len(x)))
    keep = node.attributes.get("keepdims", 1)
    return tuple(1 if axis in axes else size for axis, size in enumerate(x) if keep or axis not in axes)


def _gather(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    picked = graph.shapes.get(node.inputs[1])
    axis = (node.attributes.get("axis") or 0) % len(x)
    return None if picked is None else (*x[:axis], *picked, *x[axis + 1 :])


def _pad(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    pads = node.attributes.get("pads") or graph.numbers(node.inputs[1])
    if pads is None or len(pads) != 2 * len(x) or len(node.inputs) > 3:
        return None
    count = len(x)
    return tuple(None if size is None else size + pads[axis] + pads[axis + count] for axis, size in enumerate(x))


def _shape(graph: NodeGraph, node: Node, x: Dims) -> Dims | None:
    return (len(x),)


_UNARY = frozenset(
    (
        *(
            "Abs",
            "Acos",
            "Asin",
            "Atan",
            "BatchNormalization",
            "Cast",
            "Ceil",
            "Clip",
            "Cos",
            "CumSum",
            "DequantizeLinear",
            "Dropout",
        ),
        *(
            "Elu",
            "Erf",
            "Exp",
            "Floor",
            "Gelu",
            "GroupNormalization",
            "HardSigmoid",
            "HardSwish",
            "Hardmax",
            "Identity",
        ),
        *("InstanceNormalization", "LRN", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization"),
        *(
            "MeanVarianceNormalization",
            "Mish",
            "Neg",
            "Not",
            "PRelu",
            "QuantizeLinear",
            "Reciprocal",
            "Relu",
            "Round",
            "Selu",
        ),
        *(
            "Sigmoid",
            "Sign",
            "Sin",
            "SkipLayerNormalization",
            "Softmax",
            "Softplus",
            "Softsign",
            "Sqrt",
            "Swish",
            "Tan",
            "Tanh",
        ),
        *("ThresholdedRelu", "FastGelu"),
    )
)
_BINARY = frozenset(
    (
        *(
            "Add",
            "And",
            "Div",
            "Equal",
            "Greater",
            "GreaterOrEqual",
            "Less",
            "LessOrEqual",
            "Max",
            "Mean",
            "Min",
            "Mod",
            "Mul",
            "Or",
            "Pow",
            "Sub",
        ),
        *("Sum", "Where", "Xor"),
    )
)
_REDUCES = frozenset((*("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"),))
_RULES: Mapping[str, Callable[[NodeGraph, Node, Dims], Dims | None]] = {
    **dict.fromkeys(_UNARY, _same),
    **dict.fromkeys(_BINARY, _broadcast),
    **{f"Reduce{name}": _reduce for name in _REDUCES},
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Concat": _concat,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Gather": _gather,
    "Pad": _pad,
    "Shape": _shape,
}
