"""Where a package's operations would run: a prediction for each setting, summarized by reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tlkit.core.edit.ane import Judged, for_ane, judged
from tlkit.core.inspect.places import Origin, place_of, recorded
from tlkit.errors import TlkitError, UsageError, reason
from tlkit.formats.coreml import legacy
from tlkit.formats.coreml.describe import describe_package
from tlkit.formats.coreml.legacy import NETWORKS
from tlkit.formats.coreml.package import Package
from tlkit.mil.passes.base import run_passes
from tlkit.mil.passes.reshape import Reshape
from tlkit.mil.passes.rewrite import change_bodies, change_operations
from tlkit.mil.program import Function, NamedType, Operation, Program, TensorType
from tlkit.mil.types import DType
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
    if package.program is None and package.model.WhichOneof("Type") in NETWORKS:
        network = _network(package)
        return tuple(_less_sure(predict(network, unit, chip)) for unit in units)
    if package.program is None:
        raise UsageError(
            f"{package.root}: --placement reads programs and neural networks, and this is neither",
            "trees and other classic models run on the CPU; a pipeline's stages are not predicted",
        )
    places = recorded(package, function)
    program, told = _at_a_listed_shape(package, package.program, function)
    found = (led_back(predict(program, unit, chip), places) for unit in units)
    return tuple(replace(item, basis=f"{item.basis}{told}") for item in found)


def _at_a_listed_shape(package: Package, program: Program, name: str | None) -> tuple[Function, str]:
    """A function, at the default one of the shapes that its inputs list: the Neural Engine takes those, one by one.

    Also returns what that adds to the basis. It is run to know the shapes inside, which needs torch and the weights:
    where it cannot be, its open shapes stay.
    """
    function = program.function(name)
    if all(isinstance(item.type, TensorType) and item.type.size is not None for item in function.inputs):
        return function, ""
    flexible = [spec for spec in describe_package(package, name).inputs if spec.flexible]
    if not flexible or not all(spec.listed for spec in flexible):
        return function, ""
    shapes = {spec.name: tuple(spec.shape) for spec in flexible}
    key = next(key for key, item in program.functions.items() if item is function)
    try:
        package.require_weights()
        made = run_passes(program, [Reshape(key, shapes)]).program.function(key)
    except (TlkitError, ImportError) as error:
        return function, f"; the shapes that it lists were not followed ({reason(error)})"
    texts = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
    return made, f"; at the listed shape {texts}"


def led_back(prediction: Prediction, places: Mapping[str, Origin]) -> Prediction:
    """Return ``prediction`` with what the package records of where its operations come from."""
    if not places:
        return prediction

    def told(placed: Placed) -> Placed:
        found = place_of(places, placed.name)
        if found is None:
            return placed
        module = found.module or placed.module
        return replace(placed, module=module, line=found.line, after="" if module or found.line else placed.after)

    return replace(prediction, operations=tuple(map(told, prediction.operations)))


def _network(package: Package) -> Function:
    """A network of before mlprograms as the operations that its layers mean, in f16: so the Neural Engine runs them."""
    from tlkit.frontends.network.network import NeuralNetwork  # late: it imports numpy

    layers = legacy.body(package.model).layers
    if not layers:
        raise UsageError(
            f"{package.root}: the layers of a compiled neural network are not read", "use the .mlmodel it was made from"
        )
    named = {layer.custom.className: None for layer in layers if layer.WhichOneof("layer") == "custom"}
    function = NeuralNetwork(package.model, named).function()

    def half(operation: Operation) -> Operation:
        return replace(operation, outputs=tuple(map(_half, operation.outputs)))

    halved = replace(function, inputs=tuple(map(_half, function.inputs)))
    return change_bodies(halved, lambda body: change_operations(body, half))


def _half(item: NamedType) -> NamedType:
    kind = item.type
    if isinstance(kind, TensorType) and kind.dtype is DType.FP32:
        return replace(item, type=replace(kind, dtype=DType.FP16))
    return item


def _less_sure(prediction: Prediction) -> Prediction:
    """A prediction for a network, of whose placement nothing is published: known rules, applied to another kind."""
    operations = tuple(
        replace(placed, confidence=placed.confidence if placed.confidence == "unknown" else "low")
        for placed in prediction.operations
    )
    said = f"{prediction.basis}; published for mlprograms, not for neural networks: of low confidence"
    return replace(prediction, operations=operations, basis=said)


@dataclass(frozen=True, slots=True)
class Offer:
    """What ``tlkit edit --ane`` would do to the prediction: it was tried, and nothing was written."""

    command: str
    before: Judged
    after: Judged


_MOST = 3000  # operations of a program on which rewrites are tried while it is inspected


def offered(package: Package, chip: str | None = None, function: str | None = None) -> Offer | None:
    """Return what ``tlkit edit --ane`` would improve of ``package`` on ``chip``; None where it improves nothing, or
    where it was not tried: it edits packages only, and large programs take their time."""
    if package.program is None or package.root.suffix != ".mlpackage" or not package.root.is_dir():
        return None
    before = package.program.function(function)
    if len(before.block.operations) > _MOST:
        return None
    name = next(name for name, item in package.program.functions.items() if item is before)
    made, rewrites = for_ane(replace(package.program, functions={name: before}), chip)
    if not any(item.made for item in rewrites):
        return None
    command = f"tlkit edit {package.root.name} --ane"
    return Offer(command, judged(before, chip), judged(made.functions[name], chip))


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


def origin(placed: Placed) -> str:
    """Return where in the PyTorch model an operation comes from, in words; empty where the package does not tell."""
    if placed.module and placed.line:
        return f"{placed.module} ({placed.line})"
    return placed.module or placed.line or (f"after {placed.after}" if placed.after else "")


def origins(operations: Sequence[Placed]) -> list[str]:
    """Return where ``operations`` come from, each place once, in program order; what does not tell is left out."""
    return list(dict.fromkeys(filter(None, map(origin, operations))))


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
                "example": reason.rule.example,
                "trust": reason.rule.trust,
                "share": reason.share,
                "operations": [placed.name for placed in reason.operations],
                "modules": origins(reason.operations),
            }
            for reason in reasons(prediction)
        ],
        "per_op": prediction.operations,
    }
