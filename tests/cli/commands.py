"""Runs the command line in this process, as a shell would see it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.processes import as_a_process
from tlkit.cli import app


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code and both streams."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The one document on stdout; anything around it, NaN among it, is an error."""
        return json.loads(self.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


class Shell:
    """``tlkit ARGS`` with the streams caught; paths and numbers become words."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capfd = monkeypatch, capfd

    def __call__(self, *words: object) -> Outcome:
        arguments: Sequence[str] = ["tlkit", *map(str, words)]
        self._monkeypatch.setattr("sys.argv", arguments)
        self._capfd.readouterr()
        with as_a_process(), pytest.raises(SystemExit) as ended:
            app.main()
        out, err = self._capfd.readouterr()
        return Outcome(int(ended.value.code or 0), out, err)
