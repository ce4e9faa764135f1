"""Name files that tlkit does not read, by their first bytes, with advice on what to do with them."""

from __future__ import annotations

import re
from pathlib import Path

# The magic number as little-endian machines wrote it, its letters backwards.
_GGML = {b"lmgg": "ggml", b"fmgg": "ggmf", b"tjgg": "ggjt", b"algg": "ggla"}
_PAGE = rb"(?i)\s*(<!doctype\s+html|<html|<\?xml)"
_ANSWER = rb"(?i)\s*(\{\s*\"(error|message|detail)\"|entry not found|not found|access denied|invalid username)"
_HEAD = 512


def stranger(path: Path) -> tuple[str, str] | None:
    """Return what a file is that tlkit does not read, and advice; None where that is unknown too."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[:4] in _GGML:
        return (
            f"a {_GGML[head[:4]]} file, from before GGUF",
            "look for the model as GGUF, or start from its source",
        )
    # A FlatBuffer's identifier, `ET12`.
    if head[4:6] == b"ET" and head[6:8].isdigit():
        return "an ExecuTorch program (.pte)", "give the PyTorch model that it was exported from"
    if re.match(_PAGE, head):
        return "a web page saved under a model's name", "fetch the file itself: the page may be a login or an error"
    if re.match(_ANSWER, head):
        return "a server's error message saved under a model's name", "check the address, and fetch it again"
    # Where a tar archive's first header has its magic.
    if head[257:262] == b"ustar":
        inner = head[:100].split(b"\0")[0].decode("utf-8", "replace")
        if inner in ("sys_info", "pickle", "storages", "tensors"):
            return "a PyTorch checkpoint from before 0.1.10, a tar archive", "load and save it again with PyTorch"
        return f"a tar archive that begins with '{inner[:60]}'", f"unpack it: tar xf {path.name}"
    return None


def unzipped_checkpoint(folder: Path) -> Path | None:
    """Return the folder, in ``folder`` or itself, that an unzipped PyTorch checkpoint left; None where there is
    none."""
    for root in (folder, *sorted(item for item in folder.iterdir() if item.is_dir())[:8]):
        if (root / "data.pkl").is_file() and (root / "data").is_dir():
            return root
    return None
