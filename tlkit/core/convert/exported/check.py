"""Check that an exported file computes what the model computes: it is loaded and compared with tlkit's executor."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tlkit.core.compare.difference import TOLERANCES
from tlkit.core.compare.models import Trial, Verification, compare
from tlkit.core.model.inputs import draw
from tlkit.engines.torch.engine import TorchEngine
from tlkit.errors import UnavailableError
from tlkit.host import budget
from tlkit.mil.program import Function
from tlkit.types import ModelInfo

Arrays = Mapping[str, NDArray[Any]]


@budget.drawn()
def check_export(
    path: Path, function: Function, info: ModelInfo, precision: str, seed: int, strict_mil: bool = False
) -> Verification:
    """Compare the file at ``path`` with the executor on the inputs of ``seed``, by the tolerances of ``precision``."""
    rng = np.random.default_rng(seed)
    inputs = {port.name: _carried(draw(port, "random", rng)) for port in info.inputs}
    engine = TorchEngine(function, precision=precision, strict_mil=strict_mil)

    def actual() -> Arrays:
        return _run_pt2(path, inputs) if path.suffix == ".pt2" else _run_onnx(path, inputs, function)

    def named(text: str) -> str:
        return text.replace(str(path), path.name)

    trial = Trial(f"seed {seed}", lambda: engine.run(inputs), actual)
    return replace(compare([trial], TOLERANCES[precision], named=named), seed=seed)


# The file takes ports of f16 and of f64 as float32 (see `exportable`; MIL has no f64).
def _carried(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _run_pt2(path: Path, inputs: Arrays) -> Arrays:
    module = torch.export.load(path).module()
    with torch.no_grad():
        outputs = module(*(torch.from_numpy(value) for value in inputs.values()))
    return {name: value.numpy() for name, value in outputs.items()}


def _run_onnx(path: Path, inputs: Arrays, function: Function) -> Arrays:
    # Its builds report to their makers over the network, and keep who reports in files: not about a user's models.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        raise UnavailableError("onnxruntime is not installed: the file was not run") from None
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return dict(zip(function.block.outputs, session.run(None, dict(inputs)), strict=True))
