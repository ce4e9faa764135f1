"""``tlkit bench`` from the outside: figures, documents, exit codes, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlkit.core.measure
from tlkit.core import builtin
from tlkit.core.machine import gpu_expected
from tlkit.core.measure import bench
from tlkit.core.stats import summarize
from tlkit.errors import LoadError, UnavailableError, UsageError

on_torch = pytest.mark.skipif(sys.platform == "darwin", reason="on a Mac, Core ML runs the model")
QUICK = ("-n", "12", "--warmup", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that multiplies two matrices."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec((1, 4)), mb.TensorSpec((4, 3))])
    def product(x: Any, y: Any) -> Any:
        return mb.matmul(x=x, y=y, name="z")

    path = tmp_path_factory.mktemp("models") / "product.mlpackage"
    ct.convert(product, convert_to="mlprogram", skip_model_load=True).save(str(path))
    return path


def tlkit_bench(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tlkit", "bench", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, timeout=120, check=False
    )


@on_torch
def test_the_document_holds_the_samples_and_what_they_depend_on(model: Path) -> None:
    done = tlkit_bench(model, "--units", "cpu,ane", *QUICK, "--seed", 3, "--percentiles", "50,90,99", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    assert document["model"] == document["path"] == str(model)
    assert document["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": [1, 4], "source": "random"},
        {"name": "y", "dtype": "float32", "shape": [4, 3], "source": "random"},
    ]
    method = document["method"]
    assert (method["iterations"], method["warmup"], method["seed"]) == (12, 1, 3)
    assert (method["engine"], method["precision"], method["duration"]) == ("eager", "f16", None)
    assert {"cpu", "cores", "memory", "os", "python", "architecture"} <= document["machine"].keys()
    assert {"tlkit", "torch", "coremltools", "numpy"} <= document["versions"].keys()
    assert document["versions"]["numpy"] == np.__version__
    cpu, ane = document["rows"]
    samples = cpu["samples_ns"]
    assert (cpu["unit"], cpu["status"], len(samples)) == ("cpu", "measured", 12)
    assert cpu["summary"]["median_ns"] == statistics.median(samples)
    assert cpu["summary"]["percentiles_ns"]["p90"] == pytest.approx(np.percentile(samples, 90))
    assert cpu["summary"]["percentiles_ns"]["p99"] is None
    for fact in ("load_first_ns", "load_warm_ns", "bind_ns", "first_inference_ns", "peak_bytes", "runtime_bytes"):
        assert cpu[fact] > 0
    assert (ane["unit"], ane["status"], ane["summary"], ane["samples_ns"]) == ("ane", "absent", None, [])
    assert "Neural Engine" in ane["reason"]


@on_torch
def test_the_text_shows_the_absent_unit_without_figures(model: Path) -> None:
    done = tlkit_bench(model, "--units", "npu,cpu", *QUICK)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.startswith(("cpu ", "ane "))}
    assert rows["ane"] == ["-"] * 5
    assert all(float(cell) > 0 for cell in rows["cpu"][:3])
    assert "ane: the Neural Engine is not here" in done.stdout
    assert "p99 needs 100 samples" in done.stdout


@on_torch
def test_ane_alone_exits_with_3_and_the_reason(model: Path) -> None:
    done = tlkit_bench(model, "--units", "ane")
    assert (done.returncode, done.stdout) == (3, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("tlkit: error: the Neural Engine is not here")
    assert "--units cpu" in second


@on_torch
def test_without_units_the_machine_decides(model: Path) -> None:
    assert [row.unit for row in bench(model, iterations=1).rows] == ["cpu", "gpu"][: 1 + gpu_expected()]


@on_torch
def test_a_setting_that_fails_beside_one_that_works_exits_with_4(model: Path, tmp_path: Path) -> None:
    """A real death: the interpreter that the second child starts is killed before it answers."""
    hook = tmp_path / "sitecustomize.py"
    hook.write_text(
        "import os, signal, sys\n"
        "if 'tlkit.core._worker' in getattr(sys, 'orig_argv', ()):\n"
        f"    mark = {str(tmp_path / 'first')!r}\n"
        "    if os.path.exists(mark):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    open(mark, 'w').close()\n"
    )
    done = tlkit_bench(model, "--units", "cpu,all", *QUICK, PYTHONPATH=str(tmp_path))
    assert done.returncode == 4
    assert "all failed: killed by SIGKILL" in done.stdout
    assert "cpu" in done.stdout


@on_torch
def test_inputs_reach_every_setting(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 4), np.float32))
    done = tlkit_bench(model, "--units", "cpu", *QUICK, "--input", f"x={tmp_path / 'x.npy'}", "--json")
    assert [item["source"] for item in json.loads(done.stdout)["inputs"]] == ["given", "random"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--units", "tpu"), 2, "unknown unit 'tpu'"),
        (("--units", ","), 2, "no unit to measure"),
        (("--input", "w=1"), 2, "no input is named 'w'"),
        (("--input", "x=[1,2]"), 2, "input 'x': the shape 2 does not fit"),
        (("--percentiles", "half"), 2, "--percentiles half: not a list of numbers"),
        (("--percentiles", "101"), 2, "percentiles lie between 0 and 100"),
        (("--duration", "0"), 2, "a duration must be above zero"),
        (("--engine", "warp"), 2, "unknown engine"),
        (("-n", "0"), 2, "--iterations"),
    ],
)
def test_a_wrong_call_is_told_in_two_lines(model: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = tlkit_bench(model, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_file_exits_with_3() -> None:
    done = tlkit_bench("no/such.mlpackage")
    assert (done.returncode, done.stdout) == (3, "")
    assert "no/such.mlpackage" in done.stderr


@on_torch
def test_a_model_that_cannot_run_says_why(model: Path, tmp_path: Path) -> None:
    """Weights that are not what the program says: the child's own LoadError comes out as if it were ours."""
    import shutil

    broken = tmp_path / "broken.mlpackage"
    shutil.copytree(model, broken)
    (file,) = broken.rglob("model.mlmodel")
    file.write_bytes(file.read_bytes().replace(b"matmul", b"mysmul"))
    with pytest.raises(LoadError, match="mysmul"):
        bench(broken, units=["cpu"], iterations=1)


