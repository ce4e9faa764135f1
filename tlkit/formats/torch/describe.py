"""Describe a checkpoint's top level."""

from __future__ import annotations

from typing import Any

from tlkit.formats.torch.pickle_machine import Call, Dict, Global
from tlkit.formats.torch.recognise import recognise
from tlkit.formats.torch.walk import spot


def top_level(root: Any, where: str) -> dict[str, Any]:
    """Return a checkpoint's top-level items by name: plain values unchanged, anything else as its type in a word."""
    pairs = root.pairs if isinstance(root, Call | Dict) else ()
    found: dict[str, Any] = {}
    for key, value in pairs:
        if isinstance(key, str) and recognise(value, spot((key,), where))[0] is None:
            plain = isinstance(value, str | int | float | bool) or value is None
            found[key] = value if plain and len(str(value)) < 10_000 else _word(value)
    return found


def _word(value: Any) -> str:
    if isinstance(value, Dict | list | tuple):
        count = len(value.pairs if isinstance(value, Dict) else value)
        return f"{'dict' if isinstance(value, Dict) else type(value).__name__} of {count}"
    return str(value.func) if isinstance(value, Call) and isinstance(value.func, Global) else type(value).__name__
