"""Print a :class:`~tlkit.mil.program.Program` as MIL text, spelled and laid out as ``coremlc`` does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tlkit.errors import LoadError
from tlkit.mil import immediate
from tlkit.mil.program import (
    Argument,
    BlobRef,
    Block,
    Deferred,
    DictType,
    Dim,
    Function,
    ListType,
    NamedType,
    Operation,
    Program,
    StateType,
    TensorType,
    TupleType,
    Type,
    Value,
)
from tlkit.mil.text._parser import TEXT_OPSETS
from tlkit.mil.text._values import DEPTH, RANK
from tlkit.mil.text.lexer import IDENTIFIER, quote
from tlkit.mil.types import DType

_TEXT_OPSETS = {proto: text for text, proto in TEXT_OPSETS.items()}
_STEP = "    "


class Printer:
    """Prints in one of the two spellings: scalar types as ``fp16`` (``modern``) or as ``tensor<fp16, []>``."""

    def __init__(self, modern: bool) -> None:
        self._modern = modern
        self._string = self.type(TensorType(DType.STRING))
        self._uint64 = self.type(TensorType(DType.UINT64))

    def program(self, program: Program) -> Iterator[str]:
        """Yield the program's lines; the last has its line end."""
        yield f"program({program.version}.{3 if self._modern and program.version == 1 else 0})"
        if program.attributes:
            yield self.attributes(program.attributes)
        yield "{"
        for name in sorted(program.functions):
            yield from self.function(name, program.functions[name])
        yield "}\n"

    def function(self, name: str, function: Function) -> Iterator[str]:
        """Yield a function's lines."""
        attributes = f" {self.attributes(function.attributes)}" if function.attributes else ""
        head = f"{_STEP}func {_name(name)}<{_opset(function.opset)}>({self.named(function.inputs)}){attributes}"
        plain = Block((), function.block.outputs, function.block.operations) if self._is_plain(function) else None
        if plain is not None:
            yield f"{head} {{"
            # coremlc indents a function's operations by three steps, and its end by two.
            yield from self.body(plain, 3)
            yield f"{_STEP * 2}}} -> ({_names(plain.outputs)});"
            return
        yield f"{head} specializations {{"
        for opset in sorted(function.specializations):
            yield from self.block(f"block<{_opset(opset)}>", function.specializations[opset], 2)
        yield f"{_STEP}}}"

    def _is_plain(self, function: Function) -> bool:
        if list(function.specializations) != [function.opset]:
            return False
        return not function.block.inputs and not function.block.attributes

    def block(self, head: str, block: Block, depth: int) -> Iterator[str]:
        """Yield the lines of a block with its inputs."""
        attributes = self.attributes(block.attributes)
        yield f"{_STEP * depth}{head}({self.named(block.inputs)}){attributes} {{"
        yield from self.body(block, depth + 1)
        yield f"{_STEP * depth}}} -> ({_names(block.outputs)});"

    def body(self, block: Block, depth: int) -> Iterator[str]:
        """Yield the lines of a block's operations."""
        if depth > 2 * DEPTH:
            raise LoadError(f"a program nested deeper than {DEPTH} levels has no text")
        for operation in block.operations:
            yield from self.operation(operation, depth)

    def operation(self, operation: Operation, depth: int = 0) -> Iterator[str]:
        """Yield an operation's line, and those of its blocks."""
        outputs = f"{self.named(operation.outputs)} = " if operation.outputs else ""
        inputs = ", ".join(f"{_name(k)} = {self.arguments(v)}" for k, v in sorted(operation.inputs.items()))
        head = f"{_STEP * depth}{outputs}{_name(operation.type)}({inputs}){self.attributes(operation.attributes)}"
        if not operation.blocks:
            yield f"{head};"
            return
        yield f"{head} {{"
        for index, block in enumerate(operation.blocks):
            yield from self.block(f"block{index}", block, depth + 1)
        yield f"{_STEP * depth}}};"

    def arguments(self, arguments: tuple[Argument, ...]) -> str:
        """Format an input's arguments; several are put in parentheses."""
        found = [self.value(item) if isinstance(item, Value) else _name(item.name) for item in arguments]
        return found[0] if len(found) == 1 else f"({', '.join(found)})"

    def attributes(self, attributes: Mapping[str, Value]) -> str:
        """Format attributes in brackets; empty where there are none."""
        if not attributes:
            return ""
        return "[" + ", ".join(f"{_name(k)} = {self.value(v)}" for k, v in sorted(attributes.items())) + "]"

    def named(self, items: Iterable[NamedType]) -> str:
        """Format typed names."""
        return ", ".join(f"{self.type(item.type)} {_name(item.name)}" for item in items)

    def type(self, kind: Type) -> str:
        """Format a type."""
        if isinstance(kind, TensorType):
            if kind.shape == () and self._modern:
                return kind.dtype.mil
            shape = "*" if kind.shape is None else f"[{', '.join(map(_dimension, kind.shape))}]"
            return f"tensor<{kind.dtype.mil}, {shape}>"
        if isinstance(kind, ListType):
            return f"list<{self.type(kind.element)}, {_dimension(kind.length)}>"
        if isinstance(kind, TupleType):
            return f"tuple<{', '.join(map(self.type, kind.elements))}>"
        if isinstance(kind, StateType):
            return f"state<{self.type(kind.wrapped)}>"
        return f"dict<{self.type(kind.key)}, {self.type(kind.value)}>"

    def value(self, value: Value) -> str:
        """Format a constant with its type."""
        return f"{self.type(value.type)}({self.constant(value)})"

    def constant(self, value: Value) -> str:
        """Format a constant whose type is known."""
        kind, data = value.type, value.data
        if isinstance(data, Deferred):
            data = immediate.canonical(kind, b"".join(data.pieces()))
        if isinstance(data, BlobRef):
            path = f"{self._string}({quote(data.file_name)})"
            return f"BLOBFILE(path = {path}, offset = {self._uint64}({data.offset}))"
        if isinstance(kind, TensorType):
            return _tensor(kind, data)
        if isinstance(data, bytes):
            raise LoadError("only a tensor's data can be bytes")
        if isinstance(kind, ListType):
            return f"[{', '.join(self._inner(item, kind.element) for item in data)}]"
        if isinstance(kind, DictType):
            entries = (f"{{{self._inner(k, kind.key)}, {self._inner(v, kind.value)}}}" for k, v in data)
            return f"{{{', '.join(entries)}}}"
        if isinstance(kind, TupleType):
            wanted = list(kind.elements) + [None] * len(data)
            return f"({', '.join(self._inner(item, want) for item, want in zip(data, wanted, strict=False))})"
        raise LoadError("a state cannot be a constant")

    def _inner(self, value: Value, wanted: Type | None) -> str:
        """Format a constant inside another: with its type only where that is not the expected one."""
        if value.type != wanted:
            # Spelled `tensor<…>`: by that word the reader sees that a constant inside another has its own type.
            full = Printer(False) if isinstance(value.type, TensorType) else self
            return full.value(value)
        if value.data == () and isinstance(value.type, TensorType):
            return "()"
        return self.constant(value)


