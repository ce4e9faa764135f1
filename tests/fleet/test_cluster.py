"""The same fleets on a Ray cluster of this machine's processes, where Ray is installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlkit import __version__
from tlkit.errors import UnavailableError
from tlkit.fleet.cluster import RayExecutor
from tlkit.fleet.job import FleetJob
from tlkit.fleet.journal import Journal, of_kind, read
from tlkit.fleet.run import FleetTally, run_fleet

ENTRY = "tests.fleet.entries:run"
pytestmark = pytest.mark.slow


@pytest.fixture
def executor(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayExecutor]:
    pytest.importorskip("ray")
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", str(root))
    made = RayExecutor(ENTRY, "local", 2)
    yield made
    made.close()


def test_jobs_end_as_on_this_machine(executor: RayExecutor, root: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = {
        **{f"n{at}": ("note", str(log), str(at)) for at in range(8)},
        "no": ("exit", "1"),
        "killer": ("die",),
        "unlucky": ("die-until", str(tmp_path / "tries"), "3"),
    }
    jobs = [FleetJob(key, verb, tuple(rest), str(root)) for key, (verb, *rest) in words.items()]
    journal = Journal(tmp_path / "journal", {})
    result = run_fleet(jobs, executor, journal)
    journal.close()
    assert sorted(log.read_text().split()) == sorted(map(str, range(8)))
    assert [result.outcomes[f"n{at}"].answer for at in range(8)] == [{"noted": str(at)} for at in range(8)]
    assert [result.status(job) for job in jobs[8:]] == ["no", "aside", "done"]


def _actors() -> set[int]:
    """The processes of actors that run a job, by the titles that Ray gives them."""
    found = subprocess.run(["pgrep", "-f", r"^ray::Slot\.run"], capture_output=True, text=True, check=False)
    return set(map(int, found.stdout.split()))


def test_killed_actors_cost_no_job(executor: RayExecutor, root: Path, tmp_path: Path) -> None:
    jobs = [FleetJob(f"j{at}", "sleep", ("0.3",), str(root)) for at in range(12)]
    killed: list[int] = []

    def kill(tally: FleetTally) -> None:
        if len(killed) < 3 and tally.ended > 2 * len(killed) and (actors := _actors() - set(killed)):
            os.kill(min(actors), signal.SIGKILL)
            killed.append(min(actors))

    journal = Journal(tmp_path / "journal", {})
    result = run_fleet(jobs, executor, journal, kill, rest=0.1)
    journal.close()
    assert len(killed) == 3 and result.exit_code == 0
    assert len(list(of_kind(tmp_path / "journal", "lost"))) == 3 and read(tmp_path / "journal").twice == 0


def test_a_node_with_another_tlkit_is_told(executor: RayExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is this process that has another; whoever has, both versions are named."""
    monkeypatch.setattr("tlkit.fleet.cluster.__version__", "9.9.9")
    with pytest.raises(UnavailableError, match=f"has tlkit {__version__}, and this is 9.9.9"):
        RayExecutor(ENTRY, "local", 2)


def test_a_local_cluster_is_one_of_its_own(executor: RayExecutor, root: Path) -> None:
    """Also where one runs on this machine already; its workers are as nice as other processes."""
    code = (
        "import os, ray\n"
        "from tlkit.fleet.cluster import RayExecutor\n"
        f"made = RayExecutor({ENTRY!r}, 'local', 1)\n"
        "print([node.name for node in made.nodes], ray.get(ray.remote(num_cpus=0)(lambda: os.nice(0)).remote()))\n"
        "made.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (mine,) = executor.nodes
    assert mine.name not in done.stdout and done.stdout.rstrip().endswith(f"] {os.nice(0)}")


def test_a_cluster_that_is_not_there() -> None:
    pytest.importorskip("ray")
    with pytest.raises(UnavailableError, match=r"no Ray cluster at 127.0.0.1:1"):
        RayExecutor(ENTRY, "127.0.0.1:1")
