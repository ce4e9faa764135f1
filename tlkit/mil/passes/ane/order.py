"""The order of independent operations: those that stay on the CPU first, so that what follows is one region."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tlkit.mil.passes.base import Outcome, Pass
from tlkit.mil.passes.rewrite import change_bodies, change_function
from tlkit.mil.program import Block, Operation, Program, Ref, walk

_ORDERED = frozenset(("read_state", "write_state", "coreml_update_state"))


@dataclass(frozen=True)
class First(Pass):
    """Move the operations of ``function`` that make ``results`` to its start, as far as they need only its inputs and
    each other; nothing is moved past a state that is read or written."""

    function: str
    results: frozenset[str]

    def run(self, program: Program) -> Outcome:
        """See :class:`~tlkit.mil.passes.base.Pass`."""
        changed = change_function(
            program, self.function, lambda function: change_bodies(function, lambda body: _moved(body, self.results))
        )
        return Outcome(changed, ("operations of the CPU first",) if changed != program else ())


def _moved(block: Block, results: frozenset[str]) -> Block:
    early: list[Operation] = []
    late: list[Operation] = []
    ready: set[str] = set()
    blocked = any(operation.type in _ORDERED for operation in walk(block.operations))
    made = {item.name for operation in block.operations for item in operation.outputs}
    for operation in block.operations:
        names = {item.name for item in operation.outputs}
        fixed = operation.type == "const" or operation.type.startswith("constexpr_")
        wanted = fixed or bool(names & results)
        if wanted and not operation.blocks and not blocked and _needs(operation) & made <= ready:
            early.append(operation)
            ready |= names
        else:
            late.append(operation)
    return replace(block, operations=(*early, *late)) if early != list(block.operations[: len(early)]) else block


def _needs(operation: Operation) -> set[str]:
    return {item.name for given in operation.inputs.values() for item in given if isinstance(item, Ref)}
