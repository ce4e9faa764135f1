"""One child's part in a measurement: its commands, and its answers so far."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any, Literal

from tlkit.core.bench.child import Child
from tlkit.core.bench.rows import Load, Method, OpCost, Placement, Row, Setting
from tlkit.core.bench.stats import summarize
from tlkit.errors import TlkitError, UnavailableError
from tlkit.host.power import Energy, Power, energy, watts

TURNS = 10
"""Each process takes its samples in about this many turns: the more turns, the less a busy moment weighs."""

TURN_SECONDS = 1.0
"""The longest turn, so that slow drift affects all settings alike."""

SETTLE = 2
"""Untimed calls before each turn, for caches and clock speeds to recover from a pause or another setting's turn."""

_SETTLE_SECONDS = 0.1  # long inferences need fewer of them: such a start is soon forgotten

_AGREE = 0.05  # warm-up ends when the medians of its last windows lie this close together
_WINDOWS = 3
_MOST_WINDOWS = 12
_MOST_SECONDS = 10.0  # of warm-up beyond what was asked for


class Run:
    """One child of a setting. Of several, each takes an equal share of the samples."""

    def __init__(self, setting: Setting, method: Method, stack: ExitStack) -> None:
        self.setting = setting
        self.samples: list[int] = []
        self.device_samples: list[int] = []
        self.turns: list[int] = []
        self.error: TlkitError | None = None
        self.energy: Energy | None = None
        self.load: Load | None = None
        self._method = method
        self._stack = stack
        self._child: Child | None = None
        self._facts: dict[str, Any] = {}

    @property
    def unfinished(self) -> bool:
        """Whether more samples are wanted of it."""
        return self.error is None and self._method.done(self.samples) < self._method.goal / self._method.processes

    def attempt(self, step: Callable[[Child], None]) -> None:
        """Take one step, unless an earlier one failed; a failure ends the child and is recorded."""
        if self.error is not None:
            return
        if self._child is None:
            self._child = self._stack.enter_context(Child(self._method.timeout, self.setting.threads))
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
        first = child.ask("first")
        self._facts |= first.pop("by") | first  # what runs the model may be chosen when its inputs are bound

    def warm_up(self, child: Child) -> None:
        """Run without keeping the times: as often as asked, then until the last windows agree, within bounds."""
        left = asked = self._method.warmup
        while left > 0:
            left -= len(child.ask("run", count=left, seconds=TURN_SECONDS)["samples"])
        if not asked:
            return
        windows: list[float] = []
        calls, end = asked, time.monotonic() + _MOST_SECONDS
        while not (settled := _agree(windows)) and len(windows) < _MOST_WINDOWS and time.monotonic() < end:
            samples = child.ask("run", count=min(asked, 20), seconds=TURN_SECONDS / 2)["samples"]
            windows.append(median(samples))
            calls += len(samples)
        self._facts |= {"warmup_calls": calls, "settled": settled}

    def turn(self, child: Child) -> None:
        """Take some samples."""
        method = self._method
        if method.duration is None:
            share = math.ceil(method.iterations / method.processes)
            count = min(math.ceil(share / TURNS), share - len(self.samples))
            seconds = TURN_SECONDS
        else:
            share_s = method.duration / method.processes
            # In effect no limit: the seconds end the turn.
            count = 1_000_000
            seconds = min(TURN_SECONDS, share_s / TURNS, share_s - sum(self.samples) / 1e9)
        last = (self.samples or [self._facts["first_inference_ns"]])[-1] / 1e9
        # By the latest sample: the first inference is often far slower than the others.
        settle = min(SETTLE, round(_SETTLE_SECONDS / max(last, 1e-9)))
        taken = child.ask("run", count=count, seconds=seconds, settle=settle)
        self.samples += taken["samples"]
        self.device_samples += taken["device"]
        self.turns.append(len(taken["samples"]))

    def crowd(self, child: Child) -> None:
        """Run several callers at once."""
        typical = median(self.samples) / 1e9
        # About 30 calls per caller, and well within the time after which a silent child is given up.
        seconds = min(10.0, self._method.timeout / 2, max(0.5, 30 * typical * self._method.concurrency))
        told = child.ask("crowd", callers=self._method.concurrency, seconds=seconds)
        samples, ns = told["samples"], told["ns"]
        summary = summarize(samples, self._method.percentiles)
        self.load = Load(self._method.concurrency, ns / 1e9, summary, 1e9 * len(samples) / ns)

    def spend(self, child: Child, power: Power, idle: dict[str, float]) -> None:
        """Run for some seconds between two readings of the energy counters."""
        # Reach a steady state before the first reading.
        child.ask("run", count=2, seconds=0.1)
        before = power.read()
        seconds = min(self._method.power_seconds, self._method.timeout / 2)
        taken = child.ask("run", count=10_000_000, seconds=seconds)
        after = power.read()
        used = watts(before, after)
        device = self._facts.get("kind", "")
        self.energy = energy(used, idle, after.at - before.at, len(taken["samples"]), device)

    def finish(self, child: Child) -> None:
        """Read the memory peak before a second load raises it, then time that load and measure the overheads."""
        self._facts |= child.ask("memory") | child.ask("overheads")
        # The order matters: a second model in memory would count towards the peak.
        self._facts["load_warm_ns"] = child.ask("reload")["ns"]
        told = child.ask("placement", per_op=self._method.per_op)["placement"]
        if told:
            self._facts["placement_note"] = told.pop("note", "")
            self._facts["placement"] = _placement(told) if told else None
        child.close()

    def end(self, child: Child) -> None:
        """Read the memory peak and end the child: everything else comes from the setting's first child."""
        self._facts |= child.ask("memory")
        child.close()

    def facts(self) -> dict[str, Any]:
        """Return the child's facts as fields of a row."""
        return {name: value for name, value in self._facts.items() if name != "kind"}


