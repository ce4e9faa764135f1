"""Lower a MIL function to a ``torch.fx.GraphModule``: one node per op, under MIL's names.

The module takes the function's inputs in order and returns a tuple in the order of the block's outputs. Tensors have
their carrier types (``ops._registry.CARRIERS``). A constant becomes a buffer when an op first takes it as a tensor, and
plain Python when an op takes it as a parameter; an unused constant is never read.

Each node's ``meta["mil"]`` is its :class:`~tlkit.mil.program.Operation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from tlkit.errors import LoadError, TlkitError
from tlkit.host import budget
from tlkit.mil import dialect, ops
from tlkit.mil.collector import uncollected
from tlkit.mil.lower import states
from tlkit.mil.lower.constants import (
    Allowance,
    Constant,
    Stays,
    const_value,
    constant,
    expanded,
    given,
    plain,
    rounds,
    stored,
)
from tlkit.mil.ops.kit.narrow import TAKES
from tlkit.mil.ops.kit.registry import OpDef, Parameter
from tlkit.mil.program import (
    Argument,
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

if TYPE_CHECKING:
    from tlkit.mil.units.emulation import Emulation

DIALECT = dialect.__name__
"""tlkit's own operations, which importing it registers."""
MAX_DEPTH = 64
"""Blocks nested deeper than this are refused."""


@uncollected()
def lower(
    function: Function,
    *,
    precision: str = "f16",
    constants: dict[Any, torch.Tensor] | None = None,
    strict: bool = False,
    emulation: Emulation | None = None,
    stays: Stays | None = None,
) -> fx.GraphModule:
    """Lower ``function``; ``precision="f16"`` rounds what the program declares as fp16, ``"f32"`` never rounds.

    ``strict`` follows the specification where Core ML was measured to do something else (``docs/fidelity.md``).
    ``constants`` is a cache of tensors by weight record; pass one dict to lower functions that share weights.
    ``emulation`` runs f16 operations by the profiles of Apple's units (``mil/units``). ``stays`` says
    which weights stay as they are stored for the operations that take them so (``ops/kit/narrow.py``).
    """
    context = _Context(
        function.opset,
        precision == "f16",
        {} if constants is None else constants,
        strict,
        budget.warranted(stored(walk(function.block.operations))),
        emulation,
        stays,
    )
    return _Lowering(context, {}, 0).block(function.block, function.inputs)


def unsupported(function: Function) -> dict[str, int]:
    """Return the ops of ``function`` that the op library lacks at its opset, with their counts."""
    missing: dict[str, int] = {}
    for operation in walk(function.block.operations):
        if operation.type != "const" and ops.lookup(operation.type, function.opset) is None:
            missing[operation.type] = missing.get(operation.type, 0) + 1
    return missing


class _Context:
    """What all blocks of one function share."""

    def __init__(
        self,
        opset: str,
        rounding: bool,
        cache: dict[Any, torch.Tensor],
        strict: bool,
        most: float,
        emulation: Emulation | None,
        stays: Stays | None,
    ) -> None:
        self.emulation, self.stays = emulation, stays
        self.opset = opset
        self.strict = strict
        self.rounding = rounding
        self.cache = cache
        self.allowed = Allowance(most)

    def constant(self, value: Value) -> Constant:
        return constant(value, self.cache, self.allowed)


