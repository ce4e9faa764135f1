"""CUDA graphs. What needs a GPU is skipped without one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.mil.programs import call, function, tensor
from tlkit.engines.torch.engine import TorchEngine
from tlkit.engines.torch.graphs import KEPT, Graphs
from tlkit.mil.program import Function, Operation, Ref, StateType
from tlkit.types import Unit

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")


def test_operands_that_are_not_tensors_run_as_they_are() -> None:
    def forward(*operands: object) -> object:
        return operands

    assert Graphs().of(forward, [1, torch.zeros(2)]) is forward


@on_cuda
def test_each_call_reads_its_own_inputs() -> None:
    kind = tensor("fp16", 64)
    program = function({"x": kind}, [call("mul", "y", kind, x="x", y="x"), call("tanh", "z", kind, x="y")], ["y", "z"])
    gpu, cpu = TorchEngine(program, unit=Unit.GPU), TorchEngine(program)
    assert gpu.halved
    inputs = [np.linspace(-scale, scale, 64).astype(np.float32) for scale in (1, 20, 300)]
    bound = [gpu.bind({"x": x}) for x in inputs]
    for call_, x in zip(bound, inputs, strict=True):
        wanted = cpu.run({"x": x})
        for found, name in zip(call_(), wanted, strict=True):
            np.testing.assert_allclose(found.float().cpu().numpy(), wanted[name], rtol=2**-10)


@on_cuda
def test_few_graphs_are_held_and_a_sync_inside_runs_as_it_is() -> None:
    graphs = Graphs()
    for size in range(1, KEPT + 3):
        x = torch.ones(size, device="cuda")
        assert graphs.of(lambda x: x * 2, [x])(x).tolist() == [2.0] * size
    assert len(graphs._found) == KEPT

    def waits(x: torch.Tensor) -> torch.Tensor:
        return x * float(x.sum())

    x = torch.ones(3, device="cuda")
    assert Graphs().of(waits, [x]) is waits


@on_cuda
def test_a_graph_keeps_the_weights_that_it_reads() -> None:
    x, weight = torch.ones(1 << 20, device="cuda"), torch.full((1 << 20,), 3.0, device="cuda")
    found = Graphs().of(lambda x, weight=weight: x * weight, [x])
    del weight
    torch.cuda.empty_cache()
    assert found(x).eq(3).all()


def accumulating() -> Function:
    """s += x; returns s * x."""
    kind = tensor("fp32", 4)
    operations = [
        call("read_state", "before", kind, input="s"),
        call("add", "after", kind, x="before", y="x"),
        Operation("write_state", {"input": (Ref("s"),), "data": (Ref("after"),)}, ()),
        call("mul", "y", kind, x="after", y="x"),
    ]
    return function({"x": kind, "s": StateType(kind)}, operations, ["y"], "CoreML8")


@on_cuda
def test_a_graph_updates_the_state_that_it_is_given_and_no_other() -> None:
    engine = TorchEngine(accumulating(), unit=Unit.GPU, precision="f32")
    states = [engine.make_state() for _ in range(2)]
    x = np.array([1, 2, 3, 4], np.float32)
    found = [[engine.run({"x": x}, states[which])["y"] for which in (0, 0, 1, 0)] for _ in range(2)]
    for row, counts in zip(found, ((1, 2, 1, 3), (4, 5, 2, 6)), strict=True):
        for made, count in zip(row, counts, strict=True):
            np.testing.assert_array_equal(made, count * x * x)
    np.testing.assert_array_equal(states[0].read("s"), 6 * x)
    # Without a state there is a fresh one each time.
    np.testing.assert_array_equal([engine.run({"x": x})["y"] for _ in range(3)], [x * x] * 3)


@pytest.mark.slow
def test_compiled_a_state_is_updated_once_a_call() -> None:
    engine = TorchEngine(accumulating(), engine="compile", precision="f32")
    state = engine.make_state()
    x = np.array([1, 2, 3, 4], np.float32)
    for count in (1, 2, 3):
        np.testing.assert_array_equal(engine.run({"x": x}, state)["y"], count * x * x)
