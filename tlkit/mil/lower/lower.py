"""A MIL function to a ``torch.fx.GraphModule``: one node an op, MIL's names kept.

The module takes the function's inputs in order and returns a tuple in the order of the block's outputs. Tensors are
in their carriers (``ops._registry.CARRIERS``). A constant becomes a buffer when an op first takes it as a tensor, and
plain Python when an op takes it as a parameter; one that nothing takes is never read.

Each node's ``meta["mil"]`` is its :class:`~tlkit.mil.program.Operation`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from tlkit.errors import LoadError, TlkitError, reason
from tlkit.host import budget
from tlkit.mil import ops
from tlkit.mil.collector import uncollected
from tlkit.mil.lower import states
from tlkit.mil.lower.guard import Guard, TooLargeError
from tlkit.mil.ops.kit.registry import OpDef, Parameter
from tlkit.mil.program import (
    Argument,
    BlobRef,
    Block,
    Function,
    NamedType,
    Operation,
    Ref,
    TensorType,
    Type,
    Value,
    walk,
)
from tlkit.mil.types import DType

MAX_DEPTH = 64
"""Blocks nested deeper than this are refused."""

LARGE = 1 << 20
"""From this many bytes on, a weight's pages of the file are let go once it is in its carrier."""


@uncollected()
def lower(
    function: Function,
    *,
    precision: str = "f16",
    constants: dict[Any, torch.Tensor] | None = None,
    strict: bool = False,
) -> fx.GraphModule:
    """Lower ``function``. ``precision="f16"`` rounds what the program declares fp16, ``"f32"`` never rounds.

    ``strict`` takes the specification's ops where Core ML was measured to do something else (``docs/fidelity.md``).
    ``constants`` is a cache of tensors by weight record; pass one dict to lower functions that share weights.
    """
    context = _Context(
        function.opset,
        precision == "f16",
        {} if constants is None else constants,
        strict,
        budget.warranted(stored(function)),
    )
    return _Lowering(context, {}, 0).block(function.block, function.inputs)


def stored(function: Function) -> int:
    """Return how many bytes the program holds: its weight files', and as many as elements are written inline."""
    files: dict[int, int] = {}
    inline = 0
    for operation in walk(function.block.operations):
        given = (item for items in operation.inputs.values() for item in items if isinstance(item, Value))
        for value in (*operation.attributes.values(), *given):
            if isinstance(value.data, BlobRef):
                files[id(value.data.file)] = len(value.data.file) if value.data.file is not None else 0
            elif isinstance(value.data, tuple | bytes):
                inline += len(value.data)
    return sum(files.values()) + inline


def unsupported(function: Function) -> dict[str, int]:
    """Return the ops of ``function`` that the op library does not have at its opset, with their counts."""
    missing: dict[str, int] = {}
    for operation in walk(function.block.operations):
        if operation.type != "const" and ops.lookup(operation.type, function.opset) is None:
            missing[operation.type] = missing.get(operation.type, 0) + 1
    return missing


class Constant:
    """A compile-time value: as a tensor in its carrier or as plain Python. Equal ones have one ``key``.

    ``make`` decodes the value anew, for ops that run once and would otherwise keep what they decompress.
    """

    def __init__(
        self, make: Callable[[], torch.Tensor], python: Callable[[], Any], cache: dict[Any, torch.Tensor], key: Any
    ) -> None:
        self.make = make
        self.python = python
        self.key = key
        self._cache = cache

    @functools.cached_property
    def tensor(self) -> torch.Tensor:
        """The constant as a tensor, one for all constants of its key."""
        if self.key not in self._cache:
            self._cache[self.key] = self.make()
        return self._cache[self.key]


