"""Core ML's planner's price of an operation on each unit: estimates in microseconds, not latencies.

The rates in ``data/prices.csv`` were fitted to published estimates. The planner's own costs come from decision trees; a
hundred published figures support only one rate per kind of operation.
"""

from __future__ import annotations

from collections.abc import Iterable

from tlkit.mil.work import Step
from tlkit.placement.facts import Rate, Rates, rates

SWITCH = 125.0
"""Microseconds that the planner adds for a change of unit, for a region's start on ANE or GPU, and for ending there."""

_BINARY = frozenset(("add", "sub", "mul", "real_div", "floor_div", "mod", "pow", "maximum", "minimum"))
_COMPARED = frozenset(("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"))


def kind(step: Step) -> str:
    """Return the kind of operation by which ``step`` is priced."""
    weight = step.operand("weight")
    shape = weight.shape if weight else ()
    if step.type == "conv" and len(shape) > 1:
        # [C, 1, ...]: each group has one input channel.
        return "depthwise" if shape[1] == 1 and shape[0] != 1 else "conv"
    if step.type == "linear" and len(shape) > 1:
        # By published prices a square layer costs up to 15 times as much per FLOP as one that grows.
        grows = (shape[0] or 0) - (shape[1] or 0)
        return "linear" if grows > 0 else "linear-narrow" if grows < 0 else "linear-square"
    if step.type in _BINARY | _COMPARED:
        if step.type in _BINARY and len(step.read) == 1 and not step.weights:
            return "scalar"
        alike = len(step.read) > 1 and len({item.shape for item in step.read}) == 1
        return "binary" if alike else "broadcast"
    return "attention" if step.type == "scaled_dot_product_attention" else step.type


def microseconds(step: Step, unit: str, chip: str = "M4", table: Rates | None = None) -> float:
    """Return the planner's price of ``step`` on ``unit`` (``ane``, ``cpu``, ``gpu``) by ``chip``'s published rates."""
    return microseconds_on(step, (unit,), chip, table)[unit]


def microseconds_on(step: Step, units: Iterable[str], chip: str = "M4", table: Rates | None = None) -> dict[str, float]:
    """Return the planner's price of ``step`` on each of ``units``."""
    name, known = kind(step), rates() if table is None else table
    return {unit: _price(step, name, unit, chip, known) for unit in units}


def _price(step: Step, name: str, unit: str, chip: str, table: Rates) -> float:
    if unit == "gpu" and name in _COMPUTE:
        return _ABOVE * _price(step, name, "ane", chip, table)
    rate = _rate(name, unit, chip, table)
    moved = step.nbytes + (sum(item.nbytes for item in step.weights) if rate.weights else 0)
    by_bytes = moved / rate.gbps / 1e3 if rate.gbps else 0.0
    return max(by_bytes, 2 * step.macs / rate.tflops / 1e6 if rate.tflops else 0.0)


def _rate(name: str, unit: str, chip: str, table: Rates) -> Rate:
    """The rate of the kind or the nearest like it, on the chip or the nearest that has one."""
    if found := table.get((chip, name, unit)):
        return found
    kinds = [name]
    while kinds[-1] in _LIKE:
        kinds.append(_LIKE[kinds[-1]])
    for priced in [*kinds, "other"]:
        # Another chip's price of this kind comes before any price of another kind.
        for where in dict.fromkeys((chip, "M4", "M4 Pro")):
            if found := table.get((where, priced, unit)):
                return found
    raise KeyError(f"no rate for {unit}")


_ABOVE = 2.0
"""A guess. Published is only that the GPU's price of these is never below the Neural Engine's, and that an M4 Pro under
``all`` plans convolutional networks mostly on the Neural Engine."""
_COMPUTE = frozenset(("conv", "depthwise", "conv_transpose", "linear", "linear-square", "linear-narrow"))
_LIKE = {
    "depthwise": "conv",
    "conv_transpose": "conv",
    "linear-narrow": "linear-square",
    "linear-square": "linear",
    "linear": "matmul",
    "scalar": "broadcast",
    "binary": "broadcast",
}
