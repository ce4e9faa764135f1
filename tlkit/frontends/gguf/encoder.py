"""An encoder as one MIL function: a text's tokens in, a vector for each out.

Each part's result is added to what went in and normalized after that, as llama.cpp's ``bert.cpp`` has it.
"""

from __future__ import annotations

import math

import numpy as np

from tlkit.errors import LoadError
from tlkit.frontends.gguf.decoder import OPSET, Form, projected
from tlkit.frontends.gguf.kit.attention import HIDDEN, attended
from tlkit.frontends.gguf.kit.family import Family
from tlkit.frontends.gguf.kit.feed_forward import feed_forward
from tlkit.frontends.gguf.kit.hyperparameters import Hyperparameters
from tlkit.frontends.gguf.kit.net import Net
from tlkit.frontends.gguf.kit.norms import normalized
from tlkit.frontends.gguf.kit.rotary import Turned, rotated, turned
from tlkit.frontends.gguf.kit.source import LanguageSource
from tlkit.frontends.network.kit.blob import Blob
from tlkit.mil.program import Block, Function, NamedType, TensorType
from tlkit.mil.types import DType


def encoder(source: LanguageSource, sizes: Hyperparameters, family: Family, form: Form) -> Function:
    """Return the function for texts of ``form.tokens`` tokens: ``tokens`` [1, T] in, ``vectors`` [T, width] out.

    With ``form.padded`` texts may be shorter: ``count`` [1] says how many tokens are the text's, the others are hidden
    from them; and ``vector`` [1, width] is the text's own, of length 1, pooled as the model says."""
    net, count = Net(source, family, form.dtype, form.compressed, form.nested, form.rounding), form.tokens
    net.taken.update(("tokens", "vectors", "count", "vector"))
    net.title("input")
    ids = net.graph.op("reshape", (count,), out=DType.INT32, x=Blob("tokens", (1, count)), shape=[count])
    positions = net.constant("positions", np.arange(count, dtype=np.int32))
    shown = _shown(net, positions) if form.padded else None
    x = _embedded(net, sizes, ids, positions, count)
    turn = turned(net, sizes, count, positions) if family.rotates else None
    bias = _bias(net, _falling(net, sizes, count) if family.biases else None, shown)
    for layer in range(sizes.layers):
        x = _layer(net, sizes, family, x, f"blk.{layer}", turn, bias)
    start = len(net.graph.operations)
    net.title("head")
    made = {net.op("identity", (count, sizes.width), x=x).name: "vectors"}
    if shown is not None:
        made[_pooled(net, sizes, x, shown).name] = "vector"
    net.taken -= {"vectors", "vector"}
    net.graph.settle(start, made)
    net.check_used()
    inputs = [NamedType("tokens", TensorType(DType.INT32, (1, count)))]
    inputs += [NamedType("count", TensorType(DType.INT32, (1,)))] if form.padded else []
    return Function(tuple(inputs), OPSET, {OPSET: Block((), tuple(made.values()), tuple(net.graph.operations))})


def _layer(
    net: Net, sizes: Hyperparameters, family: Family, x: Blob, block: str, turn: Turned | None, bias: Blob | None
) -> Blob:
    """Return one layer's result: attention, then feed-forward, each added to what went in and normalized."""
    net.title(block.replace("blk.", "layer_"))
    queries, keys, values = projected(net, sizes, x, block)
    if turn is not None:
        queries, keys = (rotated(net, part, turn, sizes.rotary) for part in (queries, keys))
    made = attended(net, queries, keys, values, bias, 1 / math.sqrt(sizes.key_size), 0.0)
    made = net.linear(made, f"{block}.attn_output", sizes.width, sizes.heads * sizes.value_size)
    inner = normalized(net, net.add(made, x), f"{block}.attn_output_norm", sizes.epsilon)
    if net.has(f"{block}.attn_norm_2.weight"):
        inner = normalized(net, net.add(inner, x), f"{block}.attn_norm_2", sizes.epsilon)
    made = feed_forward(net, inner, block, sizes, family)
    return normalized(net, net.add(made, inner), f"{block}.layer_output_norm", sizes.epsilon)


def _shown(net: Net, positions: Blob) -> Blob:
    """Return 1 for the text's own tokens and 0 for those behind, [T]."""
    own = net.graph.op("less", positions.shape, out=DType.BOOL, x=positions, y=Blob("count", (1,)))
    return net.graph.cast(own, net.dtype, DType.BOOL)


def _bias(net: Net, falling: Blob | None, shown: Blob | None) -> Blob | None:
    """Return what is added to scores: what falls with distance, and what hides the tokens behind the text."""
    if shown is None:
        return falling
    hidden = net.multiply(net.add(shown, -1.0), -HIDDEN[net.dtype])
    wide = net.reshape(hidden, 1, 1, 1, shown.shape[0])
    return wide if falling is None else net.add(falling, wide)


def _pooled(net: Net, sizes: Hyperparameters, x: Blob, shown: Blob) -> Blob:
    """Return a text's vector [1, width], of length 1: its first token's, its last one's, or the mean."""
    width = sizes.width
    if sizes.pooling == 2:
        made = net.slice(x, 0, 0, 1)
    elif sizes.pooling == 3:
        last = net.graph.op("sub", (1,), out=DType.INT32, x=Blob("count", (1,)), y=1)
        made = net.op("gather", (1, width), x=x, indices=last, axis=0)
    else:
        total = net.op("reduce_sum", (1,), x=shown, axes=[0], keep_dims=True)
        shares = net.reshape(net.op("real_div", shown.shape, x=shown, y=total), 1, shown.shape[0])
        made = net.op("matmul", (1, width), x=shares, y=x, transpose_x=False, transpose_y=False)
    length = net.op("reduce_l2_norm", (1, 1), x=made, axes=[1], keep_dims=True)
    return net.op("real_div", (1, width), x=made, y=length)


def _embedded(net: Net, sizes: Hyperparameters, ids: Blob, positions: Blob, count: int) -> Blob:
    """Return the vectors of tokens, of the first kind of text, and of positions, added and normalized."""
    source, width = net.source, sizes.width
    table = net.weight(source.tensor("token_embd.weight", (-1, width)))
    x = net.op("gather", (count, width), x=table, indices=ids, axis=0)
    if net.has("token_types.weight"):
        kinds = net.weight(source.tensor("token_types.weight", (-1, width)))
        x = net.add(x, net.slice(kinds, 0, 0, 1))
    if net.has("position_embd.weight"):
        places = source.tensor("position_embd.weight", (-1, width))
        if places.shape[0] < count:
            said = f"{source.path}: the text has {count} tokens, and the model {places.shape[0]} positions"
            raise LoadError(said, "give it a shorter text")
        x = net.add(x, net.op("gather", (count, width), x=net.weight(places), indices=positions, axis=0))
    return normalized(net, x, "token_embd_norm", sizes.epsilon)


def _falling(net: Net, sizes: Hyperparameters, count: int) -> Blob:
    """Return ALiBi's addition to scores [1, heads, T, T]: each head's slope times the distance, below 0."""
    whole = 1 << (sizes.heads.bit_length() - 1)
    first, second = 2 ** (-sizes.max_bias / whole), 2 ** (-sizes.max_bias / 2 / whole)
    slopes = [first ** (h + 1) if h < whole else second ** (2 * (h - whole) + 1) for h in range(sizes.heads)]
    places = np.arange(count)
    distance = np.abs(places[:, None] - places[None, :])
    bias = -np.array(slopes)[:, None, None] * distance
    return net.constant("alibi", bias.astype(np.float32)[None])
