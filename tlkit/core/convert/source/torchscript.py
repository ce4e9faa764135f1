"""Open a TorchScript archive, of which nothing is unpickled. Importing this module imports torch."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tlkit.errors import LoadError, reason
from tlkit.host.quiet import quiet


def open_script(path: Path) -> nn.Module:
    """Return the module saved at ``path``, never unpickled; raise :class:`LoadError` where it is none, or damaged."""
    wrong = _not_torchscript(path)
    if wrong:
        hint = "build the module in Python and name it as file.py:callable, or save it with torch.jit.save"
        raise LoadError(f"{path}: {wrong}", hint)
    try:
        with quiet():
            module: nn.Module = torch.jit.load(str(path), map_location="cpu")
            return _without_branches(module)
    except (RuntimeError, ValueError, OSError) as error:
        raise LoadError(f"{path}: damaged TorchScript: {reason(error)}", "save it again with torch.jit.save") from error


def _without_branches(module: nn.Module) -> nn.Module:
    """Return a scripted module without the branches that its modes and shapes' checks leave: torch's own modules warn
    and raise there, which no converter knows. A traced one has none, and stays as it is."""
    graph: Any = module.eval().float().inlined_graph
    if not any(node.kind() == "prim::If" for node in graph.nodes()):
        return module
    buffer = io.BytesIO()  # a tracer takes a frozen module for one of another type until it has been loaded anew
    torch.jit.save(torch.jit.freeze(module), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)  # type: ignore[no-any-return]


def _not_torchscript(path: Path) -> str:
    """Return why ``path`` is not whole TorchScript, as the archive tells; empty where it looks like it is."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
            broken = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError, RuntimeError):
        with path.open("rb") as file:
            start = file.read(2)
        if start == b"PK":
            return "damaged: the archive is incomplete"
        return "a pickle, which may run code when opened" if start[:1] == b"\x80" else "not a TorchScript file"
    if broken:  # torch itself loads weights without a look at their checksums
        return f"damaged: {broken} does not match its checksum"
    if any(name.startswith("code/") for name in names) and "constants.pkl" in names:
        return ""
    if "data.pkl" in names:
        return "holds pickled Python objects (a state_dict or a whole module), not TorchScript"
    return "an archive, but not TorchScript"
