"""Tensors of more than five axes, which Core ML does not have, held with adjacent axes folded.

A tensor's elements lie in one order however its axes are folded, so each operation is done on the folding in which its
own axes stand apart: a slice of axis 3 of six on ``[axes 0-2, axis 3, axes 4-5]``. What comes of it keeps the shape in
which it came until another operation wants another. An operation that has no rule is left as it is, for coremltools to
refuse. Importing this module does not import coremltools.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST = 5
"""Core ML's largest rank."""
Shape = list[Any]
"""Lengths; those known only when the model runs are coremltools' symbols."""


class NoFoldError(Exception):
    """There is no folding in which the operation can be done."""


@dataclass
class Folder:
    """What is known of a block while it is rewritten: each large tensor's folded value."""

    folded: dict[Any, Any] = field(default_factory=dict)
    op: Any = None

    def take(self, var: Any, shape: Sequence[Any]) -> Any:
        """Return ``var`` as a tensor of ``shape``, which has the same elements in the same order."""
        from coremltools.converters.mil import Builder as mb

        if len(shape) > MOST:
            raise NoFoldError
        source = self.folded.get(var, var)
        if source is var and var.rank > MOST:
            if var.val is None:
                raise NoFoldError
            return mb.const(val=var.val.reshape(plain(shape)))
        if list(source.shape) == list(shape):
            return source
        return mb.reshape(x=source, shape=plain(shape) or [1])

    def along(self, var: Any, axis: int) -> Any:
        """Return ``var`` as [what is before the axis, the axis, what is after it]."""
        shape = list(var.shape)
        axis %= len(shape)
        return self.take(var, [size_of(shape[:axis]), shape[axis], size_of(shape[axis + 1 :])])

    def end(self, out: Any, made: Any) -> Any:
        """Return ``made`` in the shape of the output ``out`` and by its name, where that is small enough."""
        from coremltools.converters.mil import Builder as mb

        if out.rank > MOST:
            return made
        return mb.reshape(x=made, shape=plain(out.shape) or [1], name=out.name)

    def rest(self, *without: str) -> dict[str, Any]:
        """Return what the operation was given, but for its operands of these names."""
        return {name: value for name, value in self.op.inputs.items() if name not in without and value is not None}

    def again(self, **operands: Any) -> Any:
        """Return the same operation of other operands."""
        from coremltools.converters.mil import Builder as mb

        return getattr(mb, self.op.op_type)(**{**self.rest(), **operands})


Rule = Callable[[Folder, Any], Any]
"""Does an operation on folded operands: a value for each output, whose elements are in the right order."""


def fold_axes(block: Any, rules: Mapping[str, Rule], folded: dict[Any, Any] | None = None) -> None:
    """Rewrite the operations of ``block`` that take or give tensors of more than five axes, by the ``rules``."""
    folder, done = Folder(folded if folded is not None else {}), []
    for op in list(block.operations):
        for inner in op.blocks:
            fold_axes(inner, rules, folder.folded)
        if (
            op.op_type != "const"
            and any(var.rank > MOST for var in _tensors(op))
            and _rewrite(block, op, rules, folder)
        ):
            done.append(op)
    # Last first: what used a value goes before what gave it.
    for op in reversed(done):
        if not any(out.child_ops or out in block.outputs for out in op.outputs):
            block.remove_ops([op])


def _tensors(op: Any) -> Iterator[Any]:
    for value in [*op.inputs.values(), *op.outputs]:
        for var in value if isinstance(value, list | tuple) else [value]:
            if hasattr(var, "rank") and getattr(var, "shape", None) is not None:
                yield var


def _rewrite(block: Any, op: Any, rules: Mapping[str, Rule], folder: Folder) -> bool:
    from coremltools.converters.mil import Builder as mb

    known, folder.op = rules.get(op.op_type), op
    if known is None:
        return False
    before = dict(folder.folded)
    with block, mb.set_before_op(op), mb.scope(*_scopes(op)):
        try:
            made = known(folder, op)
            made = made if isinstance(made, list | tuple) else [made]
            made = [folder.end(out, new) for out, new in zip(op.outputs, made, strict=True)]
        except NoFoldError:
            folder.folded = before
            return False
    for out, new in zip(op.outputs, made, strict=True):
        if out.rank > MOST:
            folder.folded[out] = new
        else:
            block.replace_uses_of_var_after_op(anchor_op=op, old_var=out, new_var=new, force_replace=True)
    return True


