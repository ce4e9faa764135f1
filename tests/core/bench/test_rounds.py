"""Children that measure: taking turns, dying, hanging, leaving nothing behind.

Covers tlkit/core/bench/rows.py.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tlkit.core.bench.child import Child
from tlkit.core.bench.rounds import measure
from tlkit.core.bench.rows import Method, Row, Setting
from tlkit.errors import ExecutionError, TlkitError, UnavailableError

HERE = Path(__file__).parents[1]
QUICK = Method(iterations=20, warmup=0, power=False, spacing=0)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child imports what its parent could: put this folder's subjects there."""
    monkeypatch.syspath_prepend(str(HERE))


def setting(kind: str, **arguments: object) -> Setting:
    return Setting(kind.lower(), f"bench_subjects:{kind}", dict(arguments))


def run(*settings: Setting, method: Method = QUICK) -> tuple[tuple[Row, ...], tuple[TlkitError, ...]]:
    found = measure(settings, method)
    return found.rows, found.errors


def test_a_row_holds_what_was_measured() -> None:
    (row,), errors = run(setting("slow"))
    assert errors == ()
    assert (row.status, row.reason, row.backend, row.device, row.threads) == ("measured", "", "busy", "cpu", 1)
    assert len(row.samples_ns) == 20 == row.summary.count
    assert min(row.samples_ns) > 1000  # adding 100,000 numbers takes more than a microsecond on any machine
    for fact in (row.load_first_ns, row.load_warm_ns, row.bind_ns, row.first_inference_ns):
        assert fact > 0
    assert 1 << 20 < row.runtime_bytes <= row.peak_bytes


def test_settings_take_turns(tmp_path: Path) -> None:
    log = tmp_path / "log"
    (one, two), _ = run(setting("Busy", log=str(log)), setting("Busy", log=str(log)))
    events = [line.split() for line in log.read_text().splitlines()]
    first, second = dict.fromkeys(pid for _, pid in events)
    assert first != second
    for pid in (first, second):
        mine = [what for what, who in events if who == pid]
        # a load, the first inference, 10 turns of 2 to settle and 2 timed, the warm load
        assert mine == ["load", *["call"] * (1 + 10 * 4), "load"]
    turns = [pid for what, pid in events if what == "call"][2:]  # after both have started
    pairs = [turns[start : start + 8] for start in range(0, len(turns), 8)]  # whole turns; neither first more often
    assert sorted(pairs) == sorted([[first] * 4 + [second] * 4, [second] * 4 + [first] * 4] * 5)
    assert len(one.samples_ns) == len(two.samples_ns) == 20
    assert one.turns == two.turns == ((2,) * 10,)


def test_no_collection_comes_between_settling_and_timing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(setting("Collected", log=str(log)))
    counts = [int(line.split()[0]) for line in log.read_text().splitlines() if line[0].isdigit()][1:]
    turns = [counts[start : start + 4] for start in range(0, 40, 4)]  # 2 calls to settle and 2 timed, ten times
    assert [len(set(turn)) for turn in turns] == [1] * 10
    assert len({turn[0] for turn in turns}) == 10


def test_a_duration_counts_measured_time() -> None:
    (row,), _ = run(setting("slow"), method=Method(warmup=0, duration=0.2, power=False, spacing=0))
    total = sum(row.samples_ns)
    assert 0.2e9 <= total < 0.2e9 + max(row.samples_ns)


def test_what_a_library_prints_does_not_reach_the_protocol() -> None:
    (row,), errors = run(setting("Noisy"))
    assert errors == () and row.status == "measured"


def test_progress_ends_at_the_whole() -> None:
    heard: list[tuple[str, float, float]] = []
    measure((setting("Busy"), setting("Absent")), QUICK, lambda *step: heard.append(step))
    assert heard[-2][0].startswith("busy: measuring, median") and heard[-2][1:] == (20, 20)
    assert heard[-1] == ("busy: loading again", 20, 20)


