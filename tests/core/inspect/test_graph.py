"""The graph of a program: what feeds what, nested so that each part fits a screen."""

from __future__ import annotations

import random

import pytest

from tlkit.core.inspect.costs import Cost, Port
from tlkit.core.inspect.graph import _CHILDREN, SHOWN, ProgramGraph, program_graph


def op(index: int, module: str = "", reads: tuple[int, ...] = (), function: str = "main") -> Cost:
    made = (Port(f"v{index}", "float16", (1, 8)),)
    read = tuple(Port(f"v{each}", "float16", (1, 8)) for each in reads)
    return Cost(function, f"op{index}", "conv", module, read, made, 0, 0, 10, 16)


def path(graph: ProgramGraph, index: int) -> list[str]:
    names, place = [], graph.group[index]
    while place >= 0:
        names.append(graph.groups[place].name)
        place = graph.groups[place].parent
    return names[::-1]


def test_edges_lead_from_what_makes_a_value_to_what_reads_it() -> None:
    graph = program_graph([op(0), op(1, reads=(0,)), op(2, reads=(0, 1, 1))])
    assert [(start, end, port.name) for start, end, port in graph.edges] == [
        (0, 1, "v0"), (0, 2, "v0"), (1, 2, "v1"), (1, 2, "v1"),
    ]  # fmt: skip


def test_a_name_of_another_function_is_another_value() -> None:
    graph = program_graph([op(0), op(1, reads=(0,)), op(0, function="step"), op(2, reads=(0,), function="step")])
    assert [(start, end) for start, end, _ in graph.edges] == [(0, 1), (2, 3)]
    assert path(graph, 1) == ["main"] and path(graph, 3) == ["step"]


def test_modules_are_groups_and_those_that_hold_one_thing_are_not() -> None:
    modules = ["stem", "stem", "body.0.conv", "body.0.conv", "body.0.act", "body.1", "body.1", "a.b.c", "a.b.c", ""]
    graph = program_graph([op(index, module) for index, module in enumerate(modules)])
    assert path(graph, 0) == ["stem"] and path(graph, 2) == ["body", "0", "conv"] and path(graph, 5) == ["body", "1"]
    assert path(graph, 4) == ["body", "0"], "a module of one operation is that operation"
    assert path(graph, 7) == ["a.b.c"], "modules that hold only another are one"
    assert path(graph, 9) == []
    assert {item.name: item.operations for item in graph.groups} == {
        "stem": 2, "body": 5, "0": 3, "conv": 2, "1": 2, "a.b.c": 2,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_no_group_is_larger_than_a_screen_and_nothing_is_lost(seed: int) -> None:
    rng = random.Random(seed)
    count, names = rng.randrange(1, 4000), [f"m{at}" for at in range(rng.randrange(1, 200))]
    modules = [".".join(rng.choices(names, k=rng.randrange(4))) for _ in range(count)]
    graph = program_graph([op(index, module) for index, module in enumerate(modules)])
    children = [0] * (len(graph.groups) + 1)
    for place in (*graph.group, *(item.parent for item in graph.groups)):
        children[place] += 1
    assert max(children) <= _CHILDREN and min(children[:-1], default=1) > 0
    assert sum(item.operations for item in graph.groups if item.parent < 0) + graph.group.count(-1) == count
    for index, module in enumerate(modules):  # each stays inside its own modules, in their order
        kept = [part for name in path(graph, index) if " to " not in name for part in name.split(".")]
        assert kept == module.split(".")[: len(kept)] or not kept


def test_a_very_large_program_is_shown_in_part() -> None:
    graph = program_graph([op(index) for index in range(SHOWN + 5)])
    assert (len(graph.operations), graph.left_out) == (SHOWN, 5)
