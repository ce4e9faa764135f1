"""How each operation of a tensor of more than five axes is done on one with axes folded (:mod:`ranks` beside this).

Importing this module does not import coremltools.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlkit.core.convert.tools.ranks import (
    MOST,
    Folder,
    NoFoldError,
    Rule,
    aligned,
    constant,
    groups_of,
    merged,
    plain,
    repeated,
    size_of,
    spread,
)

RULES: dict[str, Rule] = {}


def rule(*kinds: str) -> Callable[[Rule], Rule]:
    """Register how operations of these ``kinds`` are done on folded operands."""

    def register(made: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, made))
        return made

    return register


@rule("reshape", "expand_dims", "squeeze", "identity")
def _same(folder: Folder, op: Any) -> Any:
    """Do nothing: the elements stay in their order."""
    return folder.folded.get(op.x, op.x)


@rule("abs", "acos", "asin", "atan", "atanh", "ceil", "clip", "cos", "cosh", "erf", "exp", "exp2", "floor", "inverse")
@rule("log", "logical_not", "round", "rsqrt", "sign", "sin", "sinh", "sqrt", "square", "tan", "tanh", "threshold")
@rule("cast", "clamped_relu", "elu", "gelu", "leaky_relu", "linear_activation", "relu", "relu6", "scaled_tanh")
@rule("sigmoid", "sigmoid_hard", "silu", "softplus", "softsign", "thresholded_relu")
def _single(folder: Folder, op: Any) -> Any:
    return folder.again(x=folder.take(op.x, [size_of(op.x.shape)]))


@rule("transpose")
def _transpose(folder: Folder, op: Any) -> Any:
    """Move blocks of axes that stay together; while there are more than five of those, one at a time to its place."""
    from coremltools.converters.mil import Builder as mb

    perm = [int(axis) % op.x.rank for axis in constant(op.perm)]
    sizes, order = merged(list(op.x.shape), perm)
    value = op.x
    while len(order) > MOST:
        goal = next(index for index, axis in enumerate(order) if axis != index)
        at = order[goal]
        # Before the goal, from there to the block, the block, after it: the middle two change places.
        parts = [size_of(sizes[:goal]), size_of(sizes[goal:at]), sizes[at], size_of(sizes[at + 1 :])]
        value = mb.transpose(x=folder.take(value, parts), perm=[0, 2, 1, 3])
        sizes.insert(goal, sizes.pop(at))
        # What lay between has moved back by one.
        order = [goal if axis == at else axis + 1 if goal <= axis < at else axis for axis in order]
        sizes, order = merged(sizes, order)
    return mb.transpose(x=folder.take(value, sizes), perm=order) if len(order) > 1 else folder.take(value, sizes)


@rule("add", "sub", "mul", "real_div", "floor_div", "mod", "pow", "maximum", "minimum", "equal", "not_equal")
@rule("greater", "greater_equal", "less", "less_equal", "logical_and", "logical_or", "logical_xor")
def _pair(folder: Folder, op: Any) -> Any:
    x, y = spread(folder, [op.x, op.y], op.outputs[0].shape)
    return folder.again(x=x, y=y)


@rule("select")
def _select(folder: Folder, op: Any) -> Any:
    cond, a, b = spread(folder, [op.cond, op.a, op.b], op.outputs[0].shape)
    return folder.again(cond=cond, a=a, b=b)


@rule("slice_by_index")
def _slice(folder: Folder, op: Any) -> Any:
    """Cut one axis after the other."""
    from coremltools.converters.mil import Builder as mb

    rank = op.x.rank
    begin, end = list(constant(op.begin)), list(constant(op.end))
    stride = list(op.stride.val) if op.stride is not None else [1] * rank
    given = (op.begin_mask, op.end_mask, op.squeeze_mask)
    masks = [[False] * rank if mask is None else list(mask.val) for mask in given]
    sizes, value = list(op.x.shape), op.x
    for axis in range(rank):
        whole = masks[0][axis] and masks[1][axis] and stride[axis] == 1 and not masks[2][axis]
        if whole:
            continue
        # A squeezed axis has one element; after -1 comes no index, so that one goes to the end.
        last = begin[axis] + 1 if masks[2][axis] and begin[axis] != -1 else end[axis]
        value = mb.slice_by_index(
            x=folder.take(value, [size_of(sizes[:axis]), sizes[axis], size_of(sizes[axis + 1 :])]),
            begin=[0, int(begin[axis]), 0],
            end=[0, int(last), 0],
            stride=[1, int(stride[axis]), 1],
            begin_mask=[True, bool(masks[0][axis]) and not masks[2][axis], True],
            end_mask=[True, bool(masks[1][axis]) or (masks[2][axis] and begin[axis] == -1), True],
        )
        sizes[axis] = value.shape[1]
    return value


@rule("slice_by_size")
def _slice_by_size(folder: Folder, op: Any) -> Any:
    from coremltools.converters.mil import Builder as mb

    value, sizes = op.x, list(op.x.shape)
    for axis, (first, count) in enumerate(zip(constant(op.begin), constant(op.size), strict=True)):
        if first == 0 and (count == -1 or count == sizes[axis]):
            continue
        value = folder.take(value, [size_of(sizes[:axis]), sizes[axis], size_of(sizes[axis + 1 :])])
        value = mb.slice_by_size(x=value, begin=[0, int(first), 0], size=[-1, int(count), -1])
        sizes[axis] = value.shape[1]
    return value


@rule("split", "softmax", "cumsum", "topk", "argsort")
def _along(folder: Folder, op: Any) -> Any:
    return folder.again(x=folder.along(op.x, int(constant(op.axis))), axis=1)


@rule("gather")
def _gather(folder: Folder, op: Any) -> Any:
    if op.inputs.get("batch_dims") is not None and op.batch_dims.val:
        raise NoFoldError
    indices = folder.take(op.indices, [size_of(op.indices.shape)]) if op.indices.rank > 1 else op.indices
    return folder.again(x=folder.along(op.x, int(constant(op.axis))), indices=indices, axis=1)


@rule("gather_along_axis")
def _gather_along_axis(folder: Folder, op: Any) -> Any:
    axis = int(constant(op.axis)) % op.x.rank
    others = [[str(size) for at, size in enumerate(var.shape) if at != axis] for var in (op.x, op.indices)]
    if others[0] != others[1]:
        raise NoFoldError
    return folder.again(x=folder.along(op.x, axis), indices=folder.along(op.indices, axis), axis=1)


@rule("reverse")
def _reverse(folder: Folder, op: Any) -> Any:
    value = op.x
    for axis in range(op.x.rank) if op.axes is None else op.axes.val:
        shape = list(op.x.shape)
        at = int(axis) % op.x.rank
        value = folder.again(x=folder.take(value, [size_of(shape[:at]), shape[at], size_of(shape[at + 1 :])]), axes=[1])
    return value


@rule("concat")
def _concat(folder: Folder, op: Any) -> Any:
    axis = int(constant(op.axis))
    return folder.again(values=[folder.along(value, axis) for value in op.values], axis=1)


@rule("stack")
def _stack(folder: Folder, op: Any) -> Any:
    from coremltools.converters.mil import Builder as mb

    axis = int(constant(op.axis)) % (op.values[0].rank + 1)
    shapes = [list(value.shape) for value in op.values]
    parts = [
        folder.take(value, [size_of(shape[:axis]), 1, size_of(shape[axis:])])
        for value, shape in zip(op.values, shapes, strict=True)
    ]
    return mb.concat(values=parts, axis=1)


@rule("matmul")
def _matmul(folder: Folder, op: Any) -> Any:
    """Fold the axes before the last two, as they are spread."""
    rank = op.outputs[0].rank
    if min(op.x.rank, op.y.rank) < 2:
        raise NoFoldError
    batch = list(op.outputs[0].shape)[: rank - 2]
    wide = [aligned(var, rank) for var in (op.x, op.y)]
    groups = groups_of(wide, batch)
    if len(groups) > MOST - 2:
        values = [
            repeated(folder, var, shape, [*batch, *shape[-2:]]) for var, shape in zip((op.x, op.y), wide, strict=True)
        ]
        x, y = (folder.take(value, [size_of(batch), *shape[-2:]]) for value, shape in zip(values, wide, strict=True))
        return folder.again(x=x, y=y)
    x, y = (
        folder.take(var, [*(size_of([shape[axis] for axis in group]) for group in groups), *shape[-2:]])
        for var, shape in zip((op.x, op.y), wide, strict=True)
    )
    return folder.again(x=x, y=y)


@rule("linear")
def _linear(folder: Folder, op: Any) -> Any:
    shape = list(op.x.shape)
    return folder.again(x=folder.take(op.x, [size_of(shape[:-1]), shape[-1]]))


@rule("reduce_max", "reduce_mean", "reduce_min", "reduce_prod", "reduce_sum", "reduce_sum_square")
@rule("reduce_l1_norm", "reduce_l2_norm", "reduce_log_sum", "reduce_log_sum_exp")
def _reduce(folder: Folder, op: Any) -> Any:
    """Fold axes side by side that are all summed up, or all left."""
    shape = list(op.x.shape)
    axes = {int(axis) % len(shape) for axis in (range(len(shape)) if op.axes is None else constant(op.axes))}
    sizes: list[Any] = []
    reduced: list[bool] = []
    for axis, length in enumerate(shape):
        if reduced and reduced[-1] == (axis in axes):
            sizes[-1] = sizes[-1] * length
        else:
            sizes.append(length)
            reduced.append(axis in axes)
    value = folder.take(op.x, sizes)
    return folder.again(x=value, axes=[axis for axis, flag in enumerate(reduced) if flag], keep_dims=True)


@rule("reduce_argmax", "reduce_argmin")
def _reduce_arg(folder: Folder, op: Any) -> Any:
    return folder.again(x=folder.along(op.x, int(constant(op.axis))), axis=1, keep_dims=True)


@rule("layer_norm")
def _layer_norm(folder: Folder, op: Any) -> Any:
    shape = list(op.x.shape)
    axes = sorted(int(axis) % len(shape) for axis in constant(op.axes))
    if axes != list(range(axes[0], len(shape))):
        raise NoFoldError
    inner = shape[axes[0] :]
    return folder.again(x=folder.take(op.x, [size_of(shape[: axes[0]]), *inner]), axes=list(range(1, 1 + len(inner))))


@rule("tile")
def _tile(folder: Folder, op: Any) -> Any:
    from coremltools.converters.mil import Builder as mb

    sizes, value = list(op.x.shape), op.x
    for axis, count in enumerate(constant(op.reps)):
        if count == 1:
            continue
        value = folder.take(value, [size_of(sizes[:axis]), sizes[axis], size_of(sizes[axis + 1 :])])
        value = mb.tile(x=value, reps=[1, int(count), 1])
        sizes[axis] = value.shape[1]
    return value


@rule("pad")
def _pad(folder: Folder, op: Any) -> Any:
    """Pad with a constant, one axis after the other."""
    if op.mode is not None and op.mode.val != "constant":
        raise NoFoldError
    sizes, value = list(op.x.shape), op.x
    given = [int(count) for count in constant(op.pad)]
    first = len(sizes) - len(given) // 2
    for index in range(len(given) // 2):
        before, after = given[2 * index : 2 * index + 2]
        axis = first + index
        if before or after:
            value = folder.take(value, [size_of(sizes[:axis]), sizes[axis], size_of(sizes[axis + 1 :])])
            value = folder.again(x=value, pad=[0, 0, before, after, 0, 0])
            sizes[axis] = value.shape[1]
    return value


@rule("shape")
def _shape(folder: Folder, op: Any) -> Any:
    import numpy as np
    from coremltools.converters.mil import Builder as mb

    sizes = plain(op.x.shape)
    if -1 in sizes:
        raise NoFoldError
    return mb.const(val=np.asarray(sizes, np.int32))
