"""The two ends of a program that is made of classic models and networks: what enters it, and how results leave it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tlkit.engines.classic.values import DAMAGED
from tlkit.errors import ConversionError, LoadError
from tlkit.frontends.network.kit.blob import Blob
from tlkit.frontends.network.kit.graph import Graph, text
from tlkit.mil.passes.rewrite import texts
from tlkit.mil.program import Argument, DictType, ListType, NamedType, Operation, Ref, TensorType, Value
from tlkit.mil.types import DType
from tlkit.types import TensorSpec


@dataclass(frozen=True, slots=True)
class Classified:
    """What a classifier gives: a value for each label; ``backwards`` where the last of equal ones is the answer."""

    scores: Blob
    labels: tuple[Any, ...]
    backwards: bool = False


@dataclass
class Chain:
    """A program as it grows: the ``values`` by the features' names, and what the last predictor gave.

    ``predicted`` is the feature that the last regressor made; ``pictures`` are values that leave as images.
    """

    g: Graph
    values: dict[str, Blob]
    answer: Classified | None = None
    predicted: str = ""
    pictures: set[str] = field(default_factory=set)


def check_ports(ports: Sequence[TensorSpec], hint: str) -> None:
    """Raise ConversionError where an mlprogram has no such input: a text, a dictionary, an array without a shape."""
    for spec in ports:
        if spec.kind not in ("double", "int64") and (spec.kind not in ("tensor", "image") or not spec.shape):
            raise ConversionError(f"an mlprogram has no input like '{spec.name}', a {spec.kind}", hint)


def shape_of(spec: TensorSpec) -> tuple[int, ...]:
    """Return the shape with which an input enters: one number is an array of one."""
    return spec.shape or (1,)


def leave(chain: Chain, model: Any, made: Any, hint: str) -> tuple[str, ...]:
    """Make the outputs of ``model`` under their names, and say in ``made`` what they are; return the names."""
    described, inputs = model.description, {port.name for port in model.description.input}
    answered = _classified(chain, described, hint) if chain.answer else ()
    predicted = described.predictedFeatureName
    if predicted and predicted not in chain.values and chain.predicted in chain.values:
        chain.values[predicted] = chain.values[chain.predicted]
    for feature in made.description.output:
        if feature.name in answered:
            continue
        blob = chain.values.get(feature.name)
        if blob is None and feature.type.WhichOneof("Type") in ("multiArrayType", "doubleType", "imageType"):
            raise LoadError(f"no stage makes the output '{feature.name}'", DAMAGED)
        if blob is None or feature.type.WhichOneof("Type") in ("dictionaryType", "stringType", "sequenceType"):
            raise ConversionError(f"an mlprogram has no output like '{feature.name}'", hint)
        if feature.name in inputs:
            raise ConversionError(f"'{feature.name}' is an input and an output, which no mlprogram can have", hint)
        _leave(chain.g, blob, feature)
    return tuple(port.name for port in described.output)


def _leave(g: Graph, blob: Blob, feature: Any) -> None:
    g.title = feature.name
    start = len(g.operations)
    found = g.op("identity", blob.shape, x=blob)
    g.settle(start, {found.name: feature.name}, feature.name)
    if feature.type.WhichOneof("Type") != "imageType":
        # Of an output whose rows depend on the values coremltools says no shape, either.
        settle(feature, () if None in blob.shape else tuple(length or 1 for length in blob.shape))


def settle(feature: Any, shape: tuple[int, ...]) -> None:
    """Make a port an array of f32 of ``shape``."""
    optional = feature.type.isOptional
    feature.type.Clear()
    feature.type.isOptional = optional
    feature.type.multiArrayType.dataType = DType.FP32.array_number
    feature.type.multiArrayType.shape.extend(shape)


def _classified(chain: Chain, described: Any, hint: str) -> tuple[str, ...]:
    """Make the label and the probabilities; return their names, none where the model gives out neither."""
    answer, kinds = chain.answer, {port.name: port.type.WhichOneof("Type") for port in described.output}
    assert answer is not None
    plain = [name for name, kind in kinds.items() if kind in ("stringType", "int64Type") and name not in chain.values]
    tables = [name for name, kind in kinds.items() if kind == "dictionaryType"]
    label = described.predictedFeatureName or next(iter(plain), "")
    table = described.predictedProbabilitiesName or next(iter(tables), "")
    if label not in kinds and table not in kinds:
        return ()
    if label not in kinds or table not in kinds:
        raise ConversionError(
            "an mlprogram's classifier gives a label and probabilities, and this one does not give both", hint
        )
    g, values, labels = chain.g, answer.scores, list(answer.labels)
    if values.shape != (len(labels),):
        raise LoadError(f"{values.shape[0]} values for {len(labels)} labels", DAMAGED)
    if answer.backwards:
        values, labels = g.op("reverse", values.shape, x=values, axes=[0]), labels[::-1]
    as_text = bool(labels) and isinstance(labels[0], str)
    one = TensorType(DType.STRING if as_text else DType.INT64)
    listed = texts(labels) if as_text else Value(ListType(one, len(labels)), tuple(Value(one, (n,)) for n in labels))
    given: dict[str, tuple[Argument, ...]] = {"probabilities": (Ref(values.name),), "classes": (listed,)}
    outputs = (NamedType(label, one), NamedType(table, DictType(one, TensorType(DType.FP64))))
    g.operations.append(Operation("classify", given, outputs, {"name": text("classify")}))
    return label, table
