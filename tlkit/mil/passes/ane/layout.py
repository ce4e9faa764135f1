"""Linear layers as 1x1 convolutions, in the Neural Engine's own layout: [B, S, C] is held as [B, C, 1, S].

What lies between the layers (additions, norms, activations, splits, attention's heads) is computed in that layout, so
that nearly no transposition is left: a value is only put back where an operation needs it as it was. Each operation
computes what it did; a matrix product of transposed operands is the transposed product.

Source: Apple, "Deploying Transformers on the Apple Neural Engine" (2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from tlkit.mil.passes.ane.draft import Draft, Shape, argument, rewritten
from tlkit.mil.passes.ane.forms import CHANNELS, HEADS, SPLIT, Forms
from tlkit.mil.passes.base import Outcome, Pass
from tlkit.mil.passes.rewrite import text, vector
from tlkit.mil.program import Block, Function, NamedType, Operation, Program, Ref, TensorType, Value
from tlkit.mil.types import DType

UNARY = frozenset(
    (
        "abs",
        "ceil",
        "clip",
        "elu",
        "erf",
        "exp",
        "floor",
        "gelu",
        "identity",
        "inverse",
        "leaky_relu",
        "log",
        "relu",
        "relu6",
        "round",
        "rsqrt",
        "sigmoid",
        "sigmoid_hard",
        "sign",
        "silu",
        "softplus",
        "softsign",
        "sqrt",
        "square",
        "tanh",
        "clamped_relu",
        "linear_activation",
        "scaled_tanh",
        "thresholded_relu",
    )
)
BINARY = frozenset(("add", "sub", "mul", "real_div", "maximum", "minimum", "pow"))
_SWAP = (0, 2, 1, 3)


@dataclass(frozen=True)
class ChannelsFirst(Pass):
    """Make the linear layers of ``function`` convolutions, and keep their values in the layout of channels first."""

    function: str

    def run(self, program: Program) -> Outcome:
        """See :class:`~tlkit.mil.passes.base.Pass`."""
        told = "{} linear layers as 1x1 convolutions on [B, C, 1, S]"
        return rewritten(program, self.function, _changed, told)


def _changed(block: Block, function: Function, taken: set[str]) -> tuple[Block, int]:
    if any(operation.blocks for operation in block.operations):
        return block, 0
    layout = _Layout(Draft(block, function.inputs, taken), _read_by_layers(block))
    for operation in block.operations:
        layout.take(operation)
    for name in block.outputs:
        layout.output(name)
    return layout.draft.block(), layout.count


def _read_by_layers(block: Block) -> set[str]:
    """The values that linear layers read, directly or through a reshape."""
    found: set[str] = set()
    for operation in reversed(block.operations):
        x = argument(operation, "x")
        if x is not None and (
            operation.type in ("linear", "matmul")
            or (operation.type == "reshape" and operation.outputs[0].name in found)
        ):
            found.add(x)
    return found


class _Layout(Forms):
    """Rules by type: each emits an operation in another form, or says that it did not."""

    def __init__(self, draft: Draft, layers: set[str]) -> None:
        super().__init__(draft)
        self.count = 0
        self._layers = layers
        self._rules: dict[str, Callable[[Operation], bool]] = {
            "linear": self._linear,
            "matmul": self._matmul,
            "layer_norm": self._layer_norm,
            "reshape": self._reshape,
            "transpose": self._transpose,
            "squeeze": self._reshape,
            "expand_dims": self._reshape,
            "split": self._split,
            "concat": self._concat,
        }

    def take(self, operation: Operation) -> None:
        """Emit ``operation`` in another form where that is known, else as it is."""
        rule = self._rules.get(operation.type)
        if operation.type in UNARY:
            rule = self._unary
        elif operation.type in BINARY:
            rule = self._binary
        if rule is not None and self._half(operation) and rule(operation):
            return
        self.draft.emit(replace(operation, inputs={key: self._given(items) for key, items in operation.inputs.items()}))

    def _half(self, operation: Operation) -> bool:
        kinds = [item.type for item in operation.outputs]
        return all(isinstance(k, TensorType) and k.dtype is DType.FP16 and k.size is not None for k in kinds)

    def _again(self, operation: Operation, form: str, shape: Shape, **inputs: str) -> bool:
        """Emit ``operation`` on values of another form; its one result is held in that form."""
        item = operation.outputs[0]
        made = self._retyped(item, self.draft.name(f"{item.name}_ane"), shape)
        given = {**operation.inputs, **{name: (Ref(value),) for name, value in inputs.items()}}
        self.draft.emit(replace(operation, inputs=given, outputs=(made,)))
        self._hold(item, form, made.name)
        return True

    def _unary(self, operation: Operation) -> bool:
        x = argument(operation, "x")
        for form in (CHANNELS, SPLIT, HEADS):
            if source := self._in(x, form):
                return self._again(operation, form, self._shape(source), x=source)
        return False

    def _binary(self, operation: Operation) -> bool:
        x, y = argument(operation, "x"), argument(operation, "y")
        if x is None or y is None:
            return False
        for form in (SPLIT, HEADS):
            for name, (one, other) in {"x": (x, y), "y": (y, x)}.items():
                source, number = self._in(one, form), self.draft.shape(other)
                if source and number is not None and math.prod(number) == 1 and len(number) < 2:
                    return self._again(operation, form, self._shape(source), **{name: source})
        wide = operation.outputs[0].type
        if not (self._in(x, CHANNELS) or self._in(y, CHANNELS)) or not isinstance(wide, TensorType):
            return False
        ranks = {len(self.draft.shape(name) or ()) for name in (x, y)}
        if len(wide.shape or ()) not in (2, 3, 4) or (4 in ranks and not ranks <= {0, 1, 4}):
            return False
        first, second = self._channels(x), self._channels(y)
        if first is None or second is None:
            return False
        return self._again(operation, CHANNELS, self._held_shape(operation.outputs[0]), x=first, y=second)

    def _layer_norm(self, operation: Operation) -> bool:
        x = argument(operation, "x")
        shape = self.draft.shape(x or "") or ()
        axes = self.draft.flag(operation, "axes")
        if x is None or axes not in ([-1], [len(shape) - 1]) or len(shape) not in (2, 3, 4):
            return False
        source = self._in(x, CHANNELS)
        if source is None and operation.outputs[0].name in self._layers and shape[-2] > 1:
            source = self._channels(x)  # once for the norm and what is added to it later
        if source is None:
            return False
        name = self.draft.constant(f"{source}_axes", vector([1]))
        return self._again(operation, CHANNELS, self._shape(source), x=source, axes=name)

    def _linear(self, operation: Operation) -> bool:
        weight = argument(operation, "weight")
        return self._convolution(operation, weight, (0, 1), argument(operation, "bias"))

    def _convolution(self, operation: Operation, weight: str | None, perm: tuple[int, int], bias: str | None) -> bool:
        x = argument(operation, "x")
        shape = self.draft.shape(weight or "")
        if x is None or weight not in self.draft.constants or shape is None or len(shape) != 2:
            return False
        if len(self.draft.shape(x) or ()) not in (2, 3, 4):
            return False
        if self._shape(x)[-2] == 1:
            return False  # one row would be padded to 32
        source = self._channels(x)
        if source is None:
            return False
        sizes = tuple(shape[axis] for axis in perm)
        item, draft = operation.outputs[0], self.draft
        made = draft.name(f"{item.name}_ane")
        given: dict[str, str | list[int]] = {"x": source, "weight": draft.permuted(weight, perm, (*sizes, 1, 1))}
        given |= {"bias": bias} if bias is not None else {}
        given |= {"strides": [1, 1], "pad": [0, 0, 0, 0], "dilations": [1, 1], "pad_type": self._word("valid")}
        draft.add("conv", made, self._held_shape(item), x, **given, groups=1)
        self._hold(item, CHANNELS, made)
        self.count += 1
        return True

    def _word(self, word: str) -> str:
        return self.draft.constant(f"pad_type_{word}", text(word))

    def _matmul(self, operation: Operation) -> bool:
        x, y = argument(operation, "x"), argument(operation, "y")
        turn_x, turn_y = (bool(self.draft.flag(operation, f"transpose_{name}", False)) for name in "xy")
        if y in self.draft.constants:
            return not turn_x and self._convolution(operation, y, (0, 1) if turn_y else (1, 0), None)
        left, right = self._in(x, HEADS), self._in(y, HEADS)
        if x is None or y is None or not (left or right):
            return False
        item, draft = operation.outputs[0], self.draft
        assert isinstance(item.type, TensorType)
        shape = tuple(size or 0 for size in item.type.shape or ())
        if right and not left:
            made = draft.name(f"{item.name}_ane")
            turned = (*shape[:-2], shape[-1], shape[-2])
            given = {"transpose_x": turn_y, "transpose_y": not turn_x}
            draft.add("matmul", made, turned, y, x=right, y=self.plain(x), **given)
            self._hold(item, HEADS, made)
            return True
        given = {"transpose_x": turn_x != bool(left), "transpose_y": turn_y != bool(right)}
        draft.add("matmul", item.name, shape, y, x=left or self.plain(x), y=right or self.plain(y), **given)
        return True

    def _reshape(self, operation: Operation) -> bool:
        x, item = argument(operation, "x"), operation.outputs[0]
        before, after = self.draft.shape(x or ""), getattr(item.type, "shape", None)
        if x is None or before is None or after is None:
            return False
        if source := self._in(x, CHANNELS):
            if len(before) < 4 and _rows(before) == _rows(after):
                self._hold(item, CHANNELS, source)
                return True
            if len(before) < 4 and len(after) == 4 and _rows(before) == (*after[:2], after[2] * after[3]):
                batch, rows, heads, width = after
                return self._reshaped(item, SPLIT, source, (batch, heads, width, rows))
        if (source := self._in(x, SPLIT)) and (*before[:2], before[2] * before[3]) == _rows(after):
            return self._reshaped(item, CHANNELS, source, self._held_shape(item))
        return False

    def _reshaped(self, item: NamedType, form: str, source: str, shape: Shape) -> bool:
        made = self.draft.name(f"{item.name}_ane")
        self.draft.add("reshape", made, shape, source, x=source, shape=list(shape))
        self._hold(item, form, made)
        return True

    def _transpose(self, operation: Operation) -> bool:
        x, item = argument(operation, "x"), operation.outputs[0]
        perm = tuple(self.draft.flag(operation, "perm", ()))
        perm = tuple(axis % len(perm) for axis in perm)
        forms = self.held.get(x or "", {})
        for old, new in ((SPLIT, HEADS), (HEADS, SPLIT)):
            if old in forms and perm == _SWAP:
                self._hold(item, new, forms[old])
                return True
        same = {SPLIT: (0, 2, 3, 1), HEADS: (0, 1, 3, 2)}
        for form, turned in same.items():
            if form in forms and perm == turned:
                return self._is(item, forms[form])
        return self._around(operation, perm, forms.get(CHANNELS))

    def _around(self, operation: Operation, perm: tuple[int, ...], source: str | None) -> bool:
        """Transpositions that bring channels first or put them last."""
        x, item = argument(operation, "x"), operation.outputs[0]
        if x is None:
            return False
        if source is not None and perm in ((0, 2, 1), (0, 3, 1, 2)):
            if len(perm) == 4:
                return self._is(item, source)
            shape = self._shape(x)
            self.draft.add("squeeze", item.name, (shape[0], shape[2], shape[1]), source, x=source, axes=[2])
            return True
        if source is None and perm in ((0, 2, 1), (0, 2, 3, 1)):
            made = inner = self.plain(x)
            self.draft.emit(replace(operation, inputs={**operation.inputs, "x": (Ref(inner),)}))
            if len(perm) == 3:
                shape = self._shape(inner)
                name = self.draft.name(f"{item.name}_ane")
                made = self.draft.add("expand_dims", name, (*shape[:2], 1, shape[2]), inner, x=inner, axes=[2])
            self.held.setdefault(item.name, {})[CHANNELS] = made
            return True
        return False

    def _split(self, operation: Operation) -> bool:
        x = argument(operation, "x")
        source = self._in(x, CHANNELS)
        if source is None or x is None:
            return False
        rank = len(self._shape(x))
        if self.draft.flag(operation, "axis") % rank != rank - 1:
            return False
        axis = self.draft.constant(f"{source}_axis", _number(1))
        made = []
        for item in operation.outputs:
            made.append(self._retyped(item, self.draft.name(f"{item.name}_ane"), self._held_shape(item)))
        given = {**operation.inputs, "x": (Ref(source),), "axis": (Ref(axis),)}
        self.draft.emit(replace(operation, inputs=given, outputs=tuple(made)))
        for item, new in zip(operation.outputs, made, strict=True):
            self._hold(item, CHANNELS, new.name)
        return True

    def _concat(self, operation: Operation) -> bool:
        names = [item.name for item in operation.inputs.get("values", ()) if isinstance(item, Ref)]
        if not any(self._in(name, CHANNELS) for name in names if name not in self.draft.constants):
            return False
        ranks = {len(self.draft.shape(name) or ()) for name in names}
        if ranks != {3} or self.draft.flag(operation, "interleave", False):
            return False
        found = [self._channels(name) for name in names]
        if None in found or len(found) != len(operation.inputs["values"]):
            return False
        axis = {1: 3, 2: 1, 0: 0}[self.draft.flag(operation, "axis") % 3]
        item = operation.outputs[0]
        made = self._retyped(item, self.draft.name(f"{item.name}_ane"), self._held_shape(item))
        given = {**operation.inputs, "values": tuple(Ref(name) for name in found if name)}
        given["axis"] = (Ref(self.draft.constant(f"{made.name}_axis", _number(axis))),)
        self.draft.emit(replace(operation, inputs=given, outputs=(made,)))
        self._hold(item, CHANNELS, made.name)
        return True


def _rows(shape: tuple[int | None, ...]) -> tuple[int | None, ...] | None:
    """A shape of rank 2 or 3 as batch, rows, width; None for others."""
    return (1, *shape) if len(shape) == 2 else tuple(shape) if len(shape) == 3 else None


def _number(item: int) -> Value:
    return Value(TensorType(DType.INT32), (item,))
