"""Lowering: one node an op, names kept, errors that name the op; f16 exactly as f16 storage would have it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.mil.programs import call, constant, function, tensor
from tlkit.errors import LoadError
from tlkit.mil.lower.lower import MAX_DEPTH, lower, unsupported
from tlkit.mil.program import BlobRef, Block, NamedType, Operation, Ref, TensorType, Value

F16 = tensor("fp16", 4)
F32 = tensor("fp32", 4)


def test_each_op_is_one_node_that_keeps_its_name() -> None:
    program = function(
        {"x": F32},
        [
            constant("one", 1.0, "fp32"),
            call("add", "sum_1", F32, x="x", y="one"),
            call("relu", "out.2", F32, x="sum_1"),
        ],
        ["out.2"],
    )
    nodes = [node for node in lower(program).graph.nodes if node.op == "call_function"]
    assert [node.name for node in nodes] == ["sum_1", "out_2"]
    assert [node.meta["mil"].type for node in nodes] == ["add", "relu"]


def test_a_constant_that_nothing_takes_is_never_read() -> None:
    missing = Value(TensorType(tensor("fp16", 1).dtype, (10**12,)), BlobRef("nowhere.bin", 64))
    unused = Operation("const", {}, (NamedType("w", missing.type),), {"val": missing})
    module = lower(function({"x": F32}, [unused, call("relu", "y", F32, x="x")], ["y"]))
    assert module(torch.tensor([-1.0, 2.0]))[0].tolist() == [0.0, 2.0]


def test_f16_values_are_those_of_f16_storage() -> None:
    """numpy's own float16 arithmetic, which rounds once an op, is the oracle: bit for bit."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(scale=30, size=2000).astype(np.float16) for _ in range(2))
    kind = tensor("fp16", 2000)
    ops = [
        call("mul", "m", kind, x="x", y="y"),
        call("add", "a", kind, x="m", y="x"),
        call("sub", "s", kind, x="a", y="m"),
        call("real_div", "d", kind, x="s", y="y"),
    ]
    result = lower(function({"x": kind, "y": kind}, ops, ["d"]))(*(torch.from_numpy(v.astype("f4")) for v in (x, y)))[0]
    expected = (((x * y) + x) - (x * y)) / y
    np.testing.assert_array_equal(result.numpy(), expected.astype("f4"))


def test_an_overflow_that_f16_causes_appears_and_f32_has_none() -> None:
    program = function(
        {"x": F16}, [call("mul", "y", F16, x="x", y="x"), call("sub", "z", F16, x="y", y="y")], ["y", "z"]
    )
    x = torch.tensor([300.0, 2.0, -300.0, 1.0])
    y, z = lower(program)(x)
    assert y.tolist() == [float("inf"), 4.0, float("inf"), 1.0]
    assert z.isnan().tolist() == [True, False, True, False]
    assert lower(program, precision="f32")(x)[0].tolist() == [90000.0, 4.0, 90000.0, 1.0]


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (call("no_such_op", "y", F32, x="x"), "no such op"),
        (call("relu", "y", F32, x="later"), "uses 'later' before anything defines it"),
        (call("relu", "y", F32, x="x", extra="x"), "unknown input 'extra'"),
        (call("add", "y", F32, x="x"), "input 'y' is missing"),
        (Operation("const", {}, (NamedType("y", F32),)), "without a value"),
    ],
)
def test_a_damaged_program_is_refused_by_name(operation: Operation, message: str) -> None:
    with pytest.raises(LoadError) as caught:
        lower(function({"x": F32}, [operation], ["y"]))
    assert caught.value.message.startswith(f"op 'y' ({operation.type}): ")
    assert message in caught.value.message


