"""A decoder as one MIL function: some tokens in, the logits of what follows out, keys and values cached.

All architectures go through this module; what they differ in is their :class:`Family`, and which tensors they have.
Functions of one model differ in the number of tokens and of cached rows, and share the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tlkit.errors import LoadError
from tlkit.formats.gguf.model.changes import Change
from tlkit.frontends.gguf.kit.attention import attended, attended_at_once, mask
from tlkit.frontends.gguf.kit.cache import Cache, GrowingCache, StateCache
from tlkit.frontends.gguf.kit.family import Family
from tlkit.frontends.gguf.kit.feed_forward import feed_forward
from tlkit.frontends.gguf.kit.hyperparameters import Hyperparameters
from tlkit.frontends.gguf.kit.net import Net
from tlkit.frontends.gguf.kit.norms import normalized
from tlkit.frontends.gguf.kit.rotary import Turned, rotated, turned
from tlkit.frontends.gguf.kit.rounding import Rounding
from tlkit.frontends.gguf.kit.source import LanguageSource
from tlkit.frontends.network.kit.blob import Blob
from tlkit.mil.program import Block, Function, NamedType, TensorType
from tlkit.mil.types import DType

OPSET = "CoreML8"
"""iOS18: states, and weights in blocks."""

Returns = Literal["logits", "argmax"]
"""What a function returns: logits, or the likeliest token."""


@dataclass(frozen=True, slots=True)
class Form:
    """One function: ``tokens`` per call (the last of which may be padding), of a cache of ``context`` rows those that
    are attended to (``rows``), the logits of which tokens, how the cache is kept, and what is computed in. A growing
    cache leaves the numbers of tokens and rows open."""

    tokens: int
    context: int
    rows: int
    logits: Literal["last", "all"] = "last"
    cache: Literal["states", "growing"] = "states"
    dtype: DType = DType.FP32
    stored: DType = DType.FP32
    """What the cache holds; Core ML's states hold f16."""
    compressed: bool = False
    """Whether weights stay in the file's blocks, as far as that is exact."""
    nested: bool = False
    """Whether they do so where it takes one constexpr inside another."""
    rounding: Rounding | None = None
    """What weights are rounded to; None rounds none."""
    returns: Returns = "logits"
    padded: bool = False
    """Of an encoder: whether texts may have fewer tokens."""


def decoder(source: LanguageSource, sizes: Hyperparameters, family: Family, form: Form) -> Function:
    """Return the function of ``form``: ``tokens`` [1, T] and ``position`` [1] (of the first token) in, and where T > 1
    and only the last token's logits are wanted, ``last`` [1] (its place); ``logits`` [1 or T, vocabulary] out, or the
    likeliest ``token`` [1 or T].

    With a growing cache: the tokens' ``vectors`` [T, width] (rows of the table, which thus need not be in memory), the
    ``positions`` [T] of these and ``places`` [P + T] of all tokens, and ``last`` [N], whose logits are wanted."""
    return _Decoder(source, sizes, family, form).function()


