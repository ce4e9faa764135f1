"""A worker: a process that reads jobs, a line of JSON each, runs one after another and answers with their outcomes.

``python -m tlkit.fleet.worker ENTRY`` with the entry ``module:function`` that runs a command line in this process. On
Linux each job is a fork of the worker, which has imported what jobs need once: a job costs milliseconds instead of the
seconds that importing torch takes, and what one does to its process no other sees. Elsewhere, and for jobs that must be
alone (measurements, which want a process as a user starts it), a new interpreter is started.

A job is the leader of its own process group, so that a timeout ends its helpers as well, and does not outlive the
worker.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import IO, Any

from tlkit.errors import reason
from tlkit.fleet.job import OUTPUT_LIMIT, TIMED_OUT

FORKS = sys.platform == "linux"
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_LOOK = 1.0  # seconds between two looks at whether the parent lives
_parent = os.getppid()
_groups: set[int] = set()
"""The process groups of jobs that run."""


def main() -> None:
    """Serve until stdin ends."""
    entry = sys.argv[1]
    # The answers' way; whatever a job's libraries print to descriptor 1 goes to stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who gives out the jobs
    signal.signal(signal.SIGTERM, _end)
    for line in sys.stdin:
        try:
            answers.write(json.dumps(_run(entry, json.loads(line))) + "\n")
            answers.flush()
        except BrokenPipeError:
            os._exit(0)  # whoever gave the job was killed, and nobody is left to be told


def _run(entry: str, asked: dict[str, Any]) -> dict[str, Any]:
    alone = bool(asked.get("alone"))
    if FORKS and not alone:
        _prepare(entry, asked["words"][0])
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begin = time.perf_counter()
        if FORKS and not alone:
            code = _wait(_forked(entry, asked, out, err), asked["timeout"])
        else:
            code = _started(asked, out, err)
        seconds = time.perf_counter() - begin
        return {"job": asked["job"], "code": code, "seconds": round(seconds, 4), "out": _text(out), "err": _text(err)}


def _prepare(entry: str, verb: str) -> None:
    """Import what forks for this verb would each import."""
    module = import_module(entry.partition(":")[0])
    for name in getattr(module, "IMPORTS", {}).get(verb, ()):
        import_module(name)


def _forked(entry: str, asked: dict[str, Any], out: IO[bytes], err: IO[bytes]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        with suppress(OSError):  # the child may have done it, or be over
            os.setpgid(pid, pid)
        return pid
    code = 4
    try:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:  # else it ended before the line above
            code = _become(entry, asked, out, err)
    except BaseException as error:
        os.write(err.fileno(), f"tlkit: error: {reason(error)}\n".encode())
    finally:
        os._exit(code)


def _become(entry: str, asked: dict[str, Any], out: IO[bytes], err: IO[bytes]) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(asked["folder"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, found in ((0, nothing), (1, out.fileno()), (2, err.fileno())):
        os.dup2(found, number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
    module, _, name = entry.partition(":")
    run: Callable[[list[str]], int] = getattr(import_module(module), name)
    code = run(asked["words"])
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code


def _started(asked: dict[str, Any], out: IO[bytes], err: IO[bytes]) -> int:
    command = [sys.executable, "-m", "tlkit", *asked["words"]]
    process = subprocess.Popen(
        command, cwd=asked["folder"], process_group=0, stdin=subprocess.DEVNULL, stdout=out, stderr=err
    )
    _groups.add(process.pid)
    try:
        ended = _until(lambda seconds: _ends(process, seconds), asked["timeout"])
    finally:
        _kill(process.pid)
        code = process.wait()
    return code if ended else TIMED_OUT


def _ends(process: subprocess.Popen[bytes], seconds: float) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def _wait(pid: int, timeout: float) -> int:
    """Wait for a fork: its exit code, the negative number of the signal that killed it, or :data:`TIMED_OUT`."""
    _groups.add(pid)
    handle = os.pidfd_open(pid)
    try:
        ended = _until(lambda seconds: bool(select.select([handle], [], [], seconds)[0]), timeout)
    finally:
        os.close(handle)
        _kill(pid)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if ended else TIMED_OUT


def _until(ends: Callable[[float], bool], timeout: float) -> bool:
    """Wait until a job ends, for ``timeout`` seconds (0: as long as it takes); whether it did.

    ``ends`` waits for so many seconds. Where whoever gave the job is gone, nobody takes its outcome: it ends here.
    """
    begin = time.monotonic()
    while True:
        left = timeout - (time.monotonic() - begin) if timeout else _LOOK
        if left <= 0 or ends(min(left, _LOOK)):
            return left > 0
        if os.getppid() != _parent:
            _end(signal.SIGTERM, None)


def _kill(group: int) -> None:
    """End a job's process group: the job, where it runs still, and helpers that it left."""
    _groups.discard(group)
    with suppress(OSError):
        os.killpg(group, signal.SIGKILL)


def _end(number: int, frame: FrameType | None) -> None:
    for group in tuple(_groups):
        _kill(group)
    os._exit(128 + number)


def _text(file: IO[bytes]) -> str | None:
    """Return what a job printed; None where it is too much to keep."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return None if size > OUTPUT_LIMIT else file.read().decode("utf-8", "replace")


if __name__ == "__main__":
    main()
