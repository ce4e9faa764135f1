"""Embeddings as operations that list the Neural Engine: ``gather`` with computed indices is the CPU's.

``gather_along_axis`` takes an index per element, so the rows' numbers are repeated along the columns first. A wide
table is cut into blocks of columns, which share these numbers: fewer are made on the CPU. That the operation lists the
Neural Engine was published for one chip; how fast it is there was not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from tlkit.mil.passes.ane.draft import Draft, argument, each, rewritten
from tlkit.mil.passes.ane.kernels import Cut, draft_shape
from tlkit.mil.passes.base import Outcome, Pass
from tlkit.mil.passes.rewrite import text
from tlkit.mil.program import Block, Function, NamedType, Operation, Program, Ref, TensorType, Value
from tlkit.mil.types import DType


@dataclass(frozen=True)
class GatherAlong(Pass):
    """Read the tables of ``function`` by ``gather_along_axis`` where their indices are computed."""

    function: str

    def run(self, program: Program) -> Outcome:
        """See :class:`~tlkit.mil.passes.base.Pass`."""
        return rewritten(program, self.function, _changed, "{} embeddings by gather_along_axis")


def _changed(block: Block, function: Function, taken: set[str]) -> tuple[Block, int]:
    return each(block, function, taken, {"gather": _along})


def _along(draft: Draft, operation: Operation) -> bool:
    table, indices, out = argument(operation, "x"), argument(operation, "indices"), draft_shape(operation)
    sizes, places = draft.shape(table or ""), draft.shape(indices or "")
    if table not in draft.constants or sizes is None or len(sizes) != 2 or indices is None or not places:
        return False
    if indices in draft.constants or draft.flag(operation, "axis", 0) != 0 or out != (*places, sizes[1]):
        return False
    if draft.flag(operation, "batch_dims", 0) != 0:
        return False
    count, name = math.prod(places), operation.outputs[0].name
    column = draft.add("reshape", draft.name(f"{name}_rows"), (count, 1), indices, x=indices, shape=[count, 1])
    blocks = _blocks(sizes[1])
    wide = sizes[1] // blocks
    rows = _repeated(draft, column, (count, wide))
    how: dict[str, Any] = {"validate_indices": False} if "validate_indices" in operation.inputs else {}
    parts = []
    for index in range(blocks):
        part = _columns(draft, table, index * wide, (index + 1) * wide) if blocks > 1 else table
        made = draft.name(f"{name}_flat")
        parts.append(draft.add("gather_along_axis", made, (count, wide), part, x=part, indices=rows, axis=0, **how))
    flat = _joined(draft, f"{name}_flat", parts, (count, sizes[1])) if blocks > 1 else parts[0]
    draft.add("reshape", name, out, table, x=flat, shape=list(out))
    return True


_MOST, _NARROWEST = 12, 32  # blocks of a table; columns of a block


def _blocks(columns: int) -> int:
    fitting = (count for count in range(_MOST, 1, -1) if columns % count == 0 and columns // count >= _NARROWEST)
    return next(fitting, 1)


def _columns(draft: Draft, table: str, begin: int, end: int) -> str:
    value = draft.constants[table]
    rows = (draft.shape(table) or (0,))[0]
    assert isinstance(value.type, TensorType)
    kind = replace(value.type, shape=(rows, end - begin))
    return draft.constant(f"{table}_columns", Value(kind, Cut(value, (0, begin), (rows, end))))


def _joined(draft: Draft, name: str, parts: list[str], shape: tuple[int, int]) -> str:
    kind = draft.kinds[parts[0]]
    assert isinstance(kind, TensorType)
    axis = draft.constant(f"{name}_axis", Value(TensorType(DType.INT32), (1,)))
    interleave = draft.constant(f"{name}_interleave", Value(TensorType(DType.BOOL), (False,)))
    given = {"values": tuple(map(Ref, parts)), "axis": (Ref(axis),), "interleave": (Ref(interleave),)}
    made = NamedType(draft.name(f"{name}_whole"), replace(kind, shape=shape))
    draft.emit(Operation("concat", given, (made,), {"name": text(made.name)}))
    return made.name


def _repeated(draft: Draft, column: str, shape: tuple[int, int]) -> str:
    name = draft.name(f"{column}_repeated")
    if draft.dtype(column) is DType.INT32:
        return draft.add("tile", name, shape, column, x=column, reps=[1, shape[1]])
    # tile has no 16-bit integers; reading column 0 again and again does the same
    zeros = Value(TensorType(DType.INT32, (shape[1],)), (0,) * shape[1])
    first = draft.constant(f"{column}_first", zeros)
    how: dict[str, Any] = {"axis": 1, "batch_dims": 0, "validate_indices": False}
    return draft.add("gather", name, shape, column, x=column, indices=first, **how)
