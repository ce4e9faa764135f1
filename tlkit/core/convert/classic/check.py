"""Run a classic model and the mlprogram made of it side by side, on rows that reach many of its branches."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.core.compare.difference import TOLERANCES
from tlkit.core.compare.models import Trial, Verification, compare
from tlkit.core.model.load import Model, load_model
from tlkit.formats.coreml import legacy
from tlkit.formats.coreml.open import open_package
from tlkit.types import TensorSpec

_ROWS = 32
_SCALES = (1.0, 0.1, 10.0, 100.0)


def check_made(original: Path, made: Path, precision: str, seed: int) -> Verification:
    """Compare the two on seeded rows, drawn around a tree's own thresholds where it has any."""
    old, new = load_model(original), load_model(made)
    rng, seen = np.random.default_rng(seed), _thresholds(original)
    trials = []
    for number in range(_ROWS):
        row = {spec.name: _drawn(spec, rng, seen, _SCALES[number % len(_SCALES)]) for spec in old.inputs}
        trials.append(Trial(f"row {number} of seed {seed}", partial(_run, old, row), partial(_run, new, row)))
    return compare(trials, TOLERANCES[precision])


def _thresholds(path: Path) -> Any:
    """Return what a tree's branches compare with, empty for another model."""
    message = legacy.body(open_package(path).model)
    nodes = message.treeEnsemble.nodes if hasattr(message, "treeEnsemble") else ()
    return np.array([node.branchFeatureValue for node in nodes if node.nodeBehavior != 6], np.float64)


def _drawn(spec: TensorSpec, rng: np.random.Generator, seen: Any, scale: float) -> Any:
    """Return values that an f32 holds, whole ones for a port of integers."""
    size = int(np.prod(spec.shape)) if spec.shape else 1
    values = rng.standard_normal(size) * scale
    if len(seen):
        values = rng.choice(seen, size) + values * 0.1
    values = np.rint(values) if spec.kind == "int64" or "int" in spec.dtype else values
    return values.astype(np.float32).reshape(spec.shape or (1,))


def _run(model: Model, row: Mapping[str, Any]) -> dict[str, Any]:
    """Run on a row; ports of one number take it as such, and give it as an array of one."""
    given = {}
    for spec in model.inputs:
        value = row[spec.name]
        number = value.reshape(-1)[0].item()
        given[spec.name] = value if spec.kind == "tensor" else int(number) if spec.kind == "int64" else number
    found = model.predict(given)
    return {name: np.array([value], np.float32) if isinstance(value, float) else value for name, value in found.items()}
