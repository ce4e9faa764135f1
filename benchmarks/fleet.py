"""What does a fleet cost beside its jobs, what do kills cost it, and what does a job cost when there are a million?

    python benchmarks/fleet.py [--inspects 2000] [--conversions 200] [--workers 4] [--ray] [--kill SECONDS]
    python benchmarks/fleet.py --heads 20 [--inspects 2000] [--conversions 200] [--workers 4] [--ray]
    python benchmarks/fleet.py --simulate 1000000

The first runs inspections and small conversions on this machine's processes, or on a local Ray cluster, and prints the
time that it took over the jobs' own times divided by the workers. With ``--kill`` it is run once more while a worker is
killed every so many seconds; the journal then has to show each job done once, with the undisturbed run's results. The
second runs the same as a plan of ``tlkit fleet`` whose head is killed at so many random moments, and gone on with: what
was reported done must stay done, none may be done twice, and what comes of it must be the undisturbed run's. The third
schedules jobs on 1,000 nodes and writes their journal, without running any, and reads the journal back.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter, sleep

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tlkit.fleet.executor import Executor, LocalExecutor
from tlkit.fleet.job import FleetJob, JobOutcome, Needs
from tlkit.fleet.journal import Journal, Past, of_kind, outcome_facts, read
from tlkit.fleet.nodes import this_node
from tlkit.fleet.run import FleetResult, run_fleet
from tlkit.fleet.schedule import FleetNode, Schedule

_ENTRY = "tlkit.cli.job:run"
_NET = """import torch
def net(size):
    torch.manual_seed(size)
    return torch.nn.Sequential(torch.nn.Linear(size, size), torch.nn.ReLU(), torch.nn.Linear(size, 4))
"""


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inspects", type=int, default=2000)
    parser.add_argument("--conversions", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--kill", type=float, default=0.0)
    parser.add_argument("--heads", type=int, default=0)
    parser.add_argument("--simulate", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.simulate:
            _simulate(options.simulate, Path(name))
            return
        if options.heads:
            _heads(options, Path(name))
            return
        first, seconds = _run(options, Path(name) / "one")
        own = sum(outcome.seconds for outcome in first.outcomes.values())
        share = seconds / (own / options.workers)
        print(f"{len(first.jobs)} jobs, {options.workers} workers: {seconds:.1f} s, their own {own:.1f} s")
        print(f"over the jobs' own times divided by the workers: {share:.3f}, held to 1.10")
        _say_statuses(first)
        if options.kill:
            second, seconds = _run(options, Path(name) / "two", options.kill)
            same = [_same(job, first, second) for job in first.jobs]
            print(
                f"with a worker killed every {options.kill:g} s: {seconds:.1f} s, {sum(same)} of {len(same)} the same"
            )
            _say_statuses(second)


def _jobs(options: argparse.Namespace, folder: Path) -> list[FleetJob]:
    """Return the jobs, on files that are made first."""
    (folder / "net.py").write_text(_NET)
    made = [
        FleetJob(
            f"c{at}", "convert", ("net.py:net", "--kwargs", json.dumps({"size": 8 + at % 32}), *_goal(at)), str(folder)
        )
        for at in range(options.conversions)
    ]
    seen = Path(__file__).resolve().parent.parent / "fixtures" / "digits.safetensors"
    looked = [FleetJob(f"i{at}", "inspect", (str(seen),), str(folder)) for at in range(options.inspects)]
    return [*made, *looked]


def _goal(at: int) -> tuple[str, ...]:
    return ("--input", f"x=1x{8 + at % 32}", "-o", f"out{at}.mlpackage", "--force")


def _run(options: argparse.Namespace, folder: Path, every: float = 0.0) -> tuple[FleetResult, float]:
    """Run all jobs, with a worker killed every so many seconds; return how they ended, and how long it took."""
    folder.mkdir()
    jobs = _jobs(options, folder)
    executor = _executor(options)
    journal = Journal(folder / "journal", {})
    try:
        with _killing(every) as killed:
            start = perf_counter()
            result = run_fleet(jobs, executor, journal)
            seconds = perf_counter() - start
    finally:
        journal.close()
        executor.close()
    past = read(folder / "journal")
    lost = sum(b'"kind":"lost"' in line or b'"kind": "lost"' in line for line in (folder / "journal").open("rb"))
    said = f"{past.twice} twice, {lost} lost and run again, {len(past.aside)} set aside"
    print(f"journal: {len(past.done)} done, {said}; {len(killed)} processes killed")
    return result, seconds


def _executor(options: argparse.Namespace) -> Executor:
    if not options.ray:
        return LocalExecutor(_ENTRY, options.workers, this_node(options.workers))
    from tlkit.fleet.cluster import RayExecutor  # Ray is an extra

    return RayExecutor(_ENTRY, "local", options.workers)


@contextmanager
def _killing(every: float) -> Iterator[list[int]]:
    """Kill one of the processes that run jobs every so many seconds (0: none); yields the list of those killed."""
    over = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        rng = random.Random(0)
        while not over.wait(every):
            with suppress(ProcessLookupError, IndexError):
                pid = rng.choice(_workers())
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=kill, daemon=True)
    if every:
        thread.start()
    yield killed
    over.set()
    if every:
        thread.join()


def _workers() -> list[int]:
    """Return the processes that run jobs: workers below this one, the forks of theirs that run a job, Ray's actors."""
    parents, named = {}, []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            pid = int(entry.name)
            parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            words = (entry / "cmdline").read_bytes()
            if b"tlkit.fleet.worker" in words or words.startswith(b"ray::Slot"):
                named.append(pid)
    return [pid for pid in named if _below(pid, parents)]


