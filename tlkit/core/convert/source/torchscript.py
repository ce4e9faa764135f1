"""Open a TorchScript archive, of which nothing is unpickled. Importing this module imports torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tlkit.core.convert.source.script_check import check_archive, check_operators, nodes
from tlkit.errors import NO_MEMORY, LoadError, reason
from tlkit.formats.files.mapped import Mapped
from tlkit.formats.files.zip import Zip
from tlkit.host import budget
from tlkit.host.quiet import quiet
from tlkit.host.rehearse import MORE, CrashError, rehearse
from tlkit.host.scratch import scratch_folder

_SPARE = 160 << 20
"""Bytes of memory that opening any script may take."""
_FOLD = 10
"""Bytes of memory for each byte of the file: its weights in f32, in a frozen copy, in what that is saved to."""
_SECONDS = 60.0
_PACE = 20e6
"""Bytes of the file for each further second."""


_GRAD_MODES = {f"__torch__.torch.autograd.grad_mode.{name}" for name in ("no_grad", "enable_grad")}


def open_script(path: Path, trust: bool = False) -> nn.Module:
    """Return the module saved at ``path``, never unpickled; raise :class:`LoadError` where it is none, or damaged.

    Code that would do more than compute is refused, unless ``trust`` says that its author may run code here. Without
    it, all that torch does with the file here is done in a process that may die of it first.
    """
    archive = _whole_archive(path)
    frozen = scratch_folder("tlkit-script-", archive) / "frozen.pt"
    if not trust:
        check_archive(archive)
        _rehearse(path, frozen)
    return _opened(path, frozen, trust)


def _rehearse(path: Path, frozen: Path) -> None:
    """Open a script in a child process; raise :class:`LoadError` where that fails, crashes or goes beyond its bounds.

    What is left at ``frozen`` need not be made again. Freezing computes whatever of a script does not depend on its
    inputs, with a stranger's sizes.
    """
    size, factor = path.stat().st_size, min(budget.factor(), 1e6)
    memory, seconds = int(factor * (_SPARE + _FOLD * size)), factor * (_SECONDS + size / _PACE)
    try:
        fresh = sys.platform != "linux" or torch.cuda.is_initialized()  # CUDA does not survive a fork
        rehearse(f"{__name__}:try_script", [str(path.resolve()), str(frozen)], memory, seconds, fresh)
    except CrashError as error:
        hint = error.hint or "save it again with torch.jit.save"
        raise LoadError(f"{path}: damaged TorchScript: torch's own reader {error.message}", hint) from error
    except LoadError as error:
        raise LoadError(f"{path}: {error.message.removeprefix(f'{path.resolve()}: ')}", error.hint) from error


def try_script(path: str, frozen: str) -> None:
    """Open the script at ``path`` and forget it: the rehearsal, in a process with a bound of memory."""
    _opened(Path(path), Path(frozen), False)


def _opened(path: Path, frozen: Path, trust: bool) -> nn.Module:
    try:
        with quiet():
            if frozen.exists():
                return torch.jit.load(str(frozen))  # type: ignore[no-any-return]
            module: nn.Module = torch.jit.load(str(path), map_location="cpu")
            if not trust:
                check_operators(path, module)
            return _without_branches(module, frozen)
    except LoadError as error:
        raise LoadError(f"{path}: {error.message.removeprefix(f'{path}: ')}", error.hint) from error
    except (
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        OSError,
        MemoryError,
    ) as error:  # whatever torch's reader stumbles over
        said = reason(error)
        if said.startswith(NO_MEMORY):
            raise LoadError(f"{path}: to open it takes far more memory than its size warrants", MORE) from error
        raise LoadError(f"{path}: damaged TorchScript: {said}", "save it again with torch.jit.save") from error


def _without_branches(module: nn.Module, frozen: Path) -> nn.Module:
    """Return a scripted module without the branches that its modes and shapes' checks leave: torch's own modules warn
    and raise there, which no converter knows; and without its ``with torch.no_grad()``, which changes no value. A
    traced one has neither, and stays as it is. A tracer takes a frozen module for one of another type until it has been
    loaded again: it is saved at ``frozen`` for that."""
    if not hasattr(module, "inlined_graph"):
        raise LoadError("a script without a forward, or with several", "script a module with one forward")
    graph: Any = module.eval().float().inlined_graph
    if not any(node.kind() in ("prim::If", "prim::Enter") for node in graph.nodes()):
        return module
    made: Any = torch.jit.freeze(module)
    _leave_grad_mode(made.graph)
    torch.jit.save(made, str(frozen))
    return torch.jit.load(str(frozen))  # type: ignore[no-any-return]


def _leave_grad_mode(graph: Any) -> None:
    """Take ``with torch.no_grad()`` and the like out of a frozen graph, and the objects that only that uses."""
    entered = [node for node in nodes(graph) if node.kind() == "prim::Enter"]
    for item in (value for node in entered for value in list(node.inputs())):
        if item.type().str() in _GRAD_MODES and item.node().kind() == "prim::CreateObject":
            _destroy_users(item)


def _destroy_users(item: Any) -> None:
    users = [use.user for use in item.uses()]
    if all(node.kind() in ("prim::Enter", "prim::Exit", "prim::SetAttr") for node in users):
        for node in [*users, item.node()]:
            node.destroy()


def _whole_archive(path: Path) -> Zip:
    """Return the archive at ``path``, every member of it whole; LoadError where it is none, or not TorchScript."""
    hint = "build the module in Python and name it as file.py:callable, or save it with torch.jit.save"
    try:
        archive = Zip(Mapped(path))
        archive.check_total(archive.names)
        for name in archive.names:  # torch itself loads weights without a look at their checksums
            for _ in archive.pieces(name):
                pass
    except LoadError as error:
        with path.open("rb") as file:
            start = file.read(2)
        if start == b"PK":
            raise LoadError(f"{path}: damaged: {error.message.removeprefix(f'{path}: ')}", error.hint) from error
        # A pickle of protocol 2 or later begins with 0x80.
        reason = "a pickle, which may run code when opened" if start[:1] == b"\x80" else "not a TorchScript file"
        raise LoadError(f"{path}: {reason}", hint) from error
    names = {name.partition("/")[2] for name in archive.names}
    if any(name.startswith("code/") for name in names) and "constants.pkl" in names:
        return archive
    if "data.pkl" in names:
        raise LoadError(f"{path}: holds pickled Python objects (a state_dict or a whole module), not TorchScript", hint)
    raise LoadError(f"{path}: an archive, but not TorchScript", hint)
