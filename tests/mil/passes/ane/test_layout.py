"""Programs in the Neural Engine's layout against torch's own attention, norms and layers.

Covers tlkit/mil/passes/ane/forms.py, tlkit/mil/passes/ane/embeddings.py, tlkit/mil/passes/ane/order.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.mil.programs import call, constant, function, tensor
from tlkit.mil.lower.lower import lower
from tlkit.mil.passes.ane.embeddings import GatherAlong
from tlkit.mil.passes.ane.layout import ChannelsFirst
from tlkit.mil.passes.ane.order import First
from tlkit.mil.passes.base import Pass, run_passes
from tlkit.mil.program import Argument, Function, Operation, Program, Ref
from tlkit.mil.work import steps

B, S, HEADS, D = 2, 5, 3, 4
C = HEADS * D
Array = np.ndarray[Any, Any]
_CARRIED = {"float16": torch.float32, "uint16": torch.int32}  # as the executor holds such values


class Net:
    """A program written operation by operation: weights are drawn and kept, so that torch can compute the same."""

    def __init__(self, *shape: int, dtype: str = "fp16") -> None:
        self.inputs = {"x": tensor(dtype, *shape)}
        self.body: list[Operation] = []
        self.shapes: dict[str, tuple[int, ...]] = {"x": shape}
        self.weights: dict[str, torch.Tensor] = {}
        self._rng = np.random.default_rng(0)

    def weight(self, name: str, *shape: int) -> str:
        array = (self._rng.standard_normal(shape) / 4).astype(np.float16)
        self.weights[name] = torch.from_numpy(array).float()
        self.body.append(constant(name, array, "fp16"))
        return name

    def add(self, op: str, out: str, shape: tuple[int, ...], /, **given: Any) -> str:
        inputs: dict[str, str | Argument] = {}
        for key, item in given.items():
            if not isinstance(item, str):
                self.body.append(constant(f"{out}_{key}", item, "bool" if isinstance(item, bool) else "int32"))
                item = f"{out}_{key}"
            inputs[key] = item
        self.body.append(call(op, out, tensor("fp16", *shape), **inputs))
        self.shapes[out] = shape
        return out

    def number(self, name: str, value: float) -> str:
        self.body.append(constant(name, np.float16(value), "fp16"))
        return name

    def norm(self, x: str, out: str) -> str:
        width = self.shapes[x][-1]
        gamma, beta = self.weight(f"{out}_gamma", width), self.weight(f"{out}_beta", width)
        epsilon = self.number(f"{out}_eps", 1e-3)
        return self.add("layer_norm", out, self.shapes[x], x=x, axes=[-1], gamma=gamma, beta=beta, epsilon=epsilon)

    def linear(self, x: str, out: str, width: int) -> str:
        shape = self.shapes[x]
        weight, bias = self.weight(f"{out}_w", width, shape[-1]), self.weight(f"{out}_b", width)
        return self.add("linear", out, (*shape[:-1], width), x=x, weight=weight, bias=bias)

    def function(self, *outputs: str) -> Function:
        return function(self.inputs, self.body, list(outputs))


def changed(item: Function, *passes: Pass) -> Function:
    return run_passes(Program({"main": item}), passes or [ChannelsFirst("main")]).program.function()


def ran(item: Function, *given: Array) -> Array:
    with torch.inference_mode():
        found = lower(item)(*(torch.from_numpy(array).to(_CARRIED.get(array.dtype.name)) for array in given))
    return np.asarray(found[0] if isinstance(found, tuple) else found)


def types(item: Function) -> list[str]:
    return [step.type for step in steps(item)]


def drawn(*shape: int) -> Array:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float16)


def close(found: Array, right: torch.Tensor) -> None:
    np.testing.assert_allclose(found.astype(np.float32), right, rtol=4e-3, atol=8e-3)


def heads(net: Net, x: str, out: str, perm: list[int]) -> str:
    split = net.add("reshape", f"{out}_split", (B, S, HEADS, D), x=x, shape=[B, S, HEADS, D])
    shape = tuple((B, S, HEADS, D)[axis] for axis in perm)
    return net.add("transpose", out, shape, x=split, perm=perm)


@pytest.mark.parametrize("turned", [False, True])
def test_an_encoder_layer_keeps_channels_first(turned: bool) -> None:
    net = Net(B, S, C)
    normed = net.norm("x", "n1")
    q = heads(net, net.linear(normed, "lq", C), "q", [0, 2, 1, 3])
    k = heads(net, net.linear(normed, "lk", C), "k", [0, 2, 3, 1] if turned else [0, 2, 1, 3])
    v = heads(net, net.linear(normed, "lv", C), "v", [0, 2, 1, 3])
    scores = net.add("matmul", "s", (B, HEADS, S, S), x=q, y=k, transpose_x=False, transpose_y=not turned)
    shares = net.add("softmax", "p", (B, HEADS, S, S), x=scores, axis=-1)
    mixed = net.add("matmul", "o", (B, HEADS, S, D), x=shares, y=v, transpose_x=False, transpose_y=False)
    back = net.add("transpose", "t", (B, S, HEADS, D), x=mixed, perm=[0, 2, 1, 3])
    flat = net.add("reshape", "f", (B, S, C), x=back, shape=[B, S, C])
    added = net.add("add", "a", (B, S, C), x=net.linear(flat, "lo", C), y="x")
    inner = net.add("relu", "r", (B, S, 7), x=net.linear(net.norm(added, "n2"), "l1", 7))
    item = net.function(net.add("add", "y", (B, S, C), x=net.linear(inner, "l2", C), y=added))
    made, x = changed(item), drawn(B, S, C)
    w = net.weights
    n1 = F.layer_norm(torch.from_numpy(x).float(), (C,), w["n1_gamma"], w["n1_beta"], 1e-3)
    parts = (F.linear(n1, w[f"l{p}_w"], w[f"l{p}_b"]).view(B, S, HEADS, D).transpose(1, 2) for p in "qkv")
    attended = F.scaled_dot_product_attention(*parts, scale=1.0).transpose(1, 2).reshape(B, S, C)
    a = F.linear(attended, w["lo_w"], w["lo_b"]) + torch.from_numpy(x).float()
    n2 = F.layer_norm(a, (C,), w["n2_gamma"], w["n2_beta"], 1e-3)
    close(ran(made, x), F.linear(F.linear(n2, w["l1_w"], w["l1_b"]).relu(), w["l2_w"], w["l2_b"]) + a)
    assert types(made).count("conv") == 6 and "linear" not in types(made)
    assert types(made).count("transpose") == 2  # one in, one out


def test_products_of_rows_split_into_queries_keys_and_values() -> None:
    net = Net(1, S, C)
    rows = net.add("reshape", "rows", (S, C), x="x", shape=[S, C])
    product = net.add("matmul", "m", (S, 3 * C), x=rows, y=net.weight("w", C, 3 * C), transpose_x=False,
                      transpose_y=False)  # fmt: skip
    whole = net.add("reshape", "whole", (1, S, 3 * C), x=product, shape=[1, S, 3 * C])
    net.body.append(constant("sizes", [C, C, C], "int32"))
    net.body.append(constant("axis", 2, "int32"))
    parts = [call("split", f"p{index}", tensor("fp16", 1, S, C)).outputs[0] for index in range(3)]
    net.body.append(Operation("split", {"x": (Ref(whole),), "split_sizes": (Ref("sizes"),), "axis": (Ref("axis"),)},
                              tuple(parts)))  # fmt: skip
    net.shapes |= {f"p{index}": (1, S, C) for index in range(3)}
    item = net.function(net.add("sub", "y", (1, S, C), x=net.add("mul", "z", (1, S, C), x="p0", y="p1"), y="p2"))
    made, x = changed(item), drawn(1, S, C)
    q, k, v = (torch.from_numpy(x).float() @ net.weights["w"]).split(C, dim=2)
    close(ran(made, x), q * k - v)
    assert "matmul" not in types(made) and types(made).count("split") == 1


def test_constants_of_every_rank_are_added_where_channels_come_first() -> None:
    net = Net(B, S, C)
    value = net.linear("x", "l", C)
    shapes = [(C,), (S, C), (1, S, C), (B, 1, C), (S, 1), (1,)]
    for index, shape in enumerate(shapes):
        value = net.add("add", f"a{index}", (B, S, C), x=value, y=net.weight(f"c{index}", *shape))
    made, x = changed(net.function(value)), drawn(B, S, C)
    right = F.linear(torch.from_numpy(x).float(), net.weights["l_w"], net.weights["l_b"])
    for index in range(len(shapes)):
        right = right + net.weights[f"c{index}"]
    close(ran(made, x), right)
    assert types(made) == ["transpose", "expand_dims", "conv", *["add"] * len(shapes), "squeeze", "transpose"]


def test_pictures_with_channels_last_lose_their_transpositions() -> None:
    net = Net(B, C, 4, 6)
    last = net.add("transpose", "t", (B, 4, 6, C), x="x", perm=[0, 2, 3, 1])
    inner = net.add("gelu", "g", (B, 4, 6, 9), x=net.linear(net.norm(last, "n"), "l1", 9))
    item = net.function(net.add("transpose", "y", (B, C, 4, 6), x=net.linear(inner, "l2", C), perm=[0, 3, 1, 2]))
    made, x, w = changed(item), drawn(B, C, 4, 6), net.weights
    n = F.layer_norm(torch.from_numpy(x).float().permute(0, 2, 3, 1), (C,), w["n_gamma"], w["n_beta"], 1e-3)
    right = F.linear(F.gelu(F.linear(n, w["l1_w"], w["l1_b"])), w["l2_w"], w["l2_b"])
    close(ran(made, x), right.permute(0, 3, 1, 2))
    assert "transpose" not in types(made) and "linear" not in types(made)


def test_patches_and_a_class_token_are_joined_along_the_rows() -> None:
    net = Net(1, C, S)
    rows = net.add("transpose", "t", (1, S, C), x="x", perm=[0, 2, 1])
    token = net.weight("token", 1, 2, C)
    net.body.append(constant("axis", 1, "int32"))
    net.body.append(constant("interleave", False, "bool"))
    given = {"values": (Ref(token), Ref(rows)), "axis": (Ref("axis"),), "interleave": (Ref("interleave"),)}
    net.body.append(Operation("concat", given, call("concat", "c", tensor("fp16", 1, S + 2, C)).outputs))
    net.shapes["c"] = (1, S + 2, C)
    made, x = changed(net.function(net.linear("c", "y", 6))), drawn(1, C, S)
    joined = torch.cat([net.weights["token"], torch.from_numpy(x).float().transpose(1, 2)], dim=1)
    close(ran(made, x), F.linear(joined, net.weights["y_w"], net.weights["y_b"]))


@pytest.mark.parametrize("shape", [(1, 1, C), (1, C), (1, None, C)])
def test_one_row_and_open_shapes_stay_as_they_are(shape: tuple[int, ...]) -> None:
    net = Net(*shape)
    item = net.function(net.linear("x", "y", C))
    assert changed(item) == item


@pytest.mark.parametrize("kind", ["int32", "uint16"])
@pytest.mark.parametrize(("width", "blocks"), [(6, 1), (96, 3), (770, 11)])
def test_an_embedding_reads_the_same_rows(kind: str, width: int, blocks: int) -> None:
    net = Net(2, 3, dtype=kind)
    table = net.weight("table", 11, width)
    item = net.function(net.add("gather", "y", (2, 3, width), x=table, indices="x", axis=0, batch_dims=0,
                                validate_indices=False))  # fmt: skip
    made = changed(item, GatherAlong("main"))
    ids = np.array([[0, 10, 3], [3, 7, 1]], kind)
    np.testing.assert_array_equal(ran(made, ids), net.weights["table"].numpy()[ids])
    assert types(made).count("gather_along_axis") == blocks


def test_what_is_asked_for_comes_first_with_nothing_before_what_it_needs() -> None:
    net = Net(4)
    net.add("relu", "a", (4,), x="x")
    net.add("abs", "b", (4,), x="x")
    net.add("exp", "c", (4,), x="b")
    net.add("sign", "d", (4,), x="a")
    item = net.function(net.add("add", "y", (4,), x=net.add("add", "e", (4,), x="c", y="d"), y="a"))
    made = changed(item, First("main", frozenset(("b", "c", "d"))))
    assert types(made) == ["abs", "exp", "relu", "sign", "add", "add"]  # d needs a, which stays in its place
    x = drawn(4)
    np.testing.assert_array_equal(ran(made, x), ran(item, x))
