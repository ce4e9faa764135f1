"""Make states cheap in a lowered graph: read without a copy, and update slices in place, where nothing can tell.

``read_state`` copies, so that a value read before an update keeps its contents. Two rewrites drop the copies:

* A ``slice_update`` of a read happens in the state itself where its result goes to that state's next update alone,
  nothing looks at the state between the two, and nothing uses the read, or what may share its memory, from then on.
* A read is borrowed where no update of its state falls between it and the last use of it or of what may share its
  memory. A value that leaves the graph is used for ever.

What is not certain stays as it is: a state that a nested block captures, memory that passes through any op that may
return its operand's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import fx

from tlkit.mil.ops.state import borrow, coreml_update_state, read_state, write_state
from tlkit.mil.ops.transformation import slice_update, slice_update_

_FOREVER = 1 << 60
_FRESH = (slice_update, write_state, coreml_update_state)
"""Ops whose result never shares an operand's memory, exact as they are."""


@dataclass
class _State:
    """The nodes that read a state and those that update it, in the graph's order."""

    reads: list[fx.Node] = field(default_factory=list)
    writes: list[fx.Node] = field(default_factory=list)


def settle(graph: fx.Graph, may_alias: Callable[[fx.Node], bool]) -> None:
    """Rewrite ``graph`` as the module's text says; ``may_alias`` tells whether a node may return operand memory."""
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
    return [state for source, state in states.items() if all(_state_of(user) is source for user in source.users)]


def _state_of(node: fx.Node) -> fx.Node | None:
    """The state that a node reads or updates."""
    source = None
    if node.target is read_state or node.target is write_state:
        source = node.kwargs["input"]
    elif node.target is coreml_update_state:
        source = node.kwargs["state"]
    return source if isinstance(source, fx.Node) else None


class _Uses:
    """Where nodes stand, and until where a value's memory is looked at."""

    def __init__(self, graph: fx.Graph, may_alias: Callable[[fx.Node], bool]) -> None:
        self.place = {node: i for i, node in enumerate(graph.nodes)}
        self.last: dict[fx.Node, int] = {}
        self._may_alias = may_alias
        for node in reversed(graph.nodes):
            self.last[node] = max((self._use(user) for user in node.users), default=self.place[node])

    def _use(self, user: fx.Node) -> int:
        if user.op == "output":
            return _FOREVER
        passes_on = user.target not in _FRESH and self._may_alias(user)
        return max(self.place[user], self.last[user]) if passes_on else self.place[user]

    def last_but(self, node: fx.Node, without: fx.Node) -> int:
        """The last use of a node's memory, one user left out."""
        return max((self._use(user) for user in node.users if user is not without), default=self.place[node])


def _settle(state: _State, uses: _Uses) -> None:
    moments = {write: uses.place[write] for write in state.writes}
    updated: dict[fx.Node, fx.Node] = {}
    for write in state.writes:
        pair = _in_place(state, write, uses)
        if pair is not None:
            read, update = pair
            moments[write] = uses.place[update]
            updated[read] = update
    for read in state.reads:
        if read in updated:
            updated[read].target = slice_update_
        elif uses.last[read] == _FOREVER or any(
            uses.place[read] < moment <= uses.last[read] for moment in moments.values()
        ):
            continue
        read.target = borrow


def _in_place(state: _State, write: fx.Node, uses: _Uses) -> tuple[fx.Node, fx.Node] | None:
    """The read and the slice_update that make what ``write`` would copy, if they may happen in the state."""
    update = write.kwargs.get("data")
    if not isinstance(update, fx.Node) or update.target is not slice_update or list(update.users) != [write]:
        return None
    read = update.kwargs["x"]
    if not isinstance(read, fx.Node) or read not in state.reads:
        return None
    if any(update.kwargs[name] is read for name in update.kwargs if name != "x"):
        return None
    start, end = uses.place[read], uses.place[write]
    between = any(start < uses.place[other] < end for other in state.writes)
    seen = any(uses.place[update] < uses.place[other] < end for other in state.reads)
    if between or seen or uses.last_but(read, update) >= uses.place[update]:
        return None
    return read, update