class _Decoder:
    def __init__(self, source: LanguageSource, sizes: Hyperparameters, family: Family, form: Form) -> None:
        self.source, self.sizes, self.family, self.form = source, sizes, family, form
        self.net = Net(source, family, form.dtype, form.compressed, form.nested, form.rounding)
        self._turns: dict[bool, Turned] = {}
        self._masks: dict[int, Blob] = {}

    def function(self) -> Function:
        net, form = self.net, self.form
        inputs = self.opened() if form.cache == "growing" else self.fixed()
        net.title("input")
        x = self.embedded()
        for layer in range(self.sizes.layers):
            x = self.layer(x, layer)
        net.title("head")
        if inputs[-1].name == "last":
            count = None if form.cache == "growing" else 1
            x = net.op("gather", (count, self.sizes.width), x=x, indices=Blob("last", (count,)), axis=0)
        logits = self.head(normalized(net, x, "output_norm", self.sizes.epsilon))
        returned = self.returned(logits)
        net.check_used()
        outputs = (returned, *self.cache.outputs)
        block = Block((), outputs, tuple(net.graph.operations))
        return Function((*inputs, *self.cache.inputs), OPSET, {OPSET: block})

    def returned(self, logits: Blob) -> str:
        """Add what the function returns; return its name."""
        net, start = self.net, len(self.net.graph.operations)
        if self.form.returns == "argmax":
            best: dict[str, Any] = {"axis": -1, "keep_dims": False}
            made, name = net.graph.op("reduce_argmax", logits.shape[:1], out=DType.INT32, x=logits, **best), "token"
        else:
            made, name = net.graph.op("identity", logits.shape, out=self.form.dtype, x=logits), "logits"
        net.taken.discard(name)
        net.graph.settle(start, {made.name: name})
        return name

    def fixed(self) -> list[NamedType]:
        """Begin a function of a fixed number of tokens; return its inputs."""
        net, form, count = self.net, self.form, self.form.tokens
        inputs = [_int32("tokens", 1, count), _int32("position", 1)]
        inputs += [_int32("last", 1)] if form.logits == "last" and count > 1 else []
        net.taken.update(("logits", "token", *(item.name for item in inputs)))
        position = Blob("position", (1,))
        net.title("input")
        ids = net.graph.op("reshape", (count,), out=DType.INT32, x=Blob("tokens", (1, count)), shape=[count])
        steps = net.constant("steps", np.arange(count, dtype=np.int32), DType.INT32)
        self.positions = net.graph.op("add", (count,), out=DType.INT32, x=steps, y=position)
        self.cache: Cache = StateCache(net, self.sizes, form.context, form.rows, count, position, form.stored)
        self.keys = self.cache.key_positions()
        table = self.source.tensor("token_embd.weight", (-1, self.sizes.width))
        net.title("input")
        self.vectors = net.op("gather", (count, self.sizes.width), x=net.weight(table), indices=ids, axis=0)
        return inputs

    def opened(self) -> list[NamedType]:
        """Begin a function of any number of tokens; return its inputs."""
        net, width = self.net, self.sizes.width
        self.source.tensor("token_embd.weight", (-1, width))
        net.use("token_embd.weight")
        inputs = [NamedType("vectors", TensorType(net.dtype, (None, width)))]
        inputs += [_int32(name, None) for name in ("positions", "places", "last")]
        net.taken.update(("logits", "token", *(item.name for item in inputs)))
        self.vectors, self.positions = Blob("vectors", (None, width)), Blob("positions", (None,))
        self.keys = Blob("places", (None,))
        self.cache = GrowingCache(net, self.sizes, self.keys, self.form.stored)
        return inputs

    def embedded(self) -> Blob:
        """Return what the first layer takes [T, width]."""
        net, (count, width), x = self.net, self.vectors.shape, self.vectors
        if self.family.scaled:
            x = net.multiply(x, _f32_root(self.sizes.width))
        if net.has("position_embd.weight"):
            places = self.source.tensor("position_embd.weight", (-1, self.sizes.width))
            if places.shape[0] < self.form.context:
                said = f"{self.source.path}: it has {places.shape[0]} positions, and the context is {self.form.context}"
                raise LoadError(said, f"choose --context {places.shape[0]} or less")
            at = net.op("gather", (count, width), x=net.weight(places), indices=self.positions, axis=0)
            x = net.add(x, at)
        return x

    def layer(self, x: Blob, layer: int) -> Blob:
        """Return one layer's result: attention, then feed-forward, each added to what went in."""
        net, block, epsilon = self.net, f"blk.{layer}", self.sizes.epsilon
        net.title(f"layer_{layer}")
        made = self.attention(normalized(net, x, f"{block}.attn_norm", epsilon), layer)
        if net.has(f"{block}.post_attention_norm.weight"):
            made = normalized(net, made, f"{block}.post_attention_norm", epsilon)
        x = net.add(x, made)
        made = feed_forward(net, normalized(net, x, f"{block}.ffn_norm", epsilon), block, self.sizes, self.family)
        if net.has(f"{block}.post_ffw_norm.weight"):
            made = normalized(net, made, f"{block}.post_ffw_norm", epsilon)
        return net.add(x, made)

    def attention(self, x: Blob, layer: int) -> Blob:
        """Return the attention of normalized x [T, width]."""
        net, sizes, block = self.net, self.sizes, f"blk.{layer}"
        queries, keys, values = projected(net, sizes, x, block)
        window = self.window(layer)
        local = bool(window) and self.family.local_rotation
        if self.family.rotates:
            if local not in self._turns:
                net.title("rotary")
                self._turns[local] = turned(net, sizes, self.form.context, self.positions, local=local)
                net.title(f"layer_{layer}")
            queries, keys = (rotated(net, part, self._turns[local], sizes.rotary) for part in (queries, keys))
        at_once = self.form.cache == "growing" and not sizes.attention_cap
        if window not in self._masks:
            copies = 1 if at_once else sizes.heads // sizes.groups
            self._masks[window] = mask(net, self.positions, self.keys, window, copies)
            net.title(f"layer_{layer}")
        keys, values = self.cache.update(layer, keys, values)
        if at_once:
            made = attended_at_once(net, queries, keys, values, self._masks[window], self.scale())
        else:
            made = attended(net, queries, keys, values, self._masks[window], self.scale(), sizes.attention_cap)
        return net.linear(made, f"{block}.attn_output", sizes.width, sizes.heads * sizes.value_size)

    def window(self, layer: int) -> int:
        """Return how many tokens a layer sees, 0 for all."""
        sizes, family = self.sizes, self.family
        size = sizes.window if sizes.own_window is None else sizes.own_window
        if sizes.sliding:
            return size if layer < len(sizes.sliding) and sizes.sliding[layer] else 0
        if family.full_every:
            return sizes.window if (layer + 1) % family.full_every else 0
        return size if family.windowed or sizes.own_window is not None else 0

    def scale(self) -> float:
        """Return what scores are multiplied with."""
        sizes = self.sizes
        usual = sizes.width / sizes.heads if self.family.odd_layers == sizes.layers else sizes.key_size
        return float(1 / math.sqrt(sizes.query_scalar or usual))

    def head(self, x: Blob) -> Blob:
        """Return the logits; without a matrix of their own they are the products with the embeddings."""
        net = self.net
        name = "output.weight" if net.has("output.weight") else "token_embd.weight"
        weight = self.source.tensor(name, (-1, self.sizes.width))
        bias = self.source.tensor("output.bias", (weight.shape[0],)) if net.has("output.bias") else None
        return net.capped(net.product(x, weight, bias), self.sizes.final_cap)


