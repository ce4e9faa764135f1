"""The graph of an ONNX model: its nodes, the shapes of its values as far as they are known, and its work.

Shapes are those that the file gives (``value_info``), and what follows from them by :mod:`tlkit.formats.onnx_shapes`.
Field numbers are those of ONNX's ``onnx.proto3``. No weight is read but constants of a few numbers, which shapes are
made of. Graphs inside nodes (If, Loop) are not looked into.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tlkit.formats.base.dtypes import PLAIN
from tlkit.formats.files.wire import fields, signed, varints
from tlkit.formats.onnx import OnnxFile
from tlkit.formats.onnx_shapes import infer

Dims = tuple[int | None, ...]
_PARAMETER = 16  # elements of a constant that is a parameter, not a weight
_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bf16", "F64": "float64", "BOOL": "bool"}
_VIEWS = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"))


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its attributes that are numbers or text, by name."""

    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


class NodeGraph:
    """The main graph of an opened ONNX model."""

    def __init__(self, file: OnnxFile) -> None:
        self._file = file
        self._entries = {entry.name: entry for entry in file.entries()}
        self.constants = {name: entry.shape for name, entry in self._entries.items()}
        self.types = {name: entry.dtype for name, entry in self._entries.items()}
        self.shapes: dict[str, Dims | None] = {name: tuple(shape) for name, shape in self.constants.items()}
        self.nodes: list[Node] = []
        for name, dtype, dims in (*file.inputs, *file.outputs):
            self._learn(name, dtype, dims)
        data = file.data
        for number, wire, start, end in fields(data, 0, len(data)):
            if number == 7 and wire == 2:
                self._graph(data, start, end)
        self.outputs = {name for name, *_ in file.outputs}
        # A Constant node's tensor is a constant of the file under the node's output.
        self.nodes = [node for node in self.nodes if node.type != "Constant"]
        for node in self.nodes:
            if any(self.shapes.get(name) is None for name in node.outputs if name):
                for name, found in zip(node.outputs, infer(self, node), strict=False):
                    if name and self.shapes.get(name) is None:
                        self.shapes[name] = found
                        self.types.setdefault(name, self.types.get(node.inputs[0], "") if node.inputs else "")

    @property
    def open(self) -> bool:
        """Whether a value has a dimension that the file leaves open."""
        return any(None in shape for shape in self.shapes.values() if shape is not None)

    def _learn(self, name: str, dtype: str, dims: tuple[int | str, ...]) -> None:
        self.types.setdefault(name, dtype)
        if dims:  # a value of no dimensions looks like one whose shape was left out
            self.shapes.setdefault(name, tuple(size if isinstance(size, int) else None for size in dims))

    def _graph(self, data: memoryview, start: int, end: int) -> None:
        for number, wire, begin, stop in fields(data, start, end):
            if number == 1 and wire == 2:
                self.nodes.append(_node(data, begin, stop))
            elif number == 13 and wire == 2:
                self._learn(*self._file.port(begin, stop))

    def numbers(self, name: str) -> list[int] | None:
        """Return the values of a small constant of integers; None for any other value."""
        entry = self._entries.get(name)
        if entry is None or entry.elements > 64 or entry.dtype not in ("I64", "I32"):
            return None
        wide = 8 if entry.dtype == "I64" else 4
        held = bytes(self._file.raw(entry))  # little-endian, as ONNX stores it; without numpy, which need not be here
        return [int.from_bytes(held[at : at + wide], "little", signed=True) for at in range(0, len(held), wide)]

    def kind(self, name: str) -> tuple[str, Dims | None]:
        """Return a value's type, in numpy's words, and its shape; None where the rank is not known."""
        dtype = self.types.get(name, "")
        return _NAMES.get(dtype, dtype.lower().replace("i", "int").replace("u", "uint")), self.shapes.get(name)

    def elements(self, name: str) -> int:
        """Return how many elements a value has; open dimensions count as 1."""
        return math.prod(1 if size is None else size for size in self.shapes.get(name) or ())

    def nbytes(self, name: str) -> int | None:
        """Return a value's bytes; None where its shape or type is not known."""
        if self.shapes.get(name) is None or self.types.get(name) not in PLAIN:
            return None
        return self.elements(name) * PLAIN[self.types[name]]

    def is_weight(self, name: str) -> bool:
        """Whether a value is a constant of more than a few elements."""
        return name in self.constants and self.elements(name) > _PARAMETER

    def macs(self, node: Node) -> int | None:
        """Return the node's multiply-accumulates; None where they depend on a shape that is not known."""
        rule = _MACS.get(node.type)
        if rule is None:
            return 0
        needed = [*node.inputs[:2], *node.outputs[:1]]
        return None if any(self.shapes.get(name) is None for name in needed) else rule(self, node)

    def alive(self) -> Iterator[tuple[Node, int | None]]:
        """Yield each node with the bytes of the values that are alive while it runs; None where one is not known."""
        root: dict[str, str] = {}
        last: dict[str, int] = {}
        for place, node in enumerate(self.nodes):
            for name in node.inputs:
                last[root.get(name, name)] = place
            if node.type in _VIEWS and node.inputs and node.outputs:
                root[node.outputs[0]] = root.get(node.inputs[0], node.inputs[0])
        for name in self.outputs:
            last[root.get(name, name)] = len(self.nodes)
        given = [name for name, *_ in self._file.inputs]
        ends: dict[int, list[str]] = {}
        for name in given:  # the caller's, to the end
            last[name] = len(self.nodes)
        now, unknown = sum(self.nbytes(name) or 0 for name in given), 0
        for place, node in enumerate(self.nodes):
            for name in node.outputs:
                if name and root.get(name, name) == name:
                    size = self.nbytes(name)
                    now, unknown = now + (size or 0), unknown + (size is None)
                    ends.setdefault(max(last.get(name, place), place), []).append(name)
            yield node, None if unknown else now
            for name in ends.pop(place, ()):
                size = self.nbytes(name)
                now, unknown = now - (size or 0), unknown - (size is None)


