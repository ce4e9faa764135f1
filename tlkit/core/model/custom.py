"""What runs a network's custom layers: functions that the user names by the layer's class."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from tlkit.errors import UsageError, reason


def customs(texts: Iterable[str]) -> dict[str, str]:
    """Return the functions that ``CLASS=module:function`` texts name, by class."""
    found = {}
    for text in texts:
        name, equals, place = text.partition("=")
        if not (name and equals and ":" in place):
            raise UsageError(f"--custom {text}: not CLASS=module:function", "name a function that can be imported")
        found[name] = place
    return found


def hooks(custom: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """Return what runs custom layers as functions; UsageError where ``module:name`` names none."""
    return {name: _function(name, value) if isinstance(value, str) else value for name, value in custom.items()}


def _function(name: str, place: str) -> Callable[..., Any]:
    module, colon, attribute = place.rpartition(":")
    found: Any = None
    try:
        found = _imported(module) if colon else None
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # the user's code may raise anything while it is imported
        hint = "write CLASS=module:function, or CLASS=file.py:function, as seen from this folder"
        raise UsageError(f"--custom {name}={place}: {reason(error)}", hint) from None
    if not callable(found):
        raise UsageError(f"--custom {name}={place}: that is not a function", "write CLASS=module:function")
    made: Callable[..., Any] = found
    return made


def _imported(place: str) -> ModuleType:
    """Import a module from the current folder or the installed ones, or a file."""
    before = list(sys.path)
    file = place.endswith(".py")
    sys.path.insert(0, str(Path(place).resolve().parent) if file else os.getcwd())
    try:
        if not file:
            return importlib.import_module(place)
        spec = importlib.util.spec_from_file_location(Path(place).stem, place)
        assert spec is not None and spec.loader is not None  # as for any file called .py
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path[:] = before
