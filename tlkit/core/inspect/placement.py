"""Where a package's operations would run: a prediction for each setting, summarized by reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlkit.errors import UsageError
from tlkit.formats.coreml.package import Package
from tlkit.placement.facts import PlacementRule, all_rules
from tlkit.placement.predict import Placed, Prediction, predict
from tlkit.types import Unit


@dataclass(frozen=True, slots=True)
class Reason:
    """Why operations are not on the Neural Engine: the rule, the operations, and their share of the estimated cost."""

    rule: PlacementRule
    operations: tuple[Placed, ...]
    share: float


def placements(
    package: Package, units: Sequence[Unit] = (Unit.ANE,), chip: str | None = None, function: str | None = None
) -> tuple[Prediction, ...]:
    """Return the prediction for each of ``units``; UsageError for an unknown chip, or no program."""
    if package.program is None:
        raise UsageError(
            f"{package.root}: --placement reads MIL programs, and this model has none",
            "Core ML documents the placement of older kinds too little to predict it",
        )
    return tuple(predict(package.program.function(function), unit, chip) for unit in units)


def reasons(prediction: Prediction) -> tuple[Reason, ...]:
    """Return why operations are not on the Neural Engine, by the first rule of each, costliest first."""
    away: dict[str, list[Placed]] = {}
    for placed in prediction.operations:
        if placed.unit != "ane" and placed.reasons:
            away.setdefault(placed.reasons[0], []).append(placed)
    total = sum(placed.microseconds[placed.unit] for placed in prediction.operations) or 1.0
    found = [
        Reason(all_rules()[rule], tuple(items), sum(item.microseconds[item.unit] for item in items) / total)
        for rule, items in away.items()
    ]
    return tuple(sorted(found, key=lambda reason: -reason.share))


def document(prediction: Prediction) -> dict[str, object]:
    """Return a prediction as data: what ``--json`` prints."""
    return {
        "kind": "prediction",
        "setting": prediction.setting,
        "chip": prediction.chip.name,
        "basis": prediction.basis,
        "operations": len(prediction.operations),
        "counts": {unit: prediction.count(unit) for unit in ("ane", "gpu", "cpu")},
        "cost_shares": {unit: prediction.share(unit) for unit in ("ane", "gpu", "cpu")},
        "changes": prediction.changes,
        "unknown": sum(placed.confidence == "unknown" for placed in prediction.operations),
        "reasons": [
            {
                "rule": reason.rule.id,
                "why": reason.rule.why,
                "mend": reason.rule.mend,
                "trust": reason.rule.trust,
                "share": reason.share,
                "operations": [placed.name for placed in reason.operations],
            }
            for reason in reasons(prediction)
        ],
        "per_op": prediction.operations,
    }