def _tensor(kind: TensorType, data: tuple[Any, ...] | bytes) -> str:
    if data == ():
        return ""
    items = immediate.elements(kind.dtype, data, kind.size)
    write = quote if kind.dtype is DType.STRING else immediate.writer(kind.dtype)
    spelt = [write(item) for item in items]
    if kind.shape == () and len(spelt) == 1:
        return spelt[0]
    return _bracketed(spelt, kind)


def _bracketed(items: list[str], kind: TensorType) -> str:
    """Bracket elements by their shape; in one pair of brackets where their number does not match it."""
    if not items or kind.size != len(items) or kind.shape is None or len(kind.shape) > RANK:
        return f"[{', '.join(items)}]"
    for axis in reversed(kind.shape):
        size = axis or 1
        items = [f"[{', '.join(items[start : start + size])}]" for start in range(0, len(items), size)]
    return items[0]


def _dimension(dim: Dim) -> str:
    return "?" if dim is None else str(dim)


def _opset(name: str) -> str:
    if name in _TEXT_OPSETS:
        return _TEXT_OPSETS[name]
    # Unquoted it would be read as the text's name of another opset.
    return quote(name) if name in TEXT_OPSETS else _name(name)


def _name(name: str) -> str:
    return name if IDENTIFIER.fullmatch(name) else quote(name)


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(_name, names))