@on_torch
def test_an_interrupt_exits_with_130_and_leaves_nobody_behind(model: Path, tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "tlkit", "bench", str(model), "--units", "cpu", "--duration", "60"]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    child = first_child(parent.pid)
    parent.send_signal(signal.SIGINT)
    out, _ = parent.communicate(timeout=30)
    assert (parent.returncode, out) == (130, b"")
    assert not Path(f"/proc/{child}").exists()
    assert list(tmp_path.iterdir()) == []


def first_child(pid: int) -> int:
    """Wait for a process to start its first child."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
        if found.stdout.split():
            return int(found.stdout.split()[0])
        time.sleep(0.05)
    raise AssertionError("no child appeared")


def test_python_and_the_command_line_agree(model: Path) -> None:
    result = bench(model, units=["cpu"], iterations=5, warmup=0, percentiles=[50])
    (row,) = result.rows
    assert row.summary == summarize(row.samples_ns, [50])
    assert not result.failed


def test_units_are_checked_before_the_file_is_opened() -> None:
    with pytest.raises(UsageError, match="unknown unit"):
        bench("no/such.mlpackage", units=["tpu"])


@on_torch
def test_nothing_here_is_an_error_in_python(model: Path) -> None:
    with pytest.raises(UnavailableError, match="Neural Engine"):
        bench(model, units=["ane"], iterations=1)


def test_the_cache_folder_follows_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    expected = tmp_path / ("Library/Caches/tlkit" if sys.platform == "darwin" else "cache/tlkit")
    assert builtin.cache_folder() == expected
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/to/be/ignored")
    if sys.platform != "darwin":
        assert builtin.cache_folder() == tmp_path / ".cache" / "tlkit"


@pytest.mark.slow
@on_torch
def test_the_built_in_is_converted_once_and_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    heard: list[str] = []
    for _ in range(2):
        result = bench(units=["cpu"], iterations=1, warmup=0, progress=lambda what, *_: heard.append(what))
        assert (result.model, result.rows[0].status) == ("resnet50", "measured")
        assert result.inputs[0].shape == (1, 3, 224, 224)
    (package,) = (tmp_path / "tlkit").iterdir()
    assert Path(result.path) == package
    assert tlkit.core.measure.inspect(package).metadata.quantization == "F16"


@pytest.mark.macos
def test_on_a_mac_all_four_settings_are_measured(model: Path) -> None:
    rows = bench(model, iterations=5).rows
    assert [row.unit for row in rows] == ["all", "cpu", "gpu", "ane"]
    assert {row.status for row in rows} <= {"measured", "failed"}
    assert rows[1].status == "measured" and rows[1].backend == "Core ML"
