"""Running passes: they compose, say what they changed, and are named by the errors they raise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from tests.mil.programs import call, function, tensor
from tlkit.errors import LoadError, UsageError
from tlkit.mil.passes.base import Outcome, Pass, run_passes
from tlkit.mil.passes.rename import Rename
from tlkit.mil.program import Program


@dataclass(frozen=True)
class Stumble(Pass):
    """Raises what it is given."""

    error: Exception

    def run(self, program: Program) -> Outcome:
        raise self.error


@dataclass(frozen=True)
class Stamp(Pass):
    """Raises the version by one."""

    def run(self, program: Program) -> Outcome:
        return Outcome(replace(program, version=program.version + 1), (f"version {program.version + 1}",))


PROGRAM = Program({"main": function({"x": tensor("fp32", 2)}, [call("relu", "y", tensor("fp32", 2), x="x")], ["y"])})


def test_each_pass_takes_what_the_one_before_it_gave() -> None:
    outcome = run_passes(PROGRAM, [Stamp(), Rename("main", {"x": "y", "y": "x"}), Stamp()])
    assert outcome.changes == ("version 2", "x → y", "y → x", "version 3")
    assert outcome.program.version == 3
    assert outcome.program.function().block.outputs == ("x",)
    assert PROGRAM.version == 1 and PROGRAM.function().block.outputs == ("y",)


def test_none_changes_nothing() -> None:
    assert run_passes(PROGRAM, []) == Outcome(PROGRAM)


def test_a_users_mistake_keeps_its_words_and_a_traceback_names_the_pass() -> None:
    with pytest.raises(UsageError) as caught:
        run_passes(PROGRAM, [Stamp(), Stumble(UsageError("no such port"))])
    assert caught.value.message == "no such port"
    assert caught.value.__notes__ == ["raised by the pass Stumble"]


STUMBLES = [KeyError("x"), IndexError("out\nof range"), ValueError("3 axes"), RecursionError()]


@pytest.mark.parametrize("error", STUMBLES)
def test_what_a_contradictory_program_causes_is_one_line_that_names_the_pass(error: Exception) -> None:
    with pytest.raises(LoadError, match=r"the model contradicts itself \(.*\), found by the pass Stumble") as caught:
        run_passes(PROGRAM, [Stumble(error)])
    assert "\n" not in caught.value.message


def test_a_programmers_mistake_stays_one() -> None:
    with pytest.raises(AssertionError):
        run_passes(PROGRAM, [Stumble(AssertionError())])