def projected(net: Net, sizes: Hyperparameters, x: Blob, block: str) -> tuple[Blob, Blob, Blob]:
    """Return queries, keys and values of x [T, width], [1, heads or groups, T, size] each."""
    count = x.shape[0]
    rows = [sizes.heads * sizes.key_size, sizes.groups * sizes.key_size, sizes.groups * sizes.value_size]
    if net.has(f"{block}.attn_qkv.weight"):
        whole = net.linear(x, f"{block}.attn_qkv", sum(rows), sizes.width)
        ends = [rows[0], rows[0] + rows[1], sum(rows)]
        parts = [net.slice(whole, 1, end - size, end) for end, size in zip(ends, rows, strict=True)]
    else:
        names = ("attn_q", "attn_k", "attn_v")
        parts = [_unpaired(net, sizes, x, f"{block}.{n}", size) for n, size in zip(names, rows, strict=True)]
    made = []
    heads = (sizes.heads, sizes.groups, sizes.groups)
    for part, name, number in zip(parts, ("attn_q_norm", "attn_k_norm", ""), heads, strict=True):
        size = (part.shape[1] or 0) // number
        normed = bool(name) and net.has(f"{block}.{name}.weight")
        # Over the whole width before it is cut into heads, or over each head.
        wide = normed and net.source.tensor(f"{block}.{name}.weight").shape != (size,)
        part = normalized(net, part, f"{block}.{name}", sizes.epsilon) if wide else part
        part = net.reshape(part, 1, count, number, size)
        part = normalized(net, part, f"{block}.{name}", sizes.epsilon) if normed and not wide else part
        made.append(net.transpose(part, 0, 2, 1, 3))
    return made[0], made[1], made[2]


def _unpaired(net: Net, sizes: Hyperparameters, x: Blob, name: str, rows: int) -> Blob:
    """Return x times a matrix of q, k or v; rows that GGUF pairs are put back in halves."""
    source, family, short = net.source, net.family, name.rpartition(".")[2]
    weight = source.tensor(f"{name}.weight", (rows, sizes.width))
    bias = source.tensor(f"{name}.bias", (rows,)) if net.is_biased(name) else None
    if family.pairs and short != "attn_v":
        back = (
            Change("q rows", sizes.heads, back=True) if short == "attn_q" else Change("k rows", sizes.groups, back=True)
        )
        weight, bias = weight.changed(back), None if bias is None else bias.changed(back)
    return net.product(x, weight, bias)


def _int32(name: str, *shape: int | None) -> NamedType:
    return NamedType(name, TensorType(DType.INT32, shape))


def _f32_root(width: int) -> float:
    """Return sqrt(width) as float32, as llama.cpp and transformers in f32 have it."""
    return float(np.float32(np.sqrt(np.float32(width))))
