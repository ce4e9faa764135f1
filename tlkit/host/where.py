"""Where in the user's own code an exception came from."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

_SCRIPT = "Traceback of TorchScript"  # it names lines of the code that was scripted
_SCRIPTED = re.compile(r'File "(?P<file>[^"<]+)", line (?P<line>\d+)')
_LIBRARIES = ("/torch/", "/tlkit/core/", "/coremltools/")


def where(error: BaseException, *without: str) -> str:
    """Return the innermost line of ``error`` outside libraries and the files ``without``, as `` (net.py, line 12)``.

    Empty where there is none.
    """
    script = [match for match in _SCRIPTED.finditer(str(error)) if not _is_library(match["file"])]
    if _SCRIPT in str(error) and script:
        return f" ({Path(script[-1]['file']).name}, line {script[-1]['line']})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in without]
    own = [frame for frame in frames if not frame.filename.startswith("<") and not _is_library(frame.filename)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _is_library(filename: str) -> bool:
    path = filename.replace("\\", "/")
    return any(part in path for part in _LIBRARIES)
