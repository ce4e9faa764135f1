"""Run a fleet to its end: jobs that the journal knows as done are not run, whatever ends is written down first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from tlkit.errors import UnavailableError
from tlkit.fleet.executor import Ended, Executor
from tlkit.fleet.job import FleetJob, JobOutcome
from tlkit.fleet.journal import Journal, outcome_facts
from tlkit.fleet.schedule import MOST_DEATHS, Schedule
from tlkit.words import number_of

_SOON = 0.02
"""Seconds until the next look at the disk while it is being waited for."""


@dataclass
class FleetTally:
    """Where a fleet is: jobs in all, ended by status, running, and seconds since it began."""

    total: int
    before: int = 0
    """Done in an earlier run."""
    done: int = 0
    no: int = 0
    failed: int = 0
    aside: int = 0
    running: int = 0
    begun: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> int:
        """How many are over in this run."""
        return self.done + self.no + self.failed + self.aside

    def rate(self) -> float:
        """Jobs a second, in this run."""
        return self.ended / max(time.monotonic() - self.begun, 1e-9)

    def left_seconds(self) -> float | None:
        """How long the rest takes at this rate; None before anything has ended."""
        return (self.total - self.before - self.ended) / self.rate() if self.ended else None

    def count(self, outcome: JobOutcome) -> None:
        """Count a job that has ended."""
        setattr(self, outcome.status, getattr(self, outcome.status) + 1)


@dataclass
class FleetResult:
    """How each job ended, in the plan's order: an outcome, or why it was set aside."""

    jobs: list[FleetJob]
    outcomes: dict[str, JobOutcome]
    aside: dict[str, str]
    tally: FleetTally

    def error(self, job: FleetJob) -> str:
        """What went wrong with a job; empty where nothing did."""
        outcome = self.outcomes.get(job.key)
        return outcome.error if outcome else self.aside.get(job.key, "not run")

    def status(self, job: FleetJob) -> str:
        """``done``, ``no``, ``failed``, ``aside`` or ``left``."""
        outcome = self.outcomes.get(job.key)
        return outcome.status if outcome else "aside" if job.key in self.aside else "left"

    @property
    def exit_code(self) -> int:
        """0 where all are done, 1 where some gave a negative answer, 4 where some failed."""
        found = {self.status(job) for job in self.jobs}
        return 4 if found & {"failed", "aside", "left"} else 1 if "no" in found else 0


def run_fleet(
    jobs: Sequence[FleetJob],
    executor: Executor,
    journal: Journal,
    heard: Callable[[FleetTally], None] = lambda tally: None,
    force: bool = False,
    rest: float = 0.5,
    over: Callable[[FleetJob, JobOutcome], None] = lambda job, outcome: None,
) -> FleetResult:
    """Run ``jobs`` and return how each ended; ``heard`` is told where it is, at least each ``rest`` seconds, and
    ``over`` of each job that ended with an outcome, once it is written down.

    A job replaces its output with ``force``, and where it was started before: then the output is its own.

    Raises UnavailableError before anything starts where a job needs what no node has. An interrupt ends the executor
    and leaves a journal from which the same call goes on.
    """
    past = journal.past
    known = {job.key for job in jobs}
    outcomes = {key: outcome for key, outcome in past.done.items() if key in known}
    aside = {key: why for key, why in past.aside.items() if key in known}
    tally = FleetTally(len(jobs), before=len(outcomes) + len(aside))
    waiting = [job for job in jobs if job.key not in outcomes and job.key not in aside]
    schedule = Schedule(waiting, executor.nodes, past.deaths)
    if hopeless := schedule.give_up():
        needs = hopeless[0].needs
        what = f"the unit {needs.unit}" if needs.unit else f"{needs.memory} bytes of memory"
        hint = "tlkit fleet --dry-run lists them"
        raise UnavailableError(f"no node has {what}, which {number_of(len(hopeless), 'job')} cannot do without", hint)

    def tell(items: Sequence[Ended]) -> None:
        for item in items:
            if item.outcome is not None:
                outcomes[item.job.key] = item.outcome
                tally.count(item.outcome)
                over(item.job, item.outcome)

    with ThreadPoolExecutor(1) as thread:
        disk = _Disk(journal, thread, tell)
        while schedule.left:
            for job, node in schedule.next():
                journal.write("start", job=job.key, node=node.name)
                own = force or job.key in past.started
                past.started.add(job.key)
                executor.start(replace(job, words=(*job.words, "--force")) if job.output and own else job, node.name)
            disk.look()
            ended = executor.wait(rest if disk.idle else min(rest, _SOON))
            for item in ended:
                _take(item, schedule, journal, aside, tally)
            disk.add(ended)
            tally.running = schedule.running()
            heard(tally)
            if not schedule.nodes:
                raise UnavailableError("all nodes are gone", "go on with --resume when they are back")
        disk.finish()
        heard(tally)
    return FleetResult(list(jobs), outcomes, aside, tally)


class _Disk:
    """Tells of jobs that ended once the disk has their lines, and lets workers go on meanwhile: a flush takes
    milliseconds, and jobs may be as short."""

    def __init__(self, journal: Journal, thread: ThreadPoolExecutor, tell: Callable[[Sequence[Ended]], None]) -> None:
        self._journal, self._thread, self._tell = journal, thread, tell
        self._waiting: list[Ended] = []
        self._flushed: list[Ended] = []
        self._flush: Future[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is left to be flushed or told."""
        return self._flush is None and not self._waiting

    def add(self, ended: Sequence[Ended]) -> None:
        """Take jobs whose lines are written."""
        self._waiting += ended

    def look(self) -> None:
        """Tell of those that a flush has covered since, and begin the next flush."""
        if self._flush is not None and self._flush.done():
            self._flush.result()
            self._flush = None
            self._tell(self._flushed)
        if self._flush is None and self._waiting:
            self._flushed, self._waiting = self._waiting, []
            self._flush = self._thread.submit(self._journal.flush)

    def finish(self) -> None:
        """Wait until all have been told."""
        while not self.idle:
            if self._flush is not None:
                self._flush.result()
            self.look()


def _take(
    item: Ended,
    schedule: Schedule,
    journal: Journal,
    aside: dict[str, str],
    tally: FleetTally,
) -> None:
    """Write down how a job ended, and let its node go on."""
    key = item.job.key
    if item.outcome is not None:
        journal.write("done", job=key, node=item.node, **outcome_facts(item.outcome))
        schedule.finished(item.job, item.node)
        return
    journal.write("lost", job=key, node=item.node, why=item.why, blamed=item.blamed)
    if item.node_gone:
        schedule.remove(item.node)
    elif not schedule.lost(item.job, item.node, item.blamed):
        aside[key] = f"{item.why}, {MOST_DEATHS} times"
        tally.aside += 1
        journal.write("aside", job=key, why=aside[key])
