"""A lowered function and what one run of it showed, made an ONNX graph.

The source is the graph of ``mil/lower`` with its bound arguments. One run by PyTorch (:class:`ShapeRecorder`) gives
every value's shape; what depends on nothing but constants and shapes is a constant here. A value that has to be rounded
to f16 is rounded when something needs it rounded: operations that commute with the rounding go first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import fx

from tlkit.engines.onnx.kit.graph import F16, F32, GraphValue, OnnxGraph, Spelling, UnsupportedGraph, input_name
from tlkit.engines.onnx.kit.registry import lowering
from tlkit.engines.onnx.kit.rounding import clamped, clamped_raw, rounded
from tlkit.engines.onnx.lower import ops as lowerings
from tlkit.engines.torch.fused.attention import find
from tlkit.engines.torch.fused.bounds import Bounds, declare
from tlkit.mil import ops
from tlkit.mil.lower.interpreter import Interpreter
from tlkit.mil.lower.lower import item_of
from tlkit.mil.program import Function, Ref, StateType, walk

FAMILIES = lowerings.__name__
"""The lowerings, which importing them registers."""
_PICK = (ops.scatter_gather.gather, ops.scatter_gather.gather_wrapping)
"""What takes elements of a narrow weight before it is widened."""
_STATES = ("read_state", "write_state", "coreml_update_state")
_UNDECIDED = ("random_bernoulli", "random_categorical", "random_normal", "random_uniform")


def unsupported(function: Function, *, strict: bool = False) -> str | None:
    """Return an operation of ``function`` that has no lowering to ONNX, or None; cheap, and not the last word.

    What depends on nothing but constants and shapes needs none (:func:`fixed_nodes`).
    """
    fixed: set[str] = set()
    for operation in walk(function.block.operations):
        if operation.type == "shape" or (
            operation.type not in (*_STATES, *_UNDECIDED)
            and not operation.blocks
            and all(
                item.name in fixed for items in operation.inputs.values() for item in items if isinstance(item, Ref)
            )
        ):
            fixed.update(output.name for output in operation.outputs)
            continue
        definition = ops.lookup(operation.type, function.opset, strict=strict)
        if definition is None or definition.constexpr:
            continue
        if lowering(definition.function) is None:
            return operation.type
    return None


class ShapeRecorder(Interpreter):
    """Runs a lowered function and keeps each value's shape and type, and what depends on shapes only whole."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.fixed = fixed_nodes(module.graph)
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and keep what it shows."""
        result = super().run_node(n)
        self.found[n] = _kept(result, whole=n in self.fixed and n.op != "get_attr")
        return result


def _kept(result: Any, *, whole: bool) -> Any:
    if isinstance(result, torch.Tensor):
        return result.detach().cpu().numpy().copy() if whole else (tuple(result.shape), _name(result.dtype))
    if isinstance(result, tuple | list) and not whole:
        return tuple(_kept(item, whole=False) for item in result)
    return result


def fixed_nodes(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes whose values are the same for all inputs of the same shapes."""
    fixed: set[fx.Node] = set()
    for node in graph.nodes:
        operation = node.meta.get("mil")
        kind = operation.type if operation is not None else ""
        if node.op == "get_attr" or kind == "shape":
            fixed.add(node)
        elif node.op == "call_function" and kind not in (*_STATES, *_UNDECIDED):
            given = node.all_input_nodes
            if (given and all(item in fixed for item in given)) or (not given and kind):
                fixed.add(node)
    return fixed


def lower_to_onnx(module: fx.GraphModule, function: Function, seen: ShapeRecorder, spelling: Spelling) -> OnnxGraph:
    """Return the ONNX graph of a lowered function at the shapes that ``seen`` has recorded.

    Inputs and outputs are the function's, in order; the states are inputs of their names, and what they hold in the
    end are further outputs, in order. Raises UnsupportedGraph, which names the operation.
    """
    return _Lowerer(module, function, seen, spelling).run()


