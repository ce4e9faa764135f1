"""Ray as the executor: an actor per slot of each node, which runs a worker as this machine's executor does.

Only documented Ray is used. Ray moves data and notices what dies; which job runs where, and what is done, is decided
and written down here, so that the loss of the head or of all of Ray costs no outcome that was reported.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlkit import __version__
from tlkit.errors import TlkitError, UnavailableError, reason
from tlkit.fleet.executor import Ended, ended
from tlkit.fleet.files import Parcel, Receiver, Sender, named_files, packed, placed_words, told_as_sent, unpacked
from tlkit.fleet.job import FleetJob
from tlkit.fleet.nodes import about, node_of
from tlkit.fleet.process import WorkerProcess, asked, outcome
from tlkit.host.quiet import hushed, quiet


class Slot:
    """What runs inside an actor: one worker, and where it is. ``put`` and ``get`` are those of Ray's object store."""

    def __init__(
        self,
        entry: str,
        threads: int,
        put: Callable[[bytes], Any] | None = None,
        get: Callable[[Any], bytes] | None = None,
    ) -> None:
        if put is None or get is None:
            import ray  # which has made this actor

            put, get = ray.put, ray.get
        self._entry, self._threads = entry, threads
        self._worker: WorkerProcess | None = None
        self._put, self._receiver = put, Receiver(get)

    def run(self, wanted: Mapping[str, Any], parcels: Mapping[str, Parcel], output: str) -> dict[str, Any] | None:
        """Run a job; None where the worker was killed meanwhile.

        ``parcels`` are the files that it names. Where this node does not see them as they are, the job runs in a folder
        of its own, and what it writes to ``output`` is in the answer, as a parcel.
        """
        try:
            places = {text: self._receiver.place(parcel) for text, parcel in parcels.items()}
        except (TlkitError, OSError) as error:
            said = f"tlkit: error: {reason(error)}\n"
            return {"job": wanted["job"], "code": 3, "seconds": 0.0, "out": "", "err": said}
        apart = {text: place for text, place in places.items() if str(place) != parcels[text].path}
        if not apart:
            return self._run(wanted)
        with tempfile.TemporaryDirectory(prefix="tlkit-") as name:
            told = [(parcels[text].path, place) for text, place in apart.items()]
            if output:
                apart[output] = Path(name) / Path(output).name
                told.append((output, apart[output]))
            words = placed_words(wanted["words"], apart)
            answer = self._run({**wanted, "words": words, "folder": name})
            if answer is not None:
                answer |= {key: told_as_sent(answer[key], told) for key in ("out", "err")}
                answer["output"] = packed(apart[output], self._put) if output else None
            return answer

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _run(self, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
        if self._worker is None:
            self._worker = WorkerProcess(self._entry, self._threads)
        self._worker.give(wanted)
        answer = self._worker.take()
        if answer is None:
            self.close()
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
                with hushed():  # its C++ half tells of each try to reach a cluster
                    _join(ray, address, jobs)
        except Exception as error:
            if address == "local":
                hint = "try again when the machine is less busy, or leave --cluster out"
                raise UnavailableError(f"Ray does not start here: {reason(error)}", hint) from error
            hint = "start one: ray start --head; set RAY_AUTH_MODE=token if it asks for a token; or leave --cluster out"
            raise UnavailableError(f"no Ray cluster at {address}: {reason(error)}", hint) from error
        self._actor = ray.remote(num_cpus=0, max_restarts=0)(Slot)
        self._idle: dict[str, list[Any]] = {}
        self._threads: dict[str, int] = {}
        self._running: dict[Any, tuple[FleetJob, str, Any]] = {}
        self._here = str(ray.get_runtime_context().get_node_id())
        self._sender = Sender(ray.put)
        try:
            self.nodes = [self._node(info, jobs) for info in ray.nodes() if info["Alive"]]
        except BaseException:
            self.close()
            raise

    def _node(self, info: Mapping[str, Any], jobs: int) -> Any:
        name, where = str(info["NodeID"]), info.get("NodeManagerHostname", "a node")
        slots = jobs or max(1, int(info["Resources"].get("CPU", 1)))
        # A function that every tlkit has: what else another version has is not known.
        asked = self._ray.remote(num_cpus=0, max_retries=0)(about).options(scheduling_strategy=_on(name))
        hint = f"pip install tlkit=={__version__} there"
        try:
            found = self._ray.get(asked.remote())
        except self._ray.exceptions.RayError as error:
            said = reason(error, whole=True)
            raise UnavailableError(f"{where}: tlkit cannot be used there: {said}", hint) from None
        if found["tlkit"] != __version__:
            raise UnavailableError(f"{where} has tlkit {found['tlkit']}, and this is {__version__}", hint)
        self._threads[name], self._idle[name] = max(1, found["cores"] // slots), []
        return node_of(name, found, slots)

    def _new(self, node: str) -> Any:
        return self._actor.options(scheduling_strategy=_on(node)).remote(self._entry, self._threads[node])

    def start(self, job: FleetJob, node: str) -> None:
        """Give the job to an idle actor of the node, or to a new one."""
        actor = self._idle[node].pop() if self._idle[node] else self._new(node)
        # This machine's own node sees its files as they are.
        named = {} if node == self._here else named_files(job)
        parcels = {text: self._sender.parcel(path) for text, path in named.items()}
        self._running[actor.run.remote(asked(job), parcels, job.output)] = (job, node, actor)

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
        found = outcome(job, answer)
        if (parcel := answer.get("output")) is not None:
            try:
                unpacked(parcel, Path(job.output), self._ray.get)
            except (TlkitError, OSError) as error:
                found = replace(found, code=4, error=f"{job.output}: {reason(error)}")
        return ended(job, node, found)

    def close(self) -> None:
        """End the actors, and Ray where it was started or joined here."""
        busy = [actor for _, _, actor in self._running.values()]
        for actor in itertools.chain(busy, *self._idle.values()):
            self._ray.kill(actor)
        self._running.clear()
        self._idle = {name: [] for name in self._idle}
        if self._own:
            self._ray.shutdown()


def _on(node: str) -> Any:
    """Return Ray's word for: on this node, and no other."""
    # Part of the extra, as above.
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id=node, soft=False)


def _join(ray: Any, address: str, jobs: int) -> None:
    if address == "local":
        # Ray's workers are nicer than other processes by 15, to which a measurement would yield.
        os.environ.setdefault("RAY_worker_niceness", "0")
        told = {"log_to_driver": False, "logging_level": logging.ERROR}
        ray.init("local", num_cpus=jobs or None, include_dashboard=False, **told)
    else:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if host and port.isdigit():  # Ray itself tries for minutes where nobody listens
            _knock(host, int(port))
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)


def _knock(host: str, port: int) -> None:
    """Raise OSError where nobody listens, or somebody who does not speak HTTP/2, as every part of Ray does.

    A server's first frame is SETTINGS (RFC 9113, 3.4): 3 bytes of length, and type 4.
    """
    with socket.create_connection((host, port), timeout=10) as there:
        there.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        head = there.recv(9, socket.MSG_WAITALL)
    if head[3:4] != b"\4":
        raise ConnectionError("whoever listens there is not Ray")


def _told(error: Exception) -> str:
    return f"its actor died ({type(error).__name__})"
