"""Settings measured side by side: each in its own child, samples taken in turns so that all see the same machine.

Where several processes share a setting's samples, they run one after another, in rounds with one process per setting:
so each setting's processes are spread over the whole time, and the settings of a round see the same machine. Only one
child works at a time; the others wait on their pipes. A setting that fails becomes a row that says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from tlkit.core.bench.rows import Method, Row, Setting
from tlkit.core.bench.take import Run, row
from tlkit.errors import TlkitError
from tlkit.host.power import Power, watts

Progress = Callable[[str, float, float], None]
"""Called with (what is being done, steps done, steps in all) as a measurement goes on."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The rows in the settings' order, the errors of those that could not be measured, and why there is no power.

    ``interrupted`` is the exit code that the signal asks for that ended it early (130 or 143), or 0.
    """

    rows: tuple[Row, ...]
    errors: tuple[TlkitError, ...]
    interrupted: int = 0
    power_note: str = ""
    power_channels: tuple[str, ...] = ()


def measure(settings: Sequence[Setting], method: Method, progress: Progress = lambda *_: None) -> Measured:
    """Measure ``settings``. No child outlives this call, however it ends.

    An interrupt (Ctrl-C or SIGTERM) after the first samples ends the measurement early: the rows hold what was taken so
    far.
    """
    power = Power() if method.power is not False else None
    rounds = _Rounds(settings, method, progress)
    interrupted = 0
    with ExitStack() as stack:
        try:
            for _ in range(method.processes):
                rounds.play(stack, power)
        except (KeyboardInterrupt, SystemExit) as signalled:
            if not any(run.samples for run in rounds.runs):
                raise
            interrupted = int(signalled.code or 0) if isinstance(signalled, SystemExit) else 130
            # End the children as on an error: their answers may be cut off in the middle.
            stack.pop_all().__exit__(KeyboardInterrupt, None, None)
    errors = (next((run.error for run in group if run.error), None) for group in rounds.groups)
    return Measured(
        tuple(row(group, method) for group in rounds.groups),
        tuple(error for error in errors if error is not None),
        interrupted,
        power.note if power else "not asked for",
        tuple(power.channels) if power else (),
    )


class _Rounds:
    """The settings' processes: ``groups`` has those of each setting, in the order in which they were started."""

    def __init__(self, settings: Sequence[Setting], method: Method, progress: Progress) -> None:
        self.groups: list[list[Run]] = [[] for _ in settings]
        self._settings = settings
        self._method = method
        self._progress = progress

    @property
    def runs(self) -> list[Run]:
        """Every process so far."""
        return [run for group in self.groups for run in group]

    def play(self, stack: ExitStack, power: Power | None) -> None:
        """Start one process for each setting that has not failed, let them take their share of samples in turns, and
        end them.

        The order in which they start changes from round to round as well.
        """
        first = not self.runs
        runs = []
        for setting, group in zip(self._settings, self.groups, strict=True):
            if not any(run.error for run in group):
                runs.append(Run(setting, self._method, stack))
                group.append(runs[-1])
        runs = _ordered(runs, max(map(len, self.groups)) - 1)
        for run in runs:
            self._tell(run, "loading")
            run.attempt(run.start)
        for run in _alive(runs):
            self._tell(run, "warming up")
            run.attempt(run.warm_up)
        self._take_turns(runs)
        # Later rounds repeat only the samples: load, energy and overheads need a setting's first process.
        if first:
            self._beside(runs, power)
        for run in _alive(runs):
            self._tell(run, "loading again" if first else "ending")
            run.attempt(run.finish if first else run.end)

    def _take_turns(self, runs: Sequence[Run]) -> None:
        """Take turns in a changing order.

        The first process after a pause runs about 1 % slower (the CPU has clocked down); one that runs twice in a row
        finds warm caches.
        """
        number, began = 0, float("-inf")
        while unfinished := [run for run in _ordered(runs, number) if run.unfinished]:
            time.sleep(max(0.0, began + self._method.spacing - time.monotonic()))
            began = time.monotonic()
            for run in unfinished:
                run.attempt(run.turn)
                so_far = f", median {median(run.samples) / 1e6:.3g} ms" if run.samples else ""
                self._tell(run, f"measuring{so_far}")
            number += 1

    def _beside(self, runs: Sequence[Run], power: Power | None) -> None:
        """Measure what a single process can show: several callers at once, and energy."""
        for run in _alive(runs) if self._method.concurrency > 1 else ():
            self._tell(run, f"{self._method.concurrency} callers at once")
            run.attempt(run.crowd)
        if power is not None and power.available:
            self._spend(_alive(runs), power)

    def _spend(self, runs: Sequence[Run], power: Power) -> None:
        """Measure energy: the idle machine first, with every model loaded, then each setting by itself."""
        seconds = self._method.power_seconds
        self._progress("power: idle", *self._done())
        time.sleep(min(1.0, seconds / 2))  # clocks and fans come down after the last inference
        before = power.read()
        time.sleep(seconds)
        idle = watts(before, power.read())
        for run in runs:
            self._tell(run, "power")
            run.attempt(lambda child, run=run: run.spend(child, power, idle))  # type: ignore[misc]

    def _tell(self, run: Run, what: str) -> None:
        self._progress(f"{run.setting.label or run.setting.unit}: {what}", *self._done())

    def _done(self) -> tuple[float, float]:
        """Return how much of all samples has been taken, and how much there will be."""
        share = self._method.goal / self._method.processes
        alive = [group for group in self.groups if not any(run.error for run in group)]
        # A last turn may go beyond the share.
        done = sum(min(self._method.done(run.samples), share) for group in alive for run in group)
        return done, self._method.goal * max(1, len(alive))


def _ordered(runs: Sequence[Run], number: int) -> list[Run]:
    """Return the order of turn ``number``: forwards, then backwards, then the same starting one later.

    So every process takes every position equally often.
    """
    if not runs:
        return []
    begin = number // 2 % len(runs)
    found = [*runs[begin:], *runs[:begin]]
    return found[::-1] if number % 2 else found


def _alive(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.error is None]
