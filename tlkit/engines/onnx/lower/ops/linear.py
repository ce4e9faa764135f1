"""Matrix products and attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tlkit.engines.onnx.kit.graph import BOOL, F32, GraphValue, OnnxGraph, UnsupportedGraph
from tlkit.engines.onnx.kit.registry import lowers
from tlkit.engines.onnx.lower.ops.kit import need_floats, swapped
from tlkit.mil.ops import linear as mil
from tlkit.mil.ops import transformers


@lowers(mil.linear)
def linear(g: OnnxGraph, x: GraphValue, weight: GraphValue, bias: GraphValue | None = None) -> GraphValue:
    """x times the transposed weight, plus bias."""
    need_floats(x, weight, bias)
    product = g.op("MatMul", x, swapped(g, weight, 2))
    if bias is None or (bias.array is not None and not bias.array.any()):
        return product
    return g.op("Add", product, bias)


@lowers(mil.matmul)
def matmul(
    g: OnnxGraph, output_types: Any, x: GraphValue, y: GraphValue, transpose_x: bool = False, transpose_y: bool = False
) -> GraphValue:
    """The product over the last two axes."""
    need_floats(x, y)
    left = swapped(g, x, x.rank) if transpose_x and x.rank > 1 else x
    right = swapped(g, y, y.rank) if transpose_y and y.rank > 1 else y
    return g.op("MatMul", left, right)


@lowers(mil.einsum)
def einsum(g: OnnxGraph, values: Sequence[GraphValue], equation: str) -> GraphValue:
    """The product that ``equation`` describes."""
    need_floats(*values)
    sizes: dict[str, int] = {}
    for term, value in zip(equation.replace(" ", "").partition("->")[0].split(","), values, strict=True):
        for letter, size in zip(term, value.known, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise UnsupportedGraph("an einsum that broadcasts")
    return g.op("Einsum", *values, equation=equation)


@lowers(transformers.scaled_dot_product_attention)
def attention(
    g: OnnxGraph, query: GraphValue, key: GraphValue, value: GraphValue, attn_mask: GraphValue | None = None
) -> GraphValue:
    """softmax(query @ key^T / sqrt(E) + attn_mask) @ value."""
    need_floats(query, key, value)
    scaled = g.op("Mul", query, 1 / math.sqrt(query.known[-1]))
    scores = g.op("MatMul", scaled, swapped(g, key, key.rank))
    if attn_mask is not None and attn_mask.dtype == BOOL:
        scores = g.op("Where", attn_mask, scores, g.constant(np.array(-np.inf, np.float32)), dtype=F32)
    elif attn_mask is not None:
        scores = g.op("Add", scores, attn_mask)
    return g.op("MatMul", g.op("Softmax", scores, axis=-1), value)
