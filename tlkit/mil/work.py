"""The work of each operation of a program: multiply-accumulates, and bytes of values and weights read and written.

Each product that is added up counts as one multiply-accumulate (MAC). A convolution has output elements times input
channels per group times kernel elements; a matrix product, output elements times the inner dimension; attention,
queries times keys times twice the head's width. Elementwise work is not counted, as is usual. No weight is decoded, and
neither torch nor numpy is imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tlkit.mil.program import Argument, Block, Function, NamedType, Operation, Ref, StateType, TensorType, Type, Value
from tlkit.mil.types import DType

Shape = tuple[int | None, ...]
_T = TypeVar("_T")


class _kept(Generic[_T]):
    """``cached_property`` without the lock that Python 3.11's takes, which costs more than what is kept here."""

    def __init__(self, make: Callable[[Any], _T]) -> None:
        self._make = make
        self._name = make.__name__

    def __get__(self, owner: Any, kind: type | None = None) -> _T:
        # Found there from now on: a property without __set__ comes after the object's own dictionary.
        found = owner.__dict__[self._name] = self._make(owner)
        return found


@dataclass(frozen=True)  # without slots, as a value is asked for its size by all that read it
class Operand:
    """One value that an operation reads or writes, with its tensor type; ``fixed`` if it is known before the program
    runs.

    ``value`` is the constant, None where it is computed at run time, or from compressed weights at load time.
    """

    name: str
    kind: TensorType
    fixed: bool = False
    value: Value | None = None

    @property
    def shape(self) -> Shape:
        """The dimensions; an unknown rank counts as a scalar."""
        return self.kind.shape or ()

    @_kept
    def elements(self) -> int:
        """The number of elements; an open dimension counts as 1."""
        return math.prod([size for size in self.shape if size])

    @_kept
    def nbytes(self) -> int:
        """The value's size in bytes; sub-byte elements are packed."""
        return -(-self.elements * self.kind.dtype.bits // 8)

    @property
    def open(self) -> bool:
        """Whether a dimension, or the rank, is open."""
        return self.kind.shape is None or None in self.kind.shape


@dataclass(frozen=True)  # without slots: what is asked for again and again is kept
class Step:
    """An operation with what it reads and writes. ``operands`` is by input name, ``results`` in order."""

    operation: Operation
    operands: Mapping[str, tuple[Operand, ...]]
    results: tuple[Operand, ...]

    @_kept
    def type(self) -> str:
        """The operation's type."""
        return self.operation.type

    @_kept
    def read(self) -> tuple[Operand, ...]:
        """The operands that are computed at run time."""
        return tuple([item for items in self.operands.values() for item in items if not item.fixed])

    @_kept
    def weights(self) -> tuple[Operand, ...]:
        """The fixed operands that are weights, not parameters: those of more than 16 elements."""
        fixed = [item for items in self.operands.values() for item in items if item.fixed]
        return tuple([item for item in fixed if item.elements > _SETTING])

    def operand(self, name: str) -> Operand | None:
        """Return the operand called ``name`` (its first, where it is a list), or None."""
        items = self.operands.get(name, ())
        return items[0] if items else None

    def setting(self, name: str, default: Any = None) -> Any:
        """Return a constant operand as plain Python, or ``default`` where it is absent or not constant."""
        found = self.operand(name)
        return default if found is None or found.value is None else found.value.python()

    @_kept
    def nbytes(self) -> int:
        """Bytes of run-time values read and written."""
        return sum([item.nbytes for item in (*self.read, *self.results)])

    @_kept
    def macs(self) -> int:
        """The number of multiply-accumulates; see the module's docstring."""
        rule = _MACS.get(self.type)
        return rule(self) if rule is not None and self.results else 0


# Strides, paddings and axes have a few elements; a real weight that small costs nothing either way.
_SETTING = 16


def steps(function: Function) -> Iterator[Step]:
    """Yield the function's run-time operations in order; those of nested blocks follow the operation that contains
    them."""
    known: dict[str, Operand] = {}
    yield from _steps(function.block, function.inputs, known)


def _steps(block: Block, inputs: tuple[NamedType, ...], known: dict[str, Operand]) -> Iterator[Step]:
    for item in (*inputs, *block.inputs):
        known[item.name] = _operand_of(item)
    for operation in block.operations:
        kind = operation.type
        # Computed while the model is loaded, not at run time.
        if kind == "const" or kind.startswith("constexpr_"):
            value = operation.attributes.get("val") if kind == "const" else None
            for item in operation.outputs:
                known[item.name] = Operand(item.name, _tensor(item.type), True, value)
            continue
        operands = {name: tuple([_read(arg, known) for arg in args]) for name, args in operation.inputs.items()}
        results = tuple(map(_operand_of, operation.outputs))
        for result in results:
            known[result.name] = result
        yield Step(operation, operands, results)
        for inner in operation.blocks:
            yield from _steps(inner, (), known)


def _operand_of(item: NamedType) -> Operand:
    return Operand(item.name, _tensor(item.type))


def _read(argument: Argument, known: Mapping[str, Operand]) -> Operand:
    if isinstance(argument, Ref):
        # A damaged program can name what nothing defines: it counts as one element.
        return known.get(argument.name) or Operand(argument.name, _NOTHING)
    return Operand("", _tensor(argument.type), True, argument)


def _tensor(kind: Type) -> TensorType:
    """Return a type as a tensor's: a state's is its tensor's, a list, tuple or dictionary counts as of unknown rank."""
    if isinstance(kind, TensorType):
        return kind
    return kind.wrapped if isinstance(kind, StateType) else _NO_TENSOR


_NOTHING, _NO_TENSOR = TensorType(DType.FP16, None), TensorType(DType.STRING, None)


def _kernel(step: Step, axes_before: int) -> int:
    weight = step.operand("weight")
    return math.prod(size or 1 for size in weight.shape[axes_before:]) if weight else 1


def _conv(step: Step) -> int:
    weight = step.operand("weight")
    # C_out x C_in/groups x kernel
    inner = weight.shape[1] or 1 if weight and len(weight.shape) > 1 else 1
    return step.results[0].elements * inner * _kernel(step, 2)


def _conv_transpose(step: Step) -> int:
    weight, x = step.operand("weight"), step.operand("x")
    # C_in x C_out/groups x kernel: each element of x is multiplied by all of its channel's.
    outer = weight.shape[1] or 1 if weight and len(weight.shape) > 1 else 1
    return (x.elements if x else 0) * outer * _kernel(step, 2)


def _linear(step: Step) -> int:
    weight = step.operand("weight")
    # C_out x C_in
    return step.results[0].elements * ((weight.shape[-1] or 1) if weight and weight.shape else 1)


def _matmul(step: Step) -> int:
    x = step.operand("x")
    if x is None or len(x.shape) < 2:
        return step.results[0].elements * (x.elements if x else 1)
    return step.results[0].elements * (x.shape[-2 if step.setting("transpose_x") else -1] or 1)


def _attention(step: Step) -> int:
    query, key = step.operand("query"), step.operand("key")
    # Once for the scores (query times key), once for the sums of values that they weigh.
    return 2 * query.elements * (key.shape[-2] or 1) if query and key and len(key.shape) > 1 else 0


def _recurrent(step: Step) -> int:
    x = step.operand("x")
    matrices = [step.operand(name) for name in ("weight_ih", "weight_hh", "weight_ih_back", "weight_hh_back")]
    each = sum(matrix.elements for matrix in matrices if matrix is not None)
    # x is S x N x C: each matrix is applied once per step and sample.
    return each * math.prod(size or 1 for size in x.shape[:2]) if x else 0


def _einsum(step: Step) -> int:
    equation = step.setting("equation", "")
    given, _, _ = str(equation).partition("->")
    sizes: dict[str, int] = {}
    for term, item in zip(given.split(","), step.operands.get("values", ()), strict=False):
        sizes |= {letter: size or 1 for letter, size in zip(term.strip(), item.shape, strict=False)}
    # Each output element adds up products over the letters that it lacks.
    return math.prod(sizes.values()) if sizes else 0


_MACS: Mapping[str, Callable[[Step], int]] = {
    "conv": _conv,
    "conv_quantized": _conv,
    "conv_transpose": _conv_transpose,
    "linear": _linear,
    "matmul": _matmul,
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "lstm": _recurrent,
    "gru": _recurrent,
    "rnn": _recurrent,
}
