"""``bench``: latency of models under each compute-unit setting of a machine, measured and never estimated."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tlkit.core.bench import plan
from tlkit.core.bench.rounds import Progress, measure
from tlkit.core.bench.rows import Method, Row
from tlkit.core.bench.stats import PERCENTILES
from tlkit.core.bench.trust import judge
from tlkit.core.bench.versus import Comparison, comparisons
from tlkit.core.convert import builtin
from tlkit.core.model.engines import PRECISIONS, measured, modes
from tlkit.core.model.load import load_model
from tlkit.engines.engine import HowToRun
from tlkit.errors import TlkitError, UnavailableError, UsageError
from tlkit.host.conditions import Conditions, watch
from tlkit.host.interrupt import interruptible
from tlkit.host.machine import Machine, describe_machine, versions
from tlkit.host.scratch import temporary_files
from tlkit.types import Unit
from tlkit.words import Told

DEFAULT_MODEL = "resnet50"
Path_ = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class BenchModel:
    """A measured model: its name in the rows, what the user asked for, and the file (or source) measured."""

    name: str
    asked: str
    path: str
    kind: str


@dataclass(frozen=True, slots=True, repr=False)
class BenchResult(Told):
    """The result of :func:`bench`, which ``tlkit bench --json`` prints: raw samples, and everything they depend on.

    ``started`` is UTC in ISO 8601. ``comparisons`` are speed-ups over the row ``against``. ``power_note`` says which
    energy counters are missing and why, ``power_channels`` which exist. ``interrupted``: ended early.
    """

    models: tuple[BenchModel, ...]
    started: str
    method: Method
    machine: Machine
    conditions: Conditions
    versions: Mapping[str, str | None]
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...] = ()
    power_channels: tuple[str, ...] = ()
    power_note: str = ""
    interrupted: bool = False

    def facts(self) -> list[tuple[str, object]]:
        """See :class:`~tlkit.words.Told`: the models, the machine, and each row's median."""
        rows = [
            (row.name, f"{row.summary.median_ns / 1e6:.3g} ms, {row.summary.throughput:.4g} per s")
            if row.summary
            else (row.name, row.reason)
            for row in self.rows
        ]
        models = ", ".join(model.asked for model in self.models)
        return [("model", models), ("machine", f"{self.machine.cpu}, {self.machine.os}"), *rows]

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows of settings that exist here but could not be measured."""
        return tuple(row for row in self.rows if row.status == "failed")


class BenchInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM in the middle of a measurement; ``result`` holds what had been measured until then.

    ``exit_code`` is the one that the signal asks for: 130 or 143.
    """

    def __init__(self, result: BenchResult, exit_code: int) -> None:
        super().__init__("interrupted")
        self.result = result
        self.exit_code = exit_code


