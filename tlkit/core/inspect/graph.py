"""The operations of a model as a graph: what feeds what, and which modules contain which.

What is drawn at one time has to fit a screen, so a graph is nested: by the modules that the package records and, where
there are none or too many operations in one, by runs of operations in the program's order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tlkit.core.inspect.costs import Cost, Port

SHOWN = 20_000
"""Operations that a page holds; of a larger program it shows the first."""
_CHILDREN = 60
"""How many children a group may have before they are put into runs."""


@dataclass(slots=True)
class GraphGroup:
    """A module, or a run of operations: its ``name``, and the index of the group around it (-1 for the outermost)."""

    name: str
    parent: int
    operations: int = 0


@dataclass(slots=True)
class ProgramGraph:
    """``operations``, the ``group`` of each (an index into ``groups``, -1 for none), and ``edges``: (from, to, value).

    ``left_out`` counts the operations that are not in it.
    """

    operations: Sequence[Cost]
    group: list[int]
    groups: list[GraphGroup]
    edges: list[tuple[int, int, Port]]
    left_out: int = 0
    units: Mapping[str, str] = field(default_factory=dict)


def program_graph(per_op: Sequence[Cost], units: Mapping[str, str] | None = None) -> ProgramGraph:
    """Return the graph of a program's operations; ``units`` is where each is predicted to run, by its name.

    An edge leads from the operation that makes a value to each that reads it, in the same function.
    """
    shown = per_op[:SHOWN]
    groups: list[GraphGroup] = []
    group = _modules(shown, groups)
    _divide(group, groups)
    for place in group:
        while place >= 0:
            groups[place].operations += 1
            place = groups[place].parent
    return ProgramGraph(shown, group, groups, list(_edges(shown)), len(per_op) - len(shown), units or {})


def _edges(operations: Sequence[Cost]) -> Iterable[tuple[int, int, Port]]:
    made: dict[tuple[str, str], tuple[int, Port]] = {}
    for index, op in enumerate(operations):
        for port in op.inputs:
            if (found := made.get((op.function, port.name))) is not None:
                yield found[0], index, found[1]
        made |= {(op.function, port.name): (index, port) for port in op.outputs}


def _modules(operations: Sequence[Cost], groups: list[GraphGroup]) -> list[int]:
    """Return each operation's group: its function, where there are several, and its modules, each made when first
    met. A module that contains nothing but another is one with it, and one of a single operation is that operation."""
    several = len({op.function for op in operations}) > 1
    paths = [((op.function,) if several else ()) + tuple(filter(None, op.module.split("."))) for op in operations]
    inside: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    direct, within = Counter(paths), Counter[tuple[str, ...]]()
    for path, count in direct.items():
        for depth in range(len(path)):
            inside.setdefault(path[:depth], set()).add(path[: depth + 1])
            within[path[: depth + 1]] += count
    known: dict[tuple[str, ...], int] = {(): -1}

    def place(path: tuple[str, ...]) -> int:
        if path not in known:
            above = place(path[:-1])
            merged = within[path] == 1 or (len(inside.get(path, ())) == 1 and not direct[path])
            if merged:  # its only module takes its name along
                known[path] = above
            else:
                start = len(path) - 1
                while start and len(inside.get(path[:start], ())) == 1 and not direct[path[:start]]:
                    start -= 1
                groups.append(GraphGroup(".".join(path[start:]), above))
                known[path] = len(groups) - 1
        return known[path]

    return [place(path) for path in paths]


def _divide(group: list[int], groups: list[GraphGroup]) -> None:
    """Put runs into groups of their own where a group has too many children, until none has."""
    while True:
        children: dict[int, list[tuple[int, bool]]] = {}
        first: dict[int, int] = {}
        for index, place in enumerate(group):
            children.setdefault(place, []).append((index, True))
            while place >= 0 and place not in first:
                first[place] = index
                place = groups[place].parent
        for place, item in enumerate(groups):
            if place in first:
                children.setdefault(item.parent, []).append((place, False))
        crowded = [(place, items) for place, items in children.items() if len(items) > _CHILDREN]
        if not crowded:
            return
        for place, items in crowded:
            # In the program's order, whichever kind a child is.
            ordered = sorted(items, key=lambda item: item[0] if item[1] else first[item[0]])
            size = max(_CHILDREN // 2, -(-len(ordered) // _CHILDREN))
            for start in range(0, len(ordered), size):
                run = ordered[start : start + size]
                groups.append(GraphGroup(f"{start + 1} to {start + len(run)}", place))
                for child, is_operation in run:
                    if is_operation:
                        group[child] = len(groups) - 1
                    else:
                        groups[child].parent = len(groups) - 1
