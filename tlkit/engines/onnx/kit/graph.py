"""An ONNX graph in the making: values, nodes, constants; and the graph as a serialized model.

Shapes are fixed: a graph is made for one set of input shapes. ``GraphValue.shape`` is known for what the program names,
and unknown for what a lowering makes on the way.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.errors import LoadError

if TYPE_CHECKING:
    import onnx

OPSET = 20
"""The opset of ONNX that lowerings are written in (Gelu came with it)."""
LARGEST = 1_900_000_000
"""Bytes of constants: a model is one protobuf message, which ends at 2 GiB."""
APART = 1 << 16
"""Bytes of a constant from which on it is handed over beside the model, not in it: a runtime reads it where it lies."""
F32, I32, I64, BOOL = "float32", "int32", "int64", "bool"
F16 = "float16"
"""The type of a large weight that is as its file has it (``mil/ops/kit/narrow.py``), and of nothing else here."""


class UnsupportedGraph(LoadError):
    """What a graph cannot hold; the message says which operation, and why."""


@dataclass(frozen=True, slots=True)
class GraphValue:
    """A value of the graph: ``dtype`` is numpy's name, ``array`` is there for a constant.

    ``raw`` marks a float that is not rounded to f16 yet, and ``clamp`` the bounds (f16 values) that it still has to be
    brought within; both are done together when something needs the value. ``positive`` marks a float that is never
    negative, ``small`` one whose magnitude stays below f16's largest number.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None = None
    array: np.ndarray[Any, Any] | None = None
    raw: bool = False
    clamp: tuple[float, float] | None = None
    positive: bool = False
    small: bool = False

    @property
    def rank(self) -> int:
        """The number of dimensions; UnsupportedGraph where the lowering has not said."""
        return len(self.known)

    @property
    def ndim(self) -> int:
        """The same, as torch calls it: helpers of ``mil/ops`` ask for no more than this and ``shape``."""
        return self.rank

    @property
    def known(self) -> tuple[int, ...]:
        """The shape, which a value that the program names has."""
        if self.shape is None:
            raise UnsupportedGraph(f"the shape of '{self.name}' is not known")
        return self.shape

    @property
    def is_float(self) -> bool:
        """Whether it is a float."""
        return self.dtype == F32


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a graph is spelt for a runtime.

    ``rounding`` is how f16's rounding is written: ``"casts"`` to f16 and back, ``"arithmetic"`` (see ``rounding.py``),
    or ``""`` for none. ``careful`` says that the runtime's own minima and maxima would lose a NaN that counts, so that
    they are written otherwise. ``attention`` says that it makes one kernel of an attention that is not rounded inside.
    """

    rounding: str
    careful: bool = False
    attention: bool = False


Operand = GraphValue | float | int | bool | Sequence[int] | np.ndarray[Any, Any]


@dataclass
class OnnxGraph:
    """Nodes in order, constants, and the ports; ``spelling`` is the runtime's."""

    spelling: Spelling
    scope: str = "graph"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[GraphValue] = field(default_factory=list)
    outputs: list[GraphValue] = field(default_factory=list)
    states: dict[str, GraphValue] = field(default_factory=dict)
    """The current contents of each state by name; those at the end are outputs."""
    _constants: dict[Any, GraphValue] = field(default_factory=dict)
    _arrays: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)

    def op(
        self, kind: str, *operands: Operand | None, dtype: str | None = None, count: int = 1, **attributes: Any
    ) -> GraphValue:
        """Add a node; return its (first) output, of the first operand's type unless ``dtype`` says another."""
        return self.ops(kind, *operands, dtype=dtype, count=count, **attributes)[0]

    def ops(
        self, kind: str, *operands: Operand | None, dtype: str | None = None, count: int = 1, **attributes: Any
    ) -> list[GraphValue]:
        """Add a node with ``count`` outputs and return them. Plain numbers take the type of
        the first value that is no boolean."""
        from onnx import helper

        kinds = [item.dtype for item in operands if isinstance(item, GraphValue)]
        first = kinds[0] if kinds else F32
        number = next((kind for kind in kinds if kind != BOOL), first)
        given = [self.value(item, number) for item in operands]
        while given and given[-1] is None:
            given.pop()  # an input left out at the end has no name: ONNX Runtime 1.32 crashes on a layer norm with one
        names = [self.fresh() for _ in range(count)]
        self.nodes.append(helper.make_node(kind, [item.name if item else "" for item in given], names, **attributes))
        return [GraphValue(name, dtype or first) for name in names]

    def cast(self, x: GraphValue, dtype: str) -> GraphValue:
        """Return ``x`` converted to numpy's type ``dtype`` by ONNX's own rules."""
        from onnx import helper

        return self.op("Cast", x, dtype=dtype, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def value(self, operand: Operand | None, dtype: str) -> GraphValue | None:
        """Return an operand as a value: numbers as constants of ``dtype``, lists as int64."""
        if operand is None or isinstance(operand, GraphValue):
            return operand
        if isinstance(operand, np.ndarray):
            return self.constant(operand)
        return self.constant(np.array(operand, I64 if isinstance(operand, Sequence) else dtype))

    def constant(self, array: np.ndarray[Any, Any]) -> GraphValue:
        """Return a constant; small ones of equal contents are shared."""
        key = (array.dtype.str, array.shape, array.tobytes()) if array.nbytes <= 256 else None
        if key is not None and key in self._constants:
            return self._constants[key]
        name = self.fresh("constant")
        self._arrays[name] = array
        made = GraphValue(name, str(array.dtype), tuple(array.shape), array)
        if key is not None:
            self._constants[key] = made
        return made

    def fresh(self, base: str | None = None) -> str:
        """Return a name that nothing has yet, after the operation at hand."""
        base = base or self.scope
        count = self._names[base] = self._names.get(base, -1) + 1
        return f"{base}.{count}" if count else base

    def model(self) -> OnnxModel:
        """Return the graph as an ONNX model, once: the constants go with it, as there is no memory to spare.

        UnsupportedGraph where the constants that are not apart are too large for one message.
        """
        from onnx import ModelProto, helper

        used = {name for node in self.nodes for name in node.input} | {item.name for item in self.outputs}
        arrays = {name: array for name, array in self._arrays.items() if name in used}
        self._arrays.clear()
        if sum(array.nbytes for array in arrays.values() if array.nbytes < APART) > LARGEST:
            raise UnsupportedGraph("its small constants do not fit into one ONNX model")
        made = ModelProto(ir_version=10, opset_import=[helper.make_opsetid("", OPSET)])
        made.graph.name = "program"
        made.graph.node.extend(self.nodes)
        made.graph.input.extend(_port(item) for item in self.inputs)
        made.graph.output.extend(_port(item) for item in self.outputs)
        apart = {}
        for name in list(arrays):
            array = np.asarray(arrays.pop(name), order="C")  # ascontiguousarray makes a scalar an array of one
            tensor = made.graph.initializer.add(name=name, dims=array.shape)
            tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
            if array.nbytes >= APART:
                apart[name] = array
            else:
                tensor.raw_data = array.tobytes()
        return OnnxModel(made, apart)


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A model, and its large constants by name: in the message they have a name, a shape and a type, and no data."""

    message: onnx.ModelProto
    apart: dict[str, np.ndarray[Any, Any]]

    def with_inputs(self, names: Container[str]) -> bytes:
        """Return the message with constants of these names as inputs instead, after those that there are."""
        from onnx import helper

        graph = self.message.graph
        for tensor in [item for item in graph.initializer if item.name in names]:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
            graph.initializer.remove(tensor)
        serialized: bytes = self.message.SerializeToString()
        return serialized


_INPUT = "input:"


def input_name(place: int) -> str:
    """Return the name of an input; a runtime may leave out one that nothing uses."""
    return f"{_INPUT}{place}"


def input_place(names: Iterable[str]) -> int:
    """Return which input a port is, by its names (OpenVINO adds those of values that are equal to it)."""
    return next(int(name.removeprefix(_INPUT)) for name in names if name.startswith(_INPUT))


def _port(value: GraphValue) -> onnx.ValueInfoProto:
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
    return helper.make_tensor_value_info(value.name, kind, value.shape)
