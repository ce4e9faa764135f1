"""What a pass is: a frozen dataclass that takes a program and gives another, and says what it changed.

A pass knows MIL and nothing of files: the ports that a model's description lists are described anew by whoever runs it.
Programs are frozen, so what a pass leaves alone is shared between the old program and the new one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from tlkit.errors import LoadError, TlkitError, reason
from tlkit.mil.program import Program

_CONTRADICTIONS = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, AttributeError)
"""What a program that no converter would write makes a pass stumble over."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The program that a pass made, and one line for each thing that it changed (none: it is the program it was)."""

    program: Program
    changes: tuple[str, ...] = ()


class Pass(ABC):
    """A change of a program. Subclasses are frozen dataclasses: their fields say what is wanted."""

    @property
    def name(self) -> str:
        """What an error calls it: the class's name."""
        return type(self).__name__

    @abstractmethod
    def run(self, program: Program) -> Outcome:
        """Return the changed program; UsageError where it rules out what is wanted."""


def run_passes(program: Program, passes: Iterable[Pass]) -> Outcome:
    """Run ``passes`` one after another; what they changed is told together.

    An error names the pass that raised it: a TlkitError in a note, which a traceback shows; any other error, of a
    program that contradicts itself, becomes a LoadError.
    """
    changes: list[str] = []
    for item in passes:
        try:
            outcome = item.run(program)
        except TlkitError as error:
            error.add_note(f"raised by the pass {item.name}")
            raise
        except _CONTRADICTIONS as error:
            said = f"the model contradicts itself ({reason(error)}), found by the pass {item.name}"
            raise LoadError(said, "the file is damaged: fetch it again") from error
        program = outcome.program
        changes += outcome.changes
    return Outcome(program, tuple(changes))
