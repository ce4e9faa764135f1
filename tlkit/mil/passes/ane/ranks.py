"""Tensors of more than five axes, which Core ML does not have, held with adjacent axes folded.

A tensor's elements lie in one order however its axes are folded: reshapes, element-wise operations and transpositions
(of axes that stay neighbours, taken for one) are done on tensors of fewer axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tlkit.mil.passes.ane.draft import Draft, Shape, argument, rewritten
from tlkit.mil.passes.ane.layout import BINARY, UNARY
from tlkit.mil.passes.base import Outcome, Pass
from tlkit.mil.program import Block, Function, Operation, Program, Ref, TensorType

MOST = 5
"""Core ML's largest rank."""
_RESHAPES = frozenset(("reshape", "squeeze", "expand_dims"))


@dataclass(frozen=True)
class FewerAxes(Pass):
    """Fold the tensors of ``function`` that have more than five axes."""

    function: str

    def run(self, program: Program) -> Outcome:
        """See :class:`~tlkit.mil.passes.base.Pass`."""
        return rewritten(program, self.function, _changed, "{} operations on more than 5 axes on folded ones")


def _changed(block: Block, function: Function, taken: set[str]) -> tuple[Block, int]:
    folder = _Folder(Draft(block, function.inputs, taken))
    for operation in block.operations:
        folder.take(operation)
    for name in block.outputs:
        folder.plain(name)
    return folder.draft.block(), folder.count


class _Folder:
    """``held`` has, for a value of many axes, one of fewer with the same elements in the same order."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.count = 0
        self._held: dict[str, str] = {}

    def take(self, operation: Operation) -> None:
        """Emit ``operation`` on folded values where that is known, else as it is."""
        if len(operation.outputs) == 1 and self._folded(operation):
            self.count += 1
            return
        for given in operation.inputs.values():
            for item in given:
                if isinstance(item, Ref):
                    self.plain(item.name)
        self.draft.emit(operation)

    def plain(self, name: str) -> None:
        """Emit a value that is only held folded."""
        source = self._held.pop(name, None)
        if source is not None:
            shape = self._shape(name)
            self.draft.add("reshape", name, shape, source, x=source, shape=list(shape))

    def _shape(self, name: str) -> Shape:
        shape = self.draft.shape(name)
        assert shape is not None
        return shape

    def _folded(self, operation: Operation) -> bool:
        x, out = argument(operation, "x"), operation.outputs[0]
        kind = out.type
        fixed = isinstance(kind, TensorType) and kind.shape is not None and None not in kind.shape
        if x is None or not fixed or not isinstance(kind, TensorType) or self.draft.shape(x) is None:
            return False
        after = tuple(size or 0 for size in kind.shape or ())
        if x not in self._held and len(after) <= MOST:
            return False
        if operation.type in _RESHAPES:
            return self._reshape(operation, x, after)
        if operation.type == "transpose":
            return self._transpose(operation, x)
        return operation.type in UNARY | BINARY and self._each(operation, x)

    def _reshape(self, operation: Operation, x: str, after: Shape) -> bool:
        source, out = self._held.get(x, x), operation.outputs[0]
        if len(after) > MOST:
            self._hold(operation, source)
        else:
            self.draft.add("reshape", out.name, after, source, x=source, shape=list(after))
        return True

    def _hold(self, operation: Operation, source: str) -> None:
        out = operation.outputs[0]
        self.draft.kinds[out.name] = out.type
        self._held[out.name] = source

    def _transpose(self, operation: Operation, x: str) -> bool:
        shape, perm = self._shape(x), self.draft.flag(operation, "perm")
        if perm is None:
            return False
        groups = _groups(shape, [axis % len(shape) for axis in perm])
        if len(groups) > MOST:
            return False
        inside = sorted(range(len(groups)), key=lambda index: groups[index][0])
        before = tuple(math.prod(shape[axis] for axis in groups[index]) for index in inside)
        place = {index: position for position, index in enumerate(inside)}
        turned = [place[index] for index in range(len(groups))]
        source, name = self._held.get(x, x), operation.outputs[0].name
        parts = self.draft.add(
            "reshape", self.draft.name(f"{name}_parts"), before, source, x=source, shape=list(before)
        )
        after = tuple(before[position] for position in turned)
        made = self.draft.add("transpose", self.draft.name(f"{name}_turned"), after, source, x=parts, perm=turned)
        self._hold(operation, made)
        if len(self._shape(name)) <= MOST:
            self.plain(name)
        return True

    def _each(self, operation: Operation, x: str) -> bool:
        """An element-wise operation on one held value, and constants of one element."""
        others = [self.draft.shape(argument(operation, name) or "") for name in operation.inputs if name != "x"]
        if x not in self._held or any(shape is None or math.prod(shape) != 1 or len(shape) > 1 for shape in others):
            return False
        source, out = self._held[x], operation.outputs[0]
        assert isinstance(out.type, TensorType)
        made = replace(
            out, name=self.draft.name(f"{out.name}_folded"), type=replace(out.type, shape=self._shape(source))
        )
        self.draft.emit(replace(operation, inputs={**operation.inputs, "x": (Ref(source),)}, outputs=(made,)))
        self._hold(operation, made.name)
        return True


def _groups(shape: Shape, perm: Sequence[int]) -> list[list[int]]:
    """The axes in their new order, neighbours before and after together; axes of 1 left out, unless all are."""
    groups: list[list[int]] = []
    for axis in (axis for axis in perm if shape[axis] != 1):
        last = groups[-1][-1] if groups else None
        # What lies between two neighbours may be axes of 1 only.
        if last is not None and axis > last and all(size == 1 for size in shape[last + 1 : axis]):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    return groups or [[0]]
