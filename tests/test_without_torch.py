"""Where PyTorch is not installed: what needs none works, and the rest says what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.formats import packages

_HIDDEN = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec.__func__
def find_spec(cls, name, path=None, target=None):
    return None if name.partition(".")[0] == "torch" else find(cls, name, path, target)
PathFinder.find_spec = classmethod(find_spec)
"""


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["inspect", "net.mlpackage", "--ops"], 0, "linear"),
        (["doctor"], 0, "PyTorch is not installed"),
        (["convert", "net.mlpackage", "-o", "net.safetensors"], 0, "SafeTensors"),
        (["run", "net.mlpackage"], 3, "this needs torch, which is not installed"),
        (["convert", "resnet50", "-o", "r.mlpackage"], 3, "pip install torch"),
    ],
)
def test_what_works_and_what_is_said(tmp_path: Path, words: list[str], code: int, says: str) -> None:
    packages.classifier(tmp_path / "net.mlpackage")
    (tmp_path / "sitecustomize.py").write_text(_HIDDEN)
    found = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "tlkit", *words]
    done = subprocess.run(command, cwd=tmp_path, env=found, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert says in done.stdout + done.stderr and "Traceback" not in done.stderr
