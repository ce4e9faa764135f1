"""Values of a MIL function under other names: its ports for ``tlkit edit --rename``, its insides to make room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tlkit.errors import UsageError
from tlkit.formats.coreml.edit.message import PORTS, Interface, defined


def rename_ports(targets: Sequence[Interface], names: Mapping[str, str]) -> None:
    """Rename ports, all at once (so that two may swap): in the description, and in the program where they are used.

    A name is changed in every function that has it. UsageError where none has, or where a new name is taken.
    """
    for old in names:
        if not any(old in target.names() for target in targets):
            known = dict.fromkeys(name for target in targets for name in target.names())
            raise UsageError(f"no input, output or state is named '{old}'", f"they are: {', '.join(known)}")
    for target in targets:
        wanted = {old: new for old, new in names.items() if old in target.names()}
        _check(target, wanted)
        _rename(target, wanted)


def substitute(block: Any, names: Mapping[str, str]) -> None:
    """Rename values where ``block`` and the blocks in it define and use them; a block's own name hides an outer one."""
    for operation in block.operations:
        for argument in operation.inputs.values():
            for binding in argument.arguments:
                if binding.WhichOneof("binding") == "name":
                    binding.name = names.get(binding.name, binding.name)
        for inner in operation.blocks:
            own = {item.name for item in inner.inputs} | {o.name for op in inner.operations for o in op.outputs}
            substitute(inner, {old: new for old, new in names.items() if old not in own})
        for item in operation.outputs:
            item.name = names.get(item.name, item.name)
    for index, name in enumerate(block.outputs):
        block.outputs[index] = names.get(name, name)


def _check(target: Interface, names: Mapping[str, str]) -> None:
    taken = (set(target.names()) | defined(target)) - set(names)
    where = f" of the function '{target.name}'" if target.name else ""
    for old, new in names.items():
        if new in taken:
            what = "port" if new in target.names() else "value inside the program"
            raise UsageError(f"'{old}' cannot be named '{new}': a {what}{where} has that name", "choose another name")
        taken.add(new)


def _rename(target: Interface, names: Mapping[str, str]) -> None:
    description = target.description
    for kind in PORTS:
        for feature in getattr(description, kind):
            feature.name = names.get(feature.name, feature.name)
    for field in ("predictedFeatureName", "predictedProbabilitiesName"):
        setattr(description, field, names.get(getattr(description, field), getattr(description, field)))
    if target.function is not None:
        for item in target.function.inputs:
            item.name = names.get(item.name, item.name)
    for body in target.blocks():
        substitute(body, names)