def _node(data: memoryview, start: int, end: int) -> Node:
    names: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}
    attributes: dict[str, Any] = {}
    for number, wire, begin, stop in fields(data, start, end):
        if number in names and wire == 2:
            names[number].append(str(data[begin:stop], "utf-8", "replace"))
        elif number == 5 and wire == 2:
            key, value = _attribute(data, begin, stop)
            attributes[key] = value
    return Node("".join(names[3][:1]), "".join(names[4][:1]), tuple(names[1]), tuple(names[2]), attributes)


def _attribute(data: memoryview, start: int, end: int) -> tuple[str, Any]:
    """Return an attribute's name and its integers or text; other values are None."""
    name = ""
    value: int | str | None = None
    several: list[int] = []
    for number, wire, begin, stop in fields(data, start, end):
        if number == 1 and wire == 2:
            name = str(data[begin:stop], "utf-8", "replace")
        elif number == 3 and wire == 0:
            value = signed(begin)
        elif number == 4 and wire == 2:
            value = str(data[begin:stop], "utf-8", "replace")
        elif number == 8:
            several += [signed(begin)] if wire == 0 else map(signed, varints(data, begin, stop))
    return name, several or value


def _sizes(graph: NodeGraph, name: str) -> list[int]:
    return [1 if size is None else size for size in graph.shapes.get(name) or ()]


def _conv(graph: NodeGraph, node: Node) -> int:
    # C_out x C_in/groups x kernel
    return graph.elements(node.outputs[0]) * math.prod(_sizes(graph, node.inputs[1])[1:])


def _conv_transpose(graph: NodeGraph, node: Node) -> int:
    # C_in x C_out/groups x kernel: each element of the input is multiplied by all of its channel's.
    return graph.elements(node.inputs[0]) * math.prod(_sizes(graph, node.inputs[1])[1:])


def _matmul(graph: NodeGraph, node: Node) -> int:
    return graph.elements(node.outputs[0]) * (_sizes(graph, node.inputs[0]) or [1])[-1]


def _gemm(graph: NodeGraph, node: Node) -> int:
    given = _sizes(graph, node.inputs[0])
    if len(given) != 2:
        return 0
    return graph.elements(node.outputs[0]) * given[0 if node.attributes.get("transA") else 1]


def _recurrent(graph: NodeGraph, node: Node) -> int:
    # X is S x N x C; W and R are applied once per step and sample, in each direction.
    weights = sum(graph.elements(name) for name in node.inputs[1:3])
    return math.prod(_sizes(graph, node.inputs[0])[:2]) * weights


_MACS: Mapping[str, Callable[[NodeGraph, Node], int]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "Gemm": _gemm,
    "FusedMatMul": _matmul,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}
