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

_WAYS = ("few", "many")
_LAST, _WANTED = Blob("last", (None,)), Blob("wanted", (None,))

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
    ``positions`` [T] of these, ``last`` [N], of which the last layer computes more than keys and values, and of these
    those whose logits are ``wanted``. ``few`` and ``many`` say which of the tokens go which way
    (:class:`GrowingCache`), and ``few_last`` and ``many_last`` which of the last ones: all, counted from 0, and none.
    ``few_places`` [P + T] and ``many_places`` are the positions of all keys of that way, earlier ones among them."""
    return _Decoder(source, sizes, family, form).function()


class _Decoder:
    def __init__(self, source: LanguageSource, sizes: Hyperparameters, family: Family, form: Form) -> None:
        self.source, self.sizes, self.family, self.form = source, sizes, family, form
        self.net = Net(source, family, form.dtype, form.compressed, form.nested, form.rounding)
        self._turns: dict[bool, Turned] = {}
        self._masks: dict[tuple[int, str, Blob | None], Blob] = {}
        self._keys: dict[str, Blob] = {}  # of each way: their positions

    def function(self) -> Function:
        net, form = self.net, self.form
        inputs = self.opened() if form.cache == "growing" else self.fixed()
        net.title("input")
        x = self.embedded()
        for layer in range(self.sizes.layers):
            x = self.layer(x, layer)
        net.title("head")
        if form.cache == "growing" or inputs[-1].name == "last":
            wanted = _WANTED if form.cache == "growing" else Blob("last", (1,))
            x = net.op("gather", (*wanted.shape, self.sizes.width), x=x, indices=wanted, axis=0)
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
        self._keys[""] = self.cache.key_positions()
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
        names = [f"{way}{part}" for way in _WAYS for part in ("", "_last", "_places")]
        inputs += [_int32(name, None) for name in ("positions", "last", "wanted", *names)]
        net.taken.update(("logits", "token", *(item.name for item in inputs)))
        self.vectors, self.positions = Blob("vectors", (None, width)), Blob("positions", (None,))
        self._keys.update((way, Blob(f"{way}_places", (None,))) for way in _WAYS)
        self.cache = GrowingCache(net, self.sizes, self.form.stored)
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
        """Return one layer's result: attention, then feed-forward, each added to what went in. The last one's of a
        growing cache has rows for the last tokens only."""
        net, block, epsilon = self.net, f"blk.{layer}", self.sizes.epsilon
        net.title(f"layer_{layer}")
        asked = self.form.cache == "growing" and layer == self.sizes.layers - 1
        made = self.attention(normalized(net, x, f"{block}.attn_norm", epsilon), layer, _LAST if asked else None)
        x = net.op("gather", (None, self.sizes.width), x=x, indices=_LAST, axis=0) if asked else x
        if net.has(f"{block}.post_attention_norm.weight"):
            made = normalized(net, made, f"{block}.post_attention_norm", epsilon)
        x = net.add(x, made)
        made = feed_forward(net, normalized(net, x, f"{block}.ffn_norm", epsilon), block, self.sizes, self.family)
        if net.has(f"{block}.post_ffw_norm.weight"):
            made = normalized(net, made, f"{block}.post_ffw_norm", epsilon)
        return net.add(x, made)

    def attention(self, x: Blob, layer: int, asked: Blob | None) -> Blob:
        """Return the attention of normalized x [T, width]; of the rows ``asked`` [N] only, where these are given."""
        net, sizes, block = self.net, self.sizes, f"blk.{layer}"
        queries, keys, values = projected(net, sizes, x, block, asked)
        if self.family.rotates:
            queries = self.rotated(queries, layer, asked)
            keys = self.rotated(keys, layer, None)
        made = self.attended(layer, queries, keys, values, asked)
        return net.linear(made, f"{block}.attn_output", sizes.width, sizes.heads * sizes.value_size)

    def rotated(self, x: Blob, layer: int, asked: Blob | None) -> Blob:
        """Return queries or keys turned by their positions; the turns are made once for all layers alike."""
        net, local = self.net, bool(self.window(layer)) and self.family.local_rotation
        if local not in self._turns:
            net.title("rotary")
            self._turns[local] = turned(net, self.sizes, self.form.context, self.positions, local=local)
            net.title(f"layer_{layer}")
        turn = self._turns[local]
        if asked is not None:
            shape = (1, 1, None, self.sizes.rotary)
            both = (net.op("gather", shape, x=x, indices=asked, axis=2) for x in (turn.cosine, turn.sine))
            turn = Turned(*both)
        return rotated(net, x, turn, self.sizes.rotary)

    def chosen(self, positions: Blob, rows: Blob) -> Blob:
        """Return some of the positions."""
        return self.net.graph.op("gather", (None,), out=DType.INT32, x=positions, indices=rows, axis=0)

    def attended(self, layer: int, queries: Blob, keys: Blob, values: Blob, asked: Blob | None) -> Blob:
        """Return the heads' results side by side, [T or N, heads * value size]; this call's keys and values are
        cached."""
        net, cap, cache = self.net, self.sizes.attention_cap, self.cache
        if isinstance(cache, StateCache):
            hidden = self.mask(layer)
            keys, values = cache.update(layer, keys, values)
            return attended(net, queries, keys, values, hidden, self.scale(), cap)
        assert isinstance(cache, GrowingCache)
        made = []
        for way in _WAYS:
            hidden = self.mask(layer, way, asked)
            rows = _rows(way, asked), _rows(way), _rows(way)
            own, *new = (
                net.op("gather", (*part.shape[:2], None, part.shape[3]), x=part, indices=indices, axis=2)
                for part, indices in zip((queries, keys, values), rows, strict=True)
            )
            held = cache.update(layer, *new, many=way == "many")
            if self.at_once(way):
                made.append(attended_at_once(net, own, *held, hidden, self.scale()))
            else:
                made.append(attended(net, own, *held, hidden, self.scale(), cap))
        return net.concat(made, 0)

    def at_once(self, way: str) -> bool:
        """Whether attention is one operation, which an engine knows as a whole, cache and all."""
        return way == "few" and not self.sizes.attention_cap

    def mask(self, layer: int, way: str = "", asked: Blob | None = None) -> Blob:
        """Return what hides keys from the tokens of a way, or from those asked; made once for all layers alike."""
        key = (self.window(layer), way, asked)
        if key not in self._masks:
            self.net.title("mask")
            positions = self.positions if asked is None else self.chosen(self.positions, asked)
            positions = self.chosen(positions, _rows(way, asked)) if way else positions
            copies = 1 if self.at_once(way) else self.sizes.heads // self.sizes.groups
            self._masks[key] = mask(self.net, positions, self._keys[way], key[0], copies)
            self.net.title(f"layer_{layer}")
        return self._masks[key]

    def window(self, layer: int) -> int:
        """Return how many tokens a layer sees, 0 for all."""
        sizes, family = self.sizes, self.family
        size = sizes.window if sizes.own_window is None else sizes.own_window
        if not (family.full_every or family.windowed or sizes.own_window is not None):
            return 0
        if sizes.sliding:
            return size if sizes.sliding[layer] else 0
        return size if not family.full_every or (layer + 1) % family.full_every else 0

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


def projected(
    net: Net, sizes: Hyperparameters, x: Blob, block: str, asked: Blob | None = None
) -> tuple[Blob, Blob, Blob]:
    """Return queries, keys and values of x [T, width], [1, heads or groups, T, size] each; queries of the rows
    ``asked`` only, where these are given."""
    rows = [sizes.heads * sizes.key_size, sizes.groups * sizes.key_size, sizes.groups * sizes.value_size]

    def own(part: Blob) -> Blob:
        return part if asked is None else net.op("gather", (*asked.shape, part.shape[1]), x=part, indices=asked, axis=0)

    if net.has(f"{block}.attn_qkv.weight"):
        whole = net.linear(x, f"{block}.attn_qkv", sum(rows), sizes.width)
        ends = [rows[0], rows[0] + rows[1], sum(rows)]
        parts = [net.slice(whole, 1, end - size, end) for end, size in zip(ends, rows, strict=True)]
        parts[0] = own(parts[0])
    else:
        given = zip((own(x), x, x), ("attn_q", "attn_k", "attn_v"), rows, strict=True)
        parts = [_unpaired(net, sizes, part, f"{block}.{name}", size) for part, name, size in given]
    made = []
    heads = (sizes.heads, sizes.groups, sizes.groups)
    for part, name, number in zip(parts, ("attn_q_norm", "attn_k_norm", ""), heads, strict=True):
        (count, wide), named = part.shape, f"{block}.{name}"
        size = (wide or 0) // number
        normed = bool(name) and net.has(f"{named}.weight")
        # Over the whole width before it is cut into heads, or over each head.
        whole_row = normed and net.source.tensor(f"{named}.weight").shape != (size,)
        part = normalized(net, part, named, sizes.epsilon) if whole_row else part
        part = net.reshape(part, 1, count, number, size)
        part = normalized(net, part, named, sizes.epsilon) if normed and not whole_row else part
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


def _rows(way: str, asked: Blob | None = None) -> Blob:
    """Return which rows go a way: of all tokens, or of those asked."""
    return Blob(way if asked is None else f"{way}_last", (None,))


def _int32(name: str, *shape: int | None) -> NamedType:
    return NamedType(name, TensorType(DType.INT32, shape))


def _f32_root(width: int) -> float:
    """Return sqrt(width) as float32, as llama.cpp and transformers in f32 have it."""
    return float(np.float32(np.sqrt(np.float32(width))))
