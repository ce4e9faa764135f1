"""Run one inference and find the first operation whose result is not finite although its operands are.

That costs one sum per result, and finds what the outputs do not show: an overflow inside may end as zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from tlkit.engines.torch.watch import Tracker
from tlkit.mil.program import DType, Operation, TensorType

_CHOSEN = {"select", "fill", "fill_like", "const", "identity"}
"""Operations that may write a given infinity, as masks do."""
_WEIGHED = {"linear", "conv", "conv_transpose", "matmul", "einsum"}
"""Operations whose constants are weights, which are never infinite on purpose."""
_POLES = {"log", "inverse", "rsqrt", "real_div", "pow"}
"""Operations with poles: their result may be infinite in any type."""


@dataclass(frozen=True, slots=True)
class Stray:
    """The first operation with a non-finite result from finite operands: name and type, how many elements, from what.

    ``overflow`` says that f16's range was left; ``largest`` is the largest magnitude among its finite operands.
    """

    operation: str
    type: str
    nan: int
    infinite: int
    elements: int
    overflow: bool
    largest: float

    def __str__(self) -> str:
        what = ", ".join(f"{n} {word}" for n, word in ((self.infinite, "infinite"), (self.nan, "NaN")) if n)
        why = ", over f16's 65504" if self.overflow else ""
        return (
            f"'{self.operation}' ({self.type}) is the first value inside that is not finite: {what} of "
            f"{self.elements}{why}, from values up to {self.largest:.4g}"
        )


class Finder(Tracker):
    """Runs a graph node by node; ``stray`` is the first operation with a non-finite result, or None."""

    def __init__(self, module: fx.GraphModule, *, rounded: bool = True) -> None:
        super().__init__(module, rounded=rounded)
        self.stray: Stray | None = None
        self._wild: dict[fx.Node, bool] = {}  # nodes with something not finite, and whether with a NaN

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and check its result, until a stray was found."""
        result = super().run_node(n)
        if self.stray is None:
            self._look(n, [part for part in _parts(result) if part.is_floating_point()])
        return result

    def _look(self, n: fx.Node, parts: list[torch.Tensor]) -> None:
        # One sum is much cheaper than looking at each element; it is finite only if all elements are.
        if all(bool(torch.isfinite(part.sum())) for part in parts):
            return
        nan = any(bool(part.isnan().any()) for part in parts)
        if not nan and not any(bool(part.isinf().any()) for part in parts):
            return  # many large numbers of f32
        self._wild[n] = nan
        before = [self._wild.get(item) for item in n.all_input_nodes]
        operation = n.meta.get("mil")
        if operation is None or operation.type in _CHOSEN:
            return
        # An infinite weight is itself the fault, although it is not a finite operand.
        heavy = operation.type in _WEIGHED and any(
            item in self._wild and item.op == "get_attr" for item in n.all_input_nodes
        )
        # A NaN that comes of infinities alone (inf - inf) starts here, too.
        if heavy or all(flag is None for flag in before) or (nan and not any(before)):
            self.stray = self._describe(n, operation, parts)

    def _describe(self, n: fx.Node, operation: Operation, parts: list[torch.Tensor]) -> Stray:
        half = any(isinstance(o.type, TensorType) and o.type.dtype is DType.FP16 for o in operation.outputs)
        given = [part for item in n.all_input_nodes for part in _parts(self.env.get(item)) if part.is_floating_point()]
        sizes = [part[part.isfinite()].abs().max() for part in given if part.numel() and bool(part.isfinite().any())]
        nan = sum(int(part.isnan().sum()) for part in parts)
        infinite = sum(int(part.isinf().sum()) for part in parts)
        overflow = half and infinite > 0 and operation.type not in _POLES
        largest = max(map(float, sizes), default=0.0)
        return Stray(operation.name, operation.type, nan, infinite, sum(p.numel() for p in parts), overflow, largest)


def _parts(value: Any) -> list[torch.Tensor]:
    parts = value if isinstance(value, tuple | list) else (value,)
    return [part for part in parts if isinstance(part, torch.Tensor)]