class _Context:
    """What every block of one function shares."""

    def __init__(self, opset: str, rounding: bool, cache: dict[Any, torch.Tensor], strict: bool, most: float) -> None:
        self.opset = opset
        self.strict = strict
        self.rounding = rounding
        self.cache = cache
        self.most = most
        self.filled = 0

    def constant(self, value: Value) -> Constant:
        # As text, since 0.0 equals -0.0 and True equals 1.
        data = repr(value.data) if isinstance(value.data, tuple) else value.data
        return Constant(functools.partial(self.made, value), value.python, self.cache, (value.type, data))

    def made(self, value: Value) -> torch.Tensor:
        """The constant's tensor; LoadError where those that one element fills are too many."""
        if isinstance(value.data, tuple | bytes) and isinstance(value.type, TensorType):
            self.filled += max((value.type.size or 0) - 8 * len(value.data), 0)
            said = budget.over(self.filled, budget.HELD * self.most)
            if said:
                raise LoadError(f"constants of equal elements have {said[0]}", said[1])
        return to_carrier(value)


def to_carrier(value: Value) -> torch.Tensor:
    """Return a tensor constant in its carrier type, without a copy where the file already holds that type."""
    if not isinstance(value.type, TensorType) or value.type.dtype is DType.STRING:
        raise LoadError(f"a constant of type {value.type} is not a tensor")
    array = value.numpy()
    if not array.flags.writeable:
        array = array.copy()
    stored = torch.from_numpy(array)
    carrier = stored.to(ops.CARRIERS[value.type.dtype])
    if carrier is not stored and stored.nbytes >= LARGE and isinstance(value.data, BlobRef) and value.data.file:
        value.data.file.release()  # the carrier is a copy: what was read of the file need not stay in memory
    return carrier


