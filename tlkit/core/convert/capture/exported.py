"""Capture a module with ``torch.export``, or open a ``.pt2`` that was: the other way into coremltools beside tracing.

Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_unflatten

from tlkit.core.convert.capture.states import found_states, start_notes, watching
from tlkit.core.convert.capture.trace import Recorder, Traced, capture_error, named_outputs, plain_attention
from tlkit.core.convert.source.pt2 import load_program
from tlkit.core.convert.tools.teach import decompositions
from tlkit.errors import ConversionError, LoadError, UsageError, reason
from tlkit.host.quiet import quiet
from tlkit.ports.port import LARGEST, Port, flexible_port


def export(
    module: nn.Module, ports: tuple[Port, ...], examples: tuple[Tensor, ...], names: Sequence[str] = ()
) -> Traced:
    """Return ``module`` captured on ``examples`` of ``ports``; raises as ``trace`` does."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ConversionError("torch.export does not take TorchScript", "convert it without --export")
    recorder = Recorder(module, ports)
    examples = recorder.unscaled(examples)
    with quiet(), torch.no_grad(), plain_attention(), watching(recorder) as watch:
        try:
            recorder.eval()(*examples)
            outputs = named_outputs(recorder, ports, names)
            states = found_states(recorder, watch.changed())
            watch.restore()
            program = torch.export.export(recorder, examples, dynamic_shapes=_dynamic(ports))
        except Exception as error:
            raise capture_error(error, recorder, ports, "export") from error
    return Traced(lowered(program), ports, outputs, (*recorder.notes, *start_notes(recorder, states)), states)


class Runnable(nn.Module):
    """An exported program to be run: its inputs by position, in the order that it was exported with."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.inner = program.module()
        self._spec = program.call_spec.in_spec

    def forward(self, *tensors: torch.Tensor) -> Any:
        """Pass each tensor where the exported module had it, by position or by name."""
        args, kwargs = tree_unflatten(list(tensors), self._spec)
        return self.inner(*args, **kwargs)


def open_program(path: Path, trust: bool = False) -> tuple[ExportedProgram, tuple[Port, ...]]:
    """Return the program saved at ``path`` and what it takes: names, shapes, dynamic dimensions as ranges.

    ``trust`` opens it as torch does, which may run code of it.
    """
    try:
        program = load_program(path, trust)
    except LoadError:
        raise
    except Exception as error:
        raise LoadError(
            f"{path}: torch {torch.__version__} cannot load it: {reason(error)}", "export it again"
        ) from error
    return program, _ports(program)


def adopt(
    program: ExportedProgram,
    module: nn.Module,
    ports: tuple[Port, ...],
    examples: tuple[Tensor, ...],
    names: Sequence[str] = (),
) -> Traced:
    """Return ``program`` as :func:`export` returns a module; ``module`` is the program to be run, ``ports`` as
    :func:`ordered` returns them."""
    if any(port.image and port.image.ratios for port in ports):
        raise UsageError(
            "an exported program is converted as it is, and Core ML has one scale for all channels of an image",
            "multiply the channels in the module and export it again, or convert the module itself",
        )
    recorder = Recorder(module, ports)
    with quiet(), torch.no_grad(), watching(recorder):
        try:
            recorder(*examples)
        except Exception as error:
            raise capture_error(error, recorder, ports, "export") from error
    graph = lowered(program)  # where alone the buffers that change are listed
    inside = "inner.inner."  # Runnable's own, in the Recorder
    changed = [f"{inside}{path}" for path in graph.graph_signature.buffers_to_mutate.values()]
    states = tuple(
        replace(state, source=state.source.removeprefix(inside)) for state in found_states(recorder, changed, inside)
    )
    notes = (*recorder.notes, *start_notes(recorder, states))
    return Traced(graph, ports, named_outputs(recorder, ports, names), notes, states)


def ordered(program: ExportedProgram, ports: tuple[Port, ...]) -> tuple[Port, ...]:
    """Return ``ports`` in the order of the program's inputs where they have their names; others fill them by position.

    Raises :class:`UsageError` where there are too many or too few.
    """
    order = [port.name for port in _ports(program)]
    if len(ports) != len(order):
        raise UsageError(f"{len(ports)} input(s) for an exported program of {len(order)}", f"it is {', '.join(order)}")
    if {port.name for port in ports} == set(order):
        return tuple(sorted(ports, key=lambda port: order.index(port.name)))
    return ports


def _ports(program: ExportedProgram) -> tuple[Port, ...]:
    inputs = {name for name in program.graph_signature.user_inputs if isinstance(name, str)}
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs]
    spans = {str(symbol): (int(span.lower), span.upper) for symbol, span in program.range_constraints.items()}
    return tuple(_port(node.name, node.meta["val"], spans) for node in nodes)


def _port(name: str, value: torch.Tensor, spans: dict[str, tuple[int, Any]]) -> Port:
    ranges = []
    for size in value.shape:
        low, high = (size, size) if isinstance(size, int) else spans.get(str(size), (1, LARGEST))
        ranges.append((max(int(low), 1), int(min(high, LARGEST))))
    dtype = "float32" if value.is_floating_point() else "int32"
    return flexible_port(name, tuple(ranges), dtype)


def lowered(program: ExportedProgram) -> ExportedProgram:
    """Return ``program`` in the dialect that coremltools reads.

    An op that coremltools lacks is decomposed where torch knows how, which is exact; all others stay whole, so that
    attention and layer norms reach Core ML as the ops they are.
    """
    with quiet():
        whole: ExportedProgram = program.run_decompositions(decompositions())
        return whole


def _dynamic(ports: tuple[Port, ...]) -> Any:
    shapes = tuple(
        {axis: Dim.AUTO(min=low, max=high) for axis, (low, high) in enumerate(port.spans) if low != high} or None
        for port in ports
    )
    return (shapes,) if any(shapes) else None
