"""An encoder as one MIL function: a text's tokens in, a vector for each out.

Each part's result is added to what went in and normalized after that, as llama.cpp's ``bert.cpp`` has it.
"""

from __future__ import annotations

import math

import numpy as np

from tlkit.errors import LoadError
from tlkit.frontends.gguf.decoder import OPSET, projected
from tlkit.frontends.gguf.kit.attention import attended
from tlkit.frontends.gguf.kit.family import Family
from tlkit.frontends.gguf.kit.feed_forward import feed_forward
from tlkit.frontends.gguf.kit.hyperparameters import Hyperparameters
from tlkit.frontends.gguf.kit.net import Net
from tlkit.frontends.gguf.kit.norms import normalized
from tlkit.frontends.gguf.kit.rotary import rotated, turned
from tlkit.frontends.gguf.kit.source import LanguageSource
from tlkit.frontends.network.kit.blob import Blob
from tlkit.mil.program import Block, Function, NamedType, TensorType
from tlkit.mil.types import DType


def encoder(source: LanguageSource, sizes: Hyperparameters, family: Family, count: int) -> Function:
    """Return the function for texts of ``count`` tokens: ``tokens`` [1, T] in, ``vectors`` [T, width] out."""
    net = Net(source, family)
    net.taken.update(("tokens", "vectors"))
    net.title("input")
    ids = net.graph.op("reshape", (count,), out=DType.INT32, x=Blob("tokens", (1, count)), shape=[count])
    positions = net.constant("positions", np.arange(count, dtype=np.int32))
    x = _embedded(net, sizes, ids, positions, count)
    turn = turned(net, sizes, count, positions) if family.rotates else None
    bias = _falling(net, sizes, count) if family.biases else None
    for layer in range(sizes.layers):
        block = f"blk.{layer}"
        net.title(f"layer_{layer}")
        queries, keys, values = projected(net, sizes, x, block)
        if turn is not None:
            queries, keys = (rotated(net, part, turn, sizes.rotary) for part in (queries, keys))
        made = attended(net, queries, keys, values, bias, 1 / math.sqrt(sizes.key_size), 0.0)
        made = net.linear(made, f"{block}.attn_output", sizes.width, sizes.heads * sizes.value_size)
        inner = normalized(net, net.add(made, x), f"{block}.attn_output_norm", sizes.epsilon)
        if net.has(f"{block}.attn_norm_2.weight"):
            inner = normalized(net, net.add(inner, x), f"{block}.attn_norm_2", sizes.epsilon)
        made = feed_forward(net, inner, block, sizes, family)
        x = normalized(net, net.add(made, inner), f"{block}.layer_output_norm", sizes.epsilon)
    start = len(net.graph.operations)
    made = net.op("identity", (count, sizes.width), x=x)
    net.taken.discard("vectors")
    net.graph.settle(start, {made.name: "vectors"})
    net.check_used()
    inputs = (NamedType("tokens", TensorType(DType.INT32, (1, count))),)
    return Function(inputs, OPSET, {OPSET: Block((), ("vectors",), tuple(net.graph.operations))})


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
