"""The values inside a PyTorch module, as its captured graph has them. Importing this imports torch."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram

from tlkit.core.convert.capture.capture import adopt
from tlkit.core.convert.capture.cases import Case
from tlkit.core.convert.capture.examples import to_source
from tlkit.core.convert.capture.inside import output_names, values_inside
from tlkit.core.convert.capture.preflight import named_places
from tlkit.core.convert.capture.trace import Traced, trace
from tlkit.core.judge.inner import InnerValue, Inside, measured, room
from tlkit.core.judge.source import SourceSide
from tlkit.errors import TlkitError


def captured_inside(side: SourceSide, case: Case) -> Inside | None:
    """Capture ``side`` as ``convert`` does and run the graph on ``case``; None where it cannot be captured."""
    ports = side.placed(case.ports)
    values = dict(zip((port.name for port in case.ports), case.values, strict=True))
    inputs = tuple(to_source(port, values[port.name]) for port in ports)
    try:
        if side.source.program is not None:
            traced = adopt(side.source.program, side.module, ports, inputs)
        else:
            traced = trace(side.module, ports, inputs)
        found = values_inside(traced, inputs)
    except (TlkitError, RuntimeError):
        return None
    return _inside(traced, found)


def _inside(traced: Traced, found: dict[str, torch.Tensor]) -> Inside:
    graph, most = _graph(traced.program), room(len(found))
    places = {name.replace(".", "_"): (kind, place) for name, kind, place in named_places(traced.program)}
    values: dict[str, InnerValue] = {}
    # Weights and constants are no results.
    found = {name: value for name, value in found.items() if not places.get(name, ("",))[0].startswith("prim::")}
    for name, tensor in found.items():
        # TorchScript calls some numbers of Python's tensors.
        if not isinstance(tensor, torch.Tensor) or tensor.is_complex():
            continue
        kind, place = places.get(name, ("", None))
        plain = kind.removeprefix("aten::").partition(".")[0]
        told = ", ".join(filter(None, (place.module, place.line))) if place is not None else ""
        array = tensor.detach().to(torch.float32 if tensor.is_floating_point() else tensor.dtype).numpy()
        inputs = tuple(item for item in graph.get(name, ()) if item in found)
        values[name] = measured(name, name, plain, inputs, array, most, place=told)
    outputs = dict(zip((output.name for output in traced.outputs), output_names(traced), strict=False))
    return Inside(values, outputs)


def _graph(program: Any) -> dict[str, tuple[str, ...]]:
    """Return the names of the values that each value is computed from, lists and tuples looked through."""
    if isinstance(program, ExportedProgram):
        return {node.name: tuple(item.name for item in node.all_input_nodes) for node in program.graph.nodes}
    made: dict[str, tuple[str, ...]] = {}
    packed: dict[str, tuple[str, ...]] = {}
    for node in program.inlined_graph.nodes():
        inputs = [value.debugName().replace(".", "_") for value in node.inputs()]
        flat = tuple(item for name in inputs for item in packed.get(name, (name,)))
        for value in node.outputs():
            name = value.debugName().replace(".", "_")
            made[name] = flat
            if value.type().kind() != "TensorType":
                packed[name] = flat
    return made
