"""Jobs of one command, run side by side on this machine or on a cluster, as a fleet is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tlkit.cli.sink import output
from tlkit.cli.sink.stream import Progress

if TYPE_CHECKING:
    from tlkit.fleet.executor import Executor
    from tlkit.fleet.job import FleetJob, JobOutcome
    from tlkit.fleet.run import FleetResult, FleetTally

ENTRY = "tlkit.cli.job:run"
"""What runs a job's command line in a worker."""


def executor_for(jobs: int, cluster: str | None) -> Executor:
    """Return what runs ``jobs`` at a time (0: as many as there are cores), here or on each node of ``cluster``."""
    if cluster is not None:
        from tlkit.fleet.cluster import RayExecutor

        return RayExecutor(ENTRY, cluster, jobs)
    from tlkit.fleet.executor import LocalExecutor
    from tlkit.fleet.nodes import this_node
    from tlkit.host.machine import describe_machine

    jobs = jobs or describe_machine().cores
    return LocalExecutor(ENTRY, jobs, this_node(jobs))


def run_side_by_side(
    sink: output.Sink,
    jobs: Sequence[FleetJob],
    executor: Executor,
    over: Callable[[FleetJob, JobOutcome], None] = lambda job, outcome: None,
) -> FleetResult:
    """Run jobs that no journal outlives, and return how each ended; ``over`` hears of each at once."""
    from tlkit.fleet.journal import Journal
    from tlkit.fleet.run import run_fleet

    with TemporaryDirectory(prefix="tlkit-") as folder:
        journal = Journal(Path(folder) / "journal", {})
        try:
            with sink.progress("starting", len(jobs)) as bar:
                return run_fleet(jobs, executor, journal, lambda tally: show_tally(bar, tally), over=over)
        finally:
            journal.close()


def show_tally(bar: Progress, tally: FleetTally) -> None:
    """Move the bar to where a fleet is, and say what ended, runs and failed, how fast it goes and what is left."""
    left, wrong, over = tally.left_seconds(), tally.failed + tally.aside, tally.before + tally.ended
    parts = [f"{over} of {tally.total} ended", f"{tally.running} running", *([f"{wrong} failed"] if wrong else [])]
    parts += [f"{tally.rate():.1f}/s", f"{_about(left)} left"] if left is not None else []
    bar.describe(", ".join(parts))
    bar.update(over, tally.total)


def _about(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
