"""Embeddings as operations that list the Neural Engine: ``gather`` with computed indices is the CPU's.

``gather_along_axis`` takes an index per element, so the rows' numbers are repeated along the columns first. That it
lists the Neural Engine was published for one chip; how fast it is there was not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tlkit.mil.passes.ane.draft import Draft, argument, each, rewritten
from tlkit.mil.passes.ane.kernels import draft_shape
from tlkit.mil.passes.base import Outcome, Pass
from tlkit.mil.program import Block, Function, Operation, Program, TensorType, Value
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
    whole = _repeated(draft, column, (count, sizes[1]))
    how: dict[str, Any] = {"validate_indices": False} if "validate_indices" in operation.inputs else {}
    flat = draft.name(f"{name}_flat")
    draft.add("gather_along_axis", flat, (count, sizes[1]), table, x=table, indices=whole, axis=0, **how)
    draft.add("reshape", name, out, table, x=flat, shape=list(out))
    return True


def _repeated(draft: Draft, column: str, shape: tuple[int, int]) -> str:
    name = draft.name(f"{column}_repeated")
    if draft.dtype(column) is DType.INT32:
        return draft.add("tile", name, shape, column, x=column, reps=[1, shape[1]])
    # tile has no 16-bit integers; reading column 0 again and again does the same
    zeros = Value(TensorType(DType.INT32, (shape[1],)), (0,) * shape[1])
    first = draft.constant(f"{column}_first", zeros)
    how: dict[str, Any] = {"axis": 1, "batch_dims": 0, "validate_indices": False}
    return draft.add("gather", name, shape, column, x=column, indices=first, **how)
