"""Parse MIL text into a :class:`~tlkit.mil.program.Program`: recursive descent with bounded depth."""

from __future__ import annotations

from tlkit.mil.opsets import OPSETS
from tlkit.mil.program import (
    Argument,
    Block,
    Function,
    NamedType,
    Operation,
    Program,
    Ref,
    Value,
)
from tlkit.mil.text._values import ValueReader

TEXT_OPSETS = {release.system.lower(): name for name, release in OPSETS.items()}
"""The protobuf's names of the opsets, which a Program keeps, by the text's (``ios17``)."""


class Parser(ValueReader):
    """Reads one program: one method per rule of the grammar, of which :meth:`program` is the start."""

    def program(self) -> Program:
        lex = self._lex
        if lex.token != "program":
            lex.fail("expected 'program'")
        lex.advance()
        lex.expect("(")
        # The minor number tells how scalars are spelled; the protobuf has no place for it.
        major = lex.number_text().split(".")[0]
        # 18 digits fit in the protobuf's 64 bits.
        if not major.lstrip("-").isdigit() or len(major) > 18:
            lex.fail("expected a program version")
        lex.advance()
        lex.expect(")")
        attributes = self.attributes()
        lex.expect("{")
        functions: dict[str, Function] = {}
        while not lex.accept("}"):
            self.function(functions)
        if lex.token:
            lex.fail("expected nothing after the program")
        return Program(functions, int(major), attributes)

    def function(self, functions: dict[str, Function]) -> None:
        lex = self._lex
        lex.expect("func")
        name = lex.name()
        if name in functions:
            lex.fail("a second function of the same name")
        opset = self.opset()
        inputs = self.named_types("(", ")")
        attributes = self.attributes()
        bodies: dict[str, Block] = {}
        if lex.accept("specializations"):
            lex.expect("{")
            while not lex.accept("}"):
                lex.expect("block")
                own = self.opset()
                bodies[own] = self.block(self.named_types("(", ")"))
        else:
            bodies[opset] = self.body((), {})
            lex.accept(";")
        functions[name] = Function(inputs, opset, bodies, attributes)

    def opset(self) -> str:
        lex = self._lex
        lex.expect("<")
        quoted = lex.token.startswith('"')
        name = lex.name()
        lex.expect(">")
        return name if quoted else TEXT_OPSETS.get(name, name)

    def block(self, inputs: tuple[NamedType, ...]) -> Block:
        found = self.body(inputs, self.attributes())
        self._lex.accept(";")
        return found

    def body(self, inputs: tuple[NamedType, ...], attributes: dict[str, Value]) -> Block:
        lex = self._lex
        self.deeper()
        lex.expect("{")
        operations = []
        while not lex.accept("}"):
            operations.append(self.operation())
        lex.expect("->")
        lex.expect("(")
        outputs = self.separated(lex.name, ")")
        self._depth -= 1
        return Block(inputs, tuple(outputs), tuple(operations), attributes)

    def operation(self) -> Operation:
        lex = self._lex
        outputs, kind = self.outputs()
        lex.expect("(")
        inputs: dict[str, tuple[Argument, ...]] = {}
        self.pairs(inputs, self.arguments, ")")
        attributes = self.attributes()
        blocks = self.blocks() if lex.accept("{") else ()
        lex.expect(";")
        return Operation(kind, inputs, outputs, attributes, blocks)

    def outputs(self) -> tuple[tuple[NamedType, ...], str]:
        """Read ``type name, type name = op`` (also in parentheses), or only ``op`` where there are no outputs."""
        lex = self._lex
        if lex.token == "(":
            found = list(self.named_types("(", ")"))
        elif lex.token.startswith('"'):
            return (), lex.string()
        else:
            word = lex.name()
            if lex.token == "(":
                return (), word
            found = [NamedType(*self.named_type(word))]
            while lex.accept(","):
                found.append(NamedType(*self.named_type()))
        lex.expect("=")
        return tuple(found), lex.name()

    def blocks(self) -> tuple[Block, ...]:
        lex = self._lex
        found = []
        while not lex.accept("}"):
            # A block may have a label (block0), which means nothing.
            if lex.token != "(":
                lex.name()
            found.append(self.block(self.named_types("(", ")")))
        return tuple(found)

    def arguments(self) -> tuple[Argument, ...]:
        if self._lex.accept("("):
            return tuple(self.separated(self.argument, ")"))
        return (self.argument(),)

    def argument(self) -> Argument:
        lex = self._lex
        if lex.token.startswith('"'):
            return Ref(lex.string())
        word = lex.name()
        # `fp16(…)` and `tensor<…>(…)` are constants, a word without brackets a reference.
        return self.value(word) if lex.token in ("<", "(") else Ref(word)

    def attributes(self) -> dict[str, Value]:
        found: dict[str, Value] = {}
        if self._lex.accept("["):
            self.pairs(found, self.value, "]")
        return found