@pytest.mark.parametrize(
    ("kind", "arguments", "status", "reason"),
    [
        ("Killed", {"at": 1}, "failed", "killed by SIGKILL"),
        ("Killed", {"at": 1, "signal_number": int(signal.SIGABRT)}, "failed", "killed by SIGABRT"),
        ("Killed", {"at": 11}, "failed", "killed by SIGKILL (after 4 samples)"),
        ("Exits", {}, "failed", "its process ended with exit code 7"),
        ("Absent", {}, "absent", "no such unit"),
        ("Breaks", {}, "failed", "RuntimeError: weights are upside down"),
    ],
)
def test_a_setting_that_fails_is_a_row_and_the_others_go_on(
    kind: str, arguments: dict[str, object], status: str, reason: str
) -> None:
    (bad, good), (error,) = run(setting(kind, **arguments), setting("Busy"))
    assert (bad.status, bad.reason, bad.summary) == (status, reason, None)
    assert (good.status, len(good.samples_ns)) == ("measured", 20)
    assert isinstance(error, UnavailableError if status == "absent" else ExecutionError)


def test_last_words_of_a_dead_child_are_told() -> None:
    _, (error,) = run(setting("Exits"))
    assert error.hint == "its last output: the driver said no"


def test_a_hang_ends_at_the_timeout_and_takes_its_helpers_along(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    quick = Method(iterations=5, warmup=0, power=False, spacing=0)
    start = time.monotonic()
    run(setting("Busy"), method=quick)
    # As long as a healthy setting takes on this machine at this moment, and more: it must not run into the limit.
    limit = float(max(2, math.ceil(4 * (time.monotonic() - start))))
    method = dataclasses.replace(quick, timeout=limit)
    (bad, good), _ = run(setting("Hangs", pids=str(pids)), setting("Busy"), method=method)
    assert bad.reason == f"no answer within {limit:g} s (first inference); its process was stopped"
    assert good.status == "measured"
    for pid in pids.read_text().split():
        assert gone(int(pid))


def test_no_child_is_left_when_the_parent_is_killed(tmp_path: Path) -> None:
    """SIGKILL gives the parent no chance to tidy up: the child must see for itself, in the middle of a call."""
    pids = tmp_path / "pids"
    code = (
        "from tlkit.core.bench.rounds import measure\nfrom tlkit.core.bench.rows import Method, Setting\n"
        f"measure([Setting('x', 'bench_subjects:Hangs', {{'pids': {str(pids)!r}}})], Method())"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(HERE)})
    try:
        wait_for(pids.exists)
    finally:
        parent.kill()
        parent.wait()
    for pid in pids.read_text().split():
        assert gone(int(pid))


def test_an_interrupt_ends_the_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "from tlkit.core.bench.rounds import measure\nfrom tlkit.core.bench.rows import Method, Setting\n"
        f"measure([Setting('x', 'bench_subjects:Hangs', {{'pids': {str(pids)!r}}})], Method())"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(HERE)}, stderr=subprocess.PIPE
    )
    wait_for(pids.exists)
    parent.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in parent.communicate(timeout=20)[1]
    for pid in pids.read_text().split():
        assert gone(int(pid))


def test_threads_reach_the_child_before_its_libraries() -> None:
    with Child(timeout=60, threads=3) as child:
        child.ask("prepare", factory="bench_subjects:Environment", arguments={})
        assert child.ask("load")["threads"] == 3


def test_the_current_folder_is_not_imported_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('imported a stranger')\n")
    monkeypatch.chdir(tmp_path)
    (row,), errors = run(setting("Busy"))
    assert errors == () and row.status == "measured"


def gone(pid: int) -> bool:
    """Whether no such process runs within a few seconds (a zombie whose parent is slow to look counts as gone)."""

    def ended() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return subprocess.run(["ps", "-p", str(pid)], capture_output=True, check=False).returncode != 0

    return wait_for(ended)


