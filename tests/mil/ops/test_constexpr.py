"""Compressed weights in a program: decompressed once, shared by what shares them, and refused when damaged."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.mil.programs import call, constant, function, tensor
from tlkit.errors import LoadError
from tlkit.mil.lower import lower
from tlkit.mil.program import Function, Operation

X = tensor("fp32", 2, 3)
SCALE = constant("scale", [[0.5], [2.0]], "fp32")


def scaled(data: Any = ((1, 2, 3), (4, 5, 6)), scale: Operation = SCALE) -> Function:
    """x plus int8 data with a scale for each row."""
    weight = call("constexpr_blockwise_shift_scale", "weight", X, data="data", scale="scale")
    total = call("add", "total", X, x="x", y="weight")
    return function({"x": X}, [constant("data", data, "int8"), scale, weight, total], ["total"], "CoreML8")


def sparse(mask: Any) -> Function:
    """x plus two elements where a mask says."""
    weight = call("constexpr_sparse_to_dense", "weight", X, nonzero_data="data", mask="mask")
    total = call("add", "total", X, x="x", y="weight")
    constants = [constant("data", [1.5, -2.0], "fp32"), constant("mask", mask, "uint1")]
    return function({"x": X}, [*constants, weight, total], ["total"], "CoreML8")


def test_a_compressed_weight_is_a_constant_of_the_graph() -> None:
    module = lower.lower(scaled())
    assert [node.op for node in module.graph.nodes] == ["placeholder", "get_attr", "call_function", "output"]
    (result,) = module(torch.ones(2, 3))
    assert result.tolist() == [[1.5, 2.0, 2.5], [9.0, 11.0, 13.0]]


def test_only_what_it_makes_is_kept() -> None:
    cache: dict[Any, torch.Tensor] = {}
    module = lower.lower(scaled(), constants=cache)
    assert [name for name, _ in module.named_buffers()] == ["weight"]
    assert len(cache) == 1


def test_functions_that_share_it_share_its_tensor() -> None:
    cache: dict[Any, torch.Tensor] = {}
    first, second = (lower.lower(scaled(), constants=cache) for _ in range(2))
    assert first.get_buffer("weight") is second.get_buffer("weight")
    other = lower.lower(scaled(scale=constant("scale", [[0.5], [4.0]], "fp32")), constants=cache)
    assert other.get_buffer("weight") is not first.get_buffer("weight")


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ([True, False], "bool", "'shape' is not whole numbers"),
        ([2.0, 3.0], "fp32", "'shape' is not whole numbers"),
        (6, "int32", "'shape' is not whole numbers"),
        (["a", "b"], "string", "'shape' is not whole numbers"),
        ([2, 3], "int32", None),
    ],
)
def test_a_constant_of_another_type_than_the_op_declares_is_refused(given: Any, kind: str, said: str | None) -> None:
    weight = call("constexpr_sparse_to_dense", "weight", X, nonzero_data="data", mask="mask", shape="shape")
    total = call("add", "total", X, x="x", y="weight")
    constants = [constant("data", [1.5, -2.0], "fp32"), constant("mask", [3], "uint8"), constant("shape", given, kind)]
    made = function({"x": X}, [*constants, weight, total], ["total"], "CoreML6")
    if said is None:
        assert lower.lower(made)(torch.zeros(2, 3))[0].tolist() == [[1.5, -2.0, 0.0], [0.0, 0.0, 0.0]]
    else:
        with pytest.raises(LoadError, match=said):
            lower.lower(made)


def test_one_that_nothing_takes_is_never_decompressed() -> None:
    damaged = scaled(data=[[1, 2, 3]])
    operations = [op for op in damaged.block.operations if op.type != "add"]
    module = lower.lower(function({"x": X}, operations, ["x"], "CoreML8"))
    assert module(torch.ones(2, 3))[0].tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (scaled(data=[[1, 2, 3]]), r"blocks do not divide"),
        (scaled(data=[[1, 2], [3, 4]]), r"makes \(2, 2\) and declares \(2, 3\)"),
        (sparse([[1, 1, 0], [1, 0, 0]]), r"marks 3 elements and has 2"),
        (sparse([[1, 1, 0]]), r"declares \(2, 3\)"),
        (
            function({"x": X}, [SCALE, call("constexpr_cast", "w", X, source_val="x", output_dtype="scale")], ["w"]),
            "must be a constant",
        ),
    ],
    ids=["blocks", "shape", "sparse-count", "sparse-shape", "run-time-data"],
)
def test_damage_is_refused_by_name(program: Function, message: str) -> None:
    with pytest.raises(LoadError, match=rf"op '\w+' \(constexpr_\w+\): .*{message}"):
        lower.lower(program)
