"""Whether a program has the ports that its model's description lists."""

from __future__ import annotations

from collections.abc import Sequence

from tlkit.errors import LoadError
from tlkit.mil.program import Function, StateType
from tlkit.types import TensorSpec


def check_ports(function: Function, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Raise LoadError where ``function`` takes an input that is not described, or lacks an output that is."""
    taken = [item.name for item in function.inputs if not isinstance(item.type, StateType)]
    _agree("input", taken, "description", [spec.name for spec in inputs])
    _agree("output", [spec.name for spec in outputs], "program", function.block.outputs)


def _agree(what: str, wanted: Sequence[str], where: str, there: Sequence[str]) -> None:
    twice = [name for names in (wanted, there) for name in names if names.count(name) > 1]
    # A model may give one value twice: coremltools writes `return x, x` as two outputs of one name.
    if twice and (what != "output" or sorted(wanted) != sorted(there)):
        raise LoadError(f"the model has two {what}s named '{twice[0]}'", "the file is damaged")
    missing = [name for name in wanted if name not in there]
    if missing:
        raise LoadError(f"the {what} '{missing[0]}' is missing from the model's {where}", "the file is damaged")
