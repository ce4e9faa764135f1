"""The inputs that came to a bad end: kept in a folder, a few of each kind, with what happened."""

from __future__ import annotations

import hashlib
import json
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

_EACH = 3
"""Inputs kept of one kind."""


@dataclass(frozen=True)
class Fault:
    """One kind of bad end: ``kind`` is a column of the table, ``what`` says in one line what happened and where."""

    target: str
    kind: str
    what: str
    trace: str = ""


class Faults:
    """A folder of faults, written by all workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, fault: Fault, case: bytes) -> None:
        """Keep ``case`` unless enough of its kind are there."""
        kind = hashlib.sha256(f"{fault.target} {fault.kind} {fault.what}".encode("utf-8", "replace")).hexdigest()[:8]
        stem = f"{fault.target}-{fault.kind}-{kind}"
        if len(list(self.folder.glob(f"{stem}-*.case"))) >= _EACH:
            return
        (self.folder / f"{stem}.json").write_text(json.dumps(asdict(fault), indent=1))
        (self.folder / f"{stem}-{hashlib.sha256(case).hexdigest()[:8]}.case").write_bytes(case)

    def found(self) -> list[tuple[Fault, str]]:
        """Return every kind of fault and the name of one of its inputs."""
        paths = sorted(self.folder.glob("*.json"))
        cases = {path: next(self.folder.glob(f"{path.stem}-*.case"), path).name for path in paths}
        return [(Fault(**json.loads(path.read_text())), cases[path]) for path in paths]


def described(error: BaseException) -> tuple[str, str]:
    """Return an exception in one line with the innermost line of tlkit that it passed, and its traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tlkit/" in frame.filename]
    place = f" at {frames[-1].filename.rpartition('/tlkit/')[2]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}", "".join(traceback.format_exception(error))[-6000:]