class _Lowering:
    """One block's graph. ``outer`` is what the blocks around it define."""

    def __init__(self, context: _Context, outer: Mapping[str, Constant], depth: int) -> None:
        if depth > MAX_DEPTH:
            raise LoadError(f"the program nests blocks more than {MAX_DEPTH} deep")
        self.context = context
        self.depth = depth
        self.graph = fx.Graph()
        self.root = torch.nn.Module()
        self.values: dict[str, Any] = dict(outer)
        self.defined: set[str] = set()
        self.buffers: dict[int, fx.Node] = {}

    def block(self, block: Block, inputs: Sequence[NamedType], captured: Sequence[str] = ()) -> fx.GraphModule:
        for name in (*(item.name for item in inputs), *captured):
            if name in self.defined:
                raise LoadError(f"the program has two inputs named '{name}'", "the program is damaged")
            safe = "self_" if name == "self" else name
            self.values[name] = node = self.graph.create_node("placeholder", name, name=safe)
            self.defined.add(name)
            node.target = node.name  # the name as Python can have it: an input may be called ``in``
        for operation in block.operations:
            try:
                self.operation(operation)
            except TlkitError as error:
                if not error.message.startswith("op '"):
                    raise type(error)(
                        f"op '{operation.name}' ({operation.type}): {error.message}", error.hint
                    ) from None
                raise
        self.graph.output(tuple(self.operand(Ref(name)) for name in block.outputs))
        if self.depth == 0:
            states.settle(self.graph, self.may_alias)
        return fx.GraphModule(self.root, self.graph)

    def operation(self, operation: Operation) -> None:
        for item in operation.outputs:
            if item.name in self.defined:
                raise LoadError(f"it defines '{item.name}' a second time", "the program is damaged")
            self.defined.add(item.name)
        if operation.type == "const":
            self.values[operation.outputs[0].name] = self.context.constant(_const_value(operation))
            return
        definition = ops.lookup(operation.type, self.context.opset, strict=self.context.strict)
        if definition is None:
            raise LoadError(f"tlkit has no such op for {self.context.opset}", "see `tlkit ops`")
        if definition.constexpr:
            self.constexpr(definition, operation)
            return
        arguments = self.bind(definition, operation)
        target = definition.rounded if self.rounds(operation) else definition.function
        name = operation.outputs[0].name if operation.outputs else None  # write_state has none
        node = self.graph.create_node("call_function", target, (), arguments, name=name)
        node.meta["mil"] = operation
        self.define(operation, node)

    def may_alias(self, node: fx.Node) -> bool:
        """Whether a node's result may share its operands' memory."""
        operation = node.meta.get("mil")
        if operation is None:
            return node.target is not ops.host
        definition = ops.lookup(operation.type, self.context.opset)
        return definition is None or definition.aliases

    def rounds(self, operation: Operation) -> bool:
        types = (item.type for item in operation.outputs)
        return self.context.rounding and any(isinstance(t, TensorType) and t.dtype is DType.FP16 for t in types)

    def define(self, operation: Operation, node: fx.Node) -> None:
        if len(operation.outputs) == 1:
            self.values[operation.outputs[0].name] = node
            return
        for index, item in enumerate(operation.outputs):
            part = self.graph.call_function(_item, (node, index))
            self.values[item.name] = part

    def bind(self, definition: OpDef, operation: Operation) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            parameter.name: self.argument(parameter, given) for parameter, given in _given(definition, operation)
        }
        if "output_types" in definition.special:
            arguments["output_types"] = tuple(_plain_type(item.type) for item in operation.outputs)
        if "blocks" in definition.special:
            arguments["blocks"] = tuple(self.nested(block) for block in operation.blocks)
        return arguments

    def argument(self, parameter: Parameter, given: tuple[Argument, ...]) -> Any:
        if parameter.kind == "tensors":
            return tuple(self.operand(item) for item in given)
        if len(given) != 1:
            if parameter.kind == "static":
                return tuple(self.static(item) for item in given)
            raise LoadError(f"the input '{parameter.name}' takes one value, not {len(given)}")
        if parameter.kind == "tensor":
            return self.operand(given[0])
        return self.static(given[0], keep=parameter.kind == "any")

    def resolve(self, item: Argument) -> Constant | fx.Node:
        if isinstance(item, Value):
            return self.context.constant(item)
        if item.name not in self.values:
            raise LoadError(f"it uses '{item.name}' before anything defines it", "the program is damaged")
        found: Constant | fx.Node = self.values[item.name]
        return found

    def operand(self, item: Argument) -> fx.Node:
        value = self.resolve(item)
        if isinstance(value, fx.Node):
            return value
        tensor = value.tensor
        node = self.buffers.get(id(tensor))
        if node is None:
            name = _attribute_name(self.root, item.name if isinstance(item, Ref) else "constant")
            self.root.register_buffer(name, tensor, persistent=True)
            node = self.buffers[id(tensor)] = self.graph.get_attr(name)
        return node

    def static(self, item: Argument, keep: bool = False) -> Any:
        value = self.resolve(item)
        if isinstance(value, Constant):
            return _plain(value.python())
        return value if keep else self.graph.call_function(ops.host, (value,))

    def constexpr(self, definition: OpDef, operation: Operation) -> None:
        """Define an op's outputs as constants, computed when one of them is first needed."""
        constants: dict[Parameter, Constant] = {}
        for parameter, given in _given(definition, operation):
            value = self.resolve(given[0])
            if not isinstance(value, Constant):
                raise LoadError(f"the input '{parameter.name}' must be a constant", "the program is damaged")
            constants[parameter] = value
        target = definition.rounded if self.rounds(operation) else definition.function
        run = functools.cache(functools.partial(_constexpr, target, constants, operation, self.context.most))
        keys = tuple((parameter.name, constant.key) for parameter, constant in constants.items())
        for index, item in enumerate(operation.outputs):
            make = functools.partial(_part, run, index)
            key = (target, index, keys)
            self.values[item.name] = Constant(make, functools.partial(_python, make), self.context.cache, key)

    def nested(self, block: Block) -> tuple[fx.Node, tuple[fx.Node, ...]]:
        """Lower a block inside an op to a submodule; return it with the run-time values it captures."""
        captured = [name for name in _free_names(block) if isinstance(self.values.get(name), fx.Node)]
        outer = {name: value for name, value in self.values.items() if isinstance(value, Constant)}
        inner = _Lowering(self.context, outer, self.depth + 1).block(block, block.inputs, captured)
        name = _attribute_name(self.root, "block")
        self.root.add_module(name, inner)
        return self.graph.get_attr(name), tuple(self.values[name] for name in captured)


