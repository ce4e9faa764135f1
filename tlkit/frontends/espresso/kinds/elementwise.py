"""Arithmetic on single values: Espresso's ``elementwise`` layers by the number of their operation."""

from __future__ import annotations

from typing import Any

from tlkit.formats.coreml.espresso.network import EspressoLayer
from tlkit.frontends.espresso.kit.making import Held, Kit, espresso, number, unknown, whole

_TWO = {
    0: "addBroadcastable",
    1: "multiplyBroadcastable",
    13: "powBroadcastable",
    22: "minBroadcastable",
    23: "maxBroadcastable",
    33: "subtractBroadcastable",
    36: "modBroadcastable",
    100: "equal",
    102: "divideBroadcastable",
    103: "lessThan",
    104: "lessEqual",
    105: "greaterThan",
    106: "greaterEqual",
    107: "notEqual",
    1021: "floorDivBroadcastable",
}
_SEVERAL = {0: "add", 1: "multiply", 22: "min", 23: "max"}
_ADDED, _SCALED = (0, 2, 4, 29), (1, 3, 5, 6, 34)
_ONE = {
    35: "exp2",
    37: "round",
    38: "sign",
    114: "cos",
    115: "sin",
    117: "floor",
    118: "ceil",
    121: "tan",
    122: "cosh",
    123: "sinh",
    124: "tanh",
    125: "acos",
    126: "asin",
    127: "atan",
    128: "acosh",
    129: "asinh",
    130: "atanh",
}
_UNARY = {10: 2, 11: 0, 12: 1, 24: 6, 26: 5, 27: 4}
_COMPARED = {131: "lessThan", 132: "lessEqual", 133: "greaterThan", 134: "greaterEqual", 135: "notEqual", 136: "equal"}


@espresso("elementwise")
def elementwise(k: Kit, layer: EspressoLayer, held: Held) -> None:
    """One operation on one value, on two that are broadcast, or on several."""
    operation, count = whole(layer, "operation"), len(layer.inputs)
    if operation == 101 and count == 3:
        k.add("whereBroadcastable", layer)
    elif count == 2 and operation in _TWO:
        k.add(_TWO[operation], layer)
    elif count > 2 and operation in _SEVERAL:
        k.add(_SEVERAL[operation], layer)
    elif count == 1:
        _single(k, layer, operation)
    else:
        raise unknown(layer, "operation")


def _single(k: Kit, layer: EspressoLayer, operation: int) -> None:
    """``alpha`` is left out where it is 1."""
    alpha, fields = number(layer, "alpha", 1.0), dict[str, Any]()
    kind = "unary"
    if operation in _ADDED or operation in _SCALED:
        kind = "activation"
        fields["linear"] = {"alpha": 1.0, "beta": alpha} if operation in _ADDED else {"alpha": alpha, "beta": 0.0}
    elif operation == 7:
        kind, fields = "activation", {"linear": {"alpha": 1.0, "beta": 0.0}}
    elif operation in (8, 9):
        fields = {"type": 3, "alpha": 2.0}
    elif operation == 13:
        fields = {"type": 3, "alpha": alpha}
    elif operation in _UNARY:
        fields = {"type": _UNARY[operation], "epsilon": number(layer, "eps")}
    elif operation in (23, 25):
        fields = {"type": 7, "alpha": alpha}
    elif operation == 119:
        kind, fields = "clip", {"minVal": number(layer, "alpha"), "maxVal": number(layer, "beta")}
    elif operation == 112:
        kind, fields = "equal", {"alpha": 0.0}
    elif operation in _COMPARED:
        kind, fields = _COMPARED[operation], {"alpha": alpha}
    elif operation in _ONE:
        kind = _ONE[operation]
    else:
        raise unknown(layer, "operation")
    k.add(kind, layer, **fields)
