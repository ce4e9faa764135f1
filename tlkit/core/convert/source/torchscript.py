"""Open a TorchScript archive, of which nothing is unpickled. Importing this module imports torch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tlkit.core.convert.source.script_check import check_archive, check_operators
from tlkit.errors import LoadError, reason
from tlkit.formats.files.mapped import Mapped
from tlkit.formats.files.zip import Zip
from tlkit.host.quiet import quiet


def open_script(path: Path, trust: bool = False) -> nn.Module:
    """Return the module saved at ``path``, never unpickled; raise :class:`LoadError` where it is none, or damaged.

    Code that would do more than compute is refused, unless ``trust`` says that its author may run code here.
    """
    archive = _whole_archive(path)
    if not trust:
        check_archive(archive)
    try:
        with quiet():
            module: nn.Module = torch.jit.load(str(path), map_location="cpu")
            if not trust:
                check_operators(path, module)
            return _without_branches(module)
    except LoadError as error:
        raise LoadError(f"{path}: {error.message.removeprefix(f'{path}: ')}", error.hint) from error
    except (
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        OSError,
    ) as error:  # whatever torch's reader stumbles over
        raise LoadError(f"{path}: damaged TorchScript: {reason(error)}", "save it again with torch.jit.save") from error


def _without_branches(module: nn.Module) -> nn.Module:
    """Return a scripted module without the branches for modes and shape checks, where torch's own modules warn and
    raise, which no converter supports. A traced module has none, and stays as it is."""
    if not hasattr(module, "inlined_graph"):
        raise LoadError("a script without a forward, or with several", "script a module with one forward")
    graph: Any = module.eval().float().inlined_graph
    if not any(node.kind() == "prim::If" for node in graph.nodes()):
        return module
    buffer = io.BytesIO()  # a tracer takes a frozen module for one of another type until it has been loaded anew
    torch.jit.save(torch.jit.freeze(module), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)  # type: ignore[no-any-return]


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
        reason = "a pickle, which may run code when opened" if start[:1] == b"\x80" else "not a TorchScript file"
        raise LoadError(f"{path}: {reason}", hint) from error
    names = {name.partition("/")[2] for name in archive.names}
    if any(name.startswith("code/") for name in names) and "constants.pkl" in names:
        return archive
    if "data.pkl" in names:
        raise LoadError(f"{path}: holds pickled Python objects (a state_dict or a whole module), not TorchScript", hint)
    raise LoadError(f"{path}: an archive, but not TorchScript", hint)
