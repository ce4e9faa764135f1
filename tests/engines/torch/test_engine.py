"""The torch engine: arrays in and out, faithful f16 in eager and compiled runs, errors that say where.

Covers tlkit/engines/torch/profile.py, tlkit/engines/torch/device.py, tlkit/engines/torch/state.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.mil.programs import call, function, tensor
from tlkit.engines.torch.device import device_for, enough_memory
from tlkit.engines.torch.engine import TorchEngine
from tlkit.errors import ExecutionError, LoadError, UnavailableError
from tlkit.mil.program import Function
from tlkit.types import Unit

N = 4096
F16 = tensor("fp16", N)


def _arithmetic() -> Function:
    ops = [
        call("mul", "m", F16, x="x", y="y"),
        call("add", "a", F16, x="m", y="x"),
        call("sub", "s", F16, x="a", y="m"),
        call("real_div", "d", F16, x="s", y="y"),
    ]
    return function({"x": F16, "y": F16}, ops, ["d"])


def _operands() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return tuple(rng.normal(scale=30, size=N).astype(np.float16) for _ in range(2))  # type: ignore[return-value]


def _expected(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The same with numpy's float16, which rounds after every operation."""
    return (((x * y + x) - x * y) / y).astype("f4")


def test_eager_is_bit_identical_to_f16_storage() -> None:
    x, y = _operands()
    result = TorchEngine(_arithmetic()).run({"x": x.astype("f4"), "y": y.astype("f4")})
    np.testing.assert_array_equal(result["d"], _expected(x, y))


@pytest.mark.slow
def test_compiled_is_bit_identical_to_f16_storage() -> None:
    x, y = _operands()
    result = TorchEngine(_arithmetic(), engine="compile").run({"x": x.astype("f4"), "y": y.astype("f4")})
    np.testing.assert_array_equal(result["d"], _expected(x, y))


@pytest.mark.slow
def test_inductor_would_drop_the_rounding_without_the_setting() -> None:
    """The control of the test above: it fails as soon as ``emulate_precision_casts`` is off."""
    x, y = _operands()
    module = TorchEngine(_arithmetic()).module
    with torch.inference_mode():
        raw = torch.compile(module, dynamic=False)(*(torch.from_numpy(v.astype("f4")) for v in (x, y)))[0].numpy()
    assert (raw != _expected(x, y)).mean() > 0.1


def test_an_fp16_input_is_rounded_on_the_way_in() -> None:
    engine = TorchEngine(function({"x": tensor("fp16", 2)}, [call("identity", "y", tensor("fp16", 2), x="x")], ["y"]))
    result = engine.run({"x": np.array([1 + 2**-12, 70000.0], "f4")})["y"]
    assert result.tolist() == [1.0, float("inf")]


def test_bind_converts_once_and_runs_once_a_call() -> None:
    kind = tensor("fp32", 3)
    engine = TorchEngine(function({"x": kind}, [call("add", "y", kind, x="x", y="x")], ["y"]))
    array = np.ones(3, "f4")
    call_once = engine.bind({"x": array})
    array[:] = 5
    assert call_once()[0].tolist() == [2.0, 2.0, 2.0]


def test_a_rank_0_output_comes_back_with_one_element() -> None:
    engine = TorchEngine(function({"x": tensor("fp32")}, [call("add", "y", tensor("fp32"), x="x", y="x")], ["y"]))
    assert engine.run({"x": np.array([3.0], "f4")})["y"].shape == (1,)


def test_a_failing_op_is_named_with_its_inputs() -> None:
    ops = [
        call("relu", "fine", tensor("fp32", 2, 3), x="x"),
        call("matmul", "product", tensor("fp32", 2, 3), x="fine", y="fine"),
    ]
    engine = TorchEngine(function({"x": tensor("fp32", 2, 3)}, ops, ["product"]))
    with pytest.raises(ExecutionError) as caught:
        engine.run({"x": np.zeros((2, 3), "f4")})
    assert "op 'product' (matmul) on x float32[2x3], y float32[2x3]" in caught.value.message
    assert "\n" not in caught.value.message


def test_an_unsupported_op_is_named_at_load() -> None:
    with pytest.raises(LoadError, match=r"warp \(x1\)"):
        TorchEngine(function({"x": F16}, [call("warp", "y", F16, x="x")], ["y"]))


def test_the_neural_engine_is_not_here() -> None:
    with pytest.raises(UnavailableError, match="Mac"):
        device_for(Unit.ANE)


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="this machine has a GPU")
def test_no_gpu_is_said() -> None:
    with pytest.raises(UnavailableError, match="GPU"):
        device_for(Unit.GPU)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_a_full_gpu_is_told_as_that_and_other_errors_are_not(error: RuntimeError) -> None:
    gpu = torch.device("cuda")  # a name only
    said = "the GPU has no room for this model: not enough memory"
    with pytest.raises(ExecutionError, match=said) as caught, enough_memory(gpu):
        raise error
    assert "--units cpu" in caught.value.hint
    with pytest.raises(RuntimeError, match="sizes"), enough_memory(gpu):
        raise RuntimeError("sizes do not match")