def _scopes(op: Any) -> list[Any]:
    """Return where in the source ``op`` comes from, which coremltools wants of what takes its place."""
    from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource

    passes = ScopeSource.COREMLTOOLS_GRAPH_PASS
    return [ScopeInfo(source=source, data=data) for source, data in op.scopes.items() if source != passes and data]


def plain(shape: Sequence[Any]) -> list[int]:
    """Return ``shape`` in whole numbers: -1 for the one length that is known only when the model runs."""
    known = [int(size) if str(size).isdigit() else -1 for size in shape]
    if known.count(-1) > 1:
        raise NoFoldError
    return known


def size_of(lengths: Sequence[Any]) -> Any:
    """Return the product of ``lengths``, 1 of none."""
    return math.prod(lengths) if lengths else 1


def constant(value: Any) -> Any:
    """Return what a parameter is, or refuse where it is known only when the model runs."""
    if value is None or value.val is None:
        raise NoFoldError
    return value.val


def merged(sizes: Shape, order: Sequence[int]) -> tuple[Shape, list[int]]:
    """Fold axes that stay side by side when put in ``order``, and leave out those of length 1."""
    order = [axis for axis in order if str(sizes[axis]) != "1"]
    runs: list[list[int]] = []
    for axis in order:
        # None is not 1: an axis that does not come after the last one begins a new run.
        between = sizes[runs[-1][-1] + 1 : axis] if runs and axis > runs[-1][-1] else [None]
        if all(str(size) == "1" for size in between):
            runs[-1].append(axis)
        else:
            runs.append([axis])
    firsts = sorted(run[0] for run in runs)
    folded = [size_of([sizes[axis] for run in runs if run[0] == first for axis in run]) for first in firsts]
    return folded or [1], [firsts.index(run[0]) for run in runs] or [0]


def spread(folder: Folder, operands: Sequence[Any], shape: Sequence[Any]) -> list[Any]:
    """Return the operands folded alike, as they are spread to ``shape``: axes side by side that the same ones lack.

    Where that is more than five axes, those that lack some are repeated along them.
    """
    wide = [aligned(var, len(shape)) for var in operands]
    groups = groups_of(wide, shape)
    if len(groups) > MOST:
        whole = [repeated(folder, var, sizes, shape) for var, sizes in zip(operands, wide, strict=True)]
        return [folder.take(value, [size_of(list(shape))]) for value in whole]
    return [
        var
        if var.rank == 0
        else folder.take(var, [size_of([sizes[axis] for axis in group]) for group in groups] or [1])
        for var, sizes in zip(operands, wide, strict=True)
    ]


def aligned(var: Any, rank: int) -> Shape:
    """Return the shape of ``var`` with as many axes of 1 before it as make ``rank``."""
    return [1] * (rank - var.rank) + list(var.shape)


def groups_of(wide: Sequence[Shape], shape: Sequence[Any]) -> list[list[int]]:
    """Return the axes of ``shape``, without those of length 1, by runs that the same ones of ``wide`` lack."""
    groups: list[list[int]] = []
    last: tuple[bool, ...] | None = None
    for axis, length in enumerate(shape):
        if str(length) == "1":
            continue
        lacks = tuple(str(sizes[axis]) == "1" for sizes in wide)
        if lacks == last:
            groups[-1].append(axis)
        else:
            groups.append([axis])
        last = lacks
    return groups


def repeated(folder: Folder, var: Any, sizes: Shape, shape: Sequence[Any]) -> Any:
    """Return ``var`` (of ``sizes``, aligned with ``shape``) repeated along the axes that it lacks."""
    from coremltools.converters.mil import Builder as mb

    sizes, value = list(sizes), var
    for axis, length in enumerate(shape):
        if str(sizes[axis]) == "1" and str(length) != "1":
            value = folder.take(value, [size_of(sizes[:axis]), 1, size_of(sizes[axis + 1 :])])
            value = mb.tile(x=value, reps=[1, *plain([length]), 1])
            sizes[axis] = length
    return value
