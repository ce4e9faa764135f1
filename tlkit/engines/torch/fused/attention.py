"""Attention written out, ``matmul(softmax(matmul(q, k^T) * scale), v)``, as one kernel.

The kernel never makes the scores f16 values, so that it would hide where they overflow. It is used only where the
weights prove that they cannot (``bounds.py``); what is left out then is a rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import fx

from tlkit.engines.torch.fused.bounds import Bounds, shape_of, target_of
from tlkit.mil.ops import activation, elementwise_binary, linear, transformation

_LARGEST = 65504 / 2
_WIDEST = 256
"""Elements of a head, at most: what the fused kernels take."""


def attention(query: Any, key: Any, value: Any, scale: float) -> Any:
    """softmax(query @ key^T * scale) @ value, of tensors of rank 3 or 4 whose batches are the same."""
    if query.ndim == 3:  # a fused kernel wants a batch and heads
        return F.scaled_dot_product_attention(query[None], key[None], value[None], scale=scale)[0]
    return F.scaled_dot_product_attention(query, key, value, scale=scale)


def fuse_attention(module: fx.GraphModule) -> int:
    """Rewrite ``module`` in place; return how many were found."""
    bounds, count = Bounds(module), 0
    for node in list(module.graph.nodes):
        found = find(node, bounds)
        if found is None:
            continue
        with module.graph.inserting_before(node):
            key = found.key if found.plain else module.graph.call_function(_turned, (found.key,))
            made = module.graph.call_function(attention, (found.query, key, found.value, found.scale), name=node.name)
        made.meta.update(node.meta)
        node.replace_all_uses_with(made)
        for old in (node, *found.between):
            module.graph.erase_node(old)
        count += 1
    return count


@dataclass(frozen=True, slots=True)
class Attention:
    """What was found: ``plain`` says that ``key`` is [.., length, width], else it is the other way round;
    ``between`` are the scores and shares, the last first."""

    query: fx.Node
    key: fx.Node
    plain: bool
    value: fx.Node
    scale: float
    between: tuple[fx.Node, ...]


def _turned(x: Any) -> Any:
    return x.mT


def _alone(node: Any, target: Any) -> bool:
    """Whether a node is an operation that only one other uses."""
    return target_of(node) is target and len(node.users) == 1


def find(node: fx.Node, bounds: Bounds) -> Attention | None:
    """Return the attention that ends at ``node``, if it is one whose scores cannot overflow."""
    if target_of(node) is not linear.matmul or node.kwargs.get("transpose_x") or node.kwargs.get("transpose_y"):
        return None
    shares, value = node.kwargs["x"], node.kwargs["y"]
    if not _alone(shares, activation.softmax) or not isinstance(value, fx.Node):
        return None
    assert isinstance(shares, fx.Node)
    shape = shape_of(shares)
    if shape is None or len(shape) not in (3, 4) or shares.kwargs.get("axis", -1) not in (-1, len(shape) - 1):
        return None
    between: list[fx.Node] = [shares]
    scores: Any = shares.kwargs["x"]
    scale = 1.0
    if _alone(scores, elementwise_binary.mul):
        factor, inner = _factor(scores, bounds)
        if factor is None:
            return None
        scale = factor
        between.append(scores)
        scores = inner
    if not _alone(scores, linear.matmul) or scores.kwargs.get("transpose_x"):
        return None
    between.append(scores)
    query, key = scores.kwargs["x"], scores.kwargs["y"]
    plain = bool(scores.kwargs.get("transpose_y"))
    if not _fits(query, key, value, plain, len(shape)):
        return None
    largest = _length(bounds, query, True) * _length(bounds, key, plain)
    if not largest * max(1.0, abs(scale)) <= _LARGEST:
        return None
    if _alone(query, elementwise_binary.mul):
        # A power of 2 changes no digit, so that it may as well scale the scores: one pass over the queries less.
        factor, inner = _factor(query, bounds)
        if factor is not None and math.frexp(factor)[0] == 0.5 and shape_of(inner) == shape_of(query):
            return Attention(inner, key, plain, value, scale * factor, (*between, query))
    return Attention(query, key, plain, value, scale, tuple(between))


def _factor(product: fx.Node, bounds: Bounds) -> tuple[float | None, Any]:
    """Return the number that a product has as a factor, and the other factor; None and None where it has none."""
    x, y = product.kwargs["x"], product.kwargs["y"]
    found = ((bounds.number(other), item) for item, other in ((x, y), (y, x)))
    return next((pair for pair in found if pair[0] is not None), (None, None))


def _fits(query: Any, key: Any, value: Any, plain: bool, rank: int) -> bool:
    """Whether the operands are of one batch and of a width that the kernels take."""
    shapes = [shape_of(item) if isinstance(item, fx.Node) else None for item in (query, key, value)]
    if any(shape is None or len(shape) != rank for shape in shapes):
        return False
    q, k, v = (shape for shape in shapes if shape is not None)
    k = k if plain else (*k[:-2], k[-1], k[-2])
    return q[:-2] == k[:-2] == v[:-2] and q[-1] == k[-1] and v[-1] <= _WIDEST and q[-1] <= _WIDEST and k[-2] == v[-2]


def _length(bounds: Bounds, node: fx.Node, plain: bool) -> float:
    """Return a bound of the norm of a query or a key."""
    if plain:
        shape = shape_of(node)
        return bounds.block(node, shape[-1]) if shape else math.inf
    # keys lie along the axis before the last one, where a transposition brought them
    if target_of(node) is not transformation.transpose:
        return math.inf
    perm: Any = node.kwargs["perm"]
    inner: Any = node.kwargs["x"]
    shape = shape_of(inner) if isinstance(inner, fx.Node) else None
    if shape is None or perm[-2] % len(shape) != len(shape) - 1:
        return math.inf
    return bounds.block(inner, shape[-1])
