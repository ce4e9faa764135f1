"""Make states cheap in a lowered graph: read without copying and update slices in place, where that is unobservable.

``read_state`` copies, so that a value read before an update keeps its contents. Two rewrites remove copies:

* A ``slice_update`` of a read happens in the state itself if its result goes only to that state's next update, nothing
  reads the state between the two, and nothing uses the read, or anything that may share its memory, from then on. A
  program that computes in f32 widens the state before and narrows it after (states are f16). That leaves the rest of
  the state unchanged, so only the new slice is narrowed.
* A read is borrowed (not copied) if no update of its state falls between it and the last use of it or of anything that
  may share its memory. A value that leaves the graph counts as used forever.

Whatever is not certain stays a copy: a state that a nested block captures, or memory that passes through an op that may
return its operand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeGuard

from torch import fx

from tlkit.mil.ops.state import borrow, coreml_update_state, read_state, write_state
from tlkit.mil.ops.transformation import slice_update, slice_update_
from tlkit.mil.program import TensorType
from tlkit.mil.types import DType

_FOREVER = 1 << 60
_FRESH = (slice_update, write_state, coreml_update_state)
"""Ops whose result never shares an operand's memory, although they are exact."""


@dataclass
class _State:
    """The nodes that read a state and those that update it, in graph order."""

    reads: list[fx.Node] = field(default_factory=list)
    writes: list[fx.Node] = field(default_factory=list)


def settle(graph: fx.Graph, may_alias: Callable[[fx.Node], bool]) -> None:
    """Rewrite ``graph`` as the module's docstring says; ``may_alias`` tells whether a node may return operand
    memory."""
    states = _collect(graph)
    if states:
        uses = _Uses(graph, may_alias)
        for state in states:
            _settle(state, uses)


def _collect(graph: fx.Graph) -> list[_State]:
    states: dict[fx.Node, _State] = {}
    for node in graph.nodes:
        source = _state_of(node)
        if source is not None:
            state = states.setdefault(source, _State())
            (state.reads if node.target is read_state else state.writes).append(node)
    # A state that anything else uses (a nested block that captures it) stays as it is.
    return [state for source, state in states.items() if all(_state_of(user) is source for user in source.users)]


def _state_of(node: fx.Node) -> fx.Node | None:
    """Return the state that a node reads or updates."""
    source = None
    if node.target is read_state or node.target is write_state:
        source = node.kwargs["input"]
    elif node.target is coreml_update_state:
        source = node.kwargs["state"]
    return source if isinstance(source, fx.Node) else None


class _Uses:
    """Each node's position, and the position of the last use of each value's memory."""

    def __init__(self, graph: fx.Graph, may_alias: Callable[[fx.Node], bool]) -> None:
        self.place = {node: i for i, node in enumerate(graph.nodes)}
        self.last: dict[fx.Node, int] = {}
        self._may_alias = may_alias
        # Backwards, so that the last use of a user's result is known before its operands' are.
        for node in reversed(graph.nodes):
            self.last[node] = max((self._use(user) for user in node.users), default=self.place[node])

    def _use(self, user: fx.Node) -> int:
        if user.op == "output":
            return _FOREVER
        passes_on = user.target not in _FRESH and self._may_alias(user)
        return max(self.place[user], self.last[user]) if passes_on else self.place[user]

    def last_but(self, node: fx.Node, without: fx.Node) -> int:
        """Return the position of the last use of a node's memory, ignoring the user ``without``."""
        return max((self._use(user) for user in node.users if user is not without), default=self.place[node])


@dataclass(frozen=True)
class _Slice:
    """A slice_update between a state's read and its next update; ``wide`` and ``narrow`` are the casts around it, if
    any."""

    read: fx.Node
    update: fx.Node
    wide: fx.Node | None = None
    narrow: fx.Node | None = None

    def settle(self) -> None:
        """Make the update happen in the state itself."""
        self.update.target = slice_update_
        if self.narrow is None:
            return
        new = self.update.kwargs["update"]
        with self.update.graph.inserting_before(self.update):
            given = {**self.narrow.kwargs, "x": new}
            rounded = self.update.graph.create_node("call_function", self.narrow.target, (), given)
        self.update.kwargs = {**self.update.kwargs, "x": self.read, "update": rounded}
        # The narrowed value is now the state itself.
        self.narrow.target, self.narrow.kwargs = borrow, {"input": self.update}


def _settle(state: _State, uses: _Uses) -> None:
    moments = {write: uses.place[write] for write in state.writes}
    slices = {write: found for write in state.writes if (found := _in_place(state, write, uses))}
    # An update in place takes effect at the slice_update, before the write.
    moments |= {write: uses.place[found.update] for write, found in slices.items()}
    updated = {found.read for found in slices.values()}
    for read in state.reads:
        seen = any(uses.place[read] < moment <= uses.last[read] for moment in moments.values())
        if read in updated or not (uses.last[read] == _FOREVER or seen):
            read.target = borrow
    for found in slices.values():
        found.settle()


def _in_place(state: _State, write: fx.Node, uses: _Uses) -> _Slice | None:
    """Return the slice_update whose result ``write`` would copy, if it may happen in the state itself."""
    found = _slice(write.kwargs.get("data"))
    if found is None or list((found.narrow or found.update).users) != [write] or found.read not in state.reads:
        return None
    update, source = found.update, found.wide or found.read
    # The slice must not be made from the memory that it overwrites.
    if any(update.kwargs[name] in (source, found.read) for name in update.kwargs if name != "x"):
        return None
    start, end = uses.place[found.read], uses.place[write]
    between = any(start < uses.place[other] < end for other in state.writes)
    seen = any(uses.place[update] < uses.place[other] < end for other in state.reads)
    used = uses.last_but(source, update)
    if found.wide:
        used = max(used, uses.last_but(found.read, found.wide))
    return None if between or seen or used >= uses.place[update] else found


def _slice(data: object) -> _Slice | None:
    """Return the slice_update whose only result is ``data``, looking through a cast to f32 before and to f16 after
    it."""
    narrow = data if _cast(data, DType.FP16) else None
    update = narrow.kwargs["x"] if narrow else data
    # Another user of the wide result would get the narrowed one instead.
    if not isinstance(update, fx.Node) or update.target is not slice_update or (narrow and len(update.users) > 1):
        return None
    source = update.kwargs["x"]
    wide = source if narrow and _cast(source, DType.FP32) else None
    read = wide.kwargs["x"] if wide else source
    if not isinstance(read, fx.Node) or (narrow and not (wide and _makes(read, DType.FP16))):
        return None
    return _Slice(read, update, wide, narrow)


def _cast(node: object, to: DType) -> TypeGuard[fx.Node]:
    return isinstance(node, fx.Node) and "mil" in node.meta and node.meta["mil"].type == "cast" and _makes(node, to)


def _makes(node: fx.Node, dtype: DType) -> bool:
    kind = node.meta["mil"].outputs[0].type if "mil" in node.meta else None
    return isinstance(kind, TensorType) and kind.dtype is dtype
