"""Core ML's planner's price of an operation on each unit: estimates in microseconds, not latencies.

The rates in ``data/prices.csv`` were fitted to published estimates. The planner's own costs come from decision trees; a
hundred published figures support only one rate per kind of operation.
"""

from __future__ import annotations

from tlkit.mil.work import Step
from tlkit.placement.facts import rates

SWITCH = 125.0
"""Microseconds that the planner adds for a change of unit, for a region's start on ANE or GPU, and for ending there."""

_BINARY = frozenset(("add", "sub", "mul", "real_div", "floor_div", "mod", "pow", "maximum", "minimum"))
_COMPARED = frozenset(("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"))


def kind(step: Step) -> str:
    """Return the kind of operation by which ``step`` is priced."""
    weight = step.operand("weight")
    shape = weight.shape if weight else ()
    if step.type == "conv" and len(shape) > 1:
        return "depthwise" if shape[1] == 1 and shape[0] != 1 else "conv"
    if step.type in ("linear", "linear_activation") and len(shape) > 1:
        return "linear" if (shape[0] or 0) > (shape[1] or 0) else "linear-narrow"
    if step.type in _BINARY | _COMPARED:
        alike = len(step.read) > 1 and len({item.shape for item in step.read}) == 1
        return "binary" if alike else "broadcast"
    return "attention" if step.type == "scaled_dot_product_attention" else step.type


def microseconds(step: Step, unit: str) -> float:
    """Return the planner's price of ``step`` on ``unit`` (``ane``, ``cpu`` or ``gpu``)."""
    table = rates()
    name = kind(step)
    rate = table.get((name, unit)) or table.get((_LIKE.get(name, "other"), unit)) or table["other", unit]
    moved = step.nbytes + (sum(item.nbytes for item in step.weights) if rate.weights else 0)
    return max(moved / rate.gbps / 1e3, 2 * step.macs / rate.tflops / 1e6 if rate.tflops else 0.0)


_LIKE = {"depthwise": "conv", "conv_transpose": "conv", "linear": "matmul", "linear-narrow": "matmul"}
