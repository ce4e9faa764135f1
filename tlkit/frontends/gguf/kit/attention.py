"""Attention over cached keys: masks, and grouped heads without copies of keys and values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tlkit.frontends.gguf.kit.net import Net
from tlkit.frontends.network.kit.blob import Blob
from tlkit.mil.types import DType

HIDDEN = {DType.FP32: -1e30, DType.FP16: -3e4}
"""What is added to the scores of hidden keys: their share is exactly 0 after the softmax."""


def mask(net: Net, positions: Blob, keys: Blob, window: int, copies: int) -> Blob:
    """Return what to add to scores, [1, 1, copies * T, S]: keys after a token are hidden, and with a ``window`` those
    that lie so many positions or more before it. ``copies``: how many heads share a group's keys.
    """
    graph = net.graph
    (count,), (span,) = positions.shape, keys.shape
    net.title(f"mask_{window}" if window else "mask")
    rows = graph.op("expand_dims", (count, 1), out=DType.INT32, x=positions, axes=[1])
    columns = graph.op("expand_dims", (1, span), out=DType.INT32, x=keys, axes=[0])
    seen = graph.op("less_equal", (count, span), out=DType.BOOL, x=columns, y=rows)
    if window:
        first = graph.op("sub", (count, 1), out=DType.INT32, x=rows, y=window)
        near = graph.op("greater", (count, span), out=DType.BOOL, x=columns, y=first)
        seen = graph.op("logical_and", (count, span), out=DType.BOOL, x=seen, y=near)
    # 0 where seen, by arithmetic: coremltools takes a select between two scalars for a scalar.
    shown = graph.cast(seen, net.dtype, DType.BOOL)
    added = net.multiply(net.add(shown, -1.0), -HIDDEN[net.dtype])
    tall = _rows(copies, count)
    tiled = added if copies == 1 else net.op("tile", (tall, span), x=added, reps=[copies, 1])
    return net.op("expand_dims", (1, 1, tall, span), x=tiled, axes=[0, 1])


def attended(net: Net, queries: Blob, keys: Blob, values: Blob, hidden: Blob | None, scale: float, cap: float) -> Blob:
    """Return the heads' results side by side, [T, heads * value size], for queries [1, heads, T, key size].

    Heads that share keys are rows of one matrix, so that no key is copied.
    """
    heads, groups = queries.shape[1] or 0, keys.shape[1] or 0
    count, size = queries.shape[2:]
    rows, span, wide = _rows(heads // groups, count), keys.shape[2], values.shape[3]
    grouped = net.reshape(net.multiply(queries, scale), 1, groups, rows, size)
    scores = net.op("matmul", (1, groups, rows, span), x=grouped, y=keys, transpose_x=False, transpose_y=True)
    whole = net.capped(scores, cap)
    whole = whole if hidden is None else net.add(whole, hidden)
    shares = net.op("softmax", (1, groups, rows, span), x=whole, axis=-1)
    made = net.op("matmul", (1, groups, rows, wide), x=shares, y=values, transpose_x=False, transpose_y=False)
    return _beside(net, net.reshape(made, heads, count, wide))


def attended_at_once(net: Net, queries: Blob, keys: Blob, values: Blob, hidden: Blob, scale: float) -> Blob:
    """Return what :func:`attended` does, as one operation on keys repeated for the heads that share them: engines
    know that as a whole, and repeat nothing."""
    heads, size = queries.shape[1] or 0, queries.shape[3] or 1
    # The operation itself divides by the root of the size.
    factor = float(np.float32(scale * math.sqrt(size)))
    queries = queries if factor == 1 else net.multiply(queries, factor)
    both = [_repeated(net, part, heads) for part in (keys, values)]
    shape = (*queries.shape[:3], values.shape[3])
    given: dict[str, Any] = {"query": queries, "key": both[0], "value": both[1], "attn_mask": hidden}
    made = net.op("scaled_dot_product_attention", shape, **given)
    return _beside(net, net.op("squeeze", shape[1:], x=made, axes=[0]))


def _repeated(net: Net, part: Blob, heads: int) -> Blob:
    """Return keys or values [1, groups, S, size] as [1, heads, S, size]."""
    _, groups, span, size = part.shape
    copies = heads // (groups or 1)
    if copies == 1:
        return part
    apart = net.op("expand_dims", (1, groups, 1, span, size), x=part, axes=[2])
    many = net.op("tile", (1, groups, copies, span, size), x=apart, reps=[1, 1, copies, 1, 1])
    return net.reshape(many, 1, heads, span, size)


def _beside(net: Net, made: Blob) -> Blob:
    """Return [heads, T, size] as [T, heads * size]."""
    heads, count, wide = made.shape
    return net.reshape(net.transpose(made, 1, 0, 2), count, (heads or 0) * (wide or 0))


def _rows(copies: int, count: int | None) -> int | None:
    return None if count is None else copies * count
