"""Fleets on this machine: whatever jobs do to their processes, each ends once and what ended is written down.

Covers tlkit/fleet/worker.py, tlkit/fleet/process.py, tlkit/fleet/executor.py, tlkit/fleet/nodes.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlkit.core.journal.records import parse_record
from tlkit.errors import UnavailableError
from tlkit.fleet.executor import LocalExecutor
from tlkit.fleet.job import FleetJob, Needs
from tlkit.fleet.journal import Journal, of_kind, read
from tlkit.fleet.nodes import about, this_node
from tlkit.fleet.run import FleetResult, FleetTally, run_fleet

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")
ENTRY = "tests.fleet.entries:run"


def job(
    at: int | str, verb: str, *words: object, needs: Needs | None = None, timeout: float = 0, output: str = ""
) -> FleetJob:
    return FleetJob(f"j{at}", verb, tuple(map(str, words)), needs=needs or Needs(), timeout=timeout, output=output)


@pytest.fixture
def executor(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalExecutor]:
    monkeypatch.chdir(root)  # where tests.fleet.entries is found
    made = LocalExecutor(ENTRY, 2, this_node(2))
    yield made
    made.close()


def ran(jobs: list[FleetJob], executor: LocalExecutor, place: Path) -> FleetResult:
    journal = Journal(place, {})
    try:
        return run_fleet(jobs, executor, journal)
    finally:
        journal.close()


def test_jobs_end_as_they_end(executor: LocalExecutor, tmp_path: Path) -> None:
    log = tmp_path / "log"
    jobs = [
        *(job(at, "note", log, at) for at in range(8)),
        job("no", "exit", 1),
        job("failed", "exit", 3),
        job("raised", "raise"),
        job("long", "sleep", 60, timeout=0.3),
        job("killer", "die"),
        job("unlucky", "die-until", tmp_path / "tries", 3),
    ]
    result = ran(jobs, executor, tmp_path / "journal")
    assert sorted(log.read_text().split()) == sorted(map(str, range(8)))
    assert [result.outcomes[f"j{at}"].answer for at in range(8)] == [{"noted": str(at)} for at in range(8)]
    statuses = {one.key: (result.status(one), result.error(one)) for one in jobs[8:]}
    assert statuses == {
        "jno": ("no", "as it was told"),
        "jfailed": ("failed", "as it was told"),
        "jraised": ("failed", "of its own"),
        "jlong": ("failed", "took longer than 0.3 s"),
        "jkiller": ("aside", "ended by SIGKILL, 3 times"),
        "junlucky": ("done", ""),
    }
    assert result.exit_code == 4
    assert (result.tally.done, result.tally.no, result.tally.failed, result.tally.aside) == (9, 1, 3, 1)
    assert len(list(of_kind(tmp_path / "journal", "done"))) == 13 and read(tmp_path / "journal").twice == 0


def test_a_second_run_does_only_what_is_left(executor: LocalExecutor, tmp_path: Path) -> None:
    log, place = tmp_path / "log", tmp_path / "journal"
    jobs = [job(at, "note", log, at) for at in range(6)]
    ran(jobs[:4], executor, place)
    result = ran(jobs, executor, place)
    assert sorted(log.read_text().split()) == sorted(map(str, range(6)))
    assert result.exit_code == 0 and (result.tally.before, result.tally.ended) == (4, 2)


def test_an_output_of_a_job_that_was_cut_short_is_replaced_and_no_other(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for path in (mine, theirs):
        path.write_text("before")
    journal = Journal(tmp_path / "journal", {})
    journal.write("start", job="jmine")
    journal.past.started.add("jmine")
    jobs = [job(path.name, "write", path, output=str(path)) for path in (mine, theirs)]
    result = run_fleet(jobs, executor, journal)
    journal.close()
    assert (mine.read_text(), theirs.read_text()) == ("made", "before")
    assert [result.status(one) for one in jobs] == ["done", "failed"]


def test_a_killed_worker_is_replaced_and_its_job_done(executor: LocalExecutor, tmp_path: Path) -> None:
    jobs = [job(at, "sleep", 0.4) for at in range(4)]
    killed = []

    def kill(tally: FleetTally) -> None:
        if len(killed) < 2:
            worker = next(iter(executor._busy))
            os.kill(worker._process.pid, signal.SIGKILL)
            killed.append(worker)

    journal = Journal(tmp_path / "journal", {})
    result = run_fleet(jobs, executor, journal, kill, rest=0.1)
    journal.close()
    assert result.exit_code == 0 and len(killed) == 2
    assert [line["blamed"] for line in of_kind(tmp_path / "journal", "lost")] == [False, False]


def test_nothing_runs_on_when_it_is_closed(executor: LocalExecutor) -> None:
    executor.start(job("long", "sleep", 600), "this machine")
    (worker,) = executor._busy
    end = time.monotonic() + 60
    children: list[str] = []
    while not children and time.monotonic() < end:
        path = Path(f"/proc/{worker._process.pid}/task/{worker._process.pid}/children")
        children = path.read_text().split()
        time.sleep(0.05)
    executor.close()
    assert children
    end = time.monotonic() + 60
    while any(map(_runs, children)) and time.monotonic() < end:  # a signal takes its time
        time.sleep(0.05)
    assert not any(map(_runs, children))


def _runs(child: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_job_that_no_node_can_take_is_said_before_any_starts(executor: LocalExecutor, tmp_path: Path) -> None:
    log = tmp_path / "log"
    jobs = [job(0, "note", log, 0), job(1, "note", log, 1, needs=Needs("ane"))]
    with pytest.raises(UnavailableError, match="no node has the unit ane, which 1 job cannot do without"):
        ran(jobs, executor, tmp_path / "journal")
    assert not log.exists()


def test_a_measurement_runs_beside_nothing(executor: LocalExecutor, tmp_path: Path) -> None:
    """By the journal's order: between a start of an alone job and its end, none starts and none ends."""
    alone = Needs(alone=True)
    jobs = [FleetJob(f"alone{at}", "ops", ("relu", "--json"), needs=alone) for at in range(2)]  # an interpreter each
    result = ran([*jobs, *(job(at, "sleep", 0.1 * at) for at in range(4))], executor, tmp_path / "journal")
    assert result.exit_code == 0
    lines = [parse_record(line) or {} for line in (tmp_path / "journal").read_bytes().splitlines()[1:]]
    told = [(line["kind"], str(line["job"])) for line in lines]
    assert [name for kind, name in told if kind == "start"][-2:] == ["alone0", "alone1"]
    for one in jobs:
        at = told.index(("start", one.key))
        assert told[at + 1] == ("done", one.key)


