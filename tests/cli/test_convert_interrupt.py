"""A conversion that is stopped at any moment leaves the whole new package, the old one or none, and no other file.

Covers tlkit/host/interrupt.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.formats.packages import unlike_any
from tlkit.core.model.load import load_model

pytestmark = pytest.mark.slow
SOURCES = Path(__file__).parents[1] / "core" / "sources.py"
MOMENTS = 8
CODES = {signal.SIGINT: (130, -signal.SIGINT), signal.SIGTERM: (143, -signal.SIGTERM), signal.SIGKILL: (-9,)}
"""A process that a signal kills outright, as it starts or ends, has the same exit code in a shell."""


def start(goal: Path, scratch: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tlkit", "convert", f"{SOURCES}:Conv", "--input", "image=1x3x8x8"]
    return subprocess.Popen(
        [*command, "-o", str(goal), "--force", "-q"],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> float:
    """How many seconds a conversion takes here."""
    folder = tmp_path_factory.mktemp("whole")
    begun = time.monotonic()
    assert start(folder / "a.mlpackage", folder).wait() == 0
    return time.monotonic() - begun


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_stopped_at_any_moment(tmp_path: Path, number: signal.Signals, whole: float) -> None:
    for moment in range(MOMENTS):
        folder, scratch = tmp_path / str(moment), tmp_path / f"scratch{moment}"
        goal = folder / "a.mlpackage"
        old = unlike_any(goal)
        scratch.mkdir()
        process = start(goal, scratch)
        time.sleep(whole * (moment + 0.5) / MOMENTS)
        process.send_signal(number)
        code = process.wait(timeout=60)
        assert code in (0, *CODES[number]), f"moment {moment}"
        if not old.exists():
            load_model(goal).predict({"image": [[[[0.0] * 8] * 8] * 3]})
        if number != signal.SIGKILL:
            assert os.listdir(folder) == ["a.mlpackage"], f"moment {moment}"
            assert os.listdir(scratch) == [], f"moment {moment}"
