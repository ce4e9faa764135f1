"""Open a program that ``torch.export`` saved in a ``.pt2``, with its ports, ready to run.

Importing this module imports torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_unflatten

from tlkit.core.convert.source.pt2 import load_program
from tlkit.errors import LoadError, UsageError, reason
from tlkit.ports.port import flexible_port
from tlkit.types import LARGEST, TensorSpec


class Runnable(nn.Module):
    """An exported program as a module: its inputs by position, in the order of the export."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.inner = program.module()
        self._spec = program.call_spec.in_spec

    def forward(self, *tensors: torch.Tensor) -> Any:
        """Pass each tensor where the exported module had it, by position or by name."""
        args, kwargs = tree_unflatten(list(tensors), self._spec)
        return self.inner(*args, **kwargs)


def open_program(path: Path, trust: bool = False) -> tuple[ExportedProgram, tuple[TensorSpec, ...]]:
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


def ordered(program: ExportedProgram, ports: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Return ``ports`` in the order of the program's inputs: matched by name first, the rest by position.

    Raises :class:`UsageError` where there are too many or too few.
    """
    order = [port.name for port in _ports(program)]
    if len(ports) != len(order):
        raise UsageError(f"{len(ports)} input(s) for an exported program of {len(order)}", f"it is {', '.join(order)}")
    if {port.name for port in ports} == set(order):
        return tuple(sorted(ports, key=lambda port: order.index(port.name)))
    return ports


def _ports(program: ExportedProgram) -> tuple[TensorSpec, ...]:
    inputs = {name for name in program.graph_signature.user_inputs if isinstance(name, str)}
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs]
    spans = {str(symbol): (int(span.lower), span.upper) for symbol, span in program.range_constraints.items()}
    return tuple(_port(node.name, node.meta["val"], spans) for node in nodes)


def _port(name: str, value: torch.Tensor, spans: dict[str, tuple[int, Any]]) -> TensorSpec:
    ranges = []
    for size in value.shape:
        low, high = (size, size) if isinstance(size, int) else spans.get(str(size), (1, LARGEST))
        # torch's ranges may begin at 0 and end at infinity (int_oo).
        ranges.append((max(int(low), 1), int(min(high, LARGEST))))
    dtype = "float32" if value.is_floating_point() else "int32"
    return flexible_port(name, tuple(ranges), dtype)