def test_a_value_defined_twice_is_refused() -> None:
    with pytest.raises(LoadError, match="defines 'y' a second time"):
        lower(function({"x": F32}, [call("relu", "y", F32, x="x"), call("exp", "y", F32, x="x")], ["y"]))
    with pytest.raises(LoadError, match="defines 'x' a second time"):
        lower(function({"x": F32}, [call("relu", "x", F32, x="x")], ["x"]))


def test_a_constant_that_no_memory_can_hold_is_refused() -> None:
    vast = Value(tensor("fp32", 1 << 62), (1.0,))
    add = Operation("add", {"x": (Ref("x"),), "y": (vast,)}, (NamedType("y", F32),))
    with pytest.raises(LoadError, match=r"4\.61168601842739e\+18 elements, which no machine holds"):
        lower(function({"x": F32}, [add], ["y"]))


def test_an_output_that_nothing_defines_is_refused() -> None:
    with pytest.raises(LoadError, match="'nothing'"):
        lower(function({"x": F32}, [call("relu", "y", F32, x="x")], ["nothing"]))


def test_blocks_nested_too_deep_are_refused() -> None:
    leaf = block = Block((), ("y",), (call("relu", "y", F32, x="x"),))
    for _ in range(MAX_DEPTH + 2):
        block = Block((), ("y",), (call("cond", "y", F32, pred="p", blocks=(block, leaf)),))
    with pytest.raises(LoadError, match="deep"):
        lower(function({"x": F32, "p": tensor("bool")}, list(block.operations), ["y"]))


def test_unsupported_lists_each_op_once_with_its_count() -> None:
    ops = [call("warp", "a", F32, x="x"), call("relu", "b", F32, x="a"), call("warp", "c", F32, x="b")]
    assert unsupported(function({"x": F32}, ops, ["c"])) == {"warp": 2}


def test_a_block_captures_values_from_outside() -> None:
    """cond: the branches use x, a run-time value, and a constant, neither of them a block input."""
    then = Block((), ("t",), (call("add", "t", F32, x="x", y="one"),))
    other = Block((), ("e",), (call("sub", "e", F32, x="x", y="one"),))
    branch = call("cond", "y", F32, pred="p", blocks=(then, other))
    module = lower(function({"x": F32, "p": tensor("bool")}, [constant("one", 1.0, "fp32"), branch], ["y"]))
    x = torch.arange(4.0)
    assert torch.equal(module(x, torch.tensor(True))[0], x + 1)
    assert torch.equal(module(x, torch.tensor(False))[0], x - 1)


def test_functions_that_share_a_weight_share_its_tensor() -> None:
    value = Value(tensor("fp32", 4), BlobRef("w.bin", 64, _Weights()))  # type: ignore[arg-type]
    program = function({"x": F32}, [call("add", "y", F32, x="x", y=value)], ["y"])
    cache: dict[object, torch.Tensor] = {}
    first, second = (lower(program, constants=cache) for _ in range(2))
    assert first.constant.data_ptr() == second.constant.data_ptr()
    assert first(torch.zeros(4))[0].tolist() == [0.0, 1.0, 2.0, 3.0]


class _Weights:
    """A weight file in memory: the one record any offset names holds 0, 1, 2, 3."""

    path = "w.bin"

    def __len__(self) -> int:
        return 16

    def record(self, offset: int) -> object:
        from tlkit.mil.blob import Record
        from tlkit.mil.types import DType

        return Record(DType.FP32, offset, 16, 4)

    def data(self, record: object) -> memoryview:
        return memoryview(np.arange(4, dtype="<f4").tobytes())


@pytest.mark.parametrize("names", [("in", "self"), ("a.b", "a_b"), ("torch", "lambda"), ("forward", "inf")])
def test_inputs_may_have_names_that_python_keeps_for_itself(names: tuple[str, str]) -> None:
    program = function(dict.fromkeys(names, F32), [call("sub", "y", F32, x=names[0], y=names[1])], ["y"])
    assert lower(program)(torch.full((4,), 3.0), torch.ones(4))[0].tolist() == [2.0] * 4
