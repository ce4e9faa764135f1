"""The parts of a measurement, as frozen data: how it was taken, what was asked, and a row for each setting.

All of it survives a round trip through JSON (``core/bench/saved.py``), so a saved run is as good as a fresh one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tlkit.core.bench.stats import PERCENTILE_METHOD, PERCENTILES, Summary
from tlkit.host.power import Energy


@dataclass(frozen=True, slots=True)
class Method:
    """How samples are taken. ``duration`` (seconds of measured time per setting) replaces ``iterations``.

    ``processes`` children share a setting's samples, one after another. Turns are at least ``spacing`` seconds apart,
    so that samples of a few microseconds do not all fall in one moment of the machine. ``concurrency`` above 1 adds a
    test under load. ``power`` is None where energy is measured if the machine has a counter; ``power_seconds`` is how
    long a setting then runs for it.
    """

    iterations: int = 100
    warmup: int = 10
    duration: float | None = None
    seed: int = 0
    engine: str = "eager"
    precision: str = "f16"
    function: str | None = None
    strict_mil: bool = False
    timeout: float = 300.0
    processes: int = 1
    spacing: float = 0.1
    concurrency: int = 1
    power: bool | None = None
    power_seconds: float = 3.0
    per_op: bool = False
    percentiles: tuple[float, ...] = PERCENTILES
    percentile_method: str = PERCENTILE_METHOD
    timer: str = "time.perf_counter_ns around each inference, garbage collector off, in the setting's own process"

    @property
    def goal(self) -> float:
        """What a setting's samples are counted against: a number, or nanoseconds where there is a duration."""
        return self.iterations if self.duration is None else self.duration * 1e9

    def done(self, samples: Sequence[int]) -> float:
        """Return how much of :attr:`goal` these samples are."""
        return len(samples) if self.duration is None else sum(samples)


@dataclass(frozen=True, slots=True)
class BenchInput:
    """One input as it was given. ``source`` is ``random``, ``zeros`` or ``given``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One row to measure: its name, a unit's name, and the factory of its subject (see ``worker.py``)."""

    unit: str
    factory: str
    arguments: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    model: str = ""
    batch: int = 1
    threads: int | None = None
    inputs: tuple[BenchInput, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """``callers`` threads that each call as fast as they can, for ``seconds``. Latencies are what one caller waits."""

    callers: int
    seconds: float
    summary: Summary
    throughput: float


@dataclass(frozen=True, slots=True)
class OpCost:
    """One operation in a placement: ``share`` is of the model's whole cost (0..1), None where it is not known.

    Where operations were measured one by one: the median of its ``nanoseconds`` in a call, ``calls`` per inference, the
    shapes that it met, its multiply-accumulates, the ``bytes`` that it read and wrote, both per second (in billions),
    and what bounds it: ``arithmetic``, ``memory`` or, where neither explains the time, ``overhead``.
    """

    name: str
    type: str
    unit: str
    share: float | None
    nanoseconds: float | None = None
    calls: int = 1
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    macs: int | None = None
    bytes: int | None = None
    gmacs_per_s: float | None = None
    gb_per_s: float | None = None
    bound: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the operations of a model go under one setting: counts and, where it is known, shares of the cost, by unit.

    ``source`` is ``MLComputePlan`` (Core ML's own estimate) or ``measured`` (op by op, here). ``ops`` begins with the
    costliest; without ``--per-op`` it is empty. ``roofline`` is the most that the device did where that was measured:
    ``gmacs_per_s`` and ``gb_per_s``.
    """

    source: str
    counts: Mapping[str, int]
    shares: Mapping[str, float]
    ops: tuple[OpCost, ...] = ()
    roofline: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """How far a row's figures can be trusted: ``good``, ``fair`` or ``poor``, the reasons, and what to do.

    ``variation`` is the samples' standard deviation over their mean; ``spread`` their interquartile range over the
    median, which rare hiccups do not touch; ``drift`` how far the median of the last third lies from the first's;
    ``starts`` how far apart the processes' medians lie (None: a single process cannot say).
    """

    level: Literal["good", "fair", "poor"]
    variation: float
    spread: float
    drift: float
    starts: float | None = None
    reasons: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one setting. Times are in nanoseconds, memory in bytes; None where not measured.

    ``status`` is ``measured``, ``partial`` (interrupted), ``absent`` (not on this machine) or ``failed``; for the last
    two ``reason`` says why, and there is no summary, though samples taken before a failure are kept. ``load_first_ns``
    is the first load in a fresh process (the runtime already imported), ``load_warm_ns`` a second one after measuring.
    ``bind_ns`` is the first preparation of the inputs, with ``engine="compile"`` including the compilation;
    ``convert_ns`` is that of only the inputs, repeated (None where it cannot be separated). ``peak_bytes`` is the
    process's peak resident memory up to the last sample, of which ``runtime_bytes`` was there before the model.
    ``turns`` has a list for each process that took samples, in order: how many of ``samples_ns`` each turn gave.
    ``device_ns`` are the same inferences by the GPU's own events, where the engine has them. ``timer_ns`` is the
    overhead of timing, which each sample includes. ``why`` says in words what ``--engine auto`` chose, and why.
    """

    unit: str
    status: Literal["measured", "partial", "absent", "failed"] = "measured"
    reason: str = ""
    label: str = ""
    model: str = ""
    batch: int = 1
    inputs: tuple[BenchInput, ...] = ()
    backend: str = ""
    device: str = ""
    threads: int | None = None
    why: str = ""
    load_first_ns: int | None = None
    load_warm_ns: int | None = None
    bind_ns: int | None = None
    convert_ns: int | None = None
    first_inference_ns: int | None = None
    timer_ns: int | None = None
    warmup_calls: int = 0
    settled: bool | None = None
    summary: Summary | None = None
    device_summary: Summary | None = None
    load: Load | None = None
    energy: Energy | None = None
    placement: Placement | None = None
    placement_note: str = ""
    trust: Trust | None = None
    runtime_bytes: int | None = None
    peak_bytes: int | None = None
    turns: tuple[tuple[int, ...], ...] = ()
    samples_ns: tuple[int, ...] = ()
    device_ns: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The row's name in tables and for ``--against``."""
        return self.label or self.unit

    @property
    def items_per_second(self) -> float | None:
        """Items (inferences times the batch) per second, one inference at a time."""
        return None if self.summary is None else self.summary.throughput * self.batch


def energy_notes(missing: str, rows: Sequence[Row]) -> list[str]:
    """Return what there is to know of the energy of rows, each once: which counters are missing, and each row's own."""
    notes = dict.fromkeys([missing, *(row.energy.note for row in rows if row.energy)])
    return [note for note in notes if note]
