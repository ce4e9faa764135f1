"""A convolution, what is added to it and the bounds that it is brought within, as few kernels.

Run by itself each of bias, sum and bounds reads and writes the whole result once more. Together they are one pass over
it, or part of the convolution; roundings stay those of the operations one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from tlkit.engines.torch.fused import kernels
from tlkit.engines.torch.fused.bounds import Bounds, shape_of, target_of
from tlkit.mil.ops import activation, conv, elementwise_binary, elementwise_unary
from tlkit.mil.ops.kit.registry import Ints


def convolved(
    x: Any,
    weight: Any,
    bias: Any = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
    residual: Any = None,
    low: float = -math.inf,
    high: float = math.inf,
) -> Any:
    """min(max(conv(x) + residual, low), high), of f16 tensors [n, C, H, W]; the parameters before it are conv's."""
    shape: Any = {"strides": strides, "pad_type": pad_type, "pad": pad, "dilations": dilations, "groups": groups}
    if (residual, low, high) == (None, 0.0, math.inf) and kernels.takes_relu(x, pad_type, pad, groups):
        return kernels.convolved_relu(x, weight, bias, strides, pad_type, pad, dilations)
    return kernels.finished(kernels.convolve(x, weight, **shape), bias, residual, low, high)


def fuse_convolutions(module: fx.GraphModule) -> int:
    """Rewrite ``module`` in place; return how many convolutions there are with something after them, a bias too."""
    count, bounds = 0, Bounds(module)
    for node in list(module.graph.nodes):
        shape = shape_of(node)
        if target_of(node) is not conv.conv or shape is None or len(shape) != 4:
            continue
        chain = _Chain(node, bounds)
        chain.follow()
        if not chain.taken and node.kwargs.get("bias") is None:
            continue
        last = chain.taken[-1] if chain.taken else node
        with module.graph.inserting_before(last):
            given = {**node.kwargs, "residual": chain.residual, "low": chain.low, "high": chain.high}
            made = module.graph.call_function(convolved, (), given, name=last.name)
        made.meta.update(last.meta)
        last.replace_all_uses_with(made)
        for old in dict.fromkeys((*reversed(chain.taken), node)):
            module.graph.erase_node(old)
        count += 1
    return count


@dataclass
class _Chain:
    """What follows a convolution, each used by the next one only."""

    first: fx.Node
    bounds: Bounds
    residual: fx.Node | None = None
    low: float = -math.inf
    high: float = math.inf
    taken: list[fx.Node] = field(default_factory=list)

    def follow(self) -> None:
        """Take in what can be taken in."""
        last = self.first
        while len(last.users) == 1:
            (after,) = last.users
            if not (self.adds(last, after) or self.within(last, after)):
                return
            self.taken.append(after)
            last = after

    def adds(self, last: fx.Node, after: fx.Node) -> bool:
        """Take in a sum with a value of the same shape."""
        if target_of(after) is not elementwise_binary.add or self.taken:
            return False
        others = [item for item in (after.kwargs["x"], after.kwargs["y"]) if item is not last]
        if len(others) != 1 or not isinstance(others[0], fx.Node) or shape_of(others[0]) != shape_of(last):
            return False
        self.residual = others[0]
        return True

    def within(self, last: fx.Node, after: fx.Node) -> bool:
        """Take in bounds."""
        found = _bounds(after, last, self.bounds)
        if found is None:
            return False
        for limit, kept in zip(found, (max, min), strict=True):
            self.low, self.high = kept(self.low, limit), kept(self.high, limit)
        return True


def _bounds(node: fx.Node, last: fx.Node, bounds: Bounds) -> tuple[float, float] | None:
    """Return what ``node`` brings ``last`` within, or None where it does something else."""
    target, given = target_of(node), node.kwargs
    if target is activation.relu:
        return 0.0, math.inf
    if target is activation.relu6:
        return 0.0, 6.0
    if target is elementwise_unary.clip:
        low, high = given["alpha"], given["beta"]
        plain = isinstance(low, int | float) and isinstance(high, int | float)
        return (float(low), float(high)) if plain and low <= high else None  # type: ignore[arg-type, operator]
    if target in (elementwise_binary.maximum, elementwise_binary.minimum):
        other = given["y"] if given["x"] is last else given["x"]
        number = bounds.number(other)
        if number is None or len(bounds.shape(other) or ()) > 4:
            return None
        return (number, math.inf) if target is elementwise_binary.maximum else (-math.inf, number)
    return None
