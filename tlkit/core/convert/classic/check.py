"""Run an old model and the mlprogram made of it side by side, on rows that reach many of its branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.core.compare.difference import TOLERANCES
from tlkit.core.compare.models import Trial, Verification, compare
from tlkit.core.convert.classic.making import leaves
from tlkit.core.model.inputs import draw
from tlkit.core.model.load import Model, load_model
from tlkit.engines.classic.values import input_names
from tlkit.formats.coreml import legacy
from tlkit.formats.coreml.open import open_package
from tlkit.host import budget
from tlkit.types import TensorSpec

_ROWS, _FEW = 32, 3
_SCALES = (1.0, 0.1, 10.0, 100.0)
Listed = Mapping[str, Mapping[int, Sequence[int]]]
"""The integers that places of an input may have, by the input's name."""


@budget.drawn()
def check_made(original: Path, made: Path, precision: str, seed: int, stage: int | str | None = None) -> Verification:
    """Compare the two on seeded rows, drawn around trees' own thresholds and of encoders' own categories.

    ``stage`` is the stage of a pipeline that was made. Rows for networks are few, and not far from 0.
    """
    old, new = load_model(original, stage=stage), load_model(made)
    package = open_package(original)
    model = (package if stage is None else package.stage(stage)).model
    parts = leaves(model)
    neural = any(part.WhichOneof("Type") in legacy.NETWORKS for part in parts)
    names = [spec.name for spec in new.outputs]  # in the old one's order, but names may have become others
    rng, seen, listed = np.random.default_rng(seed), _thresholds(parts), categories(model)
    trials = []
    for number in range(_FEW if neural else _ROWS):
        scale = 1.0 if neural else _SCALES[number % len(_SCALES)]
        row = [
            _drawn(then, now, rng, seen, scale, listed.get(then.name, {}))
            for then, now in zip(old.inputs, new.inputs, strict=True)
        ]
        before, after = partial(_run, old, row, names), partial(_run, new, row, names)
        trials.append(Trial(f"row {number} of seed {seed}", before, after))
    return compare(trials, TOLERANCES[precision])


def categories(model: Any) -> Listed:
    """Return the integers that one-hot encoders know, by the input and the place in it that they come from."""
    origin = {
        port.name: [(port.name, place) for place in range(int(np.prod(list(port.type.multiArrayType.shape))))]
        for port in model.description.input
        if port.type.WhichOneof("Type") in ("multiArrayType", "int64Type", "doubleType")
    }
    found: dict[str, dict[int, Sequence[int]]] = {}
    for part in leaves(model):
        kind, message = part.WhichOneof("Type"), legacy.body(part)
        sources = [origin.get(name, []) for name in input_names(part)]
        known = list(message.int64Categories.vector) if kind == "oneHotEncoder" else []
        if known and sources and sources[0]:
            port, place = sources[0][0]
            found.setdefault(port, {})[place] = known
        moved: list[tuple[str, int]] = []
        if kind == "arrayFeatureExtractor" and sources:
            moved = [sources[0][place] for place in message.extractIndex if place < len(sources[0])]
        elif kind == "featureVectorizer":
            moved = [item for column in message.inputList for item in origin.get(column.inputColumn, [])]
        elif kind == "identity" and sources:
            moved = sources[0]
        origin |= {port.name: moved for port in part.description.output}
    return found


def _thresholds(parts: Sequence[Any]) -> Any:
    """Return what trees' branches compare with, empty where there are none."""
    messages = [legacy.body(part) for part in parts]
    trees = [message.treeEnsemble for message in messages if hasattr(message, "treeEnsemble")]
    seen = (node.branchFeatureValue for tree in trees for node in tree.nodes if node.nodeBehavior != 6)
    return np.array(list(seen), np.float64)


def _drawn(
    then: TensorSpec,
    now: TensorSpec,
    rng: np.random.Generator,
    seen: Any,
    scale: float,
    listed: Mapping[int, Sequence[int]],
) -> Any:
    """Return values that an f32 holds, whole ones for a port of integers."""
    if then.image is not None:
        return draw(then, "random", rng)
    size = int(np.prod(now.shape)) if now.shape else 1
    values = rng.standard_normal(size) * scale
    if len(seen):
        values = rng.choice(seen, size) + values * 0.1
    values = np.rint(values) if then.kind == "int64" or "int" in then.dtype else values
    for place, known in listed.items():
        values[place] = rng.choice(np.array(known, np.float64))
    return values.astype(np.float32).reshape(now.shape or (1,))


def _run(model: Model, row: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    """Run on a row, a value for each input; return the outputs as ``names``, in order.

    Ports of one number take it as such, and give it as an array of one.
    """
    given: dict[str, Any] = {}
    for spec, value in zip(model.inputs, row, strict=True):
        if spec.kind not in ("double", "int64"):
            given[spec.name] = value
            continue
        number = value.reshape(-1)[0].item()
        given[spec.name] = round(number) if spec.kind == "int64" else number
    found = model.predict(given)
    made = {name: found[spec.name] for name, spec in zip(names, model.outputs, strict=True)}
    return {name: np.array([value], np.float32) if isinstance(value, float) else value for name, value in made.items()}
