"""Man pages and completion that come with the wheel: what groff shows of them, and what Typer itself prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

COMPLETION = {"bash": "tlkit", "zsh": "_tlkit", "fish": "tlkit.fish"}


@pytest.fixture(scope="module")
def pages(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, root / "docs/make_man.py", folder], check=True, capture_output=True)
    return folder


def test_each_command_has_a_page_with_its_options(pages: Path, root: Path) -> None:
    reference = (root / "docs/cli.md").read_text()
    commands = re.findall(r"^## `tlkit (\w+)`", reference, re.MULTILINE)
    names = {"tlkit.1", *(f"tlkit-{name}.1" for name in commands)}
    assert {path.name for path in pages.iterdir()} == names and len(commands) >= 9
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed, which shows them")
    for name in names:
        groff = ["groff", "-man", "-Tascii", "-rLL=500n", "-ww", "-P-cbou", str(pages / name)]
        shown = subprocess.run(groff, check=True, capture_output=True, text=True)
        assert shown.stderr == ""
        title = name.removesuffix(".1").replace("-", " ")
        section = reference.partition(f"## `{title}`\n")[2] or reference
        section = section.partition("\n## ")[0]
        for flag in re.findall(r"^\* `(-[^`\s]*)", section, re.MULTILINE):
            assert re.search(rf"^ +{re.escape(flag)}(?!\w)", shown.stdout, re.MULTILINE), f"{name}: {flag}"
        for example in re.findall(r"^\$ (tlkit .*)$", section, re.MULTILINE):
            assert example in shown.stdout


@pytest.mark.parametrize("shell", COMPLETION)
def test_completion_is_what_typer_prints(shell: str, root: Path) -> None:
    if f"typer=={version('typer')}" not in (root / "constraints.txt").read_text().split():
        pytest.skip("written with another typer")
    command = [sys.executable, "-c", "from tlkit.cli.app import main; import sys; sys.argv = ['tlkit']; main()"]
    environment = {**os.environ, "_TLKIT_COMPLETE": f"source_{shell}"}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    kept = (root / "docs" / "completion" / COMPLETION[shell]).read_text()
    assert kept.strip().startswith(printed.strip())


def _clone(root: Path, goal: Path) -> Path:
    """Copy what a wheel is made of, as a clone would have it."""
    kept = subprocess.run(["git", "ls-files"], cwd=root, check=True, capture_output=True, text=True).stdout.split("\n")
    for name in filter(None, kept):
        if not name.startswith(("tests/", "fixtures/", "benchmarks/")) and (root / name).is_file():
            (goal / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, goal / name)
    return goal


@pytest.mark.slow
def test_two_builds_have_the_same_bytes(root: Path, tmp_path: Path) -> None:
    """Of two clones with other times and modes of files, as the release builds them; pages and completion inside."""
    pytest.importorskip("setuptools")
    build = "from setuptools import build_meta as b; print(b.build_sdist('out')); print(b.build_wheel('out'))"
    found = []
    clones = [_clone(root, tmp_path / str(at)) for at in (0, 1)]  # both before a build, which takes its time
    for at, (folder, mode) in enumerate(zip(clones, (0o640, 0o664), strict=True)):
        (folder / "README.md").chmod(mode)
        os.utime(folder / "README.md", (at * 10**8, at * 10**8))
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
        subprocess.run([sys.executable, "-c", build], cwd=folder, check=True, capture_output=True, env=environment)
        found.append({path.name: path.read_bytes() for path in (folder / "out").iterdir()})
    assert len(found[0]) == 2 and found[0] == found[1]
    (sdist,), (wheel,) = ((tmp_path / "0" / "out").glob(pattern) for pattern in ("*.tar.gz", "*.whl"))
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "docs/make_man.py", "docs/completion/_tlkit", "tlkit/py.typed", "CHANGELOG.md"} <= names
    names = {name.partition("/data/share/")[2] for name in zipfile.ZipFile(wheel).namelist()}
    assert {"man/man1/tlkit.1", "man/man1/tlkit-fleet.1", "zsh/site-functions/_tlkit"} <= names
    assert {"bash-completion/completions/tlkit", "fish/vendor_completions.d/tlkit.fish"} <= names
