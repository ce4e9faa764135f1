"""A command line for the tests of fleets: verbs that do, in a fork, what models do to their processes."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def run(words: Sequence[str]) -> int:
    """Run one verb and return its exit code."""
    verb, *rest = words
    if verb == "note":  # a file and what to append to it
        with open(rest[0], "a") as file:
            file.write(rest[1] + "\n")
        sys.stdout.write(json.dumps({"noted": rest[1]}))
    elif verb == "copy":
        Path(rest[1]).write_bytes(Path(rest[0]).read_bytes())
        sys.stdout.write(json.dumps({"from": rest[0], "to": rest[1]}))
    elif verb == "exit":
        sys.stderr.write("tlkit: error: as it was told\n  nothing to be done\n")
        return int(rest[0])
    elif verb == "sleep":
        time.sleep(float(rest[0]))
    elif verb == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "die-until":  # as often as the file has fewer lines than this
        path = Path(rest[0])
        with path.open("a") as file:
            file.write("x\n")
        if len(path.read_text().splitlines()) < int(rest[1]):
            os.kill(os.getpid(), signal.SIGSEGV)
    elif verb == "raise":
        raise ValueError("of its own")
    elif verb == "write":  # an output, that exists only once unless forced
        if Path(rest[0]).exists() and "--force" not in rest:
            return 2
        Path(rest[0]).write_text("made")
    return 0
