"""The rule registry, and the view of a program that rules examine.

A rule is a function that yields the operations (or ports) that its row is about; a decorator gives the row, its
severity and its texts. Rules read shapes, types and small constants: no weight is decoded, nothing is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from tlkit.mil.opsets import OPSETS
from tlkit.mil.program import Argument, Function, Operation, Ref, StateType, TensorType, Type, Value, walk
from tlkit.mil.types import DType
from tlkit.types import TensorSpec

Found = Iterator[str]
"""What a rule yields: the names of operations, values or ports."""


SMALL = 1 << 16
"""Elements up to which a constant is read."""


class Level(StrEnum):
    """How serious a risk is."""

    REFUSED = "refused"
    """Core ML does not load the model, or refuses to run it, or crashes."""
    WRONG = "wrong"
    """A unit was measured to compute something else."""
    PLACED = "placed"
    """It keeps operations off the Neural Engine, or stalls its compiler."""
    COMMON = "common"
    """As ``wrong``, but common in sound models: reported only on request."""


@dataclass(frozen=True, slots=True)
class Span:
    """What was measured on given values: the least and the largest of ``value`` (``x``, ``result``) at ``place``."""

    place: str
    value: str
    least: float
    largest: float


@dataclass(frozen=True, slots=True)
class Risk:
    """One row that applies to a model: ``units`` says where, ``places`` names the operations or ports, in program
    order. ``measured``, of a risk that values show: their ranges."""

    row: str
    level: Level
    units: str
    text: str
    mend: str
    places: tuple[str, ...]
    measured: tuple[Span, ...] = ()


_SHOWN = 3  # places that a line names


def risk_text(risk: Risk) -> str:
    """Return one line: where, what, the operations, and the row of ``docs/fidelity.md`` with the evidence."""
    named = ", ".join(risk.places[:_SHOWN])
    more = f" and {len(risk.places) - _SHOWN} more" if len(risk.places) > _SHOWN else ""
    return f"{risk.units}: {risk.text} ({named}{more}; {risk.row})"


class Rule(NamedTuple):
    """A registered rule; its fields are those of :class:`Risk`."""

    row: str
    level: Level
    units: str
    text: str
    mend: str
    find: Callable[[Survey], Iterable[str]]


_RULES: list[Rule] = []


def rule(
    row: str, level: Level, units: str, text: str, mend: str
) -> Callable[[Callable[[Survey], Iterable[str]]], Callable[[Survey], Iterable[str]]]:
    """Register the decorated function as a rule for ``row`` of ``docs/fidelity.md``."""

    def register(find: Callable[[Survey], Iterable[str]]) -> Callable[[Survey], Iterable[str]]:
        _RULES.append(Rule(row, level, units, text, mend, find))
        return find

    return register


def rules() -> Sequence[Rule]:
    """Return every registered rule, in the order of the modules."""
    return tuple(_RULES)


@dataclass(frozen=True)
class Survey:
    """A function with its ports, and the makers and users of each value.

    ``weights`` is the size of the package's weights in bytes, 0 where unknown.
    """

    function: Function
    inputs: Sequence[TensorSpec] = ()
    outputs: Sequence[TensorSpec] = ()
    weights: int = 0

    @property
    def release(self) -> int:
        """The iOS release of the function's opset, 0 where unknown."""
        return OPSETS[self.function.opset].number if self.function.opset in OPSETS else 0

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        """All operations except constants, including those in nested blocks."""
        return tuple(item for item in walk(self.function.block.operations) if item.type != "const")

    @cached_property
    def by_type(self) -> Mapping[str, Sequence[Operation]]:
        """The operations by type, in program order."""
        found: dict[str, list[Operation]] = {}
        for item in self.operations:
            found.setdefault(item.type, []).append(item)
        return found

    @cached_property
    def constants(self) -> Mapping[str, Value]:
        """The constants by name."""
        consts = (item for item in walk(self.function.block.operations) if item.type == "const" and item.outputs)
        return {item.outputs[0].name: item.attributes["val"] for item in consts if "val" in item.attributes}

    @cached_property
    def makers(self) -> Mapping[str, Operation]:
        """The operation that makes each value."""
        return {output.name: item for item in self.operations for output in item.outputs}

    @cached_property
    def users(self) -> Mapping[str, Sequence[Operation]]:
        """The operations that take each value."""
        found: dict[str, list[Operation]] = {}
        for item in self.operations:
            # A set: an operation that takes a value twice counts as one user.
            for name in {arg.name for given in item.inputs.values() for arg in given if isinstance(arg, Ref)}:
                found.setdefault(name, []).append(item)
        return found

    @cached_property
    def types(self) -> Mapping[str, Type]:
        """The type of each value by name; for a state, its tensor's."""
        found = {item.name: item.type for item in self.function.inputs}
        for item in walk(self.function.block.operations):
            found |= {output.name: output.type for output in item.outputs}
            found |= {given.name: given.type for block in item.blocks for given in block.inputs}
        return {name: kind.wrapped if isinstance(kind, StateType) else kind for name, kind in found.items()}

    def of(self, *kinds: str) -> Iterator[Operation]:
        """Yield the operations of these types, type by type."""
        return (item for kind in kinds for item in self.by_type.get(kind, ()))

    def given(self, operation: Operation, name: str) -> Argument | None:
        """Return an operation's argument for the input ``name``, None unless there is exactly one."""
        found = operation.inputs.get(name, ())
        return found[0] if len(found) == 1 else None

    def tensor(self, operation: Operation, name: str) -> TensorType | None:
        """Return the type of an operation's input, where it is a tensor."""
        found = self.given(operation, name)
        kind = found.type if isinstance(found, Value) else self.types.get(found.name) if found else None
        return kind if isinstance(kind, TensorType) else None

    def shape(self, operation: Operation, name: str) -> tuple[int | None, ...]:
        """Return the shape of an operation's input; empty for a scalar, and where none is known."""
        kind = self.tensor(operation, name)
        return (kind.shape or ()) if kind else ()

    def is_constant(self, operation: Operation, name: str) -> bool:
        """Whether an input is known before the program runs (as decompressed weights are)."""
        found = self.given(operation, name)
        # An input that is left out has its default, which is known too.
        if found is None or isinstance(found, Value) or found.name in self.constants:
            return True
        maker = self.makers.get(found.name)
        return maker is not None and maker.type.startswith("constexpr")

    def constant(self, operation: Operation, name: str) -> object:
        """Return a small constant input as plain Python; None where it is computed, in the weight file or missing."""
        found = self.given(operation, name)
        value = self.constants.get(found.name) if isinstance(found, Ref) else found
        if not isinstance(value, Value) or not isinstance(value.data, tuple | bytes):
            return None
        size = value.type.size if isinstance(value.type, TensorType) else None
        return value.python() if size is not None and size <= SMALL else None

    def ints(self, operation: Operation, name: str) -> tuple[int, ...]:
        """Return a small constant input as integers; empty where there is none."""
        found = self.constant(operation, name)
        items = found if isinstance(found, list) else [found]
        return tuple(item for item in items if isinstance(item, int))

    def maker(self, operation: Operation, name: str) -> Operation | None:
        """Return the operation that makes an input."""
        found = self.given(operation, name)
        return self.makers.get(found.name) if isinstance(found, Ref) else None

    def after(self, operation: Operation) -> Iterator[Operation]:
        """Yield the operations that use the results of ``operation``."""
        for output in operation.outputs:
            yield from self.users.get(output.name, ())


def made(operation: Operation) -> TensorType | None:
    """Return the type of an operation's first output, where it is a tensor."""
    kind = operation.outputs[0].type if operation.outputs else None
    return kind if isinstance(kind, TensorType) else None


def half(kind: TensorType | None) -> bool:
    """Whether a tensor is f16."""
    return kind is not None and kind.dtype is DType.FP16
