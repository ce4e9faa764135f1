"""The mlprogram that computes what a classic model does: its ports, and the operations from features to answers.

An mlprogram's ports are arrays, so that a port of one number becomes an array of one; values are f32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tlkit.core.convert.classic import kernels, linear, trees
from tlkit.core.convert.classic.features import STAGES, found, joined
from tlkit.engines.classic.answers import labels_of
from tlkit.engines.classic.kind import NOT_RUN
from tlkit.engines.classic.values import DAMAGED, input_names, only_output
from tlkit.errors import ConversionError, LoadError, contradictions
from tlkit.formats.coreml import legacy
from tlkit.formats.coreml.ports import read_ports
from tlkit.frontends.network.kit.blob import Blob
from tlkit.frontends.network.kit.graph import Graph, text
from tlkit.mil.opsets import version_of
from tlkit.mil.passes.rewrite import texts
from tlkit.mil.program import (
    Argument,
    Block,
    DictType,
    Function,
    ListType,
    NamedType,
    Operation,
    Program,
    Ref,
    TensorType,
    Value,
)
from tlkit.mil.types import DType
from tlkit.types import TensorSpec

OPSET = "CoreML5"
Make: TypeAlias = Callable[[Graph, Blob, Any], tuple[Blob, bool]]
"""A model's operations: the graph, its features [count] and the ``Model`` to its values, a regressor's or one for each
class, and whether classes are to be listed from the last one on, so that the last of equal ones is the answer."""

_MADE: dict[str, Make] = {
    "glmRegressor": linear.regressor,
    "glmClassifier": linear.classifier,
    "treeEnsembleRegressor": trees.regressor,
    "treeEnsembleClassifier": trees.classifier,
    "supportVectorRegressor": kernels.regressor,
    "supportVectorClassifier": kernels.classifier,
}
_STAYS = "it runs with `tlkit run`, and cannot become a package"
_NOT_EVEN = "see what is in it with `tlkit inspect`"


def as_mlprogram(model: Any) -> tuple[Any, Program]:
    """Return ``model`` as a ``Model`` message of an mlprogram without one, and the program.

    It is a tree ensemble, a linear model, a support vector machine, or a pipeline from numbers to one of these.
    ConversionError says what MIL cannot say of it.
    """
    *before, last = _leaves(model)
    kind = last.WhichOneof("Type") or "model without a kind"
    wrong = [stage.WhichOneof("Type") for stage in before if stage.WhichOneof("Type") not in STAGES]
    if wrong or kind not in _MADE:
        refused = (wrong or [kind])[0]
        unrun = any(stage.WhichOneof("Type") in NOT_RUN for stage in (*before, last))
        if refused in (*legacy.NETWORKS, "mlProgram"):
            raise ConversionError(f"a pipeline of a {refused} and more is not made one program yet", _STAYS)
        raise ConversionError(f"MIL has nothing that computes a {refused}", _NOT_EVEN if unrun else _STAYS)
    ports = read_ports(model.description.input)
    for spec in ports:
        if spec.kind not in ("double", "int64") and (spec.kind != "tensor" or spec.image or not spec.shape):
            raise ConversionError(f"an mlprogram has no input like '{spec.name}', a {spec.kind}", _STAYS)
    g = Graph({spec.name for spec in ports})
    inputs = [NamedType(spec.name, TensorType(DType.FP32, _shape(spec))) for spec in ports]
    with contradictions("the model contradicts itself", DAMAGED, also=(RuntimeError, MemoryError)):
        values = {}
        for spec in ports:
            g.title = spec.name
            values[spec.name] = g.reshape(Blob(spec.name, _shape(spec)), (int(np.prod(_shape(spec))),))
        for number, stage in enumerate(before):
            g.title = f"stage{number}"
            values |= STAGES[stage.WhichOneof("Type")](g, values, stage)
        g.title = kind
        x = joined(g, [found(values, name) for name in input_names(last)])
        result, backwards = _MADE[kind](g, x, last)
    made = type(model)(specificationVersion=version_of(OPSET))
    made.mlProgram.SetInParent()
    made.description.CopyFrom(model.description)
    del made.description.trainingInput[:]
    if kind.endswith("Regressor"):
        names = _regressed(g, result, model)
        shapes = {names[0]: result.shape}
    else:
        labels = list(labels_of(legacy.body(last)))
        names, shapes = _classified(g, result, model, labels[::-1] if backwards else labels, backwards), {}
    for feature in made.description.input:
        _settle(feature, next(_shape(spec) for spec in ports if spec.name == feature.name))
    for feature in made.description.output:
        if feature.name in shapes:
            _settle(feature, tuple(d or 1 for d in shapes[feature.name]))
    block = Block((), names, tuple(g.operations))
    return made, Program({"main": Function(tuple(inputs), OPSET, {OPSET: block})})


def _shape(spec: TensorSpec) -> tuple[int, ...]:
    return spec.shape or (1,)


def _regressed(g: Graph, values: Blob, model: Any) -> tuple[str, ...]:
    name = model.description.predictedFeatureName or only_output(model)
    start = len(g.operations)
    found = g.op("identity", values.shape, x=values)
    g.settle(start, {found.name: name}, name)
    return (name,)


def _leaves(model: Any) -> list[Any]:
    inner = legacy.inner(model)
    return [leaf for stage in inner for leaf in _leaves(stage)] if inner else [model]


def _classified(g: Graph, values: Blob, model: Any, labels: list[Any], backwards: bool) -> tuple[str, ...]:
    if values.shape != (len(labels),):
        raise LoadError(f"{values.shape[0]} values for {len(labels)} labels", DAMAGED)
    if backwards:
        values = g.op("reverse", values.shape, x=values, axes=[0])
    as_text = bool(labels) and isinstance(labels[0], str)
    kind = DType.STRING if as_text else DType.INT64
    described = model.description
    plain = [port.name for port in described.output if port.type.WhichOneof("Type") != "dictionaryType"]
    tables = [port.name for port in described.output if port.type.WhichOneof("Type") == "dictionaryType"]
    if not plain or not tables:
        raise ConversionError(
            "an mlprogram's classifier gives a label and probabilities, and this one does not give both", _STAYS
        )
    label = described.predictedFeatureName or plain[0]
    table = described.predictedProbabilitiesName or tables[0]
    one = TensorType(kind)
    listed = texts(labels) if as_text else Value(ListType(one, len(labels)), tuple(Value(one, (n,)) for n in labels))
    given: dict[str, tuple[Argument, ...]] = {"probabilities": (Ref(values.name),), "classes": (listed,)}
    outputs = (NamedType(label, one), NamedType(table, DictType(one, TensorType(DType.FP64))))
    g.operations.append(Operation("classify", given, outputs, {"name": text("classify")}))
    return tuple(port.name for port in described.output)


def _settle(feature: Any, shape: tuple[int, ...]) -> None:
    optional = feature.type.isOptional
    feature.type.Clear()
    feature.type.isOptional = optional
    feature.type.multiArrayType.dataType = DType.FP32.array_number
    feature.type.multiArrayType.shape.extend(shape)
