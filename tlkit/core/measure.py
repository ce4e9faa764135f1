"""``bench``: latency of a model under each compute-unit setting of a machine, measured and never estimated."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tlkit.core import builtin
from tlkit.core._rounds import Method, Progress, Row, Setting, measure
from tlkit.core._subject import store_inputs
from tlkit.core.load import inspect
from tlkit.core.machine import Machine, describe_machine, gpu_expected, versions
from tlkit.core.stats import PERCENTILES
from tlkit.errors import TlkitError, UnavailableError, UsageError
from tlkit.types import ModelInfo, Unit

DEFAULT_MODEL = "resnet50"


@dataclass(frozen=True, slots=True)
class BenchInput:
    """One input as it was given to every setting. ``source`` is ``random``, ``zeros`` or ``given``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: str


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What :func:`bench` returns, and ``tlkit bench --json`` prints: raw samples, and all they depend on.

    ``model`` is what was asked for, ``path`` the file measured; ``started`` is UTC in ISO 8601.
    """

    model: str
    path: str
    started: str
    inputs: tuple[BenchInput, ...]
    method: Method
    machine: Machine
    versions: Mapping[str, str | None]
    rows: tuple[Row, ...]

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows of settings that are here and yet could not be measured."""
        return tuple(row for row in self.rows if row.status == "failed")


def bench(
    model: str | os.PathLike[str] | None = None,
    *,
    units: Sequence[str | Unit] | None = None,
    iterations: int = 100,
    warmup: int = 10,
    duration: float | None = None,
    seed: int = 0,
    inputs: Mapping[str, Any] | None = None,
    engine: str = "eager",
    precision: str = "f16",
    percentiles: Sequence[float] = PERCENTILES,
    threads: int | None = None,
    timeout: float = 300.0,
    progress: Progress = lambda *_: None,
) -> BenchResult:
    """Measure ``model`` (a path or a built-in's name; None is the built-in ResNet-50) under each of ``units``.

    ``units`` None means every setting of this machine: on macOS all four, elsewhere ``cpu`` and, where the machine
    shows a GPU, ``gpu``. ``iterations`` inferences are timed a setting, or ``duration`` seconds of them, after
    ``warmup`` that are not. ``inputs`` maps names to anything ``Model.predict`` takes; the others are drawn once from
    ``seed``. ``timeout`` is how many seconds a child may stay silent; ``threads`` limits the CPU's threads.

    Raises UnavailableError if none of the settings is here, and the first setting's own error if none could be
    measured; as long as one could, the others are rows that say why not.
    """
    method = Method(iterations, warmup, duration, seed, engine, precision, threads, timeout, tuple(percentiles))
    wanted = _units(units)
    _check(method, wanted)
    path = _resolve(model, progress)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory(prefix="tlkit-bench-") as folder:
        drawn, arguments = _store_inputs(inspect(path), inputs or {}, seed, Path(folder))
        common = {"path": str(path), "precision": precision, "engine": engine} | arguments
        if sys.platform == "darwin":
            _compile(path, Path(folder))
        settings = [Setting(unit, "tlkit.core._subject:make", common | {"unit": unit}) for unit in wanted]
        rows, errors = measure(settings, method, progress)
    if len(errors) == len(rows):
        raise _nothing(rows, errors)
    name = DEFAULT_MODEL if model is None else os.fspath(model)
    return BenchResult(name, str(path), started, drawn, method, describe_machine(), versions(), rows)


def default_units() -> tuple[Unit, ...]:
    """Return the settings of this machine: Core ML's four on macOS; elsewhere the CPU, and a GPU if one shows."""
    if sys.platform == "darwin":
        return tuple(Unit)
    return (Unit.CPU, Unit.GPU) if gpu_expected() else (Unit.CPU,)


def _units(units: Sequence[str | Unit] | None) -> tuple[Unit, ...]:
    if units is None:
        return default_units()
    if not units:
        raise UsageError("no unit to measure", f"units are {', '.join(Unit)}")
    return tuple(dict.fromkeys(Unit.parse(unit) for unit in units))


def _check(method: Method, units: Sequence[Unit]) -> None:
    if method.iterations < 1 or method.warmup < 0 or method.timeout <= 0:
        raise UsageError("iterations and timeout must be above zero, warmup not below")
    if method.duration is not None and method.duration <= 0:
        raise UsageError("a duration must be above zero seconds", "measure a number of inferences with -n instead")
    if not all(0 <= p <= 100 for p in method.percentiles):
        raise UsageError("percentiles lie between 0 and 100", "for example --percentiles 50,90,95,99")
    if method.engine not in ("eager", "compile") or method.precision not in ("f16", "f32"):
        raise UsageError("unknown engine or precision", "engines are eager and compile, precisions f16 and f32")
    if method.threads is not None and method.threads < 1:
        raise UsageError("threads must be 1 or more")
    if sys.platform == "darwin" and (method.engine, method.precision, method.threads) != ("eager", "f16", None):
        raise UsageError(
            "engine, precision and threads are PyTorch's, and on a Mac Core ML runs the model",
            "leave --engine, --precision and --threads out",
        )


def _resolve(model: str | os.PathLike[str] | None, progress: Progress) -> Path:
    name = DEFAULT_MODEL if model is None else os.fspath(model)
    path = Path(name)
    if not path.exists() and builtin.known(name):
        progress(f"preparing {name}", 0, 1)
        return builtin.package(name)
    return path


def _store_inputs(
    info: ModelInfo, given: Mapping[str, Any], seed: int, folder: Path
) -> tuple[tuple[BenchInput, ...], dict[str, Any]]:
    """Make the inputs that all settings get; return what they are, and where the children find them."""
    import numpy as np

    from tlkit.core.inputs import Drawn, draw, port_named, to_port

    for name in given:
        port_named(info.inputs, name, info.path)
    rng = np.random.default_rng(seed)
    notes: list[BenchInput] = []
    arrays: dict[str, Any] = {}
    for spec in info.inputs:
        asked = given.get(spec.name, None if spec.optional else Drawn("random"))
        if asked is None:
            continue
        drawn = isinstance(asked, Drawn)
        value = draw(spec, asked.kind, rng) if drawn else to_port(spec, asked)
        notes.append(BenchInput(spec.name, spec.dtype, tuple(value.shape), asked.kind if drawn else "given"))
        arrays[spec.name] = value
    file = folder / "inputs.npz"
    store_inputs(arrays, file)
    return tuple(notes), {"arrays": str(file)}


def _compile(path: Path, folder: Path) -> None:
    from tlkit.engines.coreml import compile_model

    if path.suffix != ".mlmodelc":
        compile_model(path, folder)


def _nothing(rows: Sequence[Row], errors: Sequence[TlkitError]) -> TlkitError:
    """Return the error that stands for all: a failure says more than an absence."""
    chosen = next((error for error in errors if not isinstance(error, UnavailableError)), errors[0])
    hint = chosen.hint
    if isinstance(chosen, UnavailableError):
        hint = hint or f"measure what this machine has: --units {','.join(default_units())}"
    told = "; ".join(f"{row.unit}: {row.reason}" for row in rows)
    return type(chosen)(f"nothing could be measured: {told}" if len(rows) > 1 else chosen.message, hint)
