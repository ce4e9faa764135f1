"""Ray as the executor: an actor per slot of each node, which runs a worker as this machine's executor does.

Only documented Ray is used. Ray moves data and notices what dies; which job runs where, and what is done, is decided
and written down here, so that the loss of the head or of all of Ray costs no outcome that was reported.
"""

from __future__ import annotations

import itertools
import logging
import socket
from collections.abc import Mapping
from typing import Any

from tlkit import __version__
from tlkit.errors import UnavailableError, reason
from tlkit.fleet.executor import Ended, ended
from tlkit.fleet.job import FleetJob
from tlkit.fleet.nodes import about, node_of
from tlkit.fleet.process import WorkerProcess, asked, outcome
from tlkit.host.quiet import quiet


class Slot:
    """What runs inside an actor: one worker, and where it is."""

    def __init__(self, entry: str, threads: int) -> None:
        self._entry, self._threads = entry, threads
        self._worker: WorkerProcess | None = None

    def about(self) -> dict[str, Any]:
        """Return what the node has; see :func:`tlkit.fleet.nodes.about`."""
        return about()

    def run(self, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
        """Run a job; None where the worker was killed meanwhile."""
        if self._worker is None:
            self._worker = WorkerProcess(self._entry, self._threads)
        self._worker.give(wanted)
        answer = self._worker.take()
        if answer is None:
            self._worker.close()
            self._worker = None
        return answer


class RayExecutor:
    """The nodes of the Ray cluster at ``address`` (``auto``: the one that is running, as Ray finds it; ``local``: one
    that is started here and ends with this process).

    ``jobs`` is how many run at a time on each node, 0 for one per CPU that the node offers. Raises UnavailableError
    where Ray is not installed, the cluster is not there, or a node has another tlkit.
    """

    def __init__(self, entry: str, address: str, jobs: int = 0) -> None:
        try:
            with quiet():
                import ray  # an extra, and seconds
        except ImportError as error:
            raise UnavailableError("Ray is not installed", "pip install 'tlkit[ray]'") from error
        self._ray: Any = ray
        self._entry = entry
        self._own = not ray.is_initialized()
        try:
            if self._own:
                _join(ray, address, jobs)
        except Exception as error:
            hint = "start one: ray start --head; or leave --cluster out"
            raise UnavailableError(f"no Ray cluster at {address}: {reason(error)}", hint) from error
        self._actor = ray.remote(num_cpus=0, max_restarts=0)(Slot)
        self._idle: dict[str, list[Any]] = {}
        self._threads: dict[str, int] = {}
        self._running: dict[Any, tuple[FleetJob, str, Any]] = {}
        try:
            self.nodes = [self._node(info, jobs) for info in ray.nodes() if info["Alive"]]
        except BaseException:
            self.close()
            raise

    def _node(self, info: Mapping[str, Any], jobs: int) -> Any:
        name = str(info["NodeID"])
        slots = jobs or max(1, int(info["Resources"].get("CPU", 1)))
        self._threads[name], self._idle[name] = 1, []
        actor = self._new(name)
        found = self._ray.get(actor.about.remote())
        if found["tlkit"] != __version__:
            where = info.get("NodeManagerHostname", name)
            raise UnavailableError(
                f"{where} has tlkit {found['tlkit']}, and this is {__version__}",
                f"pip install tlkit=={__version__} there",
            )
        self._threads[name] = max(1, found["cores"] // slots)
        self._ray.kill(actor)
        return node_of(name, found, slots)

    def _new(self, node: str) -> Any:
        # Part of the extra, as above.
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        return self._actor.options(scheduling_strategy=there).remote(self._entry, self._threads[node])

    def start(self, job: FleetJob, node: str) -> None:
        """Give the job to an idle actor of the node, or to a new one."""
        actor = self._idle[node].pop() if self._idle[node] else self._new(node)
        self._running[actor.run.remote(asked(job))] = (job, node, actor)

    def wait(self, seconds: float) -> list[Ended]:
        """Return the jobs that are over."""
        waiting = list(self._running)
        over, _ = self._ray.wait(waiting, num_returns=1, timeout=seconds)
        if over:  # and all others that are over by now
            over, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return [self._ended(reference) for reference in over]

    def _ended(self, reference: Any) -> Ended:
        job, node, actor = self._running.pop(reference)
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            gone = node not in {str(info["NodeID"]) for info in self._ray.nodes() if info["Alive"]}
            return Ended(job, node, why="its node went away" if gone else _told(error), node_gone=gone)
        self._idle[node].append(actor)
        if answer is None:
            return Ended(job, node, why="its worker was killed")
        return ended(job, node, outcome(job, answer))

    def close(self) -> None:
        """End the actors, and Ray where it was started or joined here."""
        busy = [actor for _, _, actor in self._running.values()]
        for actor in itertools.chain(busy, *self._idle.values()):
            self._ray.kill(actor)
        self._running.clear()
        self._idle = {name: [] for name in self._idle}
        if self._own:
            self._ray.shutdown()


def _join(ray: Any, address: str, jobs: int) -> None:
    if address == "local":
        ray.init(num_cpus=jobs or None, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    else:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if host and port.isdigit():  # Ray itself tries for minutes where nobody listens
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)


def _told(error: Exception) -> str:
    return f"its actor died ({type(error).__name__})"
