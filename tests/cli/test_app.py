"""The table of contents: help, version, what is imported, and what becomes of errors.

Covers tlkit/cli/options/shared.py, tlkit/errors.py.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import Shell
from tests.formats import packages
from tlkit import __version__
from tlkit.cli import app, inspect
from tlkit.errors import LoadError, TlkitError, UnavailableError, UsageError

HEAVY = {"torch", "coremltools", "numpy", "PIL", "scipy", "pydantic"}


def _imports(*words: str) -> tuple[set[str], str]:
    """Run a command in a fresh interpreter; return the top-level modules it imported, and its stdout."""
    code = (
        "import sys\n"
        f"sys.argv = {['tlkit', *words]!r}\n"
        "from tlkit.cli.app import main\n"
        "try:\n    main()\n"
        "except SystemExit as ended:\n"
        "    sys.stderr.write(repr(sorted({name.partition('.')[0] for name in sys.modules})))\n"
        "    raise\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(eval(done.stderr.splitlines()[-1])), done.stdout


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["inspect", "--help"], ["run", "--help"], ["convert", "--help"], ["bench", "--help"]],
)
def test_help_and_version_import_nothing_heavy(words: list[str]) -> None:
    modules, out = _imports(*words)
    assert out and not modules & HEAVY


@pytest.mark.parametrize("flags", [[], ["--json"], ["--ops"], ["--weights"], ["--placement", "--per-op"]])
def test_inspect_imports_nothing_heavy(tmp_path: Path, flags: list[str]) -> None:
    path = packages.classifier(tmp_path / "net.mlpackage")
    modules, out = _imports("inspect", str(path), *flags)
    assert "linear" in out or "F16" in out
    assert not modules & HEAVY


def test_tlkit_itself_imports_nothing_heavy() -> None:
    code = "import sys, tlkit; tlkit.LoadError; tlkit.TensorSpec; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not HEAVY & {name.partition(".")[0] for name in eval(done.stdout)}


def test_help_names_every_command(tlkit: Shell) -> None:
    outcome = tlkit("--help")
    assert (outcome.code, outcome.err) == (0, "")
    for name, summary in app.COMMANDS.items():
        assert f"  {name} " in outcome.out and summary in outcome.out


@pytest.mark.parametrize("name", app.COMMANDS)
def test_each_command_has_the_shared_flags(tlkit: Shell, name: str) -> None:
    outcome = tlkit(name, "--help")
    assert outcome.code == 0
    for flag in ("--json", "-q", "-v"):
        assert flag in outcome.out


def test_version(tlkit: Shell) -> None:
    assert tlkit("--version").out == f"tlkit {__version__}\n"


@pytest.mark.parametrize(
    "words", [["frob"], ["inspect"], ["inspect", "a", "b"], ["inspect", "--frob"], ["run", "a", "--seed", "x"]]
)
def test_usage_errors_exit_with_2_and_speak_on_stderr(tlkit: Shell, words: list[str]) -> None:
    outcome = tlkit(*words)
    assert (outcome.code, outcome.out) == (2, "")
    assert "error" in outcome.err.lower()


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UsageError("u", "do v"), 2, "tlkit: error: u\n  do v\n"),
        (LoadError("l"), 3, "tlkit: error: l\n"),
        (UnavailableError("n"), 3, "tlkit: error: n\n"),
        (TlkitError("t"), 4, "tlkit: error: t\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/out"), 4, "tlkit: error: /out: No space left on device\n"),
        (MemoryError("no 9 GiB"), 4, "tlkit: error: not enough memory: no 9 GiB\n"),
        (ZeroDivisionError("x"), 4, "tlkit: error: internal error: ZeroDivisionError: x\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_every_error_has_its_code_and_its_line(
    tlkit: Shell,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    says: str,
    flags: list[str],
) -> None:
    def fail(json: inspect.options.Json = False) -> None:
        inspect.output.start(json=json)
        raise error

    monkeypatch.setattr(inspect, "inspect", fail)
    outcome = tlkit("inspect", *flags)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith(says) and "Traceback" not in outcome.err
    assert outcome.err.count("\n") <= 2


def test_debugging_shows_the_traceback(tlkit: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" not in tlkit("inspect", "nothing-here").err
    assert "Traceback" in tlkit("inspect", "nothing-here", "-vv").err
    monkeypatch.setenv("TLKIT_DEBUG", "1")
    assert "Traceback" in tlkit("inspect", "nothing-here").err


def test_names_that_the_terminal_cannot_write_do_no_harm(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "größe-模型.mlpackage")
    done = subprocess.run(
        [sys.executable, "-c", "from tlkit.cli.app import main; main()", "inspect", str(path)],
        env={"PYTHONIOENCODING": "ascii", "PATH": "", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "") and "gr\\xf6" in done.stdout


def test_public_names_are_there() -> None:
    import tlkit as package

    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'frob'"):
        _ = package.frob


def test_the_json_of_an_answer_is_one_document_whatever_the_notes(tlkit: Shell, tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    (path / "Data/com.apple.CoreML/weights/weight.bin").unlink()
    outcome = tlkit("inspect", path, "--json")
    assert outcome.code == 0 and "warning: " in outcome.err
    assert json.loads(outcome.out)["notes"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("tlkit run x --engine ", ["auto", "eager", "compile", "openvino", "onnxruntime", "llama.cpp"]),
        ("tlkit run x --precision f", ["f16", "f32"]),
        ("tlkit inspect x --units ane,g", ["ane,gpu"]),
        ("tlkit bench x --format js", ["json", "jsonl"]),
    ],
)
def test_values_are_completed(line: str, offered: list[str]) -> None:
    words = line.split(" ")
    found = os.environ | {"_TLKIT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    code = "import sys; sys.argv = ['tlkit']; from tlkit.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=found, capture_output=True, text=True, check=False)
    assert done.stdout.split() == offered


def test_targets_that_are_completed_are_those_that_there_are() -> None:
    from tlkit.cli.convert import TARGETS
    from tlkit.mil.opsets import RELEASES

    assert list(TARGETS) == [release.system for release in RELEASES if release.opset]


def test_h_is_help(tlkit: Shell) -> None:
    assert tlkit("run", "-h").out == tlkit("run", "--help").out != ""
