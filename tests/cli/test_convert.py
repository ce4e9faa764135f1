"""``tlkit convert`` as a person and as a script meet it: streams, exit codes, interrupts.

Covers tlkit/host/where.py, tlkit/ports/labels.py.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tlkit.cli.app import main

SOURCES = Path(__file__).parents[1] / "core" / "sources.py"


def tlkit(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["tlkit", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_text_alone_on_stdout_and_a_bar_alone_on_the_terminal(tmp_path: Path) -> None:
    goal = tmp_path / "conv.mlpackage"
    ours, theirs = pty.openpty()
    arguments = ["convert", f"{SOURCES}:Conv", "--image", "image=1x3x8x8:scale=1/255", "-o", str(goal)]
    command = [sys.executable, "-m", "tlkit", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        screen = b""
        while True:
            try:
                screen += (part := os.read(ours, 4096))
            except OSError:  # Linux's word for the end of a terminal
                break
            if not part:
                break
        out = process.communicate()[0]
    os.close(ours)
    assert process.returncode == 0
    assert [line.split()[0] for line in out.splitlines() if line[:1].strip()] == [
        "package", "source", "made", "size", "inputs", "outputs", "ops", "verified", "time",
    ]  # fmt: skip
    assert "image: 8x8 RGB image" in out
    assert b"loading coremltools" in screen
    for noise in (b"Failed to load", b"has not been tested", b"passes/s", b"ops/s", b"Warning"):
        assert noise not in screen


def test_json_holds_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"{SOURCES}:Conv", "--input", "x=2x3x8x8", "--precision", "f32", "--json", "-q"]
    assert tlkit(monkeypatch, "convert", *arguments, "-o", str(tmp_path / "c.mlpackage")) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert captured.err == ""
    assert document["ok"] is True
    assert document["verification"]["outputs"]["output"]["cosine"] > 0.9999
    assert document["info"]["operations"]["conv"] == 1
    assert len(document["advice"]) == 2
    assert document["size"] > 1000
    assert document["timings"]["total"] > 0


def test_a_difference_is_exit_1_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = {}
    for seed in "01":
        goal = tmp_path / f"{seed}.mlpackage"
        code = tlkit(monkeypatch, "convert", f"{SOURCES}:Branch", "--input", "x=1x4", "--seed", seed, "-o", str(goal))
        captured = capsys.readouterr()
        assert ("DIFFERS" in captured.out) is (code == 1)
        assert captured.err.startswith("warning: tracing fixed")
        assert goal.is_dir()
        codes[code] = captured
    assert set(codes) == {1}  # whichever side of its choice a seed takes, the other is tried


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["{S}:Conv", "--input", "x=1x2x8x8", "-o", "{T}/a.mlpackage"], 2),
        (["{S}:Conv", "--input", "x=1x3x8x8", "-o", "{T}/a.mlmodel"], 2),
        (["{S}:Conv", "--input", "x=1x3x8x8", "-o", "{T}/no/a.mlpackage"], 2),
        (["{S}:Conv", "--input", "x=1x3x8x8", "-o", "{T}/file/a.mlpackage"], 2),
        (["{S}:Conv", "--input", "x=3x", "-o", "{T}/a.mlpackage"], 2),
        (["{S}:Conv", "--image", "x=1x3x8x8:scale=big", "-o", "{T}/a.mlpackage"], 2),
        (["{S}:nothing", "--input", "x=1", "-o", "{T}/a.mlpackage"], 3),
        (["{S}:fails", "--input", "x=1", "-o", "{T}/a.mlpackage"], 3),
        (["{T}/file", "--input", "x=1", "-o", "{T}/a.mlpackage"], 3),
        (["nope:net", "--input", "x=1", "-o", "{T}/a.mlpackage"], 3),
        (["{S}:Conv", "--input", "x=1x3x8x8", "--kwargs", "[1]", "-o", "{T}/a.mlpackage"], 2),
        (["{S}:Conv", "--input", "x=1x3x8x8", "--kwargs", "{", "-o", "{T}/a.mlpackage"], 2),
        (["{T}/a.mlpackage", "--function", "f", "-o", "{T}/b.mlpackage"], 2),
    ],
)
def test_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
) -> None:
    (tmp_path / "file").write_text("text")
    filled = [part.replace("{S}", str(SOURCES)).replace("{T}", str(tmp_path)) for part in arguments]
    assert tlkit(monkeypatch, "convert", *filled) == code
    captured = capsys.readouterr()
    error, hint = captured.err.splitlines()
    assert error.startswith("tlkit: error: ")
    assert hint.startswith("  ")
    assert captured.out == ""
    assert os.listdir(tmp_path) == ["file"]


def test_a_type_of_another_format_is_said_to_be_none_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    goal = tmp_path / "a.mlpackage"
    assert tlkit(monkeypatch, "convert", f"{SOURCES}:Conv", "--quantize", "q8_0", "-o", str(goal)) == 2
    assert "write int8 or int4" in capsys.readouterr().err


def elsewhere(path: Path, goal: Path) -> subprocess.CompletedProcess[str]:
    """Convert in a process that finds the packages in ``path`` before all others."""
    command = [sys.executable, "-m", "tlkit", "convert", f"{SOURCES}:Conv", "--input", "x=1x3x8x8", "-o", str(goal)]
    places = os.pathsep.join(map(str, (path, SOURCES.parents[2])))
    environment = os.environ | {"PYTHONPATH": places}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_coremltools_without_its_libraries_is_named(tmp_path: Path) -> None:
    (tmp_path / "coremltools").mkdir()
    (tmp_path / "coremltools" / "__init__.py").write_text("raise ImportError('nothing in it')")
    ended = elsewhere(tmp_path, tmp_path / "a.mlpackage")
    assert ended.returncode == 3
    error, hint = ended.stderr.splitlines()
    assert "lacks its native libraries" in error and "wheel" in hint


@pytest.mark.slow
def test_a_newer_torch_is_one_note(tmp_path: Path) -> None:
    (tmp_path / "torch-99.1.dist-info").mkdir()
    (tmp_path / "torch-99.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 99.1\n")
    ended = elsewhere(tmp_path, tmp_path / "a.mlpackage")
    assert ended.returncode == 0
    (line,) = ended.stderr.splitlines()
    assert line.startswith("note: torch 99.1 is newer than the last one tested with tlkit")


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_signal_ends_it_even_where_it_is_swallowed(tmp_path: Path, number: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "tlkit", "convert", f"{SOURCES}:Interrupted", "--input", "x=1x4"]
    environment = os.environ | {"TLKIT_TEST_SIGNAL": str(int(number))}
    ended = subprocess.run(
        [*command, "-o", str(tmp_path / "a.mlpackage")], env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", "")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("as_json", [False, True])
def test_what_coremltools_cannot_take_is_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    goal = tmp_path / "a.mlpackage"
    arguments = [f"{SOURCES}:Unsupported", "--input", "x=3x3", "-o", str(goal), *(["--json"] if as_json else [])]
    assert tlkit(monkeypatch, "convert", *arguments) == 4
    captured = capsys.readouterr()
    assert captured.err.startswith("tlkit: error: coremltools ")
    assert not goal.exists()
    if as_json:
        document = json.loads(captured.out)
        assert document["ok"] is False
        (item,) = document["unsupported"]
        assert (item["op"], item["count"]) == ("linalg_svdvals", 1)
        assert item["places"][0]["line"].startswith("sources.py:")
    else:
        header, row = captured.out.splitlines()
        assert header.split() == ["torch", "op", "count", "where"]
        assert row.split()[:2] == ["linalg_svdvals", "1"]


def test_functions_are_combined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        arguments = [f"{SOURCES}:Conv", "--input", "x=1x3x8x8", "-o", str(tmp_path / f"{name}.mlpackage"), "-q"]
        assert tlkit(monkeypatch, "convert", *arguments) == 0
    capsys.readouterr()
    second, both = f"second={tmp_path / 'b.mlpackage'}", str(tmp_path / "both.mlpackage")
    arguments = [str(tmp_path / "a.mlpackage"), "--function", second, "-o", both, "--json"]
    assert tlkit(monkeypatch, "convert", *arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert (list(document["functions"]), document["passed"]) == (["main", "second"], True)
