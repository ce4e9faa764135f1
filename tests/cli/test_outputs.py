"""Whatever writes, writes whole outputs, in the place of its own kind, and never over what it was given.

covers tlkit/formats/coreml/written.py
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.cli.commands import Shell
from tests.formats import packages
from tests.processes import files_no_larger_than

WORDS = {
    "edit": ("edit", "net.mlpackage", "--author", "x", "-o"),
    "remake": ("convert", "net.mlpackage", "--precision", "f32", "-o"),
    "functions": ("convert", "net.mlpackage", "--function", "b=net.mlpackage", "-o"),
    "weights": ("convert", "w.safetensors", "-o"),
    "pt2": ("convert", "net.mlpackage", "-o"),
    "onnx": ("convert", "net.mlpackage", "-o"),
    "dump": ("run", "net.mlpackage", "--input", "x=x.npy", "--dump"),
    "outputs": ("run", "net.mlpackage", "--input", "x=x.npy", "--save-outputs"),
    "save": ("bench", "net.mlpackage", "-n", "3", "--warmup", "0", "--input", "x=x.npy", "--save"),
    "report": ("bench", "net.mlpackage", "-n", "3", "--warmup", "0", "--input", "x=x.npy", "--report"),
    "convert": ("convert", "net.py:Net", "--input", "x=1x4", "-o"),
}
"""Each way to write something, without its goal."""
ENDINGS = {"weights": ".safetensors", "pt2": ".pt2", "onnx": ".onnx", "dump": "", "outputs": ".npz"}
ENDINGS |= {"save": ".json", "report": ".html"}
GIVEN = {"weights": "w.safetensors", "convert": "net.py"}


def ending(name: str) -> str:
    return ENDINGS.get(name, ".mlpackage")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an input of each kind, and the working folder."""
    monkeypatch.chdir(tmp_path)
    packages.linear(tmp_path / "net.mlpackage")
    np.save(tmp_path / "x.npy", np.ones((1, 4), np.float32))
    save_file({"w": np.ones((64, 64), np.float32), "v": np.zeros((64, 64), np.float32)}, tmp_path / "w.safetensors")
    (tmp_path / "net.py").write_text("import torch\n\n\nclass Net(torch.nn.Identity):\n    pass\n")
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    """Digests by path, links as what they say; folders count too."""
    return {
        str(item.relative_to(folder)): os.readlink(item)
        if item.is_symlink()
        else hashlib.sha256(item.read_bytes()).hexdigest()
        if item.is_file()
        else "folder"
        for item in sorted(folder.rglob("*"))
        if "__pycache__" not in item.parts
    }


def refused(tlkit: Shell, place: Path, name: str, goal: object, reason: str) -> None:
    before = contents(place)
    done = tlkit(*WORDS[name], goal, "--force")
    assert done.code == 2, done.err
    assert reason in done.err and len(done.err.splitlines()) == 2
    assert contents(place) == before


@pytest.mark.parametrize("name", [name for name in WORDS if name not in GIVEN])
def test_an_output_in_an_input(tlkit: Shell, place: Path, name: str) -> None:
    for folder in ("net.mlpackage", "net.mlpackage/Data"):
        refused(tlkit, place, name, f"{folder}/o{ending(name)}", "lies in the input")
    (place / "link").symlink_to("net.mlpackage/Data")
    refused(tlkit, place, name, f"link/o{ending(name)}", "lies in the input")


@pytest.mark.parametrize("name", [name for name in WORDS if ending(name) in (".mlpackage", "") and name not in GIVEN])
def test_an_output_around_an_input(tlkit: Shell, place: Path, name: str) -> None:
    goal = place / f"o{ending(name)}"
    goal.mkdir()
    (place / "net.mlpackage").rename(goal / "net.mlpackage")
    (place / "net.mlpackage").symlink_to(goal / "net.mlpackage")
    refused(tlkit, place, name, goal.name, "contains the input")


@pytest.mark.parametrize("name", [name for name in WORDS if name not in ("pt2", "onnx")])
def test_an_output_that_is_the_input(tlkit: Shell, place: Path, name: str) -> None:
    given = place / (
        "net.mlpackage" if ending(name) == ".mlpackage" and name != "convert" else GIVEN.get(name, "x.npy")
    )
    goal = given
    if given.is_file() and given.suffix != ending(name):
        goal = place / f"o{ending(name)}"
        goal.hardlink_to(given)
    refused(tlkit, place, name, goal.name, "is the input itself")


@pytest.mark.parametrize("name", WORDS)
def test_only_its_own_kind_is_replaced(tlkit: Shell, place: Path, name: str) -> None:
    goal = place / f"o{ending(name)}"
    folder = ending(name) in (".mlpackage", "")
    if folder:
        goal.write_text("thesis")
        refused(tlkit, place, name, goal.name, "is not a")
        goal.unlink()
        goal.mkdir()
        (goal / "thesis.txt").write_text("thesis")
        refused(tlkit, place, name, goal.name, f"{goal.name}/thesis.txt")
    else:
        packages.linear(goal)
        refused(tlkit, place, name, goal.name, "is a folder")
    (place / f"elsewhere{ending(name)}").mkdir() if folder else (place / f"elsewhere{ending(name)}").touch()
    (place / f"link{ending(name)}").symlink_to(f"elsewhere{ending(name)}")
    refused(tlkit, place, name, f"link{ending(name)}", "is a link")


