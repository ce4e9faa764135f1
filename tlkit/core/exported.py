"""Capture a module with ``torch.export``, or open a ``.pt2`` that was: the other way into coremltools beside tracing.

Importing this module imports torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from tlkit.core._quiet import quiet
from tlkit.core.examples import draw, to_source
from tlkit.core.ports import Port
from tlkit.core.torch_ops import install, supports
from tlkit.core.trace import Recorder, Traced, capture_error, named_outputs, plain_attention
from tlkit.errors import ConversionError


def export(module: nn.Module, ports: tuple[Port, ...], seed: int = 0, names: tuple[str, ...] = ()) -> Traced:
    """Return ``module`` captured on inputs drawn for ``ports``; raises as :func:`tlkit.core.trace.trace` does."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ConversionError("torch.export does not take TorchScript", "convert it without --export")
    recorder = Recorder(module, ports)
    examples = tuple(to_source(port, value) for port, value in zip(ports, draw(ports, module, seed), strict=True))
    with quiet(), torch.no_grad(), plain_attention():
        try:
            recorder.eval()(*examples)
            outputs = named_outputs(recorder, ports, names)
            program = torch.export.export(recorder, examples, dynamic_shapes=_dynamic(ports))
        except Exception as error:
            raise capture_error(error, recorder, ports, "export") from error
    return Traced(lowered(program), ports, outputs, recorder.notes)


def lowered(program: ExportedProgram) -> ExportedProgram:
    """Return ``program`` in the dialect that coremltools reads.

    An op that coremltools lacks is decomposed where torch knows how, which is exact; all others stay whole, so that
    attention and layer norms reach Core ML as the ops they are.
    """
    with quiet():
        install()
        table = torch.export.default_decompositions()
        lacking = {op: rule for op, rule in table.items() if not supports(op.name(), exported=True)}
        whole: ExportedProgram = program.run_decompositions(lacking)
        return whole


def _dynamic(ports: tuple[Port, ...]) -> Any:
    shapes = tuple(
        {axis: Dim.AUTO(min=low, max=high) for axis, (low, high) in enumerate(port.spans) if low != high} or None
        for port in ports
    )
    return (shapes,) if any(shapes) else None
