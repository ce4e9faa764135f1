"""Choices, and the system that each needs, by coremltools' own table of operations."""

from __future__ import annotations

import pytest

from tlkit.core.compress.choices import WeightChoice, parse_choice, parse_rules, unused
from tlkit.errors import UsageError


@pytest.mark.parametrize(
    ("text", "version"),
    [
        *(("int8", 7), ("palette4", 7), ("prune0.5", 7), ("int4", 9), ("int8:per-block=32", 9), ("palette3", 9)),
        *(("palette4:group=8", 9), ("palette2:vector=2", 9), ("prune0.5+int8", 9), ("none", 0)),
    ],
)
def test_blocks_groups_and_joint_forms_are_of_ios18(text: str, version: int) -> None:
    assert parse_choice(text).needs == version


def test_the_last_rule_counts_and_skipping_beats_it() -> None:
    rules = parse_rules("int8", None, None, ["a*=int4:per-block=32", "ab*=palette4"], ["abc"])
    names = [("z",), ("a1",), ("ab1",), ("abc",), ("x", "op", "ab_op")]
    assert [str(rules.of(name)) for name in names] == ["int8", "int4:per-block=32", "palette4", "as it is", "palette4"]
    assert unused(parse_rules("int8", None, None, ["q=int4"], ["r"]), names) == ["q", "r"]
    assert rules.of(("abc",)) == WeightChoice()


@pytest.mark.parametrize("given", [("int8", "4", None), ("int7", None, None), (None, "9", None), (None, None, "0")])
def test_what_makes_no_sense_is_refused(given: tuple[str | None, str | None, str | None]) -> None:
    with pytest.raises(UsageError):
        parse_rules(*given, [], [])
    with pytest.raises(UsageError, match="nothing to do"):
        parse_rules(None, None, None, [], ["x"])
