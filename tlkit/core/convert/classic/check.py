"""Run an old model and the mlprogram made of it side by side, on rows that reach many of its branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.core.compare.difference import TOLERANCES
from tlkit.core.compare.models import Trial, Verification, compare
from tlkit.core.convert.classic.boxes import KIND as SUPPRESSION
from tlkit.core.convert.classic.boxes import constant_inputs, defaults
from tlkit.core.convert.classic.making import leaves
from tlkit.core.model.inputs import draw
from tlkit.core.model.load import Model, load_model
from tlkit.engines.classic.nms import NonMaximumSuppression
from tlkit.engines.classic.values import input_names
from tlkit.formats.coreml import legacy
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.ports import read_ports
from tlkit.host import budget
from tlkit.types import TensorSpec

_ROWS, _FEW = 32, 3
_SCALES = (1.0, 0.1, 10.0, 100.0)
Listed = Mapping[str, Mapping[int, Sequence[int]]]
"""The integers that places of an input may have, by the input's name."""


@budget.drawn()
def check_made(original: Path, made: Path, precision: str, seed: int, stage: int | str | None = None) -> Verification:
    """Compare the two on seeded rows, drawn around trees' own thresholds and of encoders' own categories.

    ``stage`` is the stage of a pipeline that was made. Rows for networks are few, and not far from 0. Boxes that a last
    stage suppresses are compared before that, and what it makes of them with the stage's own rule on the same boxes: a
    box at a border, which rounding moves across it, is no difference.
    """
    package = open_package(original)
    model = (package if stage is None else package.stage(stage)).model
    parts = leaves(model)
    sides = _Sides.of(load_model(original, stage=stage), load_model(made), parts)
    computed = any(part.WhichOneof("Type") in (*legacy.NETWORKS, "mlProgram") for part in parts)
    rng, seen, listed = np.random.default_rng(seed), _thresholds(parts), categories(model)
    optional = defaults(parts)
    trials = []
    for number in range(_FEW if computed else _ROWS):
        scale = 1.0 if computed else _SCALES[number % len(_SCALES)]
        row = [
            _threshold(rng, number) if then.name in optional else _drawn(then, now, rng, seen, scale, listed)
            for then, now in sides.inputs
        ]
        trials.append(Trial(f"row {number} of seed {seed}", partial(sides.reference, row), partial(sides.actual, row)))
    return compare(trials, TOLERANCES[precision])


@dataclass(frozen=True)
class _Sides:
    """The original and what was made of it; their inputs and outputs that belong together, and the suppression of boxes
    that is last, if one is."""

    old: Model
    new: Model
    inputs: Sequence[tuple[TensorSpec, TensorSpec]]
    names: Sequence[str]
    last: Any = None

    @classmethod
    def of(cls, old: Model, new: Model, parts: Sequence[Any]) -> _Sides:
        gone = constant_inputs(parts)
        kept = [spec for spec in old.inputs if spec.name not in gone]
        # In the old one's order, but names may have become others.
        names = [spec.name for spec in new.outputs]
        last = parts[-1] if parts and parts[-1].WhichOneof("Type") == SUPPRESSION else None
        return cls(old, new, list(zip(kept, new.inputs, strict=True)), names, last)

    def reference(self, row: Sequence[Any]) -> dict[str, Any]:
        """Return what the original gives on a row; where boxes are suppressed last, they and their scores before that,
        and what its rule makes of the new model's."""
        given = _given([then for then, _ in self.inputs], row)
        if self.last is None:
            return self._named(self.old.predict(given), self.old.outputs)
        message, values = self.last.nonMaximumSuppression, self._before(row)
        features = self.old.engine.run(self.old.arrays(given))
        sources = (message.coordinatesInputFeatureName, message.confidenceInputFeatureName)
        rule = NonMaximumSuppression(message, read_ports(self.last.description.output))
        thresholds = {name: value for name, value in given.items() if name in defaults([self.last])}
        found = rule.run(dict(zip(sources, values, strict=True)) | thresholds)
        raw = {f"{name} before": np.asarray(features[name], np.float32).reshape(-1) for name in sources}
        return raw | self._named(found, self.old.outputs)

    def actual(self, row: Sequence[Any]) -> dict[str, Any]:
        """Return what the new model gives on a row, as :meth:`reference` does."""
        found = self._named(self.new.predict(_given([now for _, now in self.inputs], row)), self.new.outputs)
        if self.last is None:
            return found
        message = self.last.nonMaximumSuppression
        sources = (message.coordinatesInputFeatureName, message.confidenceInputFeatureName)
        raw = {f"{name} before": value.reshape(-1) for name, value in zip(sources, self._before(row), strict=True)}
        return raw | found

    def _named(self, found: Mapping[str, Any], outputs: Sequence[TensorSpec]) -> dict[str, Any]:
        made = {name: found[spec.name] for name, spec in zip(self.names, outputs, strict=True)}
        return {
            name: np.array([value], np.float32) if isinstance(value, float) else value for name, value in made.items()
        }

    def _before(self, row: Sequence[Any]) -> list[Any]:
        """Return the boxes and the scores that the new model suppresses, as it has them."""
        wanted: dict[str, Any] = {}
        for operation in self.new.function().block.operations:
            if operation.type == "non_maximum_suppression":  # the last one, where there are several
                wanted = {key: argument for key in ("boxes", "scores") for argument in operation.inputs[key]}
        values: dict[str, Any] = {}

        def seen(operation: Any, made: Any) -> bool:
            named = {item.name for item in operation.outputs} & {argument.name for argument in wanted.values()}
            if named:
                found = made()
                values.update({name: np.asarray(found[name], np.float32) for name in named})
            return False

        self.new.watch(_given([now for _, now in self.inputs], row), seen)
        return [values[argument.name] for argument in wanted.values()]


def _given(specs: Sequence[TensorSpec], row: Sequence[Any]) -> dict[str, Any]:
    """Return a row as the inputs of a model; ports of one number take it as such, and None leaves one out."""
    given: dict[str, Any] = {}
    for spec, value in zip(specs, row, strict=True):
        if value is not None and spec.kind in ("double", "int64"):
            number = value.reshape(-1)[0].item()
            given[spec.name] = round(number) if spec.kind == "int64" else number
        elif value is not None:
            given[spec.name] = value
    return given


def _threshold(rng: np.random.Generator, number: int) -> Any:
    """Return a threshold between 0 and 1, or None in every other row: the model's own holds then."""
    value = rng.random(1).astype(np.float32)
    return value if number % 2 else None


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
    listed: Listed,
) -> Any:
    """Return values that an f32 holds, whole ones for a port of integers."""
    if then.image is not None:
        return draw(then, "random", rng)
    size = int(np.prod(now.shape)) if now.shape else 1
    values = rng.standard_normal(size) * scale
    if len(seen):
        values = rng.choice(seen, size) + values * 0.1
    values = np.rint(values) if then.kind == "int64" or "int" in then.dtype else values
    for place, known in listed.get(then.name, {}).items():
        values[place] = rng.choice(np.array(known, np.float64))
    return values.astype(np.float32).reshape(now.shape or (1,))