def wait_for(condition: object, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_a_child_told_to_quit_runs_its_exit_handlers(tmp_path: Path) -> None:
    mark = tmp_path / "left"
    with Child(timeout=60) as child:
        child.ask("prepare", factory="bench_subjects:Tidy", arguments={"mark": str(mark)})
    assert mark.read_text() == "tidy"


def test_memory_is_the_childs_own() -> None:
    """On Linux a process inherits its parent's ru_maxrss through exec; 300 MB here must not show there."""
    ballast = bytearray(os.urandom(1 << 20) * 300)
    (row,), _ = run(setting("Busy"))
    assert row.peak_bytes < len(ballast) / 2


def test_warm_up_goes_on_until_windows_agree_and_ends_within_its_bound(tmp_path: Path) -> None:
    method = Method(iterations=3, warmup=2, power=False, spacing=0)
    (steady, restless), _ = run(setting("slow"), setting("Restless"), method=method)
    assert steady.warmup_calls >= 2 + 3 * 2  # what was asked for, then three windows at the least
    assert (restless.settled, restless.warmup_calls) == (False, 2 + 12 * 2)


def test_each_of_three_comes_as_often_in_each_place_and_after_each_other(tmp_path: Path) -> None:
    log = tmp_path / "log"
    method = Method(iterations=6, warmup=0, power=False, spacing=0)
    run(*[setting("Busy", log=str(log))] * 3, method=method)  # six turns of 2 to settle and 1 timed
    calls = [pid for what, pid in (line.split() for line in log.read_text().splitlines()) if what == "call"][3::3]
    turns = [tuple(calls[start : start + 3]) for start in range(0, len(calls), 3)]
    assert sorted(turns) == sorted(itertools.permutations(dict.fromkeys(calls)))


def test_processes_share_the_samples_one_after_another(tmp_path: Path) -> None:
    """In rounds of one process a setting; only the first of a setting is asked for what is no sample."""
    log = tmp_path / "log"
    method = Method(iterations=20, warmup=0, processes=2, power=False, spacing=0)
    rows, _ = run(setting("Busy", log=str(log)), setting("Busy", log=str(log)), method=method)
    events = [line.split() for line in log.read_text().splitlines()]
    one, two, three, four = dict.fromkeys(pid for _, pid in events)
    loads = [pid for what, pid in events if what == "load"]
    assert loads == [one, two, one, two, three, four]  # the second round begins when the first one has ended
    for row in rows:
        assert row.turns == ((1,) * 10,) * 2
        assert len(row.samples_ns) == 20


def test_a_setting_that_failed_once_is_not_started_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    method = Method(iterations=20, warmup=0, processes=3, power=False, spacing=0)
    (absent, good), _ = run(setting("Absent"), setting("Busy", log=str(log)), method=method)
    assert absent.status == "absent" and good.status == "measured"
    assert len({line.split()[1] for line in log.read_text().splitlines()}) == 3


def test_callers_at_once_are_counted_together() -> None:
    (row,), _ = run(setting("Sleeps"), method=Method(iterations=5, warmup=0, concurrency=4, power=False, spacing=0))
    load = row.load
    assert load.callers == 4
    assert load.throughput == pytest.approx(load.summary.count / load.seconds)
    assert load.throughput > 2 * row.summary.throughput  # sleepers do not stand in each other's way


def test_a_calls_own_clock_is_kept_beside_ours() -> None:
    (row,), _ = run(setting("OnDevice"), method=Method(iterations=6, warmup=0, power=False, spacing=0))
    assert row.device_ns == (1_000_000,) * 6
    assert row.device_summary.median_ns == 1_000_000
    assert row.summary.median_ns != 1_000_000


def test_timing_and_input_conversion_are_measured_apart() -> None:
    (row,), _ = run(setting("slow"))
    assert 0 < row.timer_ns < min(row.samples_ns)
    assert row.convert_ns > 0


def test_turns_are_spaced(tmp_path: Path) -> None:
    """Ten turns of microseconds would be over in a moment; nine pauses lie between them."""
    start = time.monotonic()
    run(setting("Busy"), method=Method(iterations=10, warmup=0, power=False, spacing=0.05))
    assert time.monotonic() - start > 9 * 0.05