def row(runs: Sequence[Run], method: Method) -> Row:
    """Return the row of a setting that these children share; only the first of them had a cold cache."""
    setting = runs[0].setting
    error = next((run.error for run in runs if run.error), None)
    samples = [sample for run in runs for sample in run.samples]
    device = [sample for run in runs for sample in run.device_samples]
    common: dict[str, Any] = runs[0].facts() | _of_all([run.facts() for run in runs])
    common |= {
        "label": setting.label,
        "model": setting.model,
        "batch": setting.batch,
        "inputs": setting.inputs,
        "samples_ns": tuple(samples),
        "device_ns": tuple(device),
        "turns": tuple(tuple(run.turns) for run in runs if run.turns),
    }
    if error is not None:
        status: Literal["absent", "failed"] = "absent" if isinstance(error, UnavailableError) else "failed"
        reason = error.message + (f" (after {len(samples)} samples)" if samples else "")
        return Row(setting.unit, status, reason, **common)
    common |= {"load": runs[0].load, "energy": runs[0].energy}
    if not samples:
        return Row(setting.unit, "partial", "interrupted before its first sample", **common)
    done = len(runs) == method.processes and not any(run.unfinished for run in runs)
    return Row(
        setting.unit,
        "measured" if done else "partial",
        "" if done else f"interrupted after {len(samples)} samples",
        summary=summarize(samples, method.percentiles),
        device_summary=summarize(device, method.percentiles) if device else None,
        **common,
    )


def _of_all(facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the fields that depend on more than one child."""
    found: dict[str, Any] = {}
    if peaks := [told["peak_bytes"] for told in facts if "peak_bytes" in told]:
        found["peak_bytes"] = max(peaks)
    if warmed := [told for told in facts if "settled" in told]:
        found |= {"settled": all(told["settled"] for told in warmed)}
        found |= {"warmup_calls": sum(told["warmup_calls"] for told in warmed)}
    return found


def _agree(windows: Sequence[float]) -> bool:
    last = windows[-_WINDOWS:]
    return len(last) == _WINDOWS and max(last) <= min(last) * (1 + _AGREE)


def _placement(told: dict[str, Any]) -> Placement:
    ops = tuple(OpCost(**_with_tuples(op)) for op in told["ops"])
    return Placement(told["source"], told["counts"], told["shares"], ops, told.get("roofline"))


def _with_tuples(told: dict[str, Any]) -> dict[str, Any]:
    """Return what a process told, with tuples for its lists: JSON has only these."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
