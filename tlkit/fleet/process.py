"""A worker as whoever gives out jobs sees it: a process, a way to it and a way back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tlkit.fleet.job import OUTPUT_LIMIT, TIMED_OUT, FleetJob, JobOutcome


class WorkerProcess:
    """One worker on this machine. ``entry`` is the ``module:function`` that runs a command line.

    ``threads`` is how many of the machine's cores it should compute with: several workers share them.
    """

    def __init__(self, entry: str, threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tlkit.fleet.worker", entry],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches only this process, which decides
            env=environment,
        )

    def fileno(self) -> int:
        """The descriptor that can be read when an answer, or the worker's end, is there."""
        assert self._process.stdout
        return self._process.stdout.fileno()

    def give(self, asked: Mapping[str, Any]) -> None:
        """Hand a job over; a worker that is gone is found at :meth:`take`."""
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            self._process.stdin.flush()

    def take(self) -> dict[str, Any] | None:
        """Wait for the answer; None where the worker ended without one."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if line.endswith(b"\n"):
            found: dict[str, Any] = json.loads(line)
            return found
        self._process.wait()
        return None

    def close(self) -> None:
        """End the worker and the job that it runs."""
        self._process.terminate()  # it ends its job first
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()


def asked(job: FleetJob) -> dict[str, Any]:
    """Return a job as a worker takes it."""
    words = [job.verb, *job.words]
    return {"job": job.key, "words": words, "folder": job.folder, "timeout": job.timeout, "alone": job.needs.alone}


def outcome(job: FleetJob, answer: Mapping[str, Any]) -> JobOutcome:
    """Return what a worker's answer says; a code below 0 is the signal that killed the job's own process."""
    code, said, printed = int(answer["code"]), answer["err"] or "", answer["out"]
    error = ""
    document: Any = None
    if code < 0:
        error = f"ended by {signal.Signals(-code).name}"
    elif code == TIMED_OUT:
        error = f"took longer than {job.timeout:g} s"
    elif code:
        marked = [line for line in said.splitlines() if line.startswith("tlkit: error: ")]
        error = marked[-1].removeprefix("tlkit: error: ") if marked else f"exit code {code}"
    if printed is None:
        error = error or f"its answer has more than {OUTPUT_LIMIT >> 20} MiB and was not kept"
    elif printed.strip():
        document = printed
        with suppress(ValueError):
            document = json.loads(printed)
    return JobOutcome(code, float(answer["seconds"]), document, error)
