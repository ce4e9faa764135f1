"""Do something risky in a process that may die of it, before this one does the same.

A library written in C++ can crash on a damaged file, loop, or ask for all the memory there is. No ``except`` helps
against that; a child process does. On Linux that is a fork, which costs some milliseconds and has all that is imported
already. Elsewhere, where a fork of a process with threads is not safe, it is a fresh interpreter.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from tlkit.errors import LoadError, packed, unpacked
from tlkit.host import budget
from tlkit.host.allocator import take_free
from tlkit.host.forked import use_one_thread

MORE = f"if you know who made it: {budget.VARIABLE}=8 in the environment allows eight times as much"
"""What to do where something went beyond the bounds of its rehearsal."""
_LATE = 5.0  # seconds after which a child that has not ended itself is ended


class CrashError(LoadError):
    """What was rehearsed ended its process, or took too long."""


def rehearse(
    action: str, words: Sequence[str], memory: int, seconds: float, fresh: bool = sys.platform != "linux"
) -> None:
    """Call ``action`` (``module:function``) with ``words`` in a child process; raise here the TlkitError it raises.

    The child may have ``memory`` bytes more than it starts with (Linux only: past them it gets a MemoryError) and
    ``seconds``. Raises :class:`CrashError`, which says how the child ended, where it died or was stopped. ``fresh``
    takes a new interpreter rather than a fork of this process.
    """
    start = _start_fresh if fresh else _fork
    pid, answers = start(action, list(words), memory, seconds)
    try:
        answer = _read(answers, time.monotonic() + seconds + _LATE)
    finally:
        os.close(answers)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # it has answered, or never will
        _, status = os.waitpid(pid, 0)
    if not answer:
        raise _death(os.waitstatus_to_exitcode(status), seconds)
    error = json.loads(answer)["error"]
    if error:
        raise unpacked(error)


def _death(code: int, seconds: float) -> CrashError:
    if code >= 0:
        return CrashError(f"ended its process with exit code {code}")
    if -code in (signal.SIGKILL, getattr(signal, "SIGALRM", signal.SIGKILL)):
        return CrashError(f"took over {seconds:g} s", MORE)
    return CrashError(f"crashed its process ({signal.Signals(-code).name})")


def _fork(action: str, words: Sequence[str], memory: int, seconds: float) -> tuple[int, int]:
    answers, end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's about threads: the child computes with one
        pid = os.fork()
    if not pid:
        try:
            os.close(answers)
            for stream in (0, 1, 2):
                os.dup2(os.open(os.devnull, os.O_RDWR), stream)
            _perform(action, words, memory, seconds, end)
        finally:
            os._exit(70)  # EX_SOFTWARE: only reached if it could not even answer
    os.close(end)
    return pid, answers


def _start_fresh(action: str, words: Sequence[str], memory: int, seconds: float) -> tuple[int, int]:
    arguments = [action, str(memory), str(seconds), *words]
    # -P and PYTHONPATH: the child imports what this process would, and nothing that lies in the current folder.
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", f"from {__name__} import main; main()", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    answers = os.dup(process.stdout.fileno())
    process.stdout.close()
    process.returncode = 0  # the caller waits for it by its id
    return process.pid, answers


def main() -> None:
    """Be the fresh interpreter: its words are the action, the memory, the seconds, and the action's own."""
    action, memory, seconds, *words = sys.argv[1:]
    end = os.dup(1)
    os.dup2(2, 1)
    _perform(action, words, int(memory), float(seconds), end)


def _perform(action: str, words: Sequence[str], memory: int, seconds: float, end: int) -> NoReturn:
    """Call the action within the bounds, write to ``end`` what came of it, and end this process."""
    module, _, function = action.partition(":")
    answer: dict[str, object] = {"error": None}
    try:
        faulthandler.disable()  # the parent says how it ended
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if hasattr(signal, "setitimer"):  # with the system's own end, should the parent be gone
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, seconds)
        use_one_thread()
        call = getattr(import_module(module), function)
        _bound(memory)
        call(*words)
    except Exception as error:
        answer = {"error": packed(error)}
    os.write(end, json.dumps(answer).encode())
    os._exit(0)


def _bound(memory: int) -> None:
    if sys.platform != "linux":  # elsewhere the limit does not count what is mapped
        return
    import resource  # not on Windows

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    take_free()
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    used = int(status.partition("VmData:")[2].split()[0]) * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = used + memory
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _read(answers: int, deadline: float) -> bytes:
    """Return all that the child writes before it ends, b"" where it goes on beyond ``deadline``."""
    found = b""
    while select.select([answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(answers, 1 << 16)
        if not chunk:
            return found
        found += chunk
    return b""
