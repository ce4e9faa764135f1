"""Files after public reports, made by the collection's own generators, for tests that skip where it is absent."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

FAULTS = Path(__file__).resolve().parents[3] / "shared/faults/formats"

needs_faults = pytest.mark.skipif(not FAULTS.is_dir(), reason="the generators of odd files are not here")


@cache
def generated(kind: str) -> Path:
    """Return the folder that ``gen_<kind>.py`` fills; it is made once a test run."""
    folder = Path(mkdtemp(prefix=f"tlkit-{kind}-")) / kind
    script = FAULTS / f"gen_{kind}.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True, timeout=120)
    return folder