class _Lowering:
    """One block's graph; ``outer`` holds the constants that the enclosing blocks define."""

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
            # fx writes `def forward(self, ...)`, so no input can be called self.
            safe = "self_" if name == "self" else name
            self.values[name] = node = self.graph.create_node("placeholder", name, name=safe)
            self.defined.add(name)
            node.target = node.name  # made a Python identifier by fx: an input may be called ``in``
        if self.context.emulation is not None:
            self.context.emulation.begin(inputs)
        for operation in block.operations:
            try:
                self.operation(operation)
            except TlkitError as error:
                # An error in a nested block names the inner operation already, which is the one to look at.
                if not error.message.startswith("op '"):
                    raise type(error)(
                        f"op '{operation.name}' ({operation.type}): {error.message}", error.hint
                    ) from None
                raise
        self.graph.output(tuple(self.operand(Ref(name)) for name in block.outputs))
        # States are the function's inputs; what a nested block captures is never rewritten.
        if self.depth == 0:
            states.settle(self.graph, self.may_alias)
        return fx.GraphModule(self.root, self.graph)

    def operation(self, operation: Operation) -> None:
        for item in operation.outputs:
            if item.name in self.defined:
                raise LoadError(f"it defines '{item.name}' a second time", "the program is damaged")
            self.defined.add(item.name)
        if self.context.emulation is not None:
            self.context.emulation.see(operation)
        if operation.type == "const":
            self.values[operation.outputs[0].name] = self.context.constant(const_value(operation))
            return
        definition = ops.lookup(operation.type, self.context.opset, strict=self.context.strict)
        if definition is not None and definition.computed and self.is_constant(operation, definition.computed):
            definition = ops.lookup(operation.type, self.context.opset, strict=True)
        if definition is None:
            raise LoadError(f"tlkit has no such op for {self.context.opset}", "see `tlkit ops`")
        if definition.constexpr:
            self.constexpr(definition, operation)
            return
        arguments = self.bind(definition, operation)
        rounded = rounds(operation, self.context.rounding)
        target = definition.rounded if rounded else definition.function
        if self.context.emulation is not None:
            target, arguments = self.context.emulation.target(operation, definition, arguments, rounded)
        name = operation.outputs[0].name if operation.outputs else None  # write_state has none
        node = self.graph.create_node("call_function", target, (), arguments, name=name)
        node.meta["mil"] = operation
        self.define(operation, node)

    def is_constant(self, operation: Operation, name: str) -> bool:
        """Whether an input is known before the program runs."""
        return all(isinstance(self.resolve(item), Constant) for item in operation.inputs.get(name, ()))

    def may_alias(self, node: fx.Node) -> bool:
        """Whether a node's result may share its operands' memory."""
        operation = node.meta.get("mil")
        if operation is None:
            # ops.host returns Python values, which share no memory with a tensor.
            return node.target is not ops.host
        definition = ops.lookup(operation.type, self.context.opset)
        return definition is None or definition.aliases

    def define(self, operation: Operation, node: fx.Node) -> None:
        if len(operation.outputs) == 1:
            self.values[operation.outputs[0].name] = node
            return
        for index, item in enumerate(operation.outputs):
            part = self.graph.call_function(item_of, (node, index))
            self.values[item.name] = part

    def bind(self, definition: OpDef, operation: Operation) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            parameter.name: self.argument(
                parameter, found, self.context.stays if TAKES.get(definition.name) == parameter.name else None
            )
            for parameter, found in given(definition, operation)
        }
        if "output_types" in definition.special:
            arguments["output_types"] = tuple(_plain_type(item.type) for item in operation.outputs)
        if "blocks" in definition.special:
            arguments["blocks"] = tuple(self.nested(block) for block in operation.blocks)
        return arguments

    def argument(self, parameter: Parameter, given: tuple[Argument, ...], stays: Stays | None = None) -> Any:
        if parameter.kind == "tensors":
            return tuple(self.operand(item) for item in given)
        if len(given) != 1:
            if parameter.kind == "static":
                return tuple(self.static(item) for item in given)
            raise LoadError(f"the input '{parameter.name}' takes one value, not {len(given)}")
        if parameter.kind == "tensor":
            return self.operand(given[0], stays)
        return self.static(given[0], keep=parameter.kind == "any", single=parameter.single)

    def resolve(self, item: Argument) -> Constant | fx.Node:
        if isinstance(item, Value):
            return self.context.constant(item)
        if item.name not in self.values:
            raise LoadError(f"it uses '{item.name}' before anything defines it", "the program is damaged")
        found: Constant | fx.Node = self.values[item.name]
        return found

    def operand(self, item: Argument, stays: Stays | None = None) -> fx.Node:
        value = self.resolve(item)
        if isinstance(value, fx.Node):
            return value
        held = value.stays(stays) if stays is not None else None
        tensor = value.tensor if held is None else held
        # Equal constants share one tensor, and so one buffer.
        node = self.buffers.get(id(tensor))
        if node is None:
            name = _attribute_name(self.root, item.name if isinstance(item, Ref) else "constant")
            if isinstance(tensor, torch.nn.Module):
                self.root.add_module(name, tensor)
            else:
                self.root.register_buffer(name, tensor, persistent=True)
            node = self.buffers[id(tensor)] = self.graph.get_attr(name)
        return node

    def static(self, item: Argument, keep: bool = False, single: bool = False) -> Any:
        value = self.resolve(item)
        if isinstance(value, Constant):
            known = plain(value.python())
            return ops.host(known, single=True) if single and isinstance(known, tuple) else known
        return value if keep else self.graph.call_function(ops.host, (value, single))

    def constexpr(self, definition: OpDef, operation: Operation) -> None:
        """Define an op's outputs as constants, computed when one of them is first needed."""
        constants: dict[Parameter, Constant] = {}
        for parameter, found in given(definition, operation):
            value = self.resolve(found[0])
            if not isinstance(value, Constant):
                raise LoadError(f"the input '{parameter.name}' must be a constant", "the program is damaged")
            constants[parameter] = value
        context = self.context
        made = expanded(definition, constants, operation, context.rounding, context.cache, context.allowed)
        self.values |= {item.name: value for item, value in zip(operation.outputs, made, strict=True)}

    def nested(self, block: Block) -> tuple[fx.Node, tuple[fx.Node, ...]]:
        """Lower a block inside an op to a submodule; return it with the run-time values it captures."""
        # A block takes over constants as they are; only run-time values have to be passed in.
        captured = [name for name in _free_names(block) if isinstance(self.values.get(name), fx.Node)]
        outer = {name: value for name, value in self.values.items() if isinstance(value, Constant)}
        inner = _Lowering(self.context, outer, self.depth + 1).block(block, block.inputs, captured)
        name = _attribute_name(self.root, "block")
        self.root.add_module(name, inner)
        return self.graph.get_attr(name), tuple(self.values[name] for name in captured)


def item_of(values: Sequence[Any], index: int) -> Any:
    """Return one of an operation's several results; the nodes of a graph that do this have it as their target."""
    return values[index]


def _free_names(block: Block) -> list[str]:
    """Return the names that a block uses and does not define, in order of first use."""
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
    """Return a type in a form that fx can hold: a tensor's MIL element type and shape, or another type's class name."""
    return (kind.dtype.mil, kind.shape) if isinstance(kind, TensorType) else (type(kind).__name__, None)


def _attribute_name(root: torch.nn.Module, name: str) -> str:
    base = "".join(c if c.isalnum() else "_" for c in name) or "constant"
    base = f"_{base}" if base[0].isdigit() else base
    candidate, count = base, 0
    while hasattr(root, candidate):
        count += 1
        candidate = f"{base}_{count}"
    return candidate
