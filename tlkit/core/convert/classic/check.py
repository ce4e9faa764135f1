"""Run a classic model and the mlprogram made of it side by side, on rows that reach many of its branches."""

from __future__ import annotations

from collections.abc import Sequence
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
    names = [spec.name for spec in new.outputs]  # in the old one's order, but names may have become others
    rng, seen = np.random.default_rng(seed), _thresholds(original)
    trials = []
    for number in range(_ROWS):
        row = [_drawn(spec, rng, seen, _SCALES[number % len(_SCALES)]) for spec in old.inputs]
        before, after = partial(_run, old, row, names), partial(_run, new, row, names)
        trials.append(Trial(f"row {number} of seed {seed}", before, after))
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


def _run(model: Model, row: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    """Run on a row, a value for each input; return the outputs as ``names``, in order.

    Ports of one number take it as such, and give it as an array of one.
    """
    given = {}
    for spec, value in zip(model.inputs, row, strict=True):
        number = value.reshape(-1)[0].item()
        given[spec.name] = value if spec.kind == "tensor" else int(number) if spec.kind == "int64" else number
    found = model.predict(given)
    made = {name: found[spec.name] for name, spec in zip(names, model.outputs, strict=True)}
    return {name: np.array([value], np.float32) if isinstance(value, float) else value for name, value in made.items()}
