"""The feed-forward part of a layer: gated or not, with the gate's rows beside or inside, and mixtures of experts."""

from __future__ import annotations

from typing import Any

from tlkit.errors import LoadError
from tlkit.frontends.gguf.kit.family import Family
from tlkit.frontends.gguf.kit.hyperparameters import Hyperparameters
from tlkit.frontends.gguf.kit.net import Net
from tlkit.frontends.network.kit.blob import Blob
from tlkit.mil.types import DType


def activated(net: Net, x: Blob, kind: str) -> Blob:
    """Return SiLU, ReLU, GELU (``erf``) or its approximation by tanh (``tanh``)."""
    shape = x.shape
    if kind in ("silu", "relu"):
        return net.op(kind, shape, x=x)
    return net.op("gelu", shape, x=x, mode="EXACT" if kind == "erf" else "TANH_APPROXIMATION")


def feed_forward(net: Net, x: Blob, block: str, sizes: Hyperparameters, family: Family) -> Blob:
    """Return the layer ``block``'s feed-forward of x [T, width]."""
    if net.has(f"{block}.ffn_gate_inp.weight"):
        return _experts(net, x, block, sizes, family)
    kind = family.activation_of(net.source.metadata)
    up = net.source.tensor(f"{block}.ffn_up.weight", (-1, sizes.width))
    inner = net.source.tensor(f"{block}.ffn_down.weight", (sizes.width, -1)).shape[1]
    if net.has(f"{block}.ffn_gate.weight"):
        gate = activated(net, net.linear(x, f"{block}.ffn_gate", inner, sizes.width), kind)
        middle = net.multiply(gate, net.linear(x, f"{block}.ffn_up", inner, sizes.width))
    elif family.gate_inside and up.shape[0] == 2 * inner:
        both = net.linear(x, f"{block}.ffn_up", 2 * inner, sizes.width)
        first, second = net.slice(both, 1, 0, inner), net.slice(both, 1, inner, 2 * inner)
        gate, value = (first, second) if family.gate_inside == "first" else (second, first)
        middle = net.multiply(activated(net, gate, kind), value)
    else:
        middle = activated(net, net.linear(x, f"{block}.ffn_up", inner, sizes.width), kind)
    return net.linear(middle, f"{block}.ffn_down", sizes.width, inner)


def _experts(net: Net, x: Blob, block: str, sizes: Hyperparameters, family: Family) -> Blob:
    """Return the chosen experts' weighted sum: softmax over all, the likeliest few, renormalized where the family does.

    All experts compute all tokens, and the shares of those that were not chosen are 0.
    """
    count, chosen, width = sizes.experts, sizes.experts_used, sizes.width
    if not count or not chosen:
        raise LoadError(f"{net.source.path}: experts, and no key that says how many", "the file is damaged")
    tokens = x.shape[0]
    up = net.source.tensor(f"{block}.ffn_up_exps.weight", (count, -1, width))
    inner = up.shape[1]
    gate = net.source.tensor(f"{block}.ffn_gate_exps.weight", (count, inner, width))
    down = net.source.tensor(f"{block}.ffn_down_exps.weight", (count, width, inner))
    shares = _shares(net, net.linear(x, f"{block}.ffn_gate_inp", count, width), sizes, family)
    wide = net.reshape(x, 1, tokens, width)
    pair: dict[str, Any] = {"transpose_x": False, "transpose_y": True}
    gates = net.op("matmul", (count, tokens, inner), x=wide, y=net.weight(gate), **pair)
    ups = net.op("matmul", (count, tokens, inner), x=wide, y=net.weight(up), **pair)
    middle = net.multiply(activated(net, gates, family.activation_of(net.source.metadata)), ups)
    each = net.op("matmul", (count, tokens, width), x=middle, y=net.weight(down), **pair)
    weighted = net.multiply(each, net.reshape(net.transpose(shares, 1, 0), count, tokens, 1))
    made = net.op("reduce_sum", (tokens, width), x=weighted, axes=[0], keep_dims=False)
    return _shared(net, x, made, block, sizes, family)


def _shares(net: Net, logits: Blob, sizes: Hyperparameters, family: Family) -> Blob:
    """Return each expert's share [T, experts], 0 where it was not chosen."""
    chosen = sizes.experts_used
    tokens, count = logits.shape
    likely = net.op("softmax", (tokens, count), x=logits, axis=-1)
    outputs = [((tokens, chosen), net.dtype), ((tokens, chosen), DType.INT32)]
    given = {"x": likely, "k": chosen, "axis": -1, "ascending": False, "sort": True, "return_indices": True}
    values, _ = net.graph.emit("topk", outputs, **given)
    least = net.slice(Blob(values, (tokens, chosen)), 1, chosen - 1, chosen)
    taken = net.op("greater_equal", (tokens, count), out=DType.BOOL, x=likely, y=least)
    shares = net.multiply(likely, net.graph.cast(taken, net.dtype, DType.BOOL))
    if not (family.renormalized if sizes.renormalized is None else sizes.renormalized):
        return shares
    total = net.op("reduce_sum", (tokens, 1), x=shares, axes=[1], keep_dims=True)
    return net.op("real_div", (tokens, count), x=shares, y=total)


def _shared(net: Net, x: Blob, made: Blob, block: str, sizes: Hyperparameters, family: Family) -> Blob:
    """Add the expert that every token goes through, where there is one, times the sigmoid of its gate."""
    if not net.has(f"{block}.ffn_up_shexp.weight"):
        return made
    inner = net.source.tensor(f"{block}.ffn_up_shexp.weight", (-1, sizes.width)).shape[0]
    kind = family.activation_of(net.source.metadata)
    gate = activated(net, net.linear(x, f"{block}.ffn_gate_shexp", inner, sizes.width), kind)
    middle = net.multiply(gate, net.linear(x, f"{block}.ffn_up_shexp", inner, sizes.width))
    own = net.linear(middle, f"{block}.ffn_down_shexp", sizes.width, inner)
    if net.has(f"{block}.ffn_gate_inp_shexp.weight"):
        tensor = net.source.tensor(f"{block}.ffn_gate_inp_shexp.weight")
        weight = net.reshape(net.weight(tensor), 1, sizes.width)
        logit = net.op("linear", (x.shape[0], 1), x=x, weight=weight)
        own = net.multiply(own, net.op("sigmoid", (x.shape[0], 1), x=logit))
    return net.add(made, own)
