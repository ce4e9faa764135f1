"""A module's graph by tracing or by ``torch.export``, checked for ops before anything is converted.

Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn
from torch.export import ExportedProgram

from tlkit.core.convert.capture.exported import adopt as take
from tlkit.core.convert.capture.exported import export as run
from tlkit.core.convert.capture.preflight import check_ops
from tlkit.core.convert.capture.trace import Traced, trace
from tlkit.core.convert.tools.load import load_tools
from tlkit.errors import ConversionError
from tlkit.host.quiet import quiet
from tlkit.types import TensorSpec

Loading = Callable[[], AbstractContextManager[None]]


def capture(
    module: nn.Module,
    ports: tuple[TensorSpec, ...],
    examples: tuple[Tensor, ...],
    names: Sequence[str] = (),
    *,
    export: bool = False,
    loading: Loading = nullcontext,
) -> Traced:
    """Return ``module`` as a graph that coremltools translates op by op; its import is done within ``loading``.

    Raises what :func:`~tlkit.core.convert.capture.trace.trace` raises, and ``PreflightError``, which has the notes
    of the capture.
    """
    if export:
        # `lowered` asks coremltools which ops it has; a trace needs it only afterwards, and fails sooner without.
        _load_tools(loading)
        traced = run(module, ports, examples, names)
    else:
        traced = trace(module, ports, examples, names)
    _load_tools(loading)
    return _checked(traced)


def adopt(
    program: ExportedProgram,
    module: nn.Module,
    ports: tuple[TensorSpec, ...],
    examples: tuple[Tensor, ...],
    names: Sequence[str] = (),
) -> Traced:
    """Return the exported ``program`` (``module``: the same, to be run) as :func:`capture` returns a module."""
    return _checked(take(program, module, ports, examples, names))


def _checked(traced: Traced) -> Traced:
    try:
        with quiet():
            check_ops(traced.program)
    except ConversionError as error:
        error.notes = traced.notes
        raise
    return traced


def _load_tools(loading: Loading) -> None:
    with loading(), quiet():
        load_tools()
