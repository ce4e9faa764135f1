"""A Core ML model of a neural network as a MIL program: the door of this room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from tlkit.errors import LoadError
from tlkit.formats.coreml import legacy
from tlkit.formats.coreml.ports import read_ports
from tlkit.frontends.network import ports
from tlkit.frontends.network.build import Builder, Hooks, unknown
from tlkit.frontends.network.kit.blob import Blob
from tlkit.frontends.network.kit.graph import Graph, text
from tlkit.frontends.network.kit.weights import Weights
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
"""The operations that networks become: those of the first opset say them all."""
_CUSTOM = "`tlkit run` takes a function for each class of custom layers: --custom CLASS=module:function"
_LENGTHS = (2, 4, 8, 16, 32, 64, 128)
"""Lengths of sequences that are tried, for those who give none and for advice."""

Shapes = Mapping[str, tuple[int, ...]]


class NeuralNetwork:
    """A neural network of a ``Model`` message. Its weights are decoded once, however often the program is made.

    ``hooks`` are what runs custom layers, by their class. LoadError lists every kind of layer that cannot be made.
    """

    def __init__(self, model: Any, hooks: Hooks | None = None) -> None:
        self.model, self.hooks = model, dict(hooks or {})
        self.inputs, self.outputs = read_ports(model.description.input), read_ports(model.description.output)
        self._network = legacy.body(model)
        self._weights = Weights()
        self._made: dict[tuple[tuple[str, tuple[int, ...]], ...], Program] = {}

    @property
    def exact(self) -> bool:
        """Whether arrays enter the network as they are; else in rank 5."""
        return bool(self._network.arrayInputShapeMapping == 1)

    def program(self, shapes: Shapes | None = None) -> Program:
        """Return the network for inputs of ``shapes``, the ports' own where they are left out."""
        self._check()
        given = shapes or {}
        asked = {
            spec.name: given[spec.name] if spec.name in given else self.defaults[spec.name] for spec in self.inputs
        }
        try:
            return self._at(asked)
        except LoadError as error:
            raise LoadError(error.message, self._longer(asked) if shapes else error.hint) from error.__cause__

    def _check(self) -> None:
        """Raise LoadError with every kind of layer that cannot be made."""
        missing = unknown(self._network, self.hooks)
        if missing:
            listed, custom = ", ".join(missing), any(item.startswith("custom layer") for item in missing)
            hint = _CUSTOM if custom else "the file is damaged, or newer than this tlkit"
            raise LoadError(f"the network has layers that tlkit does not run: {listed}", hint)

    @cached_property
    def defaults(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the inputs where nothing else is said; LoadError where the model says none.

        Networks of rank 5 declare a vector for a sequence of vectors. Where a window over its steps does not fit into
        one step, it is a sequence that is long enough.
        """
        asked = {spec.name: default_shape(spec) for spec in self.inputs}
        vectors = self._vectors()
        return asked if not vectors or self._takes(asked) else asked | self._sequence(asked, vectors)

    def usual_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return those of :attr:`defaults` that are not what the ports say."""
        if unknown(self._network, self.hooks) or not self._vectors():
            return {}
        return {spec.name: self.defaults[spec.name] for spec in self.inputs if spec.shape != self.defaults[spec.name]}

    def _vectors(self) -> list[str]:
        """Return the inputs that may be sequences of vectors."""
        return [spec.name for spec in self.inputs if len(spec.shape) == 1 and not (self.exact or spec.optional)]

    def _longer(self, asked: Shapes) -> str:
        """Return what to do about a network that does not take ``asked``: a sequence that it takes, where one is."""
        found = self._sequence(asked, self._vectors())
        if not found:
            return "the network is damaged, or takes other shapes"
        flags = " ".join(f"--shape {name}={','.join(map(str, shape))}" for name, shape in found.items())
        return f"it takes sequences, of {next(iter(found.values()))[0]} for example: {flags}"

    def _sequence(self, asked: Shapes, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the shortest sequences tried that the network takes; empty where it takes none."""
        for length in _LENGTHS if names else ():
            found: dict[str, tuple[int, ...]] = {name: (length, 1, asked[name][-1]) for name in names}
            if self._takes(dict(asked) | found):
                return found
        return {}

    def _takes(self, shapes: Shapes) -> bool:
        try:
            self._at(shapes)
        except LoadError:
            return False
        return True

    def _at(self, shapes: Shapes) -> Program:
        """Return the program at ``shapes``, all of them; each is made once."""
        key = tuple(shapes.items())
        if key not in self._made:
            # Bounded, for callers whose shapes differ every time.
            if len(self._made) >= 8:
                self._made.clear()
            self._made[key] = Program({"main": self._function(shapes)})
        return self._made[key]

    def function(self, shapes: Shapes | None = None) -> Function:
        """Return the one function of :meth:`program`."""
        return self.program(shapes).function()

    def _function(self, shapes: Shapes) -> Function:
        # Ports keep their names; a layer's value that wants the same name gets another.
        taken = {spec.name for spec in (*self.inputs, *self.outputs)}
        g, given, inputs = Graph(taken), {}, []
        for spec in self.inputs:
            kind, shape = ports.element(spec), shapes[spec.name]
            inputs.append(NamedType(spec.name, TensorType(kind, shape)))
            g.title = spec.name
            # Networks compute in floats, whatever their ports take.
            given[spec.name] = g.cast(Blob(spec.name, shape), DType.FP32, kind)
        outputs = self._outputs(g, self.within(g, given, shapes))
        # Constants that only led to a known shape are left out.
        block = Block((), outputs, tuple(needed(g.operations, outputs)))
        return Function(tuple(inputs), OPSET, {OPSET: block})

    def within(self, g: Graph, given: Mapping[str, Blob], shapes: Shapes) -> dict[str, Blob]:
        """Make the layers in ``g``; return every blob by its name.

        ``given`` are the inputs by name, f32 values of ``shapes`` as the ports hold them.
        """
        self._check()
        scope = {}
        for spec in self.inputs:
            exact = self._network.imageInputShapeMapping == 1 if spec.image else self.exact
            seen = ports.entered(spec, shapes[spec.name], exact=exact)
            scope[spec.name] = replace(seen, name=given[spec.name].name)
        ports.preprocessed(g, self._network.preprocessing, self.inputs, scope)
        wanted = [spec.name for spec in self.outputs]
        wanted.append(self.scores)
        constant_rank = 0 if self.exact else 5
        Builder(self._network, self._weights, self.hooks, constant_rank, wanted).network(g, self._network, scope)
        return scope

    @property
    def scores(self) -> str:
        """The name of the blob with a classifier's scores; empty for another network."""
        if self.model.WhichOneof("Type") != "neuralNetworkClassifier":
            return ""
        found = self._network.labelProbabilityLayerName
        last = self._network.layers[-1].output if self._network.layers else ()
        return str(found or next(iter(last), ""))

    @property
    def plain(self) -> list[TensorSpec]:
        """The outputs but for a classifier's label and probabilities."""
        described = self.model.description
        answers = (described.predictedFeatureName, described.predictedProbabilitiesName) if self.scores else ()
        return [spec for spec in self.outputs if spec.name not in answers]

    def flat_scores(self, g: Graph, scope: Mapping[str, Blob]) -> Blob:
        """Return a classifier's scores [classes]."""
        blob = _found(scope, self.scores)
        return g.reshape(blob, (-1,) if None in blob.shape else (_size(blob),))

    def leaving(self, g: Graph, scope: Mapping[str, Blob], spec: TensorSpec) -> Blob:
        """Return an output as its port holds it, in f32."""
        return ports.left(g, _found(scope, spec.name), spec, exact=self.exact)

    def _outputs(self, g: Graph, scope: Mapping[str, Blob]) -> tuple[str, ...]:
        description, made = self.model.description, {}
        label, table = description.predictedFeatureName, description.predictedProbabilitiesName
        for spec in self.plain:
            made[spec.name] = self._output(g, scope, spec)
        if self.scores:
            flat = self.flat_scores(g, scope)
            names = [NamedType(label or "classLabel", TensorType(self._label_type()))]
            dictionary = DictType(TensorType(self._label_type()), TensorType(DType.FP64))
            names.append(NamedType(table or g.fresh("classProbability"), dictionary))
            inputs: dict[str, tuple[Argument, ...]] = {"probabilities": (Ref(flat.name),), "classes": (self._labels(),)}
            g.operations.append(Operation("classify", inputs, tuple(names), {"name": text("classify")}))
            made |= {item.name: item.name for item in names}
        return tuple(made[spec.name] for spec in self.outputs)

    def _label_type(self) -> DType:
        return DType.INT64 if self._network.WhichOneof("ClassLabels") == "int64ClassLabels" else DType.STRING

    def _labels(self) -> Value:
        which = self._network.WhichOneof("ClassLabels")
        labels = list(getattr(self._network, which).vector) if which else []
        if self._label_type() is DType.STRING:
            return texts([str(item) for item in labels])
        kind = TensorType(DType.INT64)
        several = tuple(Value(kind, (int(label),)) for label in labels)
        return Value(ListType(kind, len(labels)), several)

    def _output(self, g: Graph, scope: Mapping[str, Blob], spec: TensorSpec) -> str:
        """Make an output under its port's name; return that."""
        g.title = spec.name
        blob = self.leaving(g, scope, spec)
        if ports.element(spec) is DType.INT32:
            blob = g.cast(blob, DType.INT32)
        # A separate operation: one value may leave through several ports, or be an input itself.
        blob = g.op("identity", blob.shape, out=ports.element(spec), x=blob)
        g.settle(len(g.operations) - 1, {blob.name: spec.name}, "")
        return spec.name


def default_shape(spec: TensorSpec) -> tuple[int, ...]:
    """Return the shape that an input has where nothing else is said; LoadError where the model says none."""
    shape = spec.shape or ((1,) if spec.kind in ("double", "int64") else ())
    if not shape or any(length < 1 for length in shape):
        raise LoadError(f"the input '{spec.name}' has the shape {shape}", "give one, with --shape")
    return shape


def _found(scope: Mapping[str, Blob], name: str) -> Blob:
    if name not in scope:
        raise LoadError(f"no layer makes the output '{name}'", "the model is damaged")
    return scope[name]


def _size(blob: Blob) -> int:
    size = 1
    for length in blob.shape:
        size *= length or 1
    return size


def needed(operations: list[Operation], outputs: tuple[str, ...]) -> list[Operation]:
    """Return the operations that the outputs depend on, in order."""
    wanted, kept = set(outputs), []
    for operation in reversed(operations):
        if any(item.name in wanted for item in operation.outputs):
            kept.append(operation)
            wanted |= used(operation)
    return kept[::-1]


def used(operation: Operation) -> set[str]:
    """Return the names that an operation uses, in its blocks too."""
    found = {item.name for items in operation.inputs.values() for item in items if isinstance(item, Ref)}
    for block in operation.blocks:
        found |= set(block.outputs)
        for inner in block.operations:
            found |= used(inner)
    return found
