"""Give a function with fixed shapes other ones: in the declarations of values and in the constants of reshapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tlkit.mil.passes.base import Outcome, Pass
from tlkit.mil.passes.rewrite import (
    change_bodies,
    change_function,
    change_operations,
    constant,
    defined,
    drop_unused,
    fresh,
    references,
    vector,
)
from tlkit.mil.program import Block, Function, NamedType, Operation, Program, Ref, TensorType

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Reshape(Pass):
    """Declare the shapes that the values of ``function`` have with ``shapes`` at its inputs, found by running it.

    UsageError names the operation that the shapes do not fit, or whose own constants may hold the old ones.
    """

    function: str
    shapes: Mapping[str, Shape]

    def run(self, program: Program) -> Outcome:
        """See :class:`~tlkit.mil.passes.base.Pass`."""
        from tlkit.mil.passes.infer import infer  # late: it imports torch

        found = infer(program.function(self.function), self.shapes)
        changed = change_function(
            program,
            self.function,
            lambda function: _with_reshapes(_declared(function, found.shapes), found.reshapes),
        )
        return Outcome(changed, tuple(f"{name} → {'x'.join(map(str, shape))}" for name, shape in self.shapes.items()))


def _declared(function: Function, shapes: Mapping[str, Shape]) -> Function:
    def named(item: NamedType) -> NamedType:
        kind = item.type
        if item.name not in shapes or not isinstance(kind, TensorType) or kind.shape is None:
            return item
        if len(kind.shape) != len(shapes[item.name]):
            # run_passes makes a LoadError of it.
            raise ValueError(f"'{item.name}' declares {len(kind.shape)} axes and has {len(shapes[item.name])}")
        return replace(item, type=replace(kind, shape=shapes[item.name]))

    def operation(item: Operation) -> Operation:
        return replace(item, outputs=tuple(map(named, item.outputs)))

    function = replace(function, inputs=tuple(map(named, function.inputs)))
    return change_bodies(function, lambda body: change_operations(body, operation))


def _with_reshapes(function: Function, shapes: Mapping[str, Shape]) -> Function:
    """Give reshapes, named by their results, new target shapes, each in a new constant."""
    taken = defined(function)

    def changed(body: Block) -> Block:
        operations: list[Operation] = []
        replaced: list[str] = []
        for item in body.operations:
            name = item.outputs[0].name if item.outputs else ""
            if item.type == "reshape" and name in shapes:
                word = fresh(taken, f"{name}_shape")
                taken.add(word)
                replaced += references(item.inputs["shape"])
                # A new one, since other operations may take the old one.
                operations.append(constant(word, vector(shapes[name])))
                item = replace(item, inputs={**item.inputs, "shape": (Ref(word),)})
            operations.append(item)
        return drop_unused(replace(body, operations=tuple(operations)), replaced)

    return change_bodies(function, changed)
