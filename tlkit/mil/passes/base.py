"""The base class of passes: frozen dataclasses that take a program, return another, and report what they changed.

A pass knows MIL but not files: whoever runs it updates the ports in the model's description. Programs are frozen, so
what a pass does not change is shared between the old program and the new one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from tlkit.errors import CONTRADICTIONS, LoadError, TlkitError, reason
from tlkit.mil.program import Program


@dataclass(frozen=True, slots=True)
class Outcome:
    """The program that a pass returned, and one line for each change (none: the program is unchanged)."""

    program: Program
    changes: tuple[str, ...] = ()


class Pass(ABC):
    """A program transformation. Subclasses are frozen dataclasses whose fields are its parameters."""

    @property
    def name(self) -> str:
        """The pass's name in errors: the class's."""
        return type(self).__name__

    @abstractmethod
    def run(self, program: Program) -> Outcome:
        """Return the changed program; UsageError where the program does not allow the change."""


def run_passes(program: Program, passes: Iterable[Pass]) -> Outcome:
    """Run ``passes`` one after another and collect their changes.

    Errors name the pass that raised them: a TlkitError in a note, which a traceback shows; any other exception, caused
    by a malformed program, becomes a LoadError.
    """
    changes: list[str] = []
    for item in passes:
        try:
            outcome = item.run(program)
        except TlkitError as error:
            error.add_note(f"raised by the pass {item.name}")
            raise
        except CONTRADICTIONS as error:
            said = f"the model contradicts itself ({reason(error)}), found by the pass {item.name}"
            raise LoadError(said, "the file is damaged: fetch it again") from error
        program = outcome.program
        changes += outcome.changes
    return Outcome(program, tuple(changes))
