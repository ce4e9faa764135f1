"""Rename the values of a function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tlkit.errors import UsageError
from tlkit.mil.passes.base import Outcome, Pass
from tlkit.mil.passes.rewrite import change_bodies, change_function, defined, substitute
from tlkit.mil.program import Function, Program


@dataclass(frozen=True)
class Rename(Pass):
    """Rename the values of ``function`` by ``names`` (old to new), all at once, so that two may swap.

    Names that the function does not define are ignored. UsageError where a new name is taken.
    """

    function: str
    names: Mapping[str, str]

    def run(self, program: Program) -> Outcome:
        """See :class:`~tlkit.mil.passes.base.Pass`."""
        here = defined(program.function(self.function))
        names = {old: new for old, new in self.names.items() if old in here}
        self._check(here, names, f" of the function '{self.function}'" if len(program.functions) > 1 else "")
        changed = change_function(program, self.function, lambda function: _renamed(function, names))
        return Outcome(changed, tuple(f"{old} → {new}" for old, new in names.items() if old != new))

    def _check(self, here: set[str], names: Mapping[str, str], where: str) -> None:
        # Names that are given up may be taken, so that two values can swap.
        taken = here - set(names)
        for old, new in names.items():
            if new in taken:
                problem = f"'{old}' cannot be named '{new}': a value inside the program{where} has that name"
                raise UsageError(problem, "choose another name")
            taken.add(new)


def _renamed(function: Function, names: Mapping[str, str]) -> Function:
    inputs = tuple(replace(item, name=names.get(item.name, item.name)) for item in function.inputs)
    return change_bodies(replace(function, inputs=inputs), lambda body: substitute(body, names))
