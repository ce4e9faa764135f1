"""``tlkit.anywhere``: coremltools' predict off a Mac.

Covers tlkit/anywhere.py and tlkit/engines/coreml/structure.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

off_a_mac = pytest.mark.skipif(sys.platform == "darwin", reason="on a Mac it does nothing")


def _python(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True)


@off_a_mac
@pytest.mark.parametrize("chosen", ["test_predict or states_are_kept", pytest.param("test", marks=pytest.mark.slow)])
def test_coremltools_predicts_as_its_users_call_it(root: Path, chosen: str) -> None:
    cases = ["-k", chosen, "-p", "tlkit.anywhere", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore"]
    done = _python(root, "-m", "pytest", "-q", *cases, "tests/anywhere/cases.py")
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


@pytest.mark.slow
@off_a_mac
@pytest.mark.parametrize("early", [True, False], ids=["before coremltools", "after coremltools"])
def test_install_works_before_and_after_coremltools_and_twice(root: Path, early: bool) -> None:
    install = "from tlkit.anywhere import install; install(); install()"
    lines = [install, "import coremltools"] if early else ["import coremltools", install]
    script = "; ".join([*lines, "import coremltools as c", "print(c.models.model._MLModelProxy.__module__)"])
    done = _python(root, "-c", script)
    assert done.stdout.strip() == "tlkit.anywhere", done.stderr


def test_importing_it_imports_nothing_heavy(root: Path) -> None:
    script = "import tlkit.anywhere, sys; print({'torch', 'coremltools', 'numpy'} & set(sys.modules))"
    done = _python(root, "-c", script)
    assert done.stdout.strip() == "set()"
