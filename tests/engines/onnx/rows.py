"""The op table's rows, run by a runtime of ONNX graphs and by PyTorch."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.mil.ops.optable import Case, feeds, read
from tlkit.engines.onnx.kit.graph import UnsupportedGraph
from tlkit.engines.onnx.lower.lower import ShapeRecorder, lower_to_onnx
from tlkit.engines.onnx.selftest import spelling_for
from tlkit.mil.lower import lower

FAMILIES = Path(__file__).parents[2] / "mil" / "ops"
HALF = 2.0**-10
"""One f16 rounding of the largest value, as a share of it."""
SINGLE = 2e-5
FLOOR = 2.0**-4
"""Largest values below this are judged as if they were this: what is left of a 0 has no digit in common."""


@functools.cache
def rows() -> dict[str, list[Case]]:
    """Every row of the op table that runs, by op."""
    found: dict[str, list[Case]] = {}
    for path in sorted(FAMILIES.glob("test_*.py")):
        module = importlib.import_module(f"tests.mil.ops.{path.stem}")
        for row in getattr(module, "CASES", ()):
            if not row.fails and row.since >= 15:
                found.setdefault(row.op, []).append(row)
    return found


def both(row: Case, runtime: Any) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray]]:
    """Return a row's outputs by the runtime and by PyTorch; UnsupportedGraph where the row has no graph."""
    function = read(row)
    module = lower.lower(function, precision="f16" if runtime.precision == "f16" else "f32", strict=row.strict)
    given = feeds(function, row)
    recorder = ShapeRecorder(module)
    with torch.inference_mode():
        recorder.run(*[item.clone() for item in given])
        wanted = module(*[item.clone() for item in given])
    graph = lower_to_onnx(module, function, recorder, spelling_for(runtime))
    found = runtime.compile(graph.model()).bind([item.numpy() for item in given])()
    outputs = [item.numpy() for item in wanted if isinstance(item, torch.Tensor)]
    if len(outputs) != len(wanted):
        raise UnsupportedGraph("an output is not a tensor")
    return [np.array(item) for item in found[: len(wanted)]], outputs


def difference(found: np.ndarray, wanted: np.ndarray, floor: float = FLOOR) -> float:
    """Return how far the two are apart, as a share of the largest finite value; infinite where they do not compare."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return float("inf")
    if found.dtype.kind != "f":
        return 0.0 if np.array_equal(found, wanted) else float("inf")
    finite = np.isfinite(wanted)
    if not np.array_equal(finite, np.isfinite(found)) or not np.array_equal(wanted == np.inf, found == np.inf):
        return float("inf")
    if not finite.any():
        return 0.0
    largest = float(np.abs(wanted[finite]).max())
    return float(np.abs(found[finite].astype(np.float64) - wanted[finite]).max()) / max(largest, floor)
