"""Operations in f32 between casts, in f16: the Neural Engine computes in f16 only.

By MIL's rule an f16 operation computes in f32 and is rounded once. So an f32 operation of widened f16 values whose
result is only narrowed again is an f16 operation, and one that only moves values, or chooses among them, is one in any
case. A chain of others is not: what lies between them would be rounded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tlkit.mil.passes.ane.draft import Draft, argument, rewritten
from tlkit.mil.passes.ane.layout import BINARY, UNARY
from tlkit.mil.passes.base import Outcome, Pass
from tlkit.mil.passes.rewrite import text
from tlkit.mil.program import Argument, Block, Function, NamedType, Operation, Program, Ref, TensorType, Value
from tlkit.mil.types import DType

_MOVES = frozenset(
    (
        *("reshape", "transpose", "squeeze", "expand_dims", "slice_by_index", "slice_by_size", "split", "concat"),
        *("stack", "tile", "reverse", "pixel_shuffle", "pixel_unshuffle", "depth_to_space", "space_to_depth"),
        *("relu", "abs", "maximum", "minimum", "max_pool", "reduce_max", "reduce_min", "select", "pad", "identity"),
        *("upsample_nearest_neighbor", "gather", "clip"),
    )
)
_COMPUTES = (
    UNARY
    | BINARY
    | frozenset(
        (
            *("softmax", "matmul", "linear", "conv", "layer_norm", "instance_norm", "l2_norm", "batch_norm", "prelu"),
            *("avg_pool", "reduce_mean", "reduce_sum", "reduce_l2_norm", "reduce_sum_square", "conv_transpose"),
            *("reduce_log_sum_exp", "upsample_bilinear", "scaled_dot_product_attention"),
        )
    )
)
_LARGEST = 65504.0
_MOST = 1 << 24  # elements of a constant that are read to see whether f16 holds them


@dataclass(frozen=True)
class Narrow(Pass):
    """Compute in f16 what ``function`` computes in f32 of f16 values, where the result is the same."""

    function: str

    def run(self, program: Program) -> Outcome:
        """See :class:`~tlkit.mil.passes.base.Pass`."""
        return rewritten(program, self.function, _changed, "{} operations in f32 between casts in f16")


def _changed(block: Block, function: Function, taken: set[str]) -> tuple[Block, int]:
    if any(operation.blocks for operation in block.operations):
        return block, 0
    narrower = _Narrower(Draft(block, function.inputs, taken), block)
    for operation in block.operations:
        narrower.take(operation)
    for name in block.outputs:
        narrower.output(name)
    return narrower.draft.block(), narrower.count


class _Narrower:
    """``_narrow`` has, for an f32 value that f16 holds, the f16 value; what was not emitted is widened on demand."""

    def __init__(self, draft: Draft, block: Block) -> None:
        self.draft = draft
        self.count = 0
        self._narrow: dict[str, str] = {}
        self._waiting: set[str] = set()  # f32 values that nothing has needed yet
        self._same: dict[str, str] = {}  # f16 values that are another
        self._only_narrowed = _only_narrowed(block)

    def take(self, operation: Operation) -> None:
        """Emit ``operation`` in f16 where that is the same, else as it is."""
        x = argument(operation, "x")
        kind = operation.outputs[0].type if operation.outputs else None
        if operation.type == "cast" and x is not None and isinstance(kind, TensorType):
            before = self.draft.dtype(x)
            if (before, kind.dtype) == (DType.FP16, DType.FP32):
                self._narrow[operation.outputs[0].name] = self._same.get(x, x)
            elif kind.dtype is DType.FP16 and x in self._narrow:
                self._same[operation.outputs[0].name] = self._narrow[x]
                self.draft.know(operation)
                return
        elif self._kept(operation):
            self.count += 1
            return
        self.draft.emit(
            replace(operation, inputs={key: tuple(map(self._wide, items)) for key, items in operation.inputs.items()})
        )

    def output(self, name: str) -> None:
        """Emit the value ``name`` under its own name."""
        self._wide(Ref(name))
        if name in self._same:
            shape, source = self.draft.shape(name), self._same[name]
            assert shape is not None
            self.draft.add("identity", name, shape, source, x=source)

    def _wide(self, item: Argument) -> Argument:
        if not isinstance(item, Ref):
            return item
        if item.name in self._waiting:
            self._waiting.discard(item.name)
            kind = self.draft.constant(f"{item.name}_dtype", text("fp32"))
            made = NamedType(item.name, self.draft.kinds[item.name])
            given = {"x": (Ref(self._narrow[item.name]),), "dtype": (Ref(kind),)}
            self.draft.emit(Operation("cast", given, (made,), {"name": text(item.name)}))
        return Ref(self._same.get(item.name, item.name))

    def _kept(self, operation: Operation) -> bool:
        kinds = [item.type for item in operation.outputs]
        if not kinds or any(
            not isinstance(k, TensorType) or k.dtype is not DType.FP32 or k.size is None for k in kinds
        ):
            return False
        only = all(item.name in self._only_narrowed for item in operation.outputs)
        if operation.type not in _MOVES and not (only and operation.type in _COMPUTES):
            return False
        given: dict[str, tuple[Argument, ...]] = {}
        for key, items in operation.inputs.items():
            found = [self._half(item) for item in items]
            if any(item is None for item in found):
                return False
            given[key] = tuple(item for item in found if item is not None)
        if not any(isinstance(i, Ref) and i.name in self._narrow for items in operation.inputs.values() for i in items):
            return False
        self._emit(operation, given)
        return True

    def _emit(self, operation: Operation, given: dict[str, tuple[Argument, ...]]) -> None:
        given = {key: tuple(map(self._constant, items)) for key, items in given.items()}
        made = []
        for item in operation.outputs:
            assert isinstance(item.type, TensorType)
            half = NamedType(self.draft.name(f"{item.name}_half"), replace(item.type, dtype=DType.FP16))
            made.append(half)
            self.draft.kinds[item.name] = item.type
            self._narrow[item.name] = half.name
            self._waiting.add(item.name)
        self.draft.emit(replace(operation, inputs=given, outputs=tuple(made)))

    def _half(self, item: Argument) -> Argument | None:
        """What an operand is in f16; None where it is not known to be the same."""
        if isinstance(item, Value):
            return item if not _is_wide(item) or _fits(item) else None
        if self.draft.dtype(item.name) is not DType.FP32:
            return Ref(self._same.get(item.name, item.name))
        if item.name in self._narrow:
            return Ref(self._narrow[item.name])
        value = self.draft.constants.get(item.name)
        return value if value is not None and _fits(value) else None

    def _constant(self, item: Argument) -> Argument:
        if not isinstance(item, Value) or not _is_wide(item):
            return item
        assert isinstance(item.type, TensorType)
        data = item.numpy().astype("float16")
        return Ref(self.draft.constant("half", Value(replace(item.type, dtype=DType.FP16), data.tobytes())))


def _is_wide(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype is DType.FP32


def _fits(value: Value) -> bool:
    """Whether f16 holds an f32 constant."""
    if not isinstance(value.type, TensorType) or (value.type.size or 0) > _MOST:
        return False
    array = value.numpy()
    inside = bool((abs(array) <= _LARGEST).all())  # what is infinite in f16, or a NaN, is not the same
    return inside and bool((array.astype("float16").astype("float32") == array).all())


def _only_narrowed(block: Block) -> set[str]:
    """The values that only casts to f16 read."""
    narrowed: set[str] = set()
    others = set(block.outputs)
    for operation in block.operations:
        kind = operation.outputs[0].type if operation.outputs else None
        casts = operation.type == "cast" and isinstance(kind, TensorType) and kind.dtype is DType.FP16
        names = {item.name for items in operation.inputs.values() for item in items if isinstance(item, Ref)}
        (narrowed if casts else others).update(names)
    return narrowed - others
