"""What passes are built from: scopes and uses, in nested blocks too; nothing that is given changes."""

from __future__ import annotations

import copy

import pytest
from hypothesis import HealthCheck, given, settings

from tests.mil.programs import call, constant, function, tensor
from tests.mil.strategies import PROGRAMS
from tlkit.errors import UsageError
from tlkit.mil.passes import rewrite
from tlkit.mil.program import Block, NamedType, Operation, Program, Ref

FLOAT = tensor("fp32", 2)


def branch(name: str, uses: str, inputs: tuple[NamedType, ...] = ()) -> Block:
    return Block(inputs, (name,), (call("add", name, FLOAT, x=uses, y=uses),))


def body() -> Block:
    """``y`` is made of ``x`` by a cond: its first branch uses x, its second has an x of its own."""
    second = Block((), ("z",), (constant("x", [1.0, 2.0], "fp32"), call("relu", "z", FLOAT, x="x")))
    operations = (constant("p", True, "bool"), call("cond", "y", FLOAT, blocks=(branch("t", "x"), second), pred="p"))
    return Block((), ("y",), operations)


def test_a_name_is_changed_where_it_is_seen_and_not_where_another_hides_it() -> None:
    before = body()
    kept = copy.deepcopy(before)
    cond = rewrite.substitute(before, {"x": "value", "y": "result"}).operations[1]
    assert cond.outputs[0].name == "result"
    assert cond.blocks[0].operations[0].inputs["x"] == (Ref("value"),)
    assert cond.blocks[1] == before.operations[1].blocks[1]
    assert before == kept


def test_a_block_input_hides_a_name_too() -> None:
    loop = call("while_loop", "y", FLOAT, blocks=(branch("t", "x", (NamedType("x", FLOAT),)),), a="x")
    changed = rewrite.substitute(Block((), ("y",), (loop,)), {"x": "value"}).operations[0]
    assert changed.inputs["a"] == (Ref("value"),)
    assert changed.blocks == loop.blocks


def test_two_names_swap() -> None:
    block = Block((), ("b",), (call("sub", "b", FLOAT, x="a", y="b0"), call("relu", "b0", FLOAT, x="b")))
    swapped = rewrite.substitute(block, {"b": "b0", "b0": "b"})
    assert swapped.outputs == ("b0",)
    assert [op.outputs[0].name for op in swapped.operations] == ["b0", "b"]
    assert rewrite.substitute(swapped, {"b": "b0", "b0": "b"}) == block


def test_what_is_not_renamed_is_shared() -> None:
    block = body()
    assert rewrite.substitute(block, {"y": "result"}).operations[0] is block.operations[0]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(PROGRAMS)
def test_names_that_nothing_has_change_nothing(program: Program) -> None:
    for item in program.functions.values():
        free = rewrite.fresh(rewrite.defined(item), "\0none")
        assert rewrite.change_bodies(item, lambda block, free=free: rewrite.substitute(block, {free: "new"})) == item
        assert rewrite.change_bodies(item, lambda block: rewrite.change_operations(block, lambda op: op)) == item


def test_uses_count_lists_nested_blocks_and_outputs() -> None:
    concat = Operation("concat", {"values": (Ref("x"), Ref("x"), Ref("y"))}, (NamedType("z", FLOAT),))
    block = Block((), ("x", "z"), (concat, *body().operations))
    assert rewrite.uses(block, "x") == 2 + 2 + 1 + 1  # the list, the first branch, the second's own, the output
    assert rewrite.uses(block, "t") == 1  # what a branch yields
    assert rewrite.uses(block, "nothing") == 0


def test_only_what_nothing_uses_is_dropped() -> None:
    block = Block((), ("y",), (constant("a", 1, "int32"), constant("b", 2, "int32"), call("relu", "y", FLOAT, x="b")))
    assert [op.outputs[0].name for op in rewrite.drop_unused(block, ["a", "b", "gone"]).operations] == ["b", "y"]


def test_defined_names_are_all_and_a_fresh_one_is_none_of_them() -> None:
    item = function({"x": FLOAT}, list(body().operations), ["y"])
    assert rewrite.defined(item) == {"x", "p", "y", "t", "z"}
    assert rewrite.fresh({"a", "a_0"}, "a") == "a_1"
    assert rewrite.fresh(set(), "a") == "a"


def test_values_are_changed_in_arguments_attributes_and_nested_blocks() -> None:
    inner = Block((), (), (constant("c", 3, "int32"),))
    inline = call("add", "y", FLOAT, x=rewrite.text("one"), y="x", blocks=(inner,))
    seen: list[tuple[str, object]] = []

    def look(operation: Operation) -> Operation:
        def note(name: str, value: object) -> object:
            seen.append((name, value))
            return rewrite.text("two")

        return rewrite.change_values(operation, note)  # type: ignore[arg-type]

    (changed,) = rewrite.change_operations(Block((), (), (inline,)), look).operations
    assert [name for name, _ in seen] == ["val", "x"]  # inside first
    assert changed.inputs == {"x": (rewrite.text("two"),), "y": (Ref("x"),)}
    assert changed.blocks[0].operations[0].attributes["val"] == rewrite.text("two")


def test_a_function_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="no function 'other'"):
        rewrite.change_function(Program({"main": function({}, [], [])}), "other", lambda item: item)


def test_constants_say_their_types() -> None:
    made = rewrite.constant("c", rewrite.vector([3, 1]))
    assert (made.type, made.name, made.outputs) == ("const", "c", (NamedType("c", tensor("int32", 2)),))
    assert made.attributes["val"].python() == [3, 1]
    assert rewrite.texts(["a", "b"]).python() == ["a", "b"]
