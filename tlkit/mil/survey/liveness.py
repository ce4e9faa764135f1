"""How much memory the values of a program need while it runs: what is alive beside each operation, and the peak.

A value is alive from the operation that makes it to the last one that reads it; an input of the program from its
beginning, an output to its end. Operations that only look at a value in another way (``reshape``, ``transpose``,
``slice_by_index`` ...) make nothing: their results share its memory and keep it alive, until a reshape needs the
values in another order (:mod:`tlkit.mil.survey.views`). Weights are not counted, nor what an operation needs inside
itself. An open dimension counts as 1. What runs inside a block is alive beside what surrounds it.

How large a value is depends on what runs the program (:class:`Carrier`): as the program declares it, or as tlkit's
PyTorch engine carries it, f16 in f32. Where that engine rounds, the unrounded result (4 bytes an element) and the
f16 one (2 bytes) are there beside the rounded one for a moment. Inputs lie in the caller's arrays there, and take
memory only if they have to be widened.

No weight is decoded, and neither torch nor numpy is imported.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from tlkit.mil.program import Block, Function, NamedType, Operation, Ref, TensorType, Type, Value
from tlkit.mil.survey import views
from tlkit.mil.types import DType

EXACT = frozenset(
    (
        *("abs", "argsort", "band_part", "batch_to_space", "ceil", "classify", "clip", "concat", "cond"),
        *("coreml_update_state", "crop", "depth_to_space", "equal", "expand_dims", "fill", "fill_like", "flatten2d"),
        *("floor", "gather", "gather_along_axis", "gather_nd", "greater", "greater_equal", "identity", "less"),
        *("less_equal", "list_gather", "list_length", "list_read", "list_scatter", "list_write", "logical_and"),
        *("logical_not", "logical_or", "logical_xor", "make_list", "max_pool", "maximum", "minimum"),
        *("non_maximum_suppression", "non_zero", "not_equal", "one_hot", "pad", "pixel_shuffle", "pixel_unshuffle"),
        *("read_state", "reduce_argmax", "reduce_argmin", "reduce_max", "reduce_min", "relu", "relu6", "reshape"),
        *("reshape_like", "resize_nearest_neighbor", "reverse", "reverse_sequence", "round", "select", "shape"),
        *("sign", "slice_by_index", "slice_by_size", "slice_update", "sliding_windows", "space_to_batch"),
        *("space_to_depth", "split", "squeeze", "stack", "threshold", "thresholded_relu", "tile", "topk"),
        *("transpose", "upsample_nearest_neighbor", "while_loop", "write_state"),
    )
)
"""Operations whose results need no rounding. Written out, since the op library imports torch; a test compares."""


class Carrier(NamedTuple):
    """What carries the values: ``wide`` puts f16 into f32, ``rounds`` rounds it to f16 after each inexact operation."""

    wide: bool = False
    rounds: bool = False

    def nbytes(self, kind: Type) -> int:
        """Return the bytes of a value; 0 of a state, which is the caller's, and of what is not a tensor."""
        if not isinstance(kind, TensorType) or kind.shape is None:
            return 0
        bits = 32 if self.wide and kind.dtype is DType.FP16 else kind.dtype.bits
        return -(-math.prod(1 if size is None else size for size in kind.shape) * bits // 8)

    def given(self, kind: Type) -> int:
        """Return the bytes that an input of the program takes."""
        return self.nbytes(kind) if not self.wide or getattr(kind, "dtype", None) is DType.FP16 else 0

    def scratch(self, operation: Operation) -> int:
        """Return the bytes that rounding the operation's results takes beside them."""
        if not self.rounds or operation.type in EXACT or operation.blocks:
            return 0
        half = (item.type for item in operation.outputs if getattr(item.type, "dtype", None) is DType.FP16)
        return sum(3 * self.nbytes(kind) // 2 for kind in half)

    def looks(self, operation: Operation) -> bool:
        """Whether the operation is a cast that changes nothing of what is carried."""
        if operation.type != "cast" or not self.wide or not operation.outputs:
            return False
        dtype = getattr(operation.outputs[0].type, "dtype", None)
        return dtype is DType.FP32 or (dtype is DType.FP16 and not self.rounds)


DECLARED = Carrier()
"""Values as the program declares them."""
EAGER_F16 = Carrier(wide=True, rounds=True)
"""As tlkit's PyTorch engine carries them by default."""
EAGER_F32 = Carrier(wide=True)
"""The same with ``--precision f32``."""


class Alive(NamedTuple):
    """An operation and the bytes of the values that are alive while it runs, its results among them."""

    operation: Operation
    nbytes: int


class _Memory:
    """One allocation: its bytes, the last operation (by its place) that needs it, and the one that made it."""

    __slots__ = ("last", "made", "nbytes")

    def __init__(self, nbytes: int, last: int, made: int) -> None:
        self.nbytes, self.last, self.made = nbytes, last, made


class _View(NamedTuple):
    memory: _Memory
    shape: tuple[int, ...]
    strides: views.Strides


class _Scope:
    """The values that are known in a block, by name, and the constants."""

    def __init__(self, outer: _Scope | None = None) -> None:
        self.values: dict[str, _View] = dict(outer.values) if outer else {}
        self.constants: dict[str, Value] = dict(outer.constants) if outer else {}


def alive(function: Function, carrier: Carrier = DECLARED) -> Iterator[Alive]:
    """Yield, for each operation that runs, in order, what is alive; those of blocks before the one that holds them."""
    yield from _block(function.block, function.inputs, _Scope(), carrier, 0)


def peak(function: Function, carrier: Carrier = DECLARED) -> Alive | None:
    """Return the operation beside which most is alive, the first of several; None for a program that computes
    nothing."""
    return max(alive(function, carrier), key=lambda item: item.nbytes, default=None)


def _block(block: Block, inputs: tuple[NamedType, ...], outer: _Scope, carrier: Carrier, base: int) -> Iterator[Alive]:
    scope, owned = _Scope(outer), list[_Memory]()
    operations = []
    for op in block.operations:
        if op.type == "const" and "val" in op.attributes:
            scope.constants |= {item.name: op.attributes["val"] for item in op.outputs}
        elif op.type != "const" and not op.type.startswith("constexpr_"):
            operations.append(op)
    end, known = len(operations), scope.values
    for item in (*inputs, *block.inputs):
        size = carrier.given(item.type) if item in inputs else carrier.nbytes(item.type)
        memory = _Memory(size, end if item in inputs else 0, -1)
        owned.append(memory)
        known[item.name] = _whole(item.type, memory)
    for place, op in enumerate(operations):
        for name in _read(op):
            if name in known:
                known[name].memory.last = max(known[name].memory.last, place)
        for item in op.outputs:
            view = _made(op, item.type, scope, carrier, place)
            if view.memory.made == place:
                owned.append(view.memory)
            known[item.name] = view
    for name in block.outputs:
        if name in known:
            known[name].memory.last = end
    yield from _swept(operations, owned, scope, carrier, base)


def _swept(
    operations: list[Operation],
    owned: list[_Memory],
    scope: _Scope,
    carrier: Carrier,
    base: int,
) -> Iterator[Alive]:
    """Walk over the operations once, adding what begins and taking off what ended."""
    begins: dict[int, int] = {}
    ends: dict[int, int] = {}
    for memory in owned:
        begins[memory.made] = begins.get(memory.made, 0) + memory.nbytes
        last = max(memory.last, memory.made)
        ends[last] = ends.get(last, 0) + memory.nbytes
    now = base + begins.get(-1, 0) - ends.get(-1, 0)
    for place, op in enumerate(operations):
        for inner in op.blocks:
            yield from _block(inner, (), scope, carrier, now)
        now += begins.get(place, 0)
        yield Alive(op, now + carrier.scratch(op))
        now -= ends.get(place, 0)


def _made(op: Operation, kind: Type, scope: _Scope, carrier: Carrier, place: int) -> _View:
    """Return where a result of ``op`` lies: in memory of its own, or in that of the value that it looks at."""
    given = op.inputs.get("x", ())
    looks = op.type in views.LOOKS or carrier.looks(op)
    source = scope.values.get(given[0].name) if looks and given and isinstance(given[0], Ref) else None
    if source is not None:
        if carrier.looks(op):
            return source
        shape = _shape(kind)
        strides = views.look(op, source.shape, source.strides, shape, scope.constants.get)
        if strides is not None:
            return _View(source.memory, shape, strides)
    return _whole(kind, _Memory(carrier.nbytes(kind), place, place))


def _whole(kind: Type, memory: _Memory) -> _View:
    shape = _shape(kind)
    return _View(memory, shape, views.in_order(shape))


def _shape(kind: Type) -> tuple[int, ...]:
    dims = kind.shape if isinstance(kind, TensorType) else ()
    return tuple(1 if size is None else size for size in dims or ())


def _read(op: Operation) -> Iterator[str]:
    """Yield the names that an operation reads, and those that its blocks do."""
    for arguments in op.inputs.values():
        yield from (argument.name for argument in arguments if isinstance(argument, Ref))
    for block in op.blocks:
        yield from block.outputs
        for inner in block.operations:
            yield from _read(inner)
