"""Parse the types and constants of MIL text, from which :mod:`tlkit.mil.text._parser` builds statements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlkit.errors import LoadError, reason
from tlkit.mil import immediate
from tlkit.mil.blob import BlobFile
from tlkit.mil.program import BlobRef, DictType, Dim, ListType, NamedType, StateType, TensorType, TupleType, Type, Value
from tlkit.mil.text.lexer import Lexer
from tlkit.mil.types import DType

DEPTH = 100
"""How deep blocks, types and constants may nest: protobuf's own limit for messages, which nest at least as deep."""

RANK = 64
"""The most axes a tensor may have (numpy's and torch's own bound)."""

_COLLECTIONS = ("list", "tuple", "dict", "state")


class ValueReader:
    """Reads types and constants; each method is named after the grammar rule that it reads."""

    def __init__(self, text: str, open_blob: Callable[[str], BlobFile | None], name: str) -> None:
        self._lex = Lexer(text, name)
        self._open_blob = open_blob
        self._files: dict[str, BlobFile | None] = {}
        self._depth = 0

    def pairs(self, into: dict[str, Any], read: Callable[[], Any], close: str) -> None:
        """Read ``name = …, name = …`` up to ``close``."""
        lex = self._lex

        def pair() -> None:
            name = lex.name()
            if name in into:
                lex.fail("a second value for the same name")
            lex.expect("=")
            into[name] = read()

        self.separated(pair, close)

    def separated(self, read: Callable[[], Any], close: str) -> list[Any]:
        lex = self._lex
        found: list[Any] = []
        if lex.accept(close):
            return found
        found.append(read())
        while lex.accept(","):
            found.append(read())
        if lex.token != close:
            lex.fail(f"expected ',' or '{close}'")
        lex.advance()
        return found

    def deeper(self) -> None:
        self._depth += 1
        if self._depth > DEPTH:
            self._lex.fail(f"nested deeper than {DEPTH} levels")

    # Types

    def named_types(self, opening: str, close: str) -> tuple[NamedType, ...]:
        self._lex.expect(opening)
        return tuple(self.separated(lambda: NamedType(*self.named_type()), close))

    def named_type(self, word: str | None = None) -> tuple[str, Type]:
        kind = self.type(word)
        return self._lex.name(), kind

    def type(self, word: str | None = None) -> Type:
        """Read a type whose first word may have been read already."""
        lex = self._lex
        if word is None:
            word = lex.name()
        if word not in _COLLECTIONS:
            return self.tensor_type(word)
        self.deeper()
        lex.expect("<")
        found = self.collection_type(word)
        lex.expect(">")
        self._depth -= 1
        return found

    def collection_type(self, word: str) -> Type:
        lex = self._lex
        if word == "tuple":
            elements = []
            while lex.token != ">":
                elements.append(self.type())
                if not lex.accept(","):
                    break
            return TupleType(tuple(elements))
        first = self.type()
        if word == "list":
            return ListType(first, self.dimension() if lex.accept(",") else None)
        if word == "dict":
            lex.expect(",")
            return DictType(first, self.type())
        if not isinstance(first, TensorType):
            lex.fail("a state must be a tensor")
        return StateType(first)

    def tensor_type(self, word: str) -> TensorType:
        lex = self._lex
        if word != "tensor":
            return TensorType(self.dtype(word), ())
        lex.expect("<")
        dtype = self.dtype(lex.name())
        lex.expect(",")
        shape: tuple[Dim, ...] | None = None
        if not lex.accept("*"):
            shape = self.shape()
        lex.expect(">")
        return TensorType(dtype, shape)

    def shape(self) -> tuple[Dim, ...]:
        lex = self._lex
        lex.expect("[")
        dims: list[Dim] = []
        while not lex.accept("]"):
            if dims:
                lex.expect(",")
            dims.append(self.dimension())
            if len(dims) > RANK:
                lex.fail(f"a tensor of more than {RANK} axes")
        return tuple(dims)

    def dtype(self, word: str) -> DType:
        try:
            return DType.named(word)
        except LoadError:
            self._lex.fail(f"unknown type '{word[:40]}'")

    def dimension(self) -> Dim:
        return None if self._lex.accept("?") else self._lex.whole()

    # Constants

    def value(self, word: str | None = None) -> Value:
        """Read ``type(constant)``."""
        kind = self.type(word)
        self._lex.expect("(")
        found = self.constant(kind)
        self._lex.expect(")")
        return found

    def constant(self, kind: Type) -> Value:
        """Read a constant of a known type: without its type, or with it where that differs."""
        lex = self._lex
        self.deeper()
        if lex.token == "BLOBFILE":
            found = Value(kind, self.blob())
        elif lex.token in _COLLECTIONS or lex.token == "tensor":
            found = self.value()
        elif isinstance(kind, TensorType):
            found = Value(kind, self.tensor(kind))
        elif isinstance(kind, StateType):
            lex.fail("a state has no constant")
        else:
            found = Value(kind, self.collection(kind))
        self._depth -= 1
        return found

    def collection(self, kind: ListType | TupleType | DictType) -> tuple[Any, ...]:
        lex = self._lex
        if isinstance(kind, ListType):
            if lex.token == ")":
                return ()
            lex.expect("[")
            return tuple(self.separated(lambda: self.constant(kind.element), "]"))
        if isinstance(kind, DictType):
            lex.expect("{")
            return tuple(self.separated(lambda: self.entry(kind), "}"))
        lex.expect("(")
        types = iter(kind.elements)
        return tuple(self.separated(lambda: self.element(next(types, None)), ")"))

    def element(self, kind: Type | None) -> Value:
        return self.value() if kind is None else self.constant(kind)

    def entry(self, kind: DictType) -> tuple[Value, Value]:
        self._lex.expect("{")
        key = self.constant(kind.key)
        self._lex.expect(",")
        found = key, self.constant(kind.value)
        self._lex.expect("}")
        return found

    def tensor(self, kind: TensorType) -> tuple[Any, ...] | bytes:
        """Read a tensor's elements, however they are bracketed; in a loop, since brackets may nest without end."""
        lex = self._lex
        if lex.token == ")":
            return ()
        if lex.token == "(":  # a missing value inside a list, tuple or dictionary
            lex.advance()
            lex.expect(")")
            return ()
        found = self.elements(kind.dtype)
        # One element may fill the shape, unless it is narrower than a byte.
        fills = len(found) == 1 and not 0 < kind.dtype.bits < 8
        if kind.size not in (None, len(found)) and not fills:
            lex.fail(f"{len(found)} elements do not make a shape of {kind.size}")
        return immediate.pack(kind.dtype, found)

    def elements(self, dtype: DType) -> list[Any]:
        lex = self._lex
        found: list[Any] = []
        convert = None if dtype is DType.STRING else immediate.reader(dtype)
        depth = 0
        while True:
            if lex.accept("["):
                depth += 1
                if depth > RANK:
                    lex.fail(f"brackets deeper than {RANK} levels")
                # Empty brackets hold no element to read.
                if lex.token != "]":
                    continue
            else:
                found.append(self.scalar(dtype, convert))
            while depth and lex.accept("]"):
                depth -= 1
            if not depth:
                return found
            if not lex.accept(","):
                lex.fail("expected ',' or ']'")

    def scalar(self, dtype: DType, convert: Callable[[str], Any] | None) -> Any:
        lex = self._lex
        typed = lex.accept(dtype.mil)  # some writers repeat the type for each element: fp16(0x1p-1)
        if typed:
            lex.expect("(")
        if convert is None:
            found: Any = lex.string()
        else:
            try:
                found = convert(lex.number_text())
            except ValueError as error:
                lex.fail(reason(error)[:80])
            lex.advance()
        if typed:
            lex.expect(")")
        return found

    def blob(self) -> BlobRef:
        lex = self._lex
        lex.advance()
        lex.expect("(")
        parts: dict[str, Any] = {}
        self.pairs(parts, self.blob_part, ")")
        path, offset = parts.get("path"), parts.get("offset")
        if not isinstance(path, str) or not isinstance(offset, int) or len(parts) != 2:
            lex.fail("a BLOBFILE needs a path and an offset")
        if path not in self._files:
            self._files[path] = self._open_blob(path)
        return BlobRef(path, offset, self._files[path])

    def blob_part(self) -> str | int:
        """Read a path or an offset, with its type (``uint64(64)``, ``tensor<uint64, []>(64)``) or without."""
        lex = self._lex
        if not lex.at_word():
            return lex.string() if lex.token.startswith('"') else lex.whole()
        kind = self.type()
        lex.expect("(")
        text = isinstance(kind, TensorType) and kind.dtype is DType.STRING
        found: str | int = lex.string() if text else lex.whole()
        lex.expect(")")
        return found
