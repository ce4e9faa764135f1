"""The mlprogram that computes what a classic model does, or a pipeline of such models and of neural networks.

An mlprogram's ports are arrays, so that a port of one number becomes an array of one; values are f32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tlkit.core.convert.classic import boxes, kernels, linear, splice, trees
from tlkit.core.convert.classic.ends import Chain, Classified, check_ports, leave, settle, shape_of
from tlkit.core.convert.classic.features import STAGES, found, joined
from tlkit.engines.classic.answers import labels_of
from tlkit.engines.classic.kind import NOT_RUN
from tlkit.engines.classic.values import DAMAGED, input_names, only_output
from tlkit.errors import ConversionError, LoadError, contradictions
from tlkit.formats.coreml import legacy
from tlkit.formats.coreml.ports import read_ports
from tlkit.frontends.network.kit.blob import Blob
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.weights import array_value
from tlkit.frontends.network.mlprogram import refuse_own
from tlkit.frontends.network.network import NeuralNetwork, needed
from tlkit.frontends.network.ports import element
from tlkit.mil.opsets import version_of
from tlkit.mil.program import Block, Function, NamedType, Program, TensorType
from tlkit.mil.proto import read_program
from tlkit.mil.types import DType
from tlkit.types import TensorSpec
from tlkit.words import one

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
SAID = frozenset({*_MADE, *STAGES, *legacy.NETWORKS, boxes.KIND})
"""The kinds of models that MIL can say."""
_STAYS = "it runs with `tlkit run`, and cannot become a package"
_NOT_EVEN = "see what is in it with `tlkit inspect`"


def as_mlprogram(
    model: Any, stages: Sequence[Any] = (), programs: Sequence[Program | None] = ()
) -> tuple[Any, Program]:
    """Return ``model`` as a ``Model`` message of an mlprogram without one, and the program.

    It is a tree ensemble, a linear model, a support vector machine, feature engineering of numbers, a suppression of
    boxes, or a pipeline of these, of neural networks and of mlprograms. ``stages`` are the models that compute, in
    order, where ``model`` does not hold them whole (compiled networks), and ``programs`` those that are mlprograms.
    ConversionError says what MIL cannot say of it.
    """
    stages = stages or leaves(model)
    _refuse(stages)
    functions = _functions(stages, programs)
    gone, optional = boxes.constant_inputs(stages), boxes.defaults(stages)
    _refuse_asked(model, gone)
    ports = [spec for spec in read_ports(model.description.input) if spec.name not in gone]
    check_ports(ports, _STAYS)
    # A value inside must not have the name that an output gets in the end.
    g = Graph({port.name for port in (*model.description.input, *model.description.output)})
    inputs = tuple(NamedType(spec.name, TensorType(DType.FP32, shape_of(spec))) for spec in ports)
    chain = Chain(g, {spec.name: Blob(spec.name, shape_of(spec)) for spec in ports})
    opset = splice.newest([function for function in functions if function], OPSET)
    with contradictions("the model contradicts itself", DAMAGED, also=(RuntimeError, MemoryError)):
        for number, (stage, function) in enumerate(zip(stages, functions, strict=True)):
            kind, start = stage.WhichOneof("Type"), len(g.operations)
            g.title = f"stage{number}" if kind in STAGES else kind
            _add(chain, stage, kind, function, opset)
            splice.refuse_changed(g.operations[start:], function.opset if function else OPSET, opset)
    made = type(model)(specificationVersion=version_of(opset))
    made.mlProgram.SetInParent()
    made.description.CopyFrom(model.description)
    del made.description.trainingInput[:]
    _enter(made, ports, gone, optional)
    labels = boxes.labels_of(stages)
    if labels:  # no place else in an mlprogram has them
        made.description.metadata.userDefined.setdefault("classes", ",".join(labels))
    names = leave(chain, model, made, _STAYS)
    program = Program({"main": Function(inputs, opset, {opset: Block((), names, tuple(needed(g.operations, names)))})})
    refuse_own(program)
    return made, program


def _functions(stages: Sequence[Any], programs: Sequence[Program | None]) -> list[Function | None]:
    """Return the function of each stage that is an mlprogram, None for the others."""
    found: list[Function | None] = []
    for stage, program in zip(stages, programs or [None] * len(stages), strict=True):
        if stage.WhichOneof("Type") != "mlProgram":
            found.append(None)
        else:
            found.append(splice.function_of(stage, program or read_program(stage.mlProgram, lambda _: None)))
    return found


def _refuse_asked(model: Any, gone: Mapping[str, Any]) -> None:
    """Raise ConversionError where an input that a program cannot have must be given."""
    asked = next((port for port in model.description.input if port.name in gone and not port.type.isOptional), None)
    if asked is not None:
        said = f"'{asked.name}' is an IoU threshold that has to be given, and MIL takes it as a constant"
        raise ConversionError(said, _STAYS)


def _enter(made: Any, ports: Sequence[TensorSpec], gone: Mapping[str, Any], optional: Mapping[str, float]) -> None:
    """Say in ``made`` what the inputs are: those that are ``gone`` are not, ``optional`` ones have these numbers."""
    kept = [port for port in made.description.input if port.name not in gone]
    del made.description.input[:]
    made.description.input.extend(kept)
    for feature, spec in zip(made.description.input, ports, strict=True):
        if spec.image is not None:
            continue
        settle(feature, shape_of(spec))
        if spec.optional and spec.name in optional:
            feature.type.multiArrayType.floatDefaultValue = optional[spec.name]


def leaves(model: Any) -> list[Any]:
    """Return the models that compute, in order: ``model`` itself, or a pipeline's stages at any depth."""
    inner = legacy.inner(model)
    return [leaf for stage in inner for leaf in leaves(stage)] if inner else [model]


