"""``tlkit bench`` from the outside: figures, documents, exit codes, and nothing left behind.

Covers tlkit/cli/options/bench.py, tlkit/core/bench/bench.py, tlkit/core/bench/child.py, tlkit/core/bench/worker.py,
tlkit/core/bench/subject.py, tlkit/core/bench/take.py, tlkit/core/convert/builtin.py.
"""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import tlkit.core.bench.bench
from tests.cli.commands import Shell
from tlkit.core.bench.bench import _processes, bench
from tlkit.core.bench.saved import append, load_run
from tlkit.core.bench.stats import summarize
from tlkit.core.bench.subject import make_source
from tlkit.errors import LoadError, UnavailableError, UsageError
from tlkit.host.machine import cache_folder, gpu_expected

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


@pytest.fixture(scope="module")
def measured(model: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One run that asks for much: two units, ten and some samples, two callers, operations, saved and reported."""
    folder = tmp_path_factory.mktemp("run")
    flags = ("--units", "npu,cpu", *QUICK, "--seed", 3, "--percentiles", "50,90,99", "--concurrency", 2, "--per-op")
    files = ("--save", folder / "run.json", "--report", folder / "run.html")
    done = tlkit_bench(model, *flags, *files, "--no-power")
    return SimpleNamespace(done=done, saved=folder / "run.json", report=folder / "run.html")


@on_torch
def test_the_document_holds_the_samples_and_what_they_depend_on(model: Path, measured: SimpleNamespace) -> None:
    document = json.loads(measured.saved.read_text())
    assert (document["schema_version"], document["run_version"]) == (1, 3)
    assert document["models"] == [{"name": "product", "asked": str(model), "path": str(model), "kind": "coreml"}]
    method = document["method"]
    assert (method["iterations"], method["warmup"], method["seed"]) == (12, 1, 3)
    assert (method["engine"], method["precision"], method["duration"]) == ("auto", "f16", None)
    assert {"cpu", "cores", "memory", "os", "python", "architecture"} <= document["machine"].keys()
    assert {"tlkit", "torch", "coremltools", "numpy"} <= document["versions"].keys()
    assert document["versions"]["numpy"] == np.__version__
    ane, cpu = document["rows"]
    assert cpu["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": [1, 4], "source": "random"},
        {"name": "y", "dtype": "float32", "shape": [4, 3], "source": "random"},
    ]
    samples = cpu["samples_ns"]
    assert (cpu["unit"], cpu["status"], len(samples)) == ("cpu", "measured", 12)
    assert cpu["summary"]["median_ns"] == statistics.median(samples)
    assert cpu["summary"]["percentiles_ns"]["p90"] == pytest.approx(np.percentile(samples, 90))
    assert cpu["summary"]["percentiles_ns"]["p99"] is None
    for fact in ("load_first_ns", "load_warm_ns", "bind_ns", "convert_ns", "timer_ns", "first_inference_ns"):
        assert cpu[fact] > 0
    assert 0 < cpu["runtime_bytes"] <= cpu["peak_bytes"]
    assert cpu["trust"]["level"] in ("fair", "poor")  # twelve samples are never good
    assert cpu["load"]["callers"] == 2
    assert {op["type"] for op in cpu["placement"]["ops"]} == {"matmul", "cast"}
    assert sum(op["share"] for op in cpu["placement"]["ops"]) == pytest.approx(1)
    assert (ane["unit"], ane["status"], ane["summary"], ane["samples_ns"]) == ("ane", "absent", None, [])
    assert "Neural Engine" in ane["reason"]


@on_torch
def test_the_text_shows_the_absent_unit_without_figures(measured: SimpleNamespace) -> None:
    done = measured.done
    assert (done.returncode, done.stderr) == (3, "")  # npu was asked for, and is not here
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("cpu ", "ane "))]
    assert rows[0] == ["ane", *["-"] * 8]
    assert all(float(cell) > 0 for cell in rows[1][1:7])
    assert "ane: the Neural Engine is not here" in done.stdout
    assert "p99 needs 100 samples" in done.stdout
    assert "trust in cpu: " in done.stdout and "only 12 samples" in done.stdout
    assert "power n/a: " in done.stdout


@on_torch
def test_the_report_is_one_page_of_its_own(measured: SimpleNamespace) -> None:
    page = measured.report.read_text()
    assert page.startswith("<!doctype html>") and "http" not in page
    assert page.count("<svg") >= 2 and 'class="bars"' in page and "matmul" in page


@on_torch
def test_a_saved_run_is_shown_again_and_compared(tlkit: Shell, measured: SimpleNamespace) -> None:
    shown = tlkit("bench", "--show", measured.saved)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out == measured.done.stdout
    both = tlkit("bench", "--show", measured.saved, measured.saved)
    assert "Against the first run" in both.out and "cpu over cpu: 1.00x" in both.out
    assert "no difference shown" in both.out


@on_torch
def test_runs_are_kept_side_by_side(tlkit: Shell, measured: SimpleNamespace, tmp_path: Path) -> None:
    text = measured.saved.read_text()
    for _ in range(2):
        append(tmp_path / "runs.db", load_run(measured.saved), text)
    both = tlkit("bench", "--show", tmp_path / "runs.db", "--since", "1d")
    assert both.code == 0 and "Against the first run" in both.out
    assert tlkit("bench", "--show", measured.saved, "--since", "1d").code == 2
    assert tlkit("bench", "--since", "1d").code == 2
    assert (
        "10 days" not in both.out and tlkit("bench", "--show", tmp_path / "runs.db", "--since", "2999-01-01").code == 3
    )


@on_torch
def test_other_programs_read_it(tlkit: Shell, measured: SimpleNamespace) -> None:
    ane, cpu = csv.DictReader(io.StringIO(tlkit("bench", "--show", measured.saved, "--format", "csv").out))
    document = json.loads(measured.saved.read_text())
    assert float(cpu["median_ns"]) == document["rows"][1]["summary"]["median_ns"]
    assert (ane["status"], ane["median_ns"]) == ("absent", "")
    assert not [name for name in cpu if name.startswith("watts")]  # nothing was measured
    suite = ElementTree.fromstring(tlkit("bench", "--show", measured.saved, "--format", "junit").out)
    assert suite.attrib["tests"] == "2" and suite.attrib["skipped"] == "1"
    assert "| cpu |" in tlkit("bench", "--show", measured.saved, "--format", "md").out


@on_torch
@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--max-latency", "1ns"), 1, "FAIL latency of cpu"),
        (("--max-latency", "1h"), 2, "not a quantity with its unit"),
        (("--max-latency", "100s", "--at", "p90"), 1, "cannot be computed from 12 samples"),
        (("--max-latency", "100s", "--at", "p50", "--max-memory", "64GB", "--max-load", "1000s"), 0, "pass load"),
        (("--max-memory", "1MB"), 1, "FAIL memory of cpu"),
        (("--max-regression", "5%"), 2, "needs something to compare with"),
        (("--format", "yaml"), 2, "formats are text"),
    ],
)
def test_limits_decide_the_exit_code(
    tlkit: Shell, measured: SimpleNamespace, flags: tuple[str, ...], code: int, said: str
) -> None:
    if flags[-1] == "p90":
        flags = (*flags[:-1], "p99")
    outcome = tlkit("bench", "--show", measured.saved, *flags)
    assert outcome.code == code
    assert said in outcome.out + outcome.err


@on_torch
def test_a_baseline_of_its_own_is_kept_to(tlkit: Shell, measured: SimpleNamespace) -> None:
    outcome = tlkit("bench", "--show", measured.saved, "--baseline", measured.saved, "--max-regression", "5%")
    assert outcome.code == 0 and "pass regression of cpu: +0.0%" in outcome.out


@on_torch
def test_a_baseline_of_other_rows_is_exit_2(tlkit: Shell, measured: SimpleNamespace, tmp_path: Path) -> None:
    """Nothing was compared: a gate in CI must not pass for that."""
    other = json.loads(Path(measured.saved).read_text())
    for item in other["rows"]:
        item["unit"], item["label"] = "gpu", "other/gpu"
    (tmp_path / "other.json").write_text(json.dumps(other))
    outcome = tlkit("bench", "--show", measured.saved, "--baseline", tmp_path / "other.json", "--max-regression", "5%")
    assert outcome.code == 2 and "--max-regression compared nothing" in outcome.err
    assert "the baseline has no such row" in outcome.out  # the table is shown all the same


@on_torch
def test_ane_alone_exits_with_3_and_the_reason(tlkit: Shell, model: Path) -> None:
    done = tlkit("bench", model, "--units", "ane")
    assert (done.code, done.out) == (3, "")
    first, second = done.err.splitlines()
    assert first.startswith("tlkit: error: the Neural Engine is not here")
    assert "--units cpu" in second and "--estimate" in second


@pytest.mark.slow
@on_torch
def test_models_sources_and_sweeps_are_rows(model: Path, tmp_path: Path) -> None:
    """A package beside a module of the same shapes; threads swept: each row named, compared with the first."""
    (tmp_path / "net.py").write_text(
        "import torch\nclass Product(torch.nn.Module):\n    def forward(self, x, y):\n        return x @ y\n"
    )
    source = f"{tmp_path / 'net.py'}:Product"
    result = bench([model, source], units=["cpu"], iterations=4, warmup=0, threads=[1, 2], power=False)
    names = [f"product/cpu/threads={n}" for n in (1, 2)] + [f"{source}/cpu/threads={n}" for n in (1, 2)]
    assert [row.name for row in result.rows] == names
    assert [row.threads for row in result.rows] == [1, 2, 1, 2]
    assert {row.status for row in result.rows} == {"measured"}
    assert [found.against for found in result.comparisons] == names[:1] * 3
    assert "as written" in result.rows[2].backend and result.rows[2].inputs == result.rows[0].inputs


@on_torch
def test_without_units_the_machine_decides() -> None:
    assert list(tlkit.core.bench.bench.default_units()) == ["cpu", "gpu"][: 1 + gpu_expected()]


@pytest.mark.slow
@on_torch
def test_a_setting_that_fails_beside_one_that_works_exits_with_4(model: Path, tmp_path: Path) -> None:
    """A real death: the interpreter that the second child starts is killed before it answers."""
    hook = tmp_path / "sitecustomize.py"
    hook.write_text(
        "import os, signal, sys\n"
        "if 'tlkit.core.bench.worker' in getattr(sys, 'orig_argv', ()):\n"
        f"    mark = {str(tmp_path / 'first')!r}\n"
        "    if os.path.exists(mark):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    open(mark, 'w').close()\n"
    )
    done = tlkit_bench(model, "--units", "cpu,all", *QUICK, PYTHONPATH=str(tmp_path))
    assert done.returncode == 4
    assert "all failed: killed by SIGKILL" in done.stdout
    assert "cpu" in done.stdout


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
        (("--batch", "5"), 2, "no input takes a batch of 5"),
        (("--batch", "many"), 2, "--batch many: not a list of numbers"),
        (("--shape", "x=1,5"), 2, "input 'x': the shape 1x5 does not fit"),
        (
            ("--shape", "x=1,4", "--shape", "x=1,4", "--shape", "y=4,3", "--shape", "y=4,3", "--shape", "y=4,3"),
            2,
            "--shape",
        ),
        (("--against", "gpu"), 2, "--against gpu: no such row"),
        (("--max-latency", "5ms", "--at", "p99", "-n", "10"), 2, "p99 needs 100 samples"),
        (("--baseline", "no.json"), 3, "no.json: No such file"),
    ],
)
def test_a_wrong_call_is_told_in_two_lines(
    tlkit: Shell, model: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = tlkit("bench", model, *arguments)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_missing_file_exits_with_3(tlkit: Shell) -> None:
    done = tlkit("bench", "no/such.mlpackage")
    assert (done.code, done.out) == (3, "")
    assert "no/such.mlpackage" in done.err


def test_an_output_that_exists_is_refused_before_measuring(tlkit: Shell, model: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("")
    done = tlkit("bench", model, "--save", tmp_path / "run.json")
    assert (done.code, done.out) == (2, "")
    assert "exists already" in done.err


@pytest.mark.slow
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


@pytest.mark.slow
@on_torch
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_shows_what_was_measured_and_leaves_nobody_behind(
    model: Path, tmp_path: Path, number: int, code: int
) -> None:
    """Early, it exits with the signal's code and no answer; once there are samples, with that and the answer so far."""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "tlkit", "bench", str(model), "--units", "cpu", "--duration", "60", "--json"]
    for sampled in (False, True):
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        child = first_child(parent.pid)
        if sampled:
            spin(child, seconds=10.0)
        parent.send_signal(number)
        out, _ = parent.communicate(timeout=30)
        assert parent.returncode == code
        assert not Path(f"/proc/{child}").exists()
        assert list(tmp_path.iterdir()) == []
        if sampled:
            (row,) = json.loads(out)["rows"]
            assert row["status"] == "partial" and row["summary"]["count"] == len(row["samples_ns"]) > 0
        else:
            assert out == b""


def spin(pid: int, seconds: float) -> None:
    """Wait until a process has used so much processor time: it is past its imports and at its samples."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK") >= seconds + 2:
            return
        time.sleep(0.1)


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
    given = {"x": np.zeros((1, 4), np.float32)}
    result = bench(model, units=["cpu"], iterations=5, warmup=0, percentiles=[50], inputs=given)
    (row,) = result.rows
    assert [item.source for item in row.inputs] == ["given", "random"]
    assert row.summary == summarize(row.samples_ns, [50])
    assert not result.failed


@pytest.mark.parametrize(
    ("iterations", "duration", "processes"), [(9, None, 1), (29, None, 1), (30, None, 3), (100, None, 5), (1, 4.5, 4)]
)
def test_five_processes_unless_each_had_too_little_to_do(
    iterations: int, duration: float | None, processes: int
) -> None:
    assert _processes(iterations, duration) == processes


def test_a_source_is_not_for_the_neural_engine() -> None:
    with pytest.raises(UnavailableError, match="PyTorch does not reach the Neural Engine"):
        make_source(path="net.py:Net", unit="ane")


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
    assert cache_folder() == expected
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/to/be/ignored")
    if sys.platform != "darwin":
        assert cache_folder() == tmp_path / ".cache" / "tlkit"


@pytest.mark.slow
@on_torch
def test_the_built_in_is_converted_once_and_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    heard: list[str] = []
    for _ in range(2):
        result = bench(units=["cpu"], iterations=1, warmup=0, progress=lambda what, *_: heard.append(what))
        assert (result.models[0].asked, result.rows[0].status) == ("resnet50", "measured")
        assert result.rows[0].inputs[0].shape == (1, 3, 224, 224)
    (package,) = (tmp_path / "tlkit").glob("*.mlpackage")
    assert Path(result.models[0].path) == package
    assert tlkit.inspect(package).metadata.quantization == "F16"


@pytest.mark.macos
def test_on_a_mac_all_four_settings_are_measured(model: Path) -> None:
    rows = bench(model, iterations=5).rows
    assert [row.unit for row in rows] == ["all", "cpu", "gpu", "ane"]
    assert {row.status for row in rows} <= {"measured", "failed"}
    assert rows[1].status == "measured" and rows[1].backend == "Core ML"
    assert rows[1].placement is not None and set(rows[1].placement.counts) <= {"cpu", "unknown"}
