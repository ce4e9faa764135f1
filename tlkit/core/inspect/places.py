"""Where in the PyTorch source the operations of a package come from, as ``tlkit convert`` records it.

coremltools knows it while it converts, and writes none of it. Whether Core ML takes an operation's attribute that it
does not know is not documented, so the record is a text among the user's metadata, which holds any: JSON,
``[[module, line, [operation, ...]], ...]``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from tlkit.formats.coreml.package import Package

KEY = "tlkit.places"
"""The entry; of a function ``b`` of several, ``tlkit.b.places``."""
_REWRITTEN = re.compile(r"_ane(?:_\d+)?$")  # what --ane adds to a name


class Origin(NamedTuple):
    """The path of a PyTorch module (empty at the top) and a line of the source (``net.py:12``); either may be empty."""

    module: str
    line: str


def record(origins: Mapping[str, Origin]) -> str:
    """Return the text that records ``origins``, by the names of operations."""
    places: dict[Origin, list[str]] = {}
    for name, origin in origins.items():
        places.setdefault(origin, []).append(name)
    return json.dumps([[*origin, names] for origin, names in places.items()], separators=(",", ":"))


def recorded(package: Package, function: str | None = None) -> Mapping[str, Origin]:
    """Return what ``package`` records, by the names of operations; empty where it records nothing that can be read."""
    user = package.model.description.metadata.userDefined
    functions = list(package.program.functions) if package.program is not None else []
    # Of several functions the first is described by the names without a prefix.
    key = KEY if function is None or function in functions[:1] else f"tlkit.{function}.places"
    text = user.get(key, "")
    try:
        places = json.loads(text or "[]")
        return {str(name): Origin(str(module), str(line)) for module, line, names in places for name in names}
    except (ValueError, TypeError):  # not JSON, or JSON of another kind
        return {}  # the entry is the user's to change


def place_of(origins: Mapping[str, Origin], name: str) -> Origin | None:
    """Return the origin of the operation ``name``, or of the one that ``--ane`` made it of."""
    return origins.get(name) or origins.get(_REWRITTEN.sub("", name))
