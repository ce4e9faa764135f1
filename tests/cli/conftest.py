"""What the tests of the command line share."""

from __future__ import annotations

import pytest

from tests.cli.commands import Shell


@pytest.fixture
def tlkit(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    """The command line."""
    monkeypatch.delenv("TLKIT_DEBUG", raising=False)
    return Shell(monkeypatch, capfd)
