"""The parent's side of a measuring child (``worker.py``): start it, query it, time it out, and never leave it
behind."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any, Self

from tlkit.errors import ExecutionError, unpacked

_GRACE = 5.0  # seconds that a child has to leave by itself after `quit`


class Child:
    """A child process for one setting. Whatever happens to it, :meth:`ask` raises as a TlkitError.

    ``timeout`` is how many seconds one answer may take; ``threads`` the size of the CPU thread pools, None for the
    libraries' own choice.
    """

    def __init__(self, timeout: float, threads: int | None = None) -> None:
        self._timeout = timeout
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the child)
        # -P and PYTHONPATH: the child imports what the parent would, and nothing that lies in the current folder.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tlkit.core.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | _thread_settings(threads),
            process_group=0,  # Ctrl-C only goes to the parent, and close() reaches the child's own children
        )
        assert self._process.stdout is not None
        self._out = self._process.stdout.fileno()
        os.set_blocking(self._out, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._out, selectors.EVENT_READ)
        self._buffer = b""
        self._ended = False

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send one command and return its answer; TlkitError if the child refuses, dies or does not answer in time."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None
        answer = json.loads(self._line(time.monotonic() + self._timeout, do))
        if "error" in answer:
            raise unpacked(answer["error"])
        result: dict[str, Any] = answer["ok"]
        return result

    def close(self) -> None:
        """End the child and everything it started: by a command first, then by force."""
        if not self._ended:
            self._part()
            self.kill()
        for stream in (self._process.stdin, self._process.stdout, self._log, self._selector):
            if stream is not None:
                _close_quietly(stream)

    def kill(self) -> None:
        """End the child, and everything it started, at once."""
        if self._ended:
            return
        self._ended = True
        with suppress(ProcessLookupError, PermissionError):  # all gone; macOS says EPERM of a group of zombies
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.kill()
        self.close()

    def _line(self, deadline: float, doing: str) -> bytes:
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                self.kill()
                raise ExecutionError(
                    f"no answer within {self._timeout:g} s ({_STAGES.get(doing, doing)}); its process was stopped",
                    "give it longer with --timeout",
                )
            if self._selector.select(left):
                chunk = os.read(self._out, 1 << 16)
                if not chunk:
                    raise self._death()
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _death(self) -> ExecutionError:
        """Describe how the child ended. It has closed its pipe: wait briefly for it to exit, then kill it."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        self.kill()
        code = self._process.returncode
        how = f"killed by {_signal_name(-code)}" if code < 0 else f"its process ended with exit code {code}"
        said = self._last_words()
        return ExecutionError(how, f"its last output: {said}" if said else "")

    def _last_words(self) -> str:
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 4096))
        lines = self._log.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _part(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b'{"do": "quit"}\n')
            self._process.stdin.flush()
        except BrokenPipeError:
            return
        # The pipe ends when the child does. To wait for the child itself would free its id, and its group's with it,
        # before kill() has used it.
        self._selector.select(_GRACE)


_STAGES = {
    "prepare": "starting",
    "load": "loading",
    "first": "first inference",
    "run": "measuring",
    "reload": "loading again",
}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _thread_settings(threads: int | None) -> dict[str, str]:
    return {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def _close_quietly(stream: Any) -> None:
    with suppress(BrokenPipeError):  # a command that the child never read is flushed on close
        stream.close()