@pytest.mark.parametrize("extra", ["thesis.txt", "Data/thesis.txt", "Data/com.apple.CoreML/weights/thesis.txt"])
def test_a_package_with_something_of_the_user_s_in_it(tlkit: Shell, place: Path, extra: str) -> None:
    goal = packages.linear(place / "o.mlpackage")
    (goal / ".DS_Store").touch()
    (goal / extra).write_text("thesis")
    refused(tlkit, place, "edit", "o.mlpackage", f"o.mlpackage/{extra}")
    (goal / extra).unlink()
    assert tlkit(*WORDS["edit"], "o.mlpackage", "--force").code == 0


def test_a_folder_of_dumped_values_with_something_of_the_user_s_in_it(tlkit: Shell, place: Path) -> None:
    assert tlkit(*WORDS["dump"], "values").code == 0
    (place / "values" / "thesis.npy").write_text("thesis")
    refused(tlkit, place, "dump", "values", "values/thesis.npy")
    (place / "values" / "thesis.npy").unlink()
    assert tlkit(*WORDS["dump"], "values", "--force").code == 0


@pytest.mark.parametrize("goal", [".", "..", "/", ""])
def test_what_is_no_name(tlkit: Shell, place: Path, goal: str) -> None:
    refused(tlkit, place, "dump", goal, "is not a name")


@pytest.mark.slow
def test_two_outputs_that_meet(tlkit: Shell, place: Path) -> None:
    for other, reason in (("a.npz", "the same output"), ("A.npz", "the same output"), ("a.npz/b.npz", "no folder")):
        done = tlkit(*WORDS["dump"], "a.npz", "--save-outputs", other)
        assert (done.code, reason in done.err) == (2, True), done.err
    done = tlkit(*WORDS["save"], "r.json", "--report", "r.json")
    assert (done.code, "the same output" in done.err) == (2, True)
    assert tlkit(*WORDS["save"], "r.json", "--report", "r.html").code == 0
    for words in (
        ("--show", "r.json", "--report", "r.json"),
        ("net.mlpackage", "--baseline", "r.json", "--save", "r.json"),
    ):
        done = tlkit("bench", *words, "--force")
        assert (done.code, "is the input itself" in done.err) == (2, True)


@pytest.mark.parametrize("name", [name for name in WORDS if name != "convert"])
def test_a_disk_that_is_full(tlkit: Shell, place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(place)
    told = io.StringIO()  # what is caught otherwise goes through files, too
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.setattr("sys.stderr", told)
    with files_no_larger_than(100):
        done = tlkit(*WORDS[name], f"o{ending(name)}")
    assert done.code == 4, told.getvalue()
    where = "" if name in ("save", "report") else r"o\S*: cannot write: "  # bench needs room for its processes, too
    assert re.match(rf"tlkit: error: {where}\S.*\n  .*\n$", told.getvalue())
    assert "internal error" not in told.getvalue()
    assert contents(place) == before


@pytest.mark.parametrize("name", ["edit", "weights", "outputs", "dump"])
def test_modes_are_what_the_umask_allows(tlkit: Shell, place: Path, name: str) -> None:
    before = os.umask(0o077)
    try:
        assert tlkit(*WORDS[name], f"o{ending(name)}").code == 0
    finally:
        os.umask(before)
    made = place / f"o{ending(name)}"
    assert [item for item in (made, *made.rglob("*")) if item.stat().st_mode & 0o077] == []


LINKED = "Data/com.apple.CoreML"


def test_a_linked_weights_folder_inside_the_package(tlkit: Shell, place: Path) -> None:
    """What is made holds the weights, and gives what numpy gives."""
    inner = place / "net.mlpackage" / LINKED
    (inner / "weights").rename(inner / "real")
    (inner / "weights").symlink_to("real")
    assert tlkit(*WORDS["edit"], "o.mlpackage").code == 0
    (place / "net.mlpackage").rename(place / "gone")
    done = tlkit("run", "o.mlpackage", "--input", "x=x.npy", "--json")
    expected = packages.MATRIX.astype(np.float64).sum(1) + packages.BIAS
    np.testing.assert_allclose(done.json()["outputs"][0]["values"][0], expected, rtol=1e-2)


def test_links_that_lead_out_or_back(tlkit: Shell, place: Path) -> None:
    inner = place / "net.mlpackage" / LINKED
    (inner / "round").symlink_to("..")
    before = contents(place)
    assert tlkit(*WORDS["edit"], "o.mlpackage").code == 3
    assert contents(place) == before
    (inner / "round").unlink()
    (inner / "weights").rename(place / "weights")
    (inner / "weights").symlink_to(place / "weights")
    before = contents(place)
    assert tlkit(*WORDS["edit"], "o.mlpackage").code == 3
    assert contents(place) == before


@pytest.mark.parametrize("mode", [(), ("--json",)])
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_from_the_start(place: Path, closed: str, mode: tuple[str, ...]) -> None:
    """The command does its work, says nothing of it, and does not write into its own files what it would have said."""
    words = [sys.executable, "-m", "tlkit", *WORDS["weights"], "o.safetensors", *mode]
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *words], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    words = [sys.executable, "-m", "tlkit", "inspect", "gone.mlpackage", *mode]
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *words], capture_output=True, text=True)
    assert done.returncode == 3 and "internal" not in done.stderr
    made, given = load_file(place / "o.safetensors"), load_file(place / "w.safetensors")  # which refuse a byte too many
    assert made.keys() == given.keys() and all(np.array_equal(made[name], given[name]) for name in given)
