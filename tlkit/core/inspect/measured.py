"""Core ML's own plan beside the prediction, on a Mac: ``tlkit inspect --placement --measured``."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tlkit.engines.coreml.kind import CoreMLKind
from tlkit.engines.coreml.plan import UNKNOWN, PlannedOp, compute_plan
from tlkit.placement.predict import Placed, Prediction
from tlkit.types import Unit


@dataclass(frozen=True, slots=True)
class Pair:
    """An operation as planned and as predicted: its unit in each (None: only the other has it) and the plan's share of
    the cost (0..1; None: it tells none). ``agrees`` is None where there is nothing to compare; a predicted tie agrees.
    """

    name: str
    type: str
    planned: str | None
    predicted: str | None
    cost: float | None
    agrees: bool | None


@dataclass(frozen=True, slots=True)
class Beside:
    """One setting's plan beside its prediction: pairs, differences first, and the share of operations that agree."""

    setting: Unit
    agreement: float | None
    pairs: tuple[Pair, ...]


def beside(prediction: Prediction, plan: Sequence[PlannedOp]) -> Beside:
    """Pair ``plan`` with ``prediction`` by the names of results; both parts in the program's order."""
    known = {name: placed for placed in prediction.operations for name in (placed.result, placed.name)}
    pairs = [_pair(op, known.get(op.name)) for op in plan]
    seen = {op.name for op in plan}
    pairs += [
        Pair(item.name, item.type, None, item.unit, None, None)
        for item in prediction.operations
        if not {item.result, item.name} & seen
    ]
    judged = [pair.agrees for pair in pairs if pair.agrees is not None]
    share = sum(judged) / len(judged) if judged else None
    return Beside(prediction.setting, share, tuple(sorted(pairs, key=lambda pair: pair.agrees is not False)))


def _pair(op: PlannedOp, placed: Placed | None) -> Pair:
    agrees = None if placed is None or op.unit == UNKNOWN else op.unit in (placed.unit, *placed.tied)
    predicted = None if placed is None else placed.unit
    return Pair(op.name, op.type.split(".")[-1], op.unit, predicted, op.cost, agrees)


def measured(path: Path, predictions: Sequence[Prediction], function: str | None = None) -> tuple[Beside, ...]:
    """Ask Core ML for its plan of the model at ``path`` under each prediction's setting.

    Raises UnavailableError off a Mac, or where the system has no plans (before macOS 14.4).
    """
    with tempfile.TemporaryDirectory(prefix="tlkit-plan-") as folder:
        compiled = CoreMLKind().compile(path, Path(folder))
        return tuple(beside(item, compute_plan(compiled, item.setting, function)) for item in predictions)
