"""The forms in which a value is held while a program is brought into the Neural Engine's layout."""

from __future__ import annotations

import math
from dataclasses import replace

from tlkit.mil.passes.ane.draft import Draft, Shape
from tlkit.mil.program import Argument, NamedType, Ref, TensorType
from tlkit.mil.types import DType

CHANNELS = "channels"  # [S, C], [B, S, C] or [B, H, W, C], held as [B, C, 1, S] or [B, C, H, W]
SPLIT = "split"  # [B, S, heads, D], held as [B, heads, D, S]
HEADS = "heads"  # [B, heads, S, D], held as [B, heads, D, S]


class Forms:
    """The values' forms: ``held`` has, for each value, the names of what holds it in which form."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.held: dict[str, dict[str, str]] = {}
        self._waiting: set[str] = set()  # values that are only held in another form so far
        self._same: dict[str, str] = {}  # values that are, as they are, another value that holds something else

    def plain(self, name: str) -> str:
        """Return ``name`` in its own layout, emitted if only another form of it was."""
        if name not in self._waiting:
            return self._same.get(name, name)
        self._waiting.discard(name)
        form, source = next(iter(self.held[name].items()))
        shape = self._shape(name)
        if form == CHANNELS and len(shape) < 4:
            axes, perm = ([2], [0, 2, 1]) if len(shape) == 3 else ([0, 2], [1, 0])
            inner = (shape[0], shape[2], shape[1]) if len(shape) == 3 else (shape[1], shape[0])
            squeezed = self.draft.add("squeeze", self.draft.name(f"{name}_t"), inner, source, x=source, axes=axes)
            self.draft.add("transpose", name, shape, source, x=squeezed, perm=perm)
        else:
            perm = {CHANNELS: [0, 2, 3, 1], SPLIT: [0, 3, 1, 2], HEADS: [0, 1, 3, 2]}[form]
            self.draft.add("transpose", name, shape, source, x=source, perm=perm)
        return name

    def output(self, name: str) -> None:
        """Emit the value ``name`` in its own layout, and under its own name."""
        if (source := self.plain(name)) != name:
            self.draft.add("identity", name, self._shape(source), source, x=source)

    def _shape(self, name: str) -> Shape:
        shape = self.draft.shape(name)
        assert shape is not None
        return shape

    def _hold(self, item: NamedType, form: str, source: str) -> None:
        self.draft.kinds[item.name] = item.type
        self.held[item.name] = {form: source}
        self._waiting.add(item.name)

    def _in(self, name: str | None, form: str) -> str | None:
        """The name that holds a value in a form, None where none does."""
        return self.held.get(name, {}).get(form) if name is not None else None

    def _channels(self, name: str) -> str | None:
        """Return ``name`` with channels first, emitted if need be; None where it has no such form."""
        if found := self._in(name, CHANNELS):
            return found
        shape = self.draft.shape(name)
        if shape is None or self.draft.dtype(name) is not DType.FP16:
            return None
        if math.prod(shape) == 1 and len(shape) < 2:
            return name  # a number is one in every layout
        if name in self.draft.constants:
            return self._constant(name, shape)
        made = self._transposed(self.plain(name), shape)
        if made is not None:
            self.held.setdefault(name, {})[CHANNELS] = made
        return made

    def _constant(self, name: str, shape: Shape) -> str | None:
        if len(shape) > 4:
            return None
        if len(shape) == 4:
            made = self.draft.permuted(name, (0, 3, 1, 2), tuple(shape[axis] for axis in (0, 3, 1, 2)))
        else:
            batch, rows, width = (1,) * (3 - len(shape)) + shape
            perm = (0, 2, 1)[-len(shape) :] if len(shape) == 3 else (1, 0) if len(shape) == 2 else (0,)
            made = self.draft.permuted(name, perm, (batch, width, 1, rows))
        self.held.setdefault(name, {})[CHANNELS] = made
        return made

    def _transposed(self, name: str, shape: Shape) -> str | None:
        draft = self.draft
        if len(shape) == 4:
            turned = tuple(shape[axis] for axis in (0, 3, 1, 2))
            return draft.add("transpose", draft.name(f"{name}_ane"), turned, name, x=name, perm=[0, 3, 1, 2])
        if len(shape) not in (2, 3):
            return None
        perm, axes = ([0, 2, 1], [2]) if len(shape) == 3 else ([1, 0], [0, 2])
        turned = tuple(shape[axis] for axis in perm)
        made = draft.add("transpose", draft.name(f"{name}_t"), turned, name, x=name, perm=perm)
        whole = (*turned[:-1], 1, turned[-1]) if len(shape) == 3 else (1, turned[0], 1, turned[1])
        return draft.add("expand_dims", draft.name(f"{name}_ane"), whole, name, x=made, axes=axes)

    def _retyped(self, item: NamedType, name: str, shape: Shape) -> NamedType:
        assert isinstance(item.type, TensorType)
        return NamedType(name, replace(item.type, shape=shape))

    def _held_shape(self, item: NamedType) -> Shape:
        """The shape in which channels come first of a result's shape."""
        assert isinstance(item.type, TensorType) and item.type.shape is not None
        shape = tuple(size or 0 for size in item.type.shape)
        if len(shape) == 4:
            return (shape[0], shape[3], shape[1], shape[2])
        batch, rows, width = (1,) * (3 - len(shape)) + shape
        return (batch, width, 1, rows)

    def _is(self, item: NamedType, source: str) -> bool:
        self.draft.kinds[item.name] = item.type
        self._same[item.name] = source
        return True

    def _given(self, items: tuple[Argument, ...]) -> tuple[Argument, ...]:
        return tuple(Ref(self.plain(item.name)) if isinstance(item, Ref) else item for item in items)
