"""One command line of a fleet, run in the process that asks for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tlkit.cli.app import main

# What each subcommand imports when it is called: a worker imports it once, before it forks.
_HEAVY = ("torch", "tlkit.core.convert.verify", "tlkit.formats.coreml.open")
IMPORTS = {
    "inspect": ("rich.console", "tlkit.core.inspect.inspect", "tlkit.formats.coreml.open", "tlkit.formats.describe"),
    "run": _HEAVY,
    "convert": (*_HEAVY, "tlkit.core.convert"),
    "edit": _HEAVY,
}


def run(words: Sequence[str]) -> int:
    """Run ``tlkit WORDS`` here and return its exit code."""
    sys.argv = ["tlkit", *words]
    try:
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0
