"""Each hostile file ends in one line of error and one of advice, in bounded memory: ``tlkit inspect``, from outside.

Covers tlkit/formats/files/mapped.py, tlkit/formats/files/wire.py, tlkit/formats/files/zip.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.formats.hostile import HOSTILE, code_in_a_pickle

_MEMORY = 200_000_000
_CHILD = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, ({_MEMORY}, {_MEMORY}))
sys.argv[0] = "tlkit"
from tlkit.cli.app import main
main()
"""  # private memory alone counts: what is mapped of a file the kernel can take back


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts private memory on Linux alone")


def inspect(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _CHILD, "inspect", str(path), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_two_lines(tmp_path: Path, name: str) -> None:
    ran = inspect(HOSTILE[name](tmp_path))
    assert (ran.returncode, ran.stdout) == (3, ""), ran.stderr
    error, hint = ran.stderr.splitlines()
    assert error.startswith("tlkit: error: ") and str(tmp_path) in error
    assert hint.startswith("  ") and hint.strip()
    assert len(error) < 400
    assert "secret" not in ran.stderr.replace("secret.m", "")


def test_code_in_a_pickle_is_named_and_not_run(tmp_path: Path) -> None:
    ran = inspect(code_in_a_pickle(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert "pathlib" in ran.stdout + ran.stderr and "touch" in ran.stdout + ran.stderr
    assert not (tmp_path / "ran").exists()
