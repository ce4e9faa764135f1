"""f16 tensors, as a GPU has them, on the CPU: rows of the op table against the f32 carriers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from tests.engines.onnx.rows import HALF, difference, rows
from tests.formats import packages
from tests.mil.ops.optable import Case, feeds, read
from tests.mil.programs import call, function, tensor
from tlkit.core.model.load import load_model
from tlkit.engines.torch.engine import TorchEngine
from tlkit.engines.torch.halves import halve
from tlkit.mil.lower import lower

F16 = [row for found in rows().values() for row in found if row.dtype == "fp16" and not row.states]
FEW = F16[::40]
SUMS = {"conv_transpose": 2 * HALF}
"""Ops that PyTorch adds up in f16 where it computes on the CPU: there each overlap of a transposed convolution is one
more rounding (beside f64, 0.96 of HALF at most; what the carriers give, 0.39). A GPU adds in f32."""


def agrees(row: Case) -> None:
    program = read(row)
    wanted = lower.lower(program, strict=row.strict)
    module = lower.lower(program, strict=row.strict)
    if not halve(module, program):
        pytest.skip("a loop")
    given = feeds(program, row)
    halves = [
        item.half() if str(getattr(port.type, "dtype", "")).endswith("FP16") else item
        for port, item in zip(program.inputs, given, strict=True)
    ]
    with torch.inference_mode():
        found, expected = module(*halves), wanted(*given)
    for ours, theirs in zip(found, expected, strict=True):
        wide = ours.float() if ours.dtype is torch.float16 else ours
        assert difference(wide.numpy(), theirs.numpy()) <= SUMS.get(row.op, HALF)


@pytest.mark.parametrize("row", FEW, ids=map(str, FEW))
def test_a_few_rows_agree(row: Case) -> None:
    agrees(row)


@pytest.mark.slow
@pytest.mark.parametrize("row", F16, ids=map(str, F16))
def test_every_row_agrees(row: Case) -> None:
    agrees(row)


def test_values_are_f16_tensors_and_outputs_as_before() -> None:
    kind = tensor("fp16", 64)
    program = function({"x": kind}, [call("mul", "y", kind, x="x", y="x"), call("tanh", "z", kind, x="y")], ["y", "z"])
    x = np.linspace(-300, 300, 64).astype(np.float32)
    halved = TorchEngine(program, halves=True)
    assert halved.halved and halved.operands({"x": x})[0].dtype is torch.float16
    found, wanted = halved.run({"x": x}), TorchEngine(program, halves=False).run({"x": x})
    assert np.isinf(found["y"]).any()
    for name in wanted:
        assert found[name].dtype == wanted[name].dtype
        np.testing.assert_array_equal(found[name], wanted[name])


def test_large_weights_come_from_their_file_without_being_widened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = load_model(packages.stack(tmp_path / "net.mlpackage", 2, 1024), engine="eager").function()
    x = np.linspace(-2, 2, 1024, dtype=np.float32).reshape(1, -1)
    wanted = TorchEngine(program, halves=True).run({"x": x})["y"]
    lowered: list[torch.Tensor] = []
    whole = lower.lower

    def watched(*given: Any, **settings: Any) -> fx.GraphModule:
        module = whole(*given, **settings)
        lowered.extend(module.buffers())
        return module

    monkeypatch.setattr("tlkit.mil.ops.kit.narrow.FROM", 1)
    monkeypatch.setattr(lower, "lower", watched)
    engine = TorchEngine(program, halves=True)
    assert [item.dtype for item in lowered] == [torch.float16] * 2
    assert [item.data_ptr() for item in engine.module.buffers()] == [item.data_ptr() for item in lowered]
    np.testing.assert_array_equal(engine.run({"x": x})["y"], wanted)
