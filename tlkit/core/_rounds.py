"""Settings measured side by side: each in its own child, samples taken in turns so that all see the same machine.

Only one child works at a time; the others wait on their pipes. A setting that fails becomes a row that says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from tlkit.core._run import Run, row
from tlkit.core.power import Power, watts
from tlkit.core.rows import Method, Row, Setting
from tlkit.errors import TlkitError

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

    An interrupt (Ctrl-C, or SIGTERM) once samples are there ends the measurement early: the rows hold what was taken so
    far.
    """
    power = Power() if method.power is not False else None
    interrupted = 0
    with ExitStack() as stack:
        groups = [[Run(setting, method, stack) for _ in range(method.processes)] for setting in settings]
        runs = [run for group in groups for run in group]
        try:
            _measure(runs, method, power, progress)
        except (KeyboardInterrupt, SystemExit) as signalled:
            if not any(run.samples for run in runs):
                raise
            interrupted = int(signalled.code or 0) if isinstance(signalled, SystemExit) else 130
            stack.pop_all().__exit__(KeyboardInterrupt, None, None)
    return Measured(
        tuple(row(group, method) for group in groups),
        tuple(error for group in groups if (error := next((run.error for run in group if run.error), None))),
        interrupted,
        power.note if power else "not asked for",
        tuple(power.channels) if power else (),
    )


def _measure(runs: Sequence[Run], method: Method, power: Power | None, progress: Progress) -> None:
    for run in runs:
        progress(f"{_name(run)}: loading", 0, 1)
        run.attempt(run.start)
    for run in (run for run in runs if run.error is None):
        progress(f"{_name(run)}: warming up", 0, 1)
        run.attempt(run.warm_up)
    _take_turns(runs, method, progress)
    for run in runs[:: method.processes] if method.concurrency > 1 else ():
        progress(f"{_name(run)}: {method.concurrency} callers at once", 0, 1)
        run.attempt(run.crowd)
    if power is not None and power.available:
        _spend(runs[:: method.processes], method, power, progress)
    for run in (run for run in runs if run.error is None):
        progress(f"{_name(run)}: loading again", 1, 1)
        run.attempt(run.finish)


def _take_turns(runs: Sequence[Run], method: Method, progress: Progress) -> None:
    share = method.goal / method.processes
    began = float("-inf")
    while unfinished := [run for run in runs if run.unfinished]:
        time.sleep(max(0.0, began + method.spacing - time.monotonic()))
        began = time.monotonic()
        for run in unfinished:
            run.attempt(run.turn)
            alive = [run for run in runs if run.error is None]
            done = sum(min(method.done(run.samples), share) for run in alive)
            so_far = f", median {median(run.samples) / 1e6:.3g} ms" if run.samples else ""
            progress(f"{_name(run)}: measuring{so_far}", done, share * len(alive))


def _spend(runs: Sequence[Run], method: Method, power: Power, progress: Progress) -> None:
    """Measure energy: the idle machine first, with every model loaded, then each setting by itself."""
    progress("power: idle", 0, 1)
    time.sleep(min(1.0, method.power_seconds / 2))  # clocks and fans come down after the last inference
    before = power.read()
    time.sleep(method.power_seconds)
    idle = watts(before, power.read())
    for run in runs:
        progress(f"{_name(run)}: power", 0, 1)
        run.attempt(lambda child, run=run: run.spend(child, power, idle))  # type: ignore[misc]


def _name(run: Run) -> str:
    return run.setting.label or run.setting.unit
