"""Attention over cached keys: masks, and grouped heads without copies of keys and values."""

from __future__ import annotations

from collections.abc import Sequence

from tlkit.frontends.gguf.kit.cache import Part
from tlkit.frontends.gguf.kit.net import Net
from tlkit.frontends.network.kit.blob import Blob
from tlkit.mil.types import DType

_HIDDEN = {DType.FP32: -1e30, DType.FP16: -3e4}
"""What is added to the scores of hidden keys: their share is exactly 0 after the softmax."""


def mask(net: Net, positions: Blob, keys: Blob, window: int, copies: int) -> Blob:
    """Return what to add to scores, [1, 1, copies * T, S]: keys after a token are hidden, and with a ``window`` those
    that lie so many positions or more before it. ``copies``: how many heads share a group's keys.
    """
    graph = net.graph
    count, span = positions.shape[0] or 0, keys.shape[0] or 0
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
    added = net.multiply(net.add(shown, -1.0), -_HIDDEN[net.dtype])
    tiled = added if copies == 1 else net.op("tile", (copies * count, span), x=added, reps=[copies, 1])
    return net.reshape(tiled, 1, 1, copies * count, span)


def attended(net: Net, queries: Blob, parts: Sequence[Part], hidden: Blob | None, scale: float, cap: float) -> Blob:
    """Return the heads' results side by side, [T, heads * value size], for queries [1, heads, T, key size].

    Heads that share keys are rows of one matrix, so that no key is copied.
    """
    _, heads, count, size = (d or 0 for d in queries.shape)
    groups = parts[0][0].shape[1] or 0
    rows = heads // groups * count
    grouped = net.reshape(net.multiply(queries, scale), 1, groups, rows, size)
    lengths = [keys.shape[2] or 0 for keys, _ in parts]
    scores = [
        net.op("matmul", (1, groups, rows, length), x=grouped, y=keys, transpose_x=False, transpose_y=True)
        for (keys, _), length in zip(parts, lengths, strict=True)
    ]
    whole = scores[0] if len(scores) == 1 else net.concat(scores, 3)
    whole = net.capped(whole, cap)
    whole = whole if hidden is None else net.add(whole, hidden)
    shares = net.op("softmax", (1, groups, rows, sum(lengths)), x=whole, axis=-1)
    made, start = None, 0
    for (_, values), length in zip(parts, lengths, strict=True):
        wide = values.shape[3] or 0
        part = net.slice(shares, 3, start, start + length)
        start += length
        product = net.op("matmul", (1, groups, rows, wide), x=part, y=values, transpose_x=False, transpose_y=False)
        made = product if made is None else net.add(made, product)
    assert made is not None  # there is at least one part
    wide = made.shape[3] or 0
    apart = net.reshape(made, heads, count, wide)
    return net.reshape(net.transpose(apart, 1, 0, 2), count, heads * wide)