def _below(pid: int, parents: dict[int, int]) -> bool:
    while pid > 1:
        pid = parents.get(pid, 0)
        if pid == os.getpid():
            return True
    return False


def _same(job: FleetJob, first: FleetResult, second: FleetResult) -> bool:
    """Whether a job ended alike in both runs: its code, and of an inspection the whole answer."""
    one, two = first.outcomes.get(job.key), second.outcomes.get(job.key)
    if one is None or two is None or one.code != two.code:
        return False
    return job.verb != "inspect" or one.answer == two.answer


def _say_statuses(result: FleetResult) -> None:
    counts: dict[str, int] = {}
    for job in result.jobs:
        counts[result.status(job)] = counts.get(result.status(job), 0) + 1
    print(f"ended: {counts}")


def _plan(options: argparse.Namespace, folder: Path) -> Path:
    """Write the same jobs as a plan."""
    (folder / "out").mkdir(parents=True)
    (folder / "net.py").write_text(_NET)
    seen = Path(__file__).resolve().parent.parent / "fixtures" / "digits.safetensors"
    convert = [
        {
            "verb": "convert",
            "models": ["net"],
            "options": {"kwargs": json.dumps({"size": 8 + at % 32}), "input": f"x=1x{8 + at % 32}"},
            "output": f"out/{at}.mlpackage",
        }
        for at in range(options.conversions)
    ]
    look = {"verb": "inspect", "models": ["digits"], "matrix": {"seed": list(range(options.inspects))}}
    models = [{"source": "net.py:net", "name": "net"}, {"path": str(seen), "name": "digits"}]
    (folder / "plan.json").write_text(json.dumps({"model": models, "job": [*convert, look]}))
    return folder / "plan.json"