def bench(
    model: Path_ | Sequence[Path_] | None = None,
    *,
    units: Sequence[str | Unit] | None = None,
    iterations: int = 100,
    warmup: int = 10,
    duration: float | None = None,
    seed: int = 0,
    inputs: Mapping[str, Any] | None = None,
    shapes: plan.Shapes | None = None,
    batch: Sequence[int] = (),
    engine: str = "auto",
    precision: str = "f16",
    function: str | None = None,
    strict_mil: bool = False,
    cache: bool = True,
    custom: Iterable[str] = (),
    percentiles: Sequence[float] = PERCENTILES,
    threads: int | Sequence[int] | None = None,
    concurrency: int = 1,
    processes: int | None = None,
    against: str | None = None,
    power: bool | None = None,
    per_op: bool = False,
    timeout: float = 300.0,
    trust: bool = False,
    progress: Progress = lambda *_: None,
) -> BenchResult:
    """Measure models under each of ``units``: one or several paths, PyTorch sources (``net.py:Net``) or built-ins.

    ``model`` None is the built-in ResNet-50. ``units`` None means every setting of this machine: on macOS all four,
    elsewhere ``cpu`` and, where the machine shows a GPU, ``gpu``. ``iterations`` inferences are timed per setting, or
    ``duration`` seconds of them, after at least ``warmup`` untimed ones: warm-up continues, within bounds, until its
    last windows agree (0: no warm-up). ``inputs`` maps names to anything ``Model.predict`` takes; the others are drawn
    once from ``seed``. ``batch``, ``shapes`` (several for an input) and ``threads`` are sweeps: a row for each.
    ``concurrency`` above 1 adds throughput with that many callers. ``processes`` children share a setting's samples,
    one after another, which shows how much results differ between starts: None is five, or three or four where each
    gets ten samples (or a second of ``duration``), else one. ``function`` is one of a multifunction package's,
    ``strict_mil`` follows MIL's specification where Core ML was measured to depart from it. ``custom`` are texts
    ``CLASS=module:function``: what runs a network's custom layers. ``cache=False`` neither keeps what engines compile
    nor uses what was kept. Speed-ups are over the row called ``against``, the first if None. ``power`` False leaves
    energy out. ``timeout`` is how many seconds a child
    may stay silent. ``trust`` is :func:`tlkit.convert`'s.

    Raises UnavailableError if none of the settings is here, and the first setting's own error if none could be
    measured; as long as one could, the others are rows that say why not. BenchInterrupted (a KeyboardInterrupt) is
    raised at Ctrl-C or SIGTERM once there are samples.
    """
    method = Method(
        iterations=iterations,
        warmup=warmup,
        duration=duration,
        seed=seed,
        engine=engine,
        precision=precision,
        function=function,
        strict_mil=strict_mil,
        timeout=timeout,
        processes=_processes(iterations, duration) if processes is None else processes,
        concurrency=concurrency,
        power=power,
        per_op=per_op,
        percentiles=tuple(percentiles),
    )
    wanted = _units(units)
    several = (threads,) if threads is None or isinstance(threads, int) else tuple(threads)
    sweep = plan.Sweep(wanted, tuple(batch), several, shapes)
    _check(method, sweep)
    asked = [os.fspath(name) for name in _listed(model)]
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with interruptible(), temporary_files("tlkit-bench-") as folder:
        subjects = _subjects(asked, sweep, folder, function, engine, progress)
        common: dict[str, Any] = {"precision": precision, "engine": engine, "function": function}
        common |= {"strict_mil": strict_mil, "trust": trust, "cache": cache, "custom": list(custom)}
        settings = plan.settings(subjects, sweep, inputs or {}, seed, common, folder)
        if against is not None and against not in (labels := [setting.label for setting in settings]):
            raise UsageError(f"--against {against}: no such row", f"rows: {', '.join(labels)}")
        end = watch()
        found = measure(settings, method, progress)
    conditions = end()
    if len(found.errors) == len(found.rows):
        raise _nothing(found.rows, found.errors)
    rows = tuple(replace(row, trust=judge(row, conditions)) for row in found.rows)
    result = BenchResult(
        models=tuple(
            BenchModel(s.name, text, s.path, "source" if s.source else "coreml")
            for s, text in zip(subjects, asked, strict=True)
        ),
        started=started,
        method=method,
        machine=describe_machine(),
        conditions=conditions,
        versions=versions(),
        rows=rows,
        comparisons=comparisons(rows, against),
        power_channels=found.power_channels,
        power_note=found.power_note,
        interrupted=bool(found.interrupted),
    )
    if found.interrupted:
        raise BenchInterrupted(result, found.interrupted)
    return result


def default_units() -> tuple[Unit, ...]:
    """Return the settings of this machine: Core ML's four on macOS; elsewhere the CPU, and a GPU if one shows."""
    return measured().units()


def _listed(model: Path_ | Sequence[Path_] | None) -> Sequence[Path_]:
    if model is None:
        return [DEFAULT_MODEL]
    return [model] if isinstance(model, str | os.PathLike) else list(model) or [DEFAULT_MODEL]