class _Lowerer:
    def __init__(self, module: fx.GraphModule, function: Function, seen: ShapeRecorder, spelling: Spelling) -> None:
        self.module, self.function, self.seen = module, function, seen
        self.graph = OnnxGraph(spelling)
        self.values: dict[fx.Node, Any] = {}
        self.settled: dict[str, GraphValue] = {}
        self.inner = _inside_attention(module, function) if spelling.rounding and spelling.attention else frozenset()

    def run(self) -> OnnxGraph:
        inputs = iter(self.function.inputs)
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self.port(node, next(inputs))
            elif node.op == "output":
                self.finish(node.args[0])
            else:
                self.node(node)
        return self.graph

    def port(self, node: fx.Node, item: Any) -> None:
        shape, dtype = self.seen.found[node]
        value = GraphValue(input_name(len(self.graph.inputs)), dtype, shape)
        self.graph.inputs.append(value)
        if isinstance(item.type, StateType):
            self.graph.states[node.name] = value
            value = replace(value, name=node.name)  # a state is referred to by the node's name
        self.values[node] = value

    def finish(self, outputs: Sequence[fx.Node]) -> None:
        for name, node in zip(self.function.block.outputs, outputs, strict=True):
            value = self.ready(self.values[node]) if node in self.values else None
            if not isinstance(value, GraphValue):
                raise UnsupportedGraph(f"the output '{name}' is not a tensor")
            self.graph.outputs.append(self.output(name, value))
        for name, value in self.graph.states.items():
            self.graph.outputs.append(self.output(f"{name}.after", self.ready(value)))

    def output(self, name: str, value: GraphValue) -> GraphValue:
        self.graph.scope = name
        return replace(self.graph.op("Identity", value), shape=value.known, dtype=value.dtype)

    def node(self, node: fx.Node) -> None:
        if node in self.seen.fixed:
            self.values[node] = self.constant(node)
        elif node.target is item_of:
            whole, index = node.args
            assert isinstance(whole, fx.Node) and isinstance(index, int)
            self.values[node] = self.values[whole][index]
        elif node.target is ops.host:
            raise UnsupportedGraph(f"{_of(node)} takes a size or a parameter that depends on values")
        else:
            self.operation(node)

    def constant(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            found = getattr(self.module, str(node.target))
            if not isinstance(found, torch.Tensor):
                return None  # a nested block, which whoever uses it refuses
            return self.graph.constant(found.detach().cpu().numpy())
        value = self.seen.found[node]
        if isinstance(value, tuple) and any(isinstance(item, torch.Tensor) for item in value):
            return tuple(self.graph.constant(item.numpy()) for item in value)
        return self.graph.constant(value) if isinstance(value, np.ndarray) else value

    def operation(self, node: fx.Node) -> None:
        assert callable(node.target)
        entry = lowering(node.target)
        if entry is None:
            raise UnsupportedGraph(f"{_of(node)} has no counterpart in ONNX here")
        self.graph.scope = node.name
        early = entry.commutes(node.kwargs) and self.may_wait(node)
        picks = node.target in _PICK
        given = {name: self.argument(item, early, picks) for name, item in node.kwargs.items()}
        clamps = {item.clamp for item in _floats(given.values())} if early and not entry.bounding else set()
        if len(clamps) > 1:
            given = {name: _deep(item, lambda value: clamped_raw(self.graph, value)) for name, item in given.items()}
            clamps = set()
        try:
            made = entry.function(self.graph, **given)
        except UnsupportedGraph as error:
            raise UnsupportedGraph(f"{_of(node)}: {error.message}") from None
        waits = (_rounds(node.target) and node not in self.inner) or (
            early and any(_is_raw(item) for item in given.values())
        )
        made = _deep(made, lambda value: replace(value, clamp=value.clamp or next(iter(clamps), None)))
        self.values[node] = self.shaped(made, self.seen.found[node], waits)

    def may_wait(self, node: fx.Node) -> bool:
        """Whether what a node takes is used by nothing else, so that its rounding may come after the node."""
        return all(len(item.users) == 1 for item in node.all_input_nodes if _is_raw(self.values.get(item)))

    def argument(self, item: Any, early: bool, picks: bool) -> Any:
        if isinstance(item, fx.Node):
            value = self.values.get(item)
            if value is None:
                raise UnsupportedGraph(f"{_of(item)} is no tensor")
            value = value if picks else self.wide(value)
            return value if early else self.ready(value)
        if isinstance(item, tuple | list):
            return tuple(self.argument(part, early, picks) for part in item)
        return item

    def wide(self, value: Any) -> Any:
        """Return a weight that is narrow (``mil/ops/kit/narrow.py``) in f32: the runtime widens it."""
        if not isinstance(value, GraphValue) or value.dtype != F16:
            return value
        return replace(self.graph.cast(value, F32), shape=value.shape)

    def ready(self, value: Any) -> Any:
        """Return a value rounded, if it has to be; each is rounded once."""
        if not isinstance(value, GraphValue) or not value.raw:
            return value
        if value.name not in self.settled:
            self.settled[value.name] = rounded(self.graph, value)
        return self.settled[value.name]

    def shaped(self, made: Any, found: Any, waits: bool) -> Any:
        if isinstance(made, tuple | list):
            return tuple(self.shaped(item, kept, waits) for item, kept in zip(made, found, strict=True))
        if made is None or not isinstance(found, tuple):
            return made
        shape, dtype = found
        if made.dtype != dtype:
            made = self.graph.cast(made, dtype)
        if not (waits and made.is_float):
            made = clamped(self.graph, made)
        return replace(made, shape=shape, raw=waits and made.is_float)


def _inside_attention(module: fx.GraphModule, function: Function) -> frozenset[fx.Node]:
    """Return the scores and shares of attentions whose scores cannot overflow: unrounded, a compiler makes one kernel
    of what is between queries and mixed values."""
    declare(module.graph, function)
    bounds = Bounds(module)
    found = (find(node, bounds) for node in module.graph.nodes)
    return frozenset(node for item in found if item is not None for node in item.between)


def _deep(item: Any, change: Callable[[GraphValue], GraphValue]) -> Any:
    """Return values, or lists of them, changed; anything else as it is."""
    if isinstance(item, tuple | list):
        return tuple(_deep(part, change) for part in item)
    return change(item) if isinstance(item, GraphValue) else item


def _floats(items: Iterable[Any]) -> Iterator[GraphValue]:
    for item in items:
        if isinstance(item, tuple | list):
            yield from _floats(item)
        elif isinstance(item, GraphValue) and item.is_float:
            yield item


def _rounds(target: Callable[..., Any]) -> bool:
    """Whether a node's function is an operation with its rounding."""
    return hasattr(target, "__wrapped__")


def _is_raw(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(_is_raw(item) for item in value)
    return isinstance(value, GraphValue) and value.raw


def _of(node: fx.Node) -> str:
    operation = node.meta.get("mil")
    return f"op '{operation.name}' ({operation.type})" if operation is not None else f"'{node.name}'"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
