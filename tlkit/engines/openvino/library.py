"""The library itself: how it is imported, one core in a process, and what its errors say."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from typing import Any

from tlkit.errors import reason

_CONVERTER = "openvino.tools.ovc"


def _imported() -> Any:
    """Return OpenVINO, without its converter of models: that takes half of the time to import it and 15 MB, and tlkit
    has no use for it. Whoever else asks OpenVINO for ``convert_model`` gets it."""
    if "openvino" in sys.modules or _CONVERTER in sys.modules:
        return import_module("openvino")
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # which makes importing it an ImportError
    try:
        found = import_module("openvino")
    finally:
        del sys.modules[_CONVERTER]

    def later(name: str) -> Any:
        if name == "convert_model":
            return import_module(_CONVERTER).convert_model
        raise AttributeError(f"module 'openvino' has no attribute {name!r}")

    if not hasattr(found, "convert_model"):
        vars(found)["__getattr__"] = later
    return found


openvino: Any = _imported()
ov: Any = openvino.opset13


@cache
def core() -> Any:
    """Return OpenVINO's core, which is made once."""
    return openvino.Core()


def last_line(error: BaseException) -> str:
    """Return what an error says in the end: its first lines are places in OpenVINO's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][-300:] if lines else reason(error)
