"""Lengths that an exported graph computes by fractions, computed in integers. Importing this imports torch."""

from __future__ import annotations

import math
import operator
from typing import Any

from torch import fx

_ROUNDS = {math.ceil, math.floor, math.trunc, round}


def in_integers(graph: fx.Graph) -> None:
    """Rewrite what rounds a length divided (``math.ceil((n - 5) / 3)``) in ``graph``, in place.

    coremltools gives a number with a fraction there, which is no length or index afterwards, and in f16 no large length
    is exact. A quotient of integers rounded up or down is divided as integers; other fractions are cast when rounded.
    """
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in _ROUNDS or len(node.args) != 1:
            continue
        with graph.inserting_after(node):
            made = _divided(graph, node) or graph.call_function(int, (node,))
        made.meta = dict(node.meta)
        node.replace_all_uses_with(made, delete_user_cb=lambda user, made=made: user is not made)
        for unused in (node, *node.all_input_nodes):
            if not unused.users and unused.target in {operator.truediv, *_ROUNDS}:
                graph.erase_node(unused)


def _divided(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    quotient = node.args[0]
    if not isinstance(quotient, fx.Node) or quotient.target is not operator.truediv:
        return None
    above, below = quotient.args
    if node.target not in (math.ceil, math.floor) or not (_whole(above) and isinstance(below, int) and below > 0):
        return None
    if node.target is math.floor:
        return graph.call_function(operator.floordiv, (above, below))
    up = graph.call_function(operator.add, (above, below - 1))
    with graph.inserting_after(up):
        return graph.call_function(operator.floordiv, (up, below))


def _whole(value: Any) -> bool:
    found = value.meta.get("val") if isinstance(value, fx.Node) else value
    return isinstance(found, int) or getattr(getattr(found, "node", None), "pytype", None) is int
