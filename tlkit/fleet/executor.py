"""Where jobs run: the protocol of executors, and the one of this machine's processes."""

from __future__ import annotations

import selectors
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tlkit.fleet.job import FleetJob, JobOutcome
from tlkit.fleet.process import WorkerProcess, asked, outcome
from tlkit.fleet.schedule import FleetNode
from tlkit.host.machine import describe_machine


@dataclass(frozen=True)
class Ended:
    """A job that is over on its node: with an ``outcome``, or without one, as ``why`` says.

    ``blamed``: its own process died, so that it may be the cause. ``node_gone``: the whole node is.
    """

    job: FleetJob
    node: str
    outcome: JobOutcome | None = None
    why: str = ""
    blamed: bool = False
    node_gone: bool = False


class Executor(Protocol):
    """Runs jobs on nodes, any number at a time; the schedule says how many."""

    @property
    def nodes(self) -> Sequence[FleetNode]:
        """The nodes that there are."""

    def start(self, job: FleetJob, node: str) -> None:
        """Begin a job on a node."""

    def wait(self, seconds: float) -> list[Ended]:
        """Return the jobs that are over, after at most so long."""

    def close(self) -> None:
        """End what still runs."""


class LocalExecutor:
    """This machine's processes: ``jobs`` at a time, and never two that must be alone.

    ``entry`` is the ``module:function`` that runs a command line in its process and returns its exit code.
    """

    def __init__(self, entry: str, jobs: int, node: FleetNode) -> None:
        self.nodes = [node]
        self._entry = entry
        self._threads = max(1, describe_machine().cores // jobs)
        self._idle: list[WorkerProcess] = []
        self._busy: dict[WorkerProcess, FleetJob] = {}
        self._selector = selectors.DefaultSelector()

    def start(self, job: FleetJob, node: str) -> None:
        """Give the job to an idle worker, or to a new one."""
        worker = self._idle.pop() if self._idle else WorkerProcess(self._entry, self._threads)
        self._busy[worker] = job
        self._selector.register(worker, selectors.EVENT_READ, worker)
        worker.give(asked(job))

    def wait(self, seconds: float) -> list[Ended]:
        """Return the jobs that are over."""
        return [self._ended(key.data) for key, _ in self._selector.select(seconds)]

    def _ended(self, worker: WorkerProcess) -> Ended:
        job = self._busy.pop(worker)
        self._selector.unregister(worker)
        answer = worker.take()
        if answer is None:
            worker.close()
            return Ended(job, self.nodes[0].name, why="its worker was killed")
        self._idle.append(worker)
        return ended(job, self.nodes[0].name, outcome(job, answer))

    def close(self) -> None:
        """End all workers, and with them their jobs."""
        for worker in (*self._busy, *self._idle):
            worker.close()
        self._selector.close()


def ended(job: FleetJob, node: str, found: JobOutcome) -> Ended:
    """Return how a job ended whose worker answered: one that was killed by a signal has no outcome."""
    return Ended(job, node, None, found.error, blamed=True) if found.code < 0 else Ended(job, node, found)