def _given(definition: OpDef, operation: Operation) -> list[tuple[Parameter, tuple[Argument, ...]]]:
    """What the program gives an op, by parameter; LoadError for an input too many or too few."""
    given: dict[str, tuple[Argument, ...]] = dict(operation.inputs)
    if definition.constexpr:  # iOS16's keep everything in attributes
        given |= {name: (value,) for name, value in operation.attributes.items() if name in definition.parameters}
    unknown = [name for name in given if name not in definition.parameters]
    if unknown:
        raise LoadError(f"unknown input '{unknown[0]}'", f"it takes {', '.join(definition.parameters)}")
    missing = [name for name, parameter in definition.parameters.items() if parameter.required and name not in given]
    if missing:
        raise LoadError(f"the input '{missing[0]}' is missing", "the program is damaged")
    return [(parameter, given[name]) for name, parameter in definition.parameters.items() if name in given]


def _constexpr(
    target: Callable[..., Any], constants: Mapping[Parameter, Constant], operation: Operation, most: float
) -> tuple[torch.Tensor, ...]:
    """Run an op on constants, and check that it made what the program declares."""
    try:
        arguments = {parameter.name: _argument(parameter, constant) for parameter, constant in constants.items()}
        with Guard(most):
            result = target(**arguments)
        made: tuple[torch.Tensor, ...] = result if isinstance(result, tuple) else (result,)
        for tensor, item in zip(made, operation.outputs, strict=True):
            if isinstance(item.type, TensorType) and item.type.shape != tuple(tensor.shape):
                raise LoadError(f"it makes {tuple(tensor.shape)} and declares {item.type.shape}")
    except (LoadError, TooLargeError, RuntimeError, IndexError, ValueError) as error:
        where = f"op '{operation.name}' ({operation.type})"
        raise LoadError(
            f"{where}: its constant cannot be decompressed: {reason(error)}", "the program is damaged"
        ) from None
    return made


def _argument(parameter: Parameter, constant: Constant) -> Any:
    """Return a constant as an op takes it; LoadError where it is of another type than the op declares."""
    if parameter.kind == "tensor":
        return constant.make()
    value = _plain(constant.python())
    wanted = parameter.wants(value) if parameter.kind == "static" else None
    if wanted:
        raise LoadError(f"its input '{parameter.name}' is not {wanted}")
    return value


def _part(run: Callable[[], tuple[torch.Tensor, ...]], index: int) -> torch.Tensor:
    return run()[index]


def _python(make: Callable[[], torch.Tensor]) -> Any:
    return make().tolist()


def _const_value(operation: Operation) -> Value:
    value = operation.attributes.get("val")
    if value is None or len(operation.outputs) != 1:
        raise LoadError("a const without a value", "the program is damaged")
    return value


def _item(values: Sequence[Any], index: int) -> Any:
    return values[index]


def _free_names(block: Block) -> list[str]:
    """The names a block uses and does not define, in order of first use."""
    defined = {item.name for item in block.inputs}
    free: dict[str, None] = {}
    for operation in block.operations:
        used = [item.name for given in operation.inputs.values() for item in given if isinstance(item, Ref)]
        for inner in operation.blocks:
            used += _free_names(inner)
        free |= {name: None for name in used if name not in defined}
        defined |= {item.name for item in operation.outputs}
    return list(free | {name: None for name in block.outputs if name not in defined})


def _plain_type(kind: Type) -> tuple[str, tuple[int | None, ...] | None]:
    """A type as fx can carry it: a tensor's MIL element type and shape, or another type's class name."""
    return (kind.dtype.mil, kind.shape) if isinstance(kind, TensorType) else (type(kind).__name__, None)


def _plain(value: Any) -> Any:
    return tuple(_plain(item) for item in value) if isinstance(value, list) else value


def _attribute_name(root: torch.nn.Module, name: str) -> str:
    base = "".join(c if c.isalnum() else "_" for c in name) or "constant"
    base = f"_{base}" if base[0].isdigit() else base
    candidate, count = base, 0
    while hasattr(root, candidate):
        count += 1
        candidate = f"{base}_{count}"
    return candidate
