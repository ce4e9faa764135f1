"""A module's graph by tracing or by ``torch.export``, checked for ops before anything is converted.

Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import nn
from torch.export import ExportedProgram

from tlkit.core.convert.capture.preflight import check_ops
from tlkit.core.convert.capture.trace import Traced, trace
from tlkit.errors import ConversionError
from tlkit.host.quiet import quiet
from tlkit.ports.port import Port

Loading = Callable[[], AbstractContextManager[None]]


def capture(
    module: nn.Module,
    ports: tuple[Port, ...],
    seed: int = 0,
    names: tuple[str, ...] = (),
    *,
    export: bool = False,
    loading: Loading = nullcontext,
) -> Traced:
    """Return ``module`` as a graph that coremltools translates op by op; its import is done within ``loading``.

    Raises what :func:`~tlkit.core.convert.capture.trace.trace` raises, and ``PreflightError``. The hint of
    a :class:`ConversionError` says whether the other way of capturing would have got this far.
    """
    try:
        return _checked(module, ports, seed, names, export, loading)
    except ConversionError as error:
        error.hint = f"{_other_way(module, ports, seed, export)}; {error.hint}"
        raise


def _checked(
    module: nn.Module, ports: tuple[Port, ...], seed: int, names: tuple[str, ...], export: bool, loading: Loading
) -> Traced:
    if export:
        from tlkit.core.convert.capture.exported import export as run

        _load_tools(loading)
        traced = run(module, ports, seed, names)
    else:
        traced = trace(module, ports, seed, names)
    _load_tools(loading)
    with quiet():
        check_ops(traced.program)
    return traced


def _load_tools(loading: Loading) -> None:
    with loading(), quiet():
        import coremltools  # noqa: F401  # seconds, the first time


def _other_way(module: nn.Module, ports: tuple[Port, ...], seed: int, export: bool) -> str:
    """Try the other way as far as its ops: that costs a run of the model, not a conversion."""
    try:
        _checked(module, ports, seed, (), not export, nullcontext)
    except Exception:
        return f"{'tracing' if export else '--export'} would not help"
    return "without --export it can be captured" if export else "with --export it can be captured"


def adopt(
    program: ExportedProgram, module: nn.Module, ports: tuple[Port, ...], seed: int = 0, names: tuple[str, ...] = ()
) -> Traced:
    """Return the exported ``program`` (``module``: the same, to be run) as :func:`capture` returns a module."""
    from tlkit.core.convert.capture.exported import adopt as take

    traced = take(program, module, ports, seed, names)
    with quiet():
        check_ops(traced.program)
    return traced