def _refuse(stages: Sequence[Any]) -> None:
    kinds = [stage.WhichOneof("Type") or "model without a kind" for stage in stages]
    refused = next((kind for kind in kinds if kind not in (*SAID, "mlProgram")), None)
    if refused is None:
        return
    why = f": {NOT_RUN[refused]}" if refused in NOT_RUN else ""
    unrun = any(kind in NOT_RUN for kind in kinds)
    raise ConversionError(f"MIL has nothing that computes {one(refused)}{why}", _NOT_EVEN if unrun else _STAYS)


def _add(chain: Chain, stage: Any, kind: str, function: Function | None, opset: str) -> None:
    """Make a stage's operations, and put what it makes under its outputs' names."""
    g, values = chain.g, chain.values
    if function is not None:
        splice.spliced(chain, stage, function)
    elif kind in legacy.NETWORKS:
        _network(chain, stage)
    elif kind == boxes.KIND:
        chain.values |= boxes.suppression(g, values, stage, opset)
    elif kind in STAGES:
        specs = {spec.name: spec for spec in read_ports(stage.description.output)}
        made = STAGES[kind](g, values, stage)
        values |= {name: _held(g, blob, specs.get(name)) for name, blob in made.items()}
    else:
        x = joined(g, [found(g, values, name) for name in input_names(stage)])
        result, backwards = _MADE[kind](g, x, stage)
        if kind.endswith("Regressor"):
            values[_regressed(chain, stage)] = result
        else:
            chain.answer = Classified(result, tuple(labels_of(legacy.body(stage))), backwards)


def _regressed(chain: Chain, stage: Any) -> str:
    """Return the name of a regressor's output, which is the pipeline's predicted feature whatever that calls it."""
    chain.predicted = str(stage.description.predictedFeatureName or only_output(stage))
    return chain.predicted


def _held(g: Graph, blob: Blob, spec: TensorSpec | None) -> Blob:
    """Return a value as its port holds it: whole numbers in a port of integers."""
    if spec is None or not (spec.kind == "int64" or "int" in spec.dtype):
        return blob
    # As in the engine: one number is rounded, an array is cut off.
    if spec.kind == "int64":
        return g.op("round", blob.shape, x=blob)
    return g.cast(g.cast(blob, DType.INT32), DType.FP32, DType.INT32)


def _network(chain: Chain, stage: Any) -> None:
    """Make a network's layers on the values of its inputs' names."""
    g, network = chain.g, NeuralNetwork(stage)
    shapes, given = network.defaults, {}
    for spec in network.inputs:
        if spec.name in chain.pictures:
            raise ConversionError(f"a picture, '{spec.name}', goes from one stage to another", _STAYS)
        if spec.name in chain.values:
            given[spec.name] = g.reshape(chain.values[spec.name], shapes[spec.name])
        elif spec.optional:
            filled = np.full(shapes[spec.name], spec.default or 0, np.float32)
            given[spec.name] = g.tensor(array_value(filled), spec.name)
        else:
            raise LoadError(f"no stage makes the feature '{spec.name}'", DAMAGED)
    scope = network.within(g, given, shapes)
    for spec in network.plain:
        blob = network.leaving(g, scope, spec)
        if element(spec) is DType.INT32:
            blob = g.cast(g.cast(blob, DType.INT32), DType.FP32, DType.INT32)
        chain.values[spec.name] = Blob(blob.name, blob.shape)
        chain.pictures |= {spec.name} if spec.image is not None else set()
    if network.scores:
        chain.answer = Classified(network.flat_scores(g, scope), tuple(labels_of(legacy.body(stage))))
    elif stage.description.predictedFeatureName:
        chain.predicted = stage.description.predictedFeatureName
