"""The child that measures one setting: ``python -m tlkit.core.bench.worker``, driven over pipes by ``child.py``.

One JSON object per line in each direction. A command is ``{"do": NAME, ...}``; the answer is ``{"ok": {...}}`` or
``{"error": {"kind", "message", "hint"}}``, exactly one for each command. The commands, in the order they are used:

=========  ============================  ==========================================================================
prepare    factory, arguments            make the subject: import the runtime, read the inputs (not timed)
load       -                             time ``subject.load()``
first      -                             time the binding of the inputs and the first inference
run        count, seconds, settle        ``settle`` untimed calls, then timed ones until either bound
crowd      callers, seconds              that many threads call at once, each as fast as it can
overheads  -                             the cost of timing itself, and of preparing the inputs
placement  per_op                        which unit each operation goes to, where the subject can tell
memory     -                             peak resident memory so far, bytes
reload     -                             time a second ``subject.load()``, and drop what it made
quit       -                             leave
=========  ============================  ==========================================================================

When the parent exits, so do this process and all that it has started: a thread waits for the end of stdin.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import queue
import resource
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter_ns
from typing import Any, BinaryIO, Protocol

from tlkit.errors import TlkitError, packed
from tlkit.host.machine import is_mac


class Measurable(Protocol):
    """What can be measured. A factory, named ``package.module:callable``, makes one from JSON arguments."""

    def load(self) -> Any:
        """Load the model, as a program that is about to use it would."""

    def bind(self, model: Any) -> Callable[[], object]:
        """Return a call that runs the loaded model once on inputs that are ready, and waits for its result."""

    def describe(self) -> dict[str, Any]:
        """Return what runs the model: ``backend`` and ``device`` (str), ``threads`` (int or None)."""

    # A subject may also have ``placement(model, per_op)``, which returns a Placement's fields, ``rebind``: False where
    # binding does more than to make inputs ready, and ``crowd(model, callers)``, a call for each of several callers. A
    # call may have ``device_ns``, the last call's time by the device's own clock, where it has one.


class Worker:
    """The commands, and what they share: a subject, the model it loaded and the call that runs it."""

    _subject: Measurable
    _model: Any
    _call: Callable[[], object]

    def prepare(self, factory: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Make the subject, and return this process's memory before a model is loaded."""
        module, _, name = factory.partition(":")
        self._subject = getattr(importlib.import_module(module), name)(**arguments)
        return {"runtime_bytes": peak_memory()}

    def load(self) -> dict[str, Any]:
        """Time the first load in this process."""
        ns, self._model = _timed(self._subject.load)
        return {"ns": ns} | self._subject.describe()

    def first(self) -> dict[str, Any]:
        """Time the preparation of the inputs (with ``torch.compile``, including compilation) and the first
        inference."""
        bind_ns, self._call = _timed(lambda: self._subject.bind(self._model))
        ns, _ = _timed(self._call)
        self._call = _direct(self._call)
        return {"bind_ns": bind_ns, "first_inference_ns": ns, "by": self._subject.describe()}

    def run(self, count: int, seconds: float, settle: int = 0) -> dict[str, Any]:
        """Time at most ``count`` inferences, and stop early once they have taken ``seconds``; at least one."""
        gc.collect()
        gc.disable()  # as timeit does: a collection is not the model's cost
        try:
            for _ in range(settle):  # after the collection, which leaves the caches full of other things
                self._call()
            samples, device = _sample(self._call, count, seconds)
        finally:
            gc.enable()
        return {"samples": samples, "device": device}

    def crowd(self, callers: int, seconds: float) -> dict[str, Any]:
        """Let ``callers`` threads call at once for ``seconds``; return the latencies that they saw, and the time."""
        ready = getattr(self._subject, "crowd", None)
        calls = ready(self._model, callers) if ready else [self._subject.bind(self._model) for _ in range(callers)]
        for call in calls:
            call()
        calls = [_direct(call) for call in calls]
        start = perf_counter_ns()
        end = start + int(seconds * 1e9)
        with ThreadPoolExecutor(callers) as pool:
            samples = [sample for taken in pool.map(lambda call: _until(call, end), calls) for sample in taken]
        return {"samples": samples, "ns": perf_counter_ns() - start}

    def overheads(self) -> dict[str, Any]:
        """Measure the cost of a timed call that does nothing, and of preparing the inputs."""
        timer, _ = _sample(_nothing, 2000, 0.1)
        convert = None
        if getattr(self._subject, "rebind", True):
            # The median of five: a single binding is often disturbed.
            convert = sorted(_timed(lambda: self._subject.bind(self._model))[0] for _ in range(5))[2]
        return {"timer_ns": sorted(timer)[len(timer) // 2], "convert_ns": convert}

    def placement(self, per_op: bool) -> dict[str, Any]:
        """Ask the subject where the operations go."""
        tell = getattr(self._subject, "placement", None)
        return {"placement": tell(self._model, per_op) if tell else None}

    def memory(self) -> dict[str, Any]:
        """Return this process's peak resident memory in bytes."""
        return {"peak_bytes": peak_memory()}

    def reload(self) -> dict[str, Any]:
        """Time a load with all caches warm."""
        ns, _ = _timed(self._subject.load)
        return {"ns": ns}


def _sample(call: Callable[[], object], count: int, seconds: float) -> tuple[list[int], list[int]]:
    """Time calls; return nanoseconds by our clock, and by the device's where the call knows it."""
    samples: list[int] = []
    device: list[int] = []
    by_device = hasattr(call, "device_ns")
    left = int(seconds * 1e9)
    while not samples or (len(samples) < count and left > 0):
        start = perf_counter_ns()
        call()
        ns = perf_counter_ns() - start
        samples.append(ns)
        left -= ns
        if by_device:
            device.append(call.device_ns)  # type: ignore[attr-defined]
    return samples, device


def _until(call: Callable[[], object], end: int) -> list[int]:
    samples = []
    start = perf_counter_ns()
    while start < end:
        call()
        now = perf_counter_ns()
        samples.append(now - start)
        start = now
    return samples


def _direct(call: Callable[[], object]) -> Callable[[], object]:
    """Return what a call does once it has run: the first run may be watched (``engines.torch.guarded``)."""
    found: Callable[[], object] = getattr(call, "direct", call)
    return found


def _nothing() -> None:
    pass


def _timed(call: Callable[[], Any]) -> tuple[int, Any]:
    start = perf_counter_ns()
    result = call()
    return perf_counter_ns() - start, result


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes."""
    if is_mac():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux's ru_maxrss survives exec, and so begins at the parent's peak; VmHWM belongs only to this program.
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Execute commands until ``quit``."""
    answers = _claim_stdout()
    worker = Worker()
    for command in _commands():
        name = command.pop("do")
        if name == "quit":
            return
        answers.write(json.dumps(_obey(getattr(worker, name), command)).encode() + b"\n")
        answers.flush()


def _obey(method: Callable[..., dict[str, Any]], arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"ok": method(**arguments)}
    except TlkitError as error:
        return {"error": packed(error)}
    except Exception as error:
        # To stderr, where the parent keeps this child's last words.
        traceback.print_exc()
        return {"error": packed(error)}


def _claim_stdout() -> BinaryIO:
    """Return the pipe to the parent, and send to stderr whatever else this process may print on stdout.

    The pipe is left for the system to close: its end tells the parent that this process has finished leaving.
    """
    pipe = os.fdopen(os.dup(1), "wb", closefd=False)
    os.dup2(2, 1)
    return pipe


def _commands() -> Iterator[dict[str, Any]]:
    lines: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    while True:
        yield json.loads(lines.get())


def _listen(lines: queue.Queue[bytes]) -> None:
    # Unbuffered, because at exit Python waits a second for a thread that holds a buffered stream's lock, then aborts.
    for line in open(0, "rb", buffering=0, closefd=False):  # noqa: SIM115
        lines.put(line)
    # The parent is gone. The parent made this process the leader of its own group, so this takes helpers along
    # (torch.compile starts some); it also works while the main thread is in the middle of an inference.
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
