"""Capture a module with ``torch.export``, or adopt an exported program: the alternative to tracing.

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

from tlkit.core.convert.capture.flow import LIBRARIES
from tlkit.core.convert.capture.lengths import in_integers
from tlkit.core.convert.capture.states import found_states, start_notes, watching
from tlkit.core.convert.capture.trace import Recorder, Traced, capture_error, named_outputs, plain_attention
from tlkit.core.convert.tools.teach import decompositions
from tlkit.errors import ConversionError, UsageError, reason
from tlkit.host.quiet import quiet
from tlkit.types import TensorSpec


def export(
    module: nn.Module, ports: tuple[TensorSpec, ...], examples: tuple[Tensor, ...], names: Sequence[str] = ()
) -> Traced:
    """Return ``module`` captured on ``examples`` of ``ports``; raises as ``trace`` does."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ConversionError(
            "torch.export does not take TorchScript", "leave out --export (with --auto, the default, that is tried)"
        )
    recorder = Recorder(module, ports)
    examples = recorder.unscaled(examples)
    with quiet(), torch.no_grad(), plain_attention(), watching(recorder) as watch:
        try:
            # For real first: torch.export itself runs the module on tensors without values.
            recorder.eval()(*examples)
            outputs = named_outputs(recorder, ports, names)
            states = found_states(recorder, watch.changed())
            # The exported program takes the buffers' values along: those before the run.
            watch.restore()
            program = torch.export.export(recorder, examples, dynamic_shapes=_dynamic(ports))
        except Exception as error:
            raise capture_error(error, recorder, ports, "export") from error
    graph = lowered(program)
    frozen = _check_free(graph, ports)
    return Traced(graph, ports, outputs, (*recorder.notes, *start_notes(recorder, states)), states, frozen)


def adopt(
    program: ExportedProgram,
    module: nn.Module,
    ports: tuple[TensorSpec, ...],
    examples: tuple[Tensor, ...],
    names: Sequence[str] = (),
) -> Traced:
    """Return ``program`` as :func:`export` returns a module; ``module`` is the program to be run, ``ports`` as
    :func:`~tlkit.core.convert.source.opened.ordered` returns them."""
    if any(port.intake.ratios for port in ports):
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


def lowered(program: ExportedProgram) -> ExportedProgram:
    """Return ``program`` in the dialect that coremltools reads.

    An op that coremltools lacks is decomposed where torch knows how, which is exact; all others stay whole, so that
    attention and layer norms reach Core ML as the ops they are.
    """
    with quiet():
        try:
            whole: ExportedProgram = program.run_decompositions(decompositions())
        except Exception as error:  # of a mend that does not take an operation in this form
            raise ConversionError(f"cannot convert an operation of the exported graph: {reason(error)}") from error
        _without_checks(whole.graph)
        in_integers(whole.graph)
        return whole


_CHECKS = frozenset(["_assert_scalar", "_assert_async", "_assert_tensor_metadata", "sym_constrain_range"])


def _without_checks(graph: torch.fx.Graph) -> None:
    """Erase what only checks values, and what only that needs: Core ML raises nothing."""
    for node in reversed(list(graph.nodes)):
        packet = getattr(node.target, "overloadpacket", None)
        if packet is not None and packet.__name__ in _CHECKS and not node.users:
            graph.erase_node(node)
    graph.eliminate_dead_code()


def _check_free(program: ExportedProgram, ports: tuple[TensorSpec, ...]) -> tuple[str, ...]:
    """Raise :class:`ConversionError` where torch.export took the example's length for the only one.

    Returns the lines of other choices that it took by the example's length.
    """
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    given = [nodes[name] for name in program.graph_signature.user_inputs if name in nodes]
    fixed = [
        f"{port.name} {'x'.join(map(str, node.meta['val'].shape))}"
        for port, node in zip(ports, given, strict=False)
        if any(
            # A size that is still free is a symbol, `s0`.
            low != high and str(size).isdigit()
            for size, (low, high) in zip(node.meta["val"].shape, port.spans, strict=True)
        )
    ]
    if fixed:
        raise ConversionError(
            f"torch.export fixed the shape {', '.join(fixed)}: what the model's Python does hangs on it",
            "compute what hangs on a length by tensors (torch.arange, slices, torch.where), or convert at one shape",
        )
    return _choices([(port, node.meta["val"]) for port, node in zip(ports, given, strict=False)])


_TRIED = 64  # lengths


def _choices(given: Sequence[tuple[TensorSpec, Any]]) -> tuple[str, ...]:
    """Return the lines where torch.export took a choice of the model's Python that some length would not take.

    It keeps what it assumed as guards (``Ne(Mod(s0, 2), 0)``: the length is odd), and says nothing. A choice may be of
    no consequence, so that only a comparison tells whether the program is right.
    """
    places: dict[str, None] = {}
    for port, value in given:
        for size, (low, high) in zip(value.shape, port.spans, strict=True):
            if low == high or not isinstance(size, torch.SymInt):
                continue
            lengths = (*range(low, min(high, low + _TRIED)), high)
            for guard in size.node.shape_env.guards:
                own = guard.expr.free_symbols == {size.node.expr}
                if own and any(bool(guard.expr.subs(size.node.expr, length) == False) for length in lengths):  # noqa: E712
                    places[_line(guard)] = None
    return tuple(filter(None, places))


def _line(guard: Any) -> str:
    """Return where the model's Python chose, as ``net.py:8``; empty where torch does not tell, or not of the model."""
    frame: Any = getattr(guard.sloc, "maybe_user_loc", None) or getattr(guard.sloc, "framework_loc", None)
    path = Path(getattr(frame, "filename", ""))
    return "" if not path.name or any(part in path.as_posix() for part in LIBRARIES) else f"{path.name}:{frame.lineno}"


def _dynamic(ports: tuple[TensorSpec, ...]) -> Any:
    shapes = tuple(
        # AUTO does not fail where torch takes a size for fixed: `_check_free` says that in the user's words.
        {axis: Dim.AUTO(min=low, max=high) for axis, (low, high) in enumerate(port.spans) if low != high} or None
        for port in ports
    )
    # forward takes *tensors, which torch counts as one argument.
    return (shapes,) if any(shapes) else None
