"""Where each operation that coremltools made comes from: its module and line of the captured PyTorch program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tlkit.core.convert.capture.preflight import Place, named_places, plain_module, stack_line
from tlkit.core.convert.tools.kit.reading import plain_name
from tlkit.core.inspect.places import Origin


def origins(captured: Any, program: Any) -> dict[str, Origin]:
    """Return the origin of each operation of coremltools' ``program``, by its name; what has none is left out."""
    known = {plain_name(name): place for name, _, place in named_places(captured) if name}
    found = ((op.name, _origin(op, known)) for function in program.functions.values() for op in _running(function))
    return {name: origin for name, origin in found if any(origin)}


def _running(block: Any) -> Iterator[Any]:
    for op in block.operations:
        if op.op_type != "const" and not op.op_type.startswith("constexpr_"):
            yield op
        for inner in op.blocks:
            yield from _running(inner)


def _origin(op: Any, known: Mapping[str, Place]) -> Origin:
    scopes = {source.name: list(data) for source, data in op.scopes.items()}
    # The innermost name is that of the value in the captured graph.
    path = scopes.get("TORCHSCRIPT_MODULE_NAME") or [""]
    for name in (path[-1], op.name, *(out.name for out in op.outputs)):
        if place := known.get(plain_name(str(name))):
            return Origin(place.module, place.line)
    stack = next((text for text in scopes.get("EXIR_STACK_TRACE") or () if text), "")
    return Origin(plain_module(".".join(filter(None, path[:-1]))), stack_line(stack))
