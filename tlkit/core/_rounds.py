"""Settings measured side by side: each in its own child, samples taken in turns so that all see the same machine.

Only one child works at a time; the others wait on their pipes. A setting that fails becomes a row that says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

from tlkit.core._child import Child
from tlkit.core.stats import PERCENTILE_METHOD, PERCENTILES, Summary, summarize
from tlkit.errors import TlkitError, UnavailableError

Progress = Callable[[str, float, float], None]
"""Called with (what is being done, steps done, steps in all) as a measurement goes on."""

_TURNS = 10  # each setting's samples are taken in about this many turns
_TURN_SECONDS = 1.0  # and none holds the machine for longer than this, so that slow drift hits all settings alike


@dataclass(frozen=True, slots=True)
class Method:
    """How samples are taken. With ``duration`` (seconds of measured time a setting), ``iterations`` does not count."""

    iterations: int = 100
    warmup: int = 10
    duration: float | None = None
    seed: int = 0
    engine: str = "eager"
    precision: str = "f16"
    threads: int | None = None
    timeout: float = 300.0
    percentiles: tuple[float, ...] = PERCENTILES
    percentile_method: str = PERCENTILE_METHOD
    timer: str = "time.perf_counter_ns around each inference, garbage collector off, in the setting's own process"

    @property
    def goal(self) -> float:
        """What a setting's samples are counted against: a number, or nanoseconds where there is a duration."""
        return self.iterations if self.duration is None else self.duration * 1e9

    def done(self, samples: Sequence[int]) -> float:
        """How much of :attr:`goal` these samples are."""
        return len(samples) if self.duration is None else sum(samples)


@dataclass(frozen=True, slots=True)
class Setting:
    """One column of a measurement: a unit's name, and the factory of its subject (see ``_worker.py``)."""

    unit: str
    factory: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one setting. Times are nanoseconds, memory is bytes; None is what was not measured.

    ``status`` is ``measured``, ``absent`` (not on this machine) or ``failed``; then ``reason`` says why, and there is
    no summary, though samples taken before a failure are kept. ``load_first_ns`` is the first load in a fresh process
    (the runtime already imported), ``load_warm_ns`` a second one after measuring. ``bind_ns`` is the making ready of
    the inputs, with ``engine="compile"`` the compilation too. ``peak_bytes`` is the process's peak resident memory up
    to the last sample, of which ``runtime_bytes`` was there before the model.
    """

    unit: str
    status: Literal["measured", "absent", "failed"] = "measured"
    reason: str = ""
    backend: str = ""
    device: str = ""
    threads: int | None = None
    load_first_ns: int | None = None
    load_warm_ns: int | None = None
    bind_ns: int | None = None
    first_inference_ns: int | None = None
    summary: Summary | None = None
    runtime_bytes: int | None = None
    peak_bytes: int | None = None
    samples_ns: tuple[int, ...] = ()


def measure(
    settings: Sequence[Setting], method: Method, progress: Progress = lambda *_: None
) -> tuple[tuple[Row, ...], tuple[TlkitError, ...]]:
    """Measure ``settings``; return their rows in order, and the errors of those that could not be measured.

    No child outlives this call, however it ends.
    """
    with ExitStack() as stack:
        runs = [_Run(setting, method, len(settings) > 1, stack) for setting in settings]
        for run in runs:
            progress(f"{run.setting.unit}: loading", 0, 1)
            run.attempt(run.start)
        for run in runs:
            progress(f"{run.setting.unit}: warming up", 0, 1)
            run.attempt(run.warm_up)
        _take_turns(runs, method, progress)
        for run in runs:
            run.attempt(run.finish)
    return tuple(run.row() for run in runs), tuple(run.error for run in runs if run.error)


def _take_turns(runs: Sequence[_Run], method: Method, progress: Progress) -> None:
    while unfinished := [run for run in runs if run.error is None and method.done(run.samples) < method.goal]:
        for run in unfinished:
            run.attempt(run.turn)
            alive = [run for run in runs if run.error is None]
            done = sum(min(method.done(run.samples), method.goal) for run in alive)
            progress(f"{run.setting.unit}: measuring", done, method.goal * len(alive))


class _Run:
    """One setting on its way: the child, and what it has said so far."""

    def __init__(self, setting: Setting, method: Method, shared: bool, stack: ExitStack) -> None:
        self.setting = setting
        self.samples: list[int] = []
        self.error: TlkitError | None = None
        self._method = method
        self._settle = int(shared)  # after another setting's turn, one call to bring the caches back
        self._stack = stack
        self._child: Child | None = None
        self._facts: dict[str, Any] = {}

    def attempt(self, step: Callable[[Child], None]) -> None:
        """Take one step, unless an earlier one failed; a failure ends the child and stays on record."""
        if self.error is not None:
            return
        if self._child is None:
            self._child = self._stack.enter_context(Child(self._method.timeout, self._method.threads))
        try:
            step(self._child)
        except TlkitError as error:
            self.error = error
            self._child.kill()

    def start(self, child: Child) -> None:
        """Load the model, and run it for the first time."""
        ready = child.ask("prepare", factory=self.setting.factory, arguments=self.setting.arguments)
        loaded = child.ask("load")
        self._facts = ready | {"load_first_ns": loaded.pop("ns")} | loaded
        self._facts |= child.ask("first")

    def warm_up(self, child: Child) -> None:
        """Run without keeping the times."""
        left = self._method.warmup
        while left > 0:
            left -= len(child.ask("run", count=left, seconds=_TURN_SECONDS)["samples"])

    def turn(self, child: Child) -> None:
        """Take some samples."""
        method = self._method
        if method.duration is None:
            count = min(math.ceil(method.iterations / _TURNS), method.iterations - len(self.samples))
            seconds = _TURN_SECONDS
        else:
            count = 1_000_000
            seconds = min(_TURN_SECONDS, method.duration / _TURNS, method.duration - sum(self.samples) / 1e9)
        self.samples += child.ask("run", count=count, seconds=seconds, settle=self._settle)["samples"]

    def finish(self, child: Child) -> None:
        """Read the memory peak before a second load raises it, then time that load."""
        self._facts |= child.ask("memory")
        self._facts["load_warm_ns"] = child.ask("reload")["ns"]
        child.close()

    def row(self) -> Row:
        """Return what is known now."""
        if self.error is None:
            summary = summarize(self.samples, self._method.percentiles)
            return Row(self.setting.unit, summary=summary, samples_ns=tuple(self.samples), **self._facts)
        status: Literal["absent", "failed"] = "absent" if isinstance(self.error, UnavailableError) else "failed"
        reason = self.error.message
        if self.samples:
            reason += f" (after {len(self.samples)} samples)"
        return Row(self.setting.unit, status, reason, samples_ns=tuple(self.samples), **self._facts)