def _heads(options: argparse.Namespace, folder: Path) -> None:
    """Run the plan undisturbed, and again with its head killed at random moments."""
    count, rng = options.inspects + options.conversions, random.Random(0)
    with local_cluster(options.ray, options.workers) as cluster:
        command = [sys.executable, "-m", "tlkit", "fleet", "", "--jobs", str(options.workers), *cluster, "--quiet"]
        plans = [_plan(options, folder / name) for name in ("one", "two")]
        start = perf_counter()
        command[4] = str(plans[0])
        code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        print(f"undisturbed: {perf_counter() - start:.1f} s, exit code {code}")
        command[4], journal = str(plans[1]), plans[1].with_name("plan.json.journal")
        reported: set[str] = set()
        lost = 0
        for target in sorted(rng.randrange(count) for _ in range(options.heads)):
            again = ["--resume"] if journal.exists() else []
            head = subprocess.Popen([*command, *again], stdout=subprocess.DEVNULL)
            while head.poll() is None and (not journal.exists() or _done(journal) < target):
                sleep(0.05)
            sleep(rng.random())
            head.kill()
            head.wait()
            now = set(read(journal).done) if journal.exists() else set()
            lost += len(reported - now)
            reported = now
            print(f"  killed: {len(now)} of {count} done", flush=True)
        code = subprocess.run([*command, "--resume"], stdout=subprocess.DEVNULL, check=False).returncode
    first, second = (read(plan.with_name("plan.json.journal")) for plan in plans)
    print(f"after {options.heads} killed heads: exit code {code}, {len(second.done)} of {count} done")
    print(f"lines that say done: {_done(journal)}")
    print(f"reported and lost: {lost}; done twice: {second.twice}; held to 0 and 0")
    answers = [_results(past, plan.parent) for past, plan in zip((first, second), plans, strict=True)]
    same = sum(one == two for one, two in zip(*answers, strict=True))
    print(f"the same as undisturbed: {same} of {len(answers[0])} outcomes, weights of conversions among them")


def _done(journal: Path) -> int:
    return sum(1 for _ in of_kind(journal, "done"))


def _results(past: Past, folder: Path) -> list[str]:
    """Return what came of a plan's jobs, in an order that two runs share: answers of inspections, weights' hashes."""
    # A conversion's answer tells its seconds, and its package's path, which is not the same in both.
    answers = (item.answer for item in past.done.values() if item.code == 0 and isinstance(item.answer, dict))
    looked = (answer for answer in answers if "source" not in answer)
    made = sorted((folder / "out").rglob("weight.bin"), key=str)
    hashes = [f"{file.relative_to(folder)} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in made]
    codes = sorted(str(item.code) for item in past.done.values())
    return [*sorted(json.dumps(item, sort_keys=True) for item in looked), *hashes, *codes]


@contextmanager
def local_cluster(wanted: bool, workers: int) -> Iterator[list[str]]:
    """Yield what names a Ray cluster to a command: one of this machine's processes that outlives heads, or none."""
    if not wanted:
        yield []
        return
    # A cluster for these minutes only; bound to loopback, commands beside it do not find its node.
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    from ray.cluster_utils import Cluster  # Ray is an extra

    node = {"num_cpus": workers, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    try:
        yield ["--cluster", made.address]
    finally:
        made.shutdown()


def _simulate(count: int, folder: Path) -> None:
    """Schedule ``count`` jobs on 1,000 nodes, all of it written down, and read it back."""
    nodes = [FleetNode(f"n{at}", 8, 64 << 30, frozenset(("cpu", "ane"))) for at in range(1000)]
    kinds = [Needs(memory=(at + 1) << 28) for at in range(6)] + [Needs("ane", alone=True)]
    start = perf_counter()
    jobs = [FleetJob(f"{at:040x}", "bench", ("net.mlpackage",), needs=kinds[at % 7]) for at in range(count)]
    made = perf_counter() - start
    journal = Journal(folder / "journal", {})
    schedule, running = Schedule(jobs, nodes), deque[tuple[FleetJob, str]]()
    outcome = JobOutcome(0, 1.5, {"median_ns": 1}, "")
    start = perf_counter()
    while schedule.left:
        for job, node in schedule.next():
            journal.write("start", job=job.key, node=node.name)
            running.append((job, node.name))
        for _ in range(min(len(running), 64)):  # so many end between two looks
            job, where = running.popleft()
            journal.write("done", job=job.key, node=where, **outcome_facts(outcome))
            schedule.finished(job, where)
        journal.flush()
    each = (perf_counter() - start) / count
    journal.close()
    size = (folder / "journal").stat().st_size
    start = perf_counter()
    past = read(folder / "journal")
    replay = perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count} jobs: made in {made:.1f} s; {each * 1e3:.3f} ms a job to schedule and write down, held to 2 ms")
    print(f"journal: {size / 1e6:.0f} MB, read back in {replay:.1f} s, held to 60 s; {len(past.done)} done")
    print(f"memory: {peak:.0f} MiB at the most, jobs, schedule and what the journal said together")


if __name__ == "__main__":
    main()
