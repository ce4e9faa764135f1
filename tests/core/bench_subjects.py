"""Subjects for the measuring children of the tests: real work, real signals, real hangs."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tlkit.errors import UnavailableError


class Busy:
    """Adds up ``size`` numbers at each call; writes one line to ``log`` for each load and call."""

    def __init__(self, size: int = 1000, log: str = "") -> None:
        self.size = size
        self.log = log

    def load(self) -> range:
        self._note("load")
        return range(self.size)

    def bind(self, model: range) -> Callable[[], object]:
        def call() -> int:
            self._note("call")
            return sum(model)

        return call

    def describe(self) -> dict[str, Any]:
        return {"backend": "busy", "device": "cpu", "threads": 1}

    def _note(self, what: str) -> None:
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(f"{what} {os.getpid()}\n")


class Collected(Busy):
    """Writes down how often the garbage collector had been through everything, instead of the calls."""

    def bind(self, model: range) -> Callable[[], object]:
        return lambda: self._note(str(gc.get_stats()[2]["collections"]))


class Noisy(Busy):
    """Prints to stdout, from Python and from below it, where the protocol would be if it were not protected."""

    def load(self) -> range:
        sys.stdout.write("hello from python\n")
        os.write(1, b"hello from below\n")
        return super().load()


class Killed(Busy):
    """Is killed by ``signal_number`` at call number ``at``."""

    def __init__(self, at: int = 1, signal_number: int = signal.SIGKILL) -> None:
        super().__init__()
        self.left = at
        self.signal_number = signal_number

    def bind(self, model: range) -> Callable[[], object]:
        def call() -> None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.signal_number)

        return call


class Exits(Busy):
    """Leaves with an exit code in the middle of loading."""

    def load(self) -> range:
        sys.stderr.write("the driver said no\n")
        sys.stderr.flush()
        os._exit(7)


class Hangs(Busy):
    """Never answers its first call; starts a helper first and writes both process ids to ``pids``."""

    def __init__(self, pids: str = "") -> None:
        super().__init__()
        self.pids = pids

    def bind(self, model: range) -> Callable[[], object]:
        helper = subprocess.Popen(["sleep", "600"])
        if self.pids:
            Path(self.pids + ".part").write_text(f"{os.getpid()} {helper.pid}")
            Path(self.pids + ".part").rename(self.pids)
        return lambda: time.sleep(600)


class Absent(Busy):
    """Is not on this machine."""

    def load(self) -> range:
        raise UnavailableError("no such unit", "buy one")


class Breaks(Busy):
    """Raises what no one foresaw."""

    def load(self) -> range:
        raise RuntimeError("weights are\nupside down")


def slow() -> Busy:
    """About a millisecond and more a call: long beside the clock's own cost."""
    return Busy(100_000)


class Environment(Busy):
    """Reports the thread count that its libraries would read."""

    def describe(self) -> dict[str, Any]:
        return {"backend": "", "device": "", "threads": int(os.environ["OMP_NUM_THREADS"])}


class Tidy(Busy):
    """Writes a file when its process leaves in good order."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        atexit.register(lambda: Path(mark).write_text("tidy"))


class Restless(Busy):
    """Each call takes a seventh longer than the one before: no two windows agree."""

    def bind(self, model: range) -> Callable[[], object]:
        self.seconds = 0.001

        def call() -> None:
            self.seconds *= 1.15
            time.sleep(self.seconds)

        return call


class Sleeps(Busy):
    """Waits 5 ms, as a device would be waited for."""

    def bind(self, model: range) -> Callable[[], object]:
        return lambda: time.sleep(0.005)


class OnDevice(Busy):
    """Has a clock of its own, which says a millisecond every time."""

    def bind(self, model: range) -> Callable[[], object]:
        class Call:
            device_ns = 1_000_000

            def __call__(self) -> int:
                return sum(model)

        return Call()