def _units(units: Sequence[str | Unit] | None) -> tuple[Unit, ...]:
    if units is None:
        return default_units()
    if not units:
        raise UsageError("no unit to measure", f"units are {', '.join(Unit)}")
    return tuple(dict.fromkeys(Unit.parse(unit) for unit in units))


def _processes(iterations: int, duration: float | None) -> int:
    wanted = iterations // 10 if duration is None else int(duration)
    return min(5, wanted) if wanted > 2 else 1  # two say next to nothing of what differs between them


def _check(method: Method, sweep: plan.Sweep) -> None:
    if method.iterations < 1 or method.warmup < 0 or method.timeout <= 0:
        raise UsageError("iterations and timeout must be above zero, warmup not below")
    if method.duration is not None and method.duration <= 0:
        raise UsageError("a duration must be above zero seconds", "measure a number of inferences with -n instead")
    if not all(0 <= p <= 100 for p in method.percentiles):
        raise UsageError("percentiles lie between 0 and 100", "for example --percentiles 50,90,95,99")
    if method.engine not in modes() or method.precision not in PRECISIONS:
        known = f"engines are {' and '.join(modes())}, precisions {' and '.join(PRECISIONS)}"
        raise UsageError("unknown engine or precision", known)
    if method.processes < 1 or method.concurrency < 1:
        raise UsageError("processes and concurrency must be 1 or more")
    if any(count is not None and count < 1 for count in (*sweep.threads, *sweep.batches)):
        raise UsageError("threads and batches must be 1 or more")
    for threads in sweep.threads:
        asked = HowToRun(method.precision, method.engine, strict_mil=method.strict_mil, threads=threads)
        refusal = measured(method.engine).refuses(asked)
        if refusal is not None:
            raise UsageError(refusal.message, refusal.hint)


def _subjects(
    asked: Sequence[str], sweep: plan.Sweep, folder: Path, function: str | None, engine: str, progress: Progress
) -> list[plan.Subject]:
    """Return the models in the order given; packages are opened first, since sources take their inputs from them."""
    called = plan.names(asked)
    found: dict[int, plan.Subject] = {}
    for index, text in enumerate(asked):
        if not plan.is_source(text) or builtin.known(text):
            path = _resolve(text, progress)
            model, compiled = load_model(path, function=function), _compiled(path, folder, index, engine)
            found[index] = plan.Subject(called[index], str(path), False, model.inputs, compiled, model.known)
    packages = list(found.values())
    for index, text in enumerate(asked):
        if index not in found:
            ports = plan.source_ports(text, packages, sweep.shapes or {})
            found[index] = plan.Subject(called[index], text, True, ports)
    return [found[index] for index in range(len(asked))]


def _resolve(name: str, progress: Progress) -> Path:
    path = Path(name)
    if not path.exists() and builtin.known(name):
        progress(f"preparing {name}", 0, 1)
        return builtin.package(name)
    return path


def _compiled(path: Path, folder: Path, index: int, mode: str) -> str:
    """Return what the engine compiles from the model, once, for every setting to load; empty where it loads the
    file."""
    place = folder / str(index)
    place.mkdir()
    made = measured(mode).compile(path, place)
    return str(made) if made is not None else ""


def _nothing(rows: Sequence[Row], errors: Sequence[TlkitError]) -> TlkitError:
    """Return the error to report for all rows: a failure says more than an absent unit."""
    chosen = next((error for error in errors if not isinstance(error, UnavailableError)), errors[0])
    hint = chosen.hint
    if isinstance(chosen, UnavailableError):
        hint = hint or f"measure what this machine has: --units {','.join(default_units())}"
        if any(row.unit == Unit.ANE for row in rows):
            hint += "; for a package's latency on another chip, estimated: --estimate"
    told = "; ".join(f"{row.name}: {row.reason}" for row in rows)
    return type(chosen)(f"nothing could be measured: {told}" if len(rows) > 1 else chosen.message, hint)