def test_a_killed_head_is_gone_on_with(root: Path, tmp_path: Path) -> None:
    """Ten heads are killed at moments of their own; each job is done once in the end, and none is repeated."""
    script = tmp_path / "head.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from tlkit.fleet.executor import LocalExecutor\n"
        "from tlkit.fleet.job import FleetJob\n"
        "from tlkit.fleet.journal import Journal\n"
        "from tlkit.fleet.nodes import this_node\n"
        "from tlkit.fleet.run import run_fleet\n"
        f"jobs = [FleetJob(f'j{{at}}', 'note', ({str(tmp_path / 'log')!r}, str(at))) for at in range(60)]\n"
        f"executor = LocalExecutor({ENTRY!r}, 2, this_node(2))\n"
        f"result = run_fleet(jobs, executor, Journal(Path({str(tmp_path / 'journal')!r}), {{}}))\n"
        "executor.close()\n"
        "sys.exit(result.exit_code)\n"
    )
    done: set[str] = set()
    for kill in range(11):
        head = subprocess.Popen([sys.executable, str(script)], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
        if kill < 10:
            _until_it_has_done(tmp_path / "journal", len(done) + 1, head)
            head.kill()
        assert head.wait() == (0 if kill == 10 else -signal.SIGKILL)
        now = {line["job"] for line in of_kind(tmp_path / "journal", "done")}
        assert done <= now
        done = now
    assert len(done) == 60 and read(tmp_path / "journal").twice == 0
    # What was noted twice was running when its head was killed: it had not been reported done.
    assert set((tmp_path / "log").read_text().split()) == {str(at) for at in range(60)}


def _until_it_has_done(journal: Path, count: int, head: subprocess.Popen[bytes]) -> None:
    while head.poll() is None:
        if journal.exists() and journal.stat().st_size and len(list(of_kind(journal, "done"))) >= min(count, 50):
            return
        time.sleep(0.005)


def test_what_a_node_says_of_itself() -> None:
    found = about()
    assert found["cores"] >= 1 and found["memory"] > 2**28 and "cpu" in found["units"]
    assert ("ane" in found["units"]) is (sys.platform == "darwin" and os.uname().machine == "arm64")
