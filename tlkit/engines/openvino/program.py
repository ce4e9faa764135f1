"""A MIL function as OpenVINO's own graph, made without PyTorch: for language models.

The way through ONNX (``engines/onnx``) serves all programs, at fixed shapes and with dense weights. A language model
wants the opposite: any number of tokens in one graph, so that its weights are held once; weights in the file's blocks,
which OpenVINO multiplies as they are; and keys and values that stay inside from call to call.

What is not computed is not needed: the file's blocks are taken apart into codes and scales once, in files without a
name (memory that the system may take back), and OpenVINO packs its own copy of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tlkit.engines.openvino.library import openvino, ov
from tlkit.engines.openvino.operations import OPERATIONS, TYPES
from tlkit.engines.openvino.weights import GraphWeights
from tlkit.errors import UnavailableError
from tlkit.mil.program import Argument, Function, NamedType, Operation, Ref, TensorType, Value

_MAKERS = ("constexpr_blockwise_shift_scale", "constexpr_cast")
BEAM = "beam"
"""An input that OpenVINO's attention wants: which row of the cache goes on (always the first)."""


def missing(function: Function) -> str | None:
    """Return an operation that has no counterpart here, or None."""
    known = {*OPERATIONS, "const", *_MAKERS}
    return next((item.type for item in function.block.operations if item.type not in known), None)


def graph_of(function: Function, states: Mapping[str, str], weights: GraphWeights) -> openvino.Model:
    """Return the graph of a function; ``states`` names for each output that is kept the input that it is next time.

    Other inputs and outputs keep their order and names. UnavailableError where an operation has no counterpart.
    """
    return _Graph(function, states, weights).model()


class _Graph:
    def __init__(self, function: Function, states: Mapping[str, str], weights: GraphWeights) -> None:
        absent = missing(function)
        if absent:
            raise UnavailableError(f"OpenVINO is not given the operation {absent} here", "use --engine torch")
        self.function, self.states, self.weights = function, states, weights
        self.nodes: dict[str, Any] = {}
        self.constants: dict[str, Value] = {}
        self.makers: dict[str, Operation] = {}
        self.parameters: dict[int | tuple[int, ...], Any] = {}
        self.numbers: dict[float, Any] = {}
        # Where attention is one operation OpenVINO keeps the rows inside it, if they pass through a gather.
        self.whole = any(item.type == "scaled_dot_product_attention" for item in function.block.operations)

    def model(self) -> openvino.Model:
        parameters, variables = [], {}
        kept = set(self.states.values())
        beam = ov.parameter([1], openvino.Type.i32, name=BEAM)
        for item in self.function.inputs:
            if item.name in kept:
                variables[item.name] = self.variable(item)
                read = ov.read_value(_nothing(_shape(item), _type(item)), variables[item.name])
                self.nodes[item.name] = (ov.gather(read, beam, self.integers(0)) if self.whole else read).output(0)
            else:
                parameter = ov.parameter(_shape(item), _type(item), name=item.name)
                parameter.output(0).set_names({item.name})
                parameters.append(parameter)
                self.nodes[item.name] = parameter.output(0)
        beam.output(0).set_names({BEAM})
        parameters += [beam] if self.whole else []
        for operation in self.function.block.operations:
            self.add(operation)
        results, sinks = [], []
        for name in self.function.block.outputs:
            if name in self.states:
                sinks.append(ov.assign(self.nodes[name].get_node(), variables[self.states[name]]))
            else:
                results.append(ov.result(self.nodes[name].get_node()))
                results[-1].output(0).set_names({name})
        return openvino.Model(results, sinks, parameters, "language model")

    def variable(self, item: NamedType) -> Any:
        info = openvino.op.util.VariableInfo()
        info.data_shape, info.data_type, info.variable_id = openvino.PartialShape(_shape(item)), _type(item), item.name
        return openvino.op.util.Variable(info)

    def add(self, operation: Operation) -> None:
        names = [output.name for output in operation.outputs]
        if operation.type == "const":
            self.constants[names[0]] = operation.attributes["val"]
            return
        self.makers[names[0]] = operation
        if operation.type in _MAKERS:
            return  # made where it is used
        made = OPERATIONS[operation.type](self, operation.inputs)
        outputs = made if isinstance(made, list) else [made.output(0) if hasattr(made, "output") else made]
        self.nodes.update(zip(names, outputs, strict=True))

    def node(self, item: Argument) -> Any:
        """Return an argument as OpenVINO's output."""
        if isinstance(item, Value):
            return ov.constant(item.numpy()).output(0)
        if item.name not in self.nodes:
            made = self.constant(item)
            self.nodes[item.name] = made.output(0)
        return self.nodes[item.name]

    def constant(self, item: Ref) -> Any:
        maker = self.makers.get(item.name)
        if maker is None:
            return self.weights.dense(self.constants[item.name])
        given = {name: self.value(part[0]) for name, part in maker.inputs.items()}
        if maker.type == "constexpr_cast":
            return self.weights.widened(given["source_val"])
        inner = given["data"]
        if isinstance(inner, Operation):
            below = {name: self.value(part[0]) for name, part in inner.inputs.items()}
            return self.weights.blocks(below["data"], below["scale"], given["offset"])
        return self.weights.blocks(inner, given["scale"], given.get("offset"))

    def value(self, item: Argument) -> Any:
        """Return a constant, or the operation that makes it."""
        if isinstance(item, Value):
            return item
        return self.makers.get(item.name) or self.constants[item.name]

    def known(self, item: Argument) -> Any:
        """Return a parameter as Python has it."""
        return (item if isinstance(item, Value) else self.constants[item.name]).python()

    def integers(self, values: Any) -> Any:
        """Return an integer, or a list of them, as a constant; one for all that are equal."""
        key = tuple(values) if isinstance(values, list) else values
        if key not in self.parameters:
            self.parameters[key] = ov.constant(np.array(values, np.int64))
        return self.parameters[key]

    def number(self, value: float) -> Any:
        """Return a number in f32 as a constant; one for all that are equal."""
        if float(value) not in self.numbers:
            self.numbers[float(value)] = ov.constant(np.float32(value))
        return self.numbers[float(value)]


def _nothing(shape: list[int], kind: openvino.Type) -> Any:
    """Return a cache without rows."""
    return ov.constant(np.zeros([max(length, 0) for length in shape], np.float32), kind)


def _shape(item: NamedType) -> list[int]:
    assert isinstance(item.type, TensorType)  # language models have no other ports
    return [-1 if length is None else length for length in item.type.shape or ()]


def _type(item: NamedType) -> Any:
    assert isinstance(item.type, TensorType)
    return TYPES[item.type.dtype.mil]
