"""Limits for CI: each becomes one check per row, and a failed check is a negative answer (exit code 1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tlkit.core.bench.intervals import ratio_of_medians
from tlkit.core.bench.rows import Row
from tlkit.core.bench.stats import samples_for, summarize
from tlkit.core.bench.versus import same_inputs, turns
from tlkit.errors import UsageError
from tlkit.host.machine import Machine
from tlkit.words import BYTES, byte_text, quantity

_TIMES = {"ns": 1.0, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a run; None is no limit. Times in nanoseconds, memory in bytes, the regression as a share.

    ``at`` is what ``latency_ns`` bounds: a percentile (``p50``, ``p95``) or ``median``, ``mean`` or ``max``.
    """

    latency_ns: float | None = None
    at: str = "median"
    memory_bytes: float | None = None
    load_ns: float | None = None
    regression: float | None = None

    @property
    def percentile(self) -> float | None:
        """The percentile that :attr:`at` names, if it does."""
        return float(self.at[1:]) if re.fullmatch(r"p\d+(\.\d+)?", self.at) else None

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return any(v is not None for v in (self.latency_ns, self.memory_bytes, self.load_ns, self.regression))


@dataclass(frozen=True, slots=True)
class Check:
    """One limit applied to one row. ``passed`` None: it could not be checked, and ``detail`` says why."""

    row: str
    limit: str
    passed: bool | None
    detail: str


def parse_time(text: str, flag: str) -> float:
    """Return nanoseconds from ``5ms``, ``250us``, ``1.5s``."""
    return _quantity(text, flag, _TIMES, "5ms")


def parse_size(text: str, flag: str) -> float:
    """Return bytes from ``500MB``, ``1.5GiB``."""
    return _quantity(text, flag, BYTES, "500MB")


def parse_share(text: str, flag: str) -> float:
    """Return 0.05 from ``5%`` or ``0.05``."""
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*(%?)", text.strip())
    if not found:
        raise UsageError(f"{flag} {text}: not a share", f"for example {flag} 5%")
    return float(found[1]) / (100 if found[2] else 1)


def check_limits(limits: Limits, percentiles: Sequence[float], iterations: int, duration: float | None) -> None:
    """Raise UsageError for limits that cannot be judged, before anything is measured."""
    if limits.percentile is None and limits.at not in ("median", "mean", "max"):
        raise UsageError(f"--at {limits.at}: unknown", "at is p50, p90, p95, p99, median, mean or max")
    p = limits.percentile
    if p is not None and not 0 <= p <= 100:
        raise UsageError(f"--at {limits.at}: percentiles lie between 0 and 100")
    if p is not None and limits.latency_ns is not None and duration is None and iterations < samples_for(p):
        raise UsageError(f"--at {limits.at} needs {samples_for(p)} samples", f"give -n {samples_for(p)} or more")


def judge_limits(
    rows: Sequence[Row],
    limits: Limits,
    baseline: Sequence[Row] | None = None,
    machines: tuple[Machine, Machine] | None = None,
) -> tuple[Check, ...]:
    """Apply the limits to each measured row; other rows affect the exit code by themselves.

    Without a ``baseline`` the first model's rows are the baseline of the others. They took turns, so whatever slows the
    machine for a while slows both, and much smaller regressions show.
    """
    measured = [row for row in rows if row.summary]
    checks = [check for row in measured for check in _of_row(row, limits)]
    if limits.regression is None:
        return tuple(checks)
    if baseline is None:
        return tuple(checks + _against_first(rows, limits.regression))
    before = {row.name: row for row in baseline if row.summary}
    checks += [_regression(row, before.get(row.name), limits.regression) for row in measured]
    if machines and machines[0].cpu != machines[1].cpu:
        told = f"; the baseline is another machine's: {machines[0].cpu}"
        checks = [replace(c, detail=c.detail + told) if c.limit == "regression" else c for c in checks]
    return tuple(checks)


def require_compared(checks: Sequence[Check], limits: Limits) -> None:
    """Raise :class:`UsageError` where a limit compared nothing of what was measured: that gate was not passed."""
    for flag, hint in _gates(limits):
        held = [check for check in checks if check.limit == flag]
        if any(check.passed is not None for check in held) or (not held and flag != "regression"):
            continue
        rows = ", ".join(check.row for check in held) or "no row"
        why = held[0].detail if held else "nothing beside it"
        raise UsageError(f"--max-{flag} compared nothing: {rows} was measured, and {why}", hint)


def _gates(limits: Limits) -> Iterator[tuple[str, str]]:
    """Yield the limits that may have nothing to compare, and what to do about it."""
    if limits.regression is not None:
        rows = "measure rows of the same name (model/unit) as the baseline's"
        yield "regression", f"{rows}, or save a new one: --save FILE"
    if limits.memory_bytes is not None:
        yield "memory", "leave --max-memory out, or measure where the system tells it (Linux, macOS)"
    if limits.load_ns is not None:
        yield "load", "leave --max-load out, or measure again: a saved run has only what was measured then"


def _against_first(rows: Sequence[Row], limit: float) -> list[Check]:
    first = [row for row in rows if row.model == rows[0].model]
    others = [row for row in rows if row.summary and row.model != rows[0].model]
    pairs = [(row, next((base for base in first if base.summary and _alike(row, base)), None)) for row in others]
    return [_regression(row, base, limit, base.name if base else "") for row, base in pairs]


def _alike(row: Row, base: Row) -> bool:
    return (row.unit, row.threads) == (base.unit, base.threads) and same_inputs(row, base)


def _of_row(row: Row, limits: Limits) -> Iterator[Check]:
    if limits.latency_ns is not None:
        value = _latency(row, limits)
        if value is None:
            yield Check(
                row.name, "latency", False, f"{limits.at} cannot be computed from {len(row.samples_ns)} samples"
            )
        else:
            yield _bounded(row, "latency", value, limits.latency_ns, limits.at, _time)
    if limits.memory_bytes is not None:
        yield _bounded(row, "memory", row.peak_bytes, limits.memory_bytes, "peak", byte_text)
    if limits.load_ns is not None:
        yield _bounded(row, "load", row.load_first_ns, limits.load_ns, "first load", _time)


def _latency(row: Row, limits: Limits) -> float | None:
    assert row.summary is not None
    named = {"median": row.summary.median_ns, "mean": row.summary.mean_ns, "max": float(row.summary.max_ns)}
    if limits.percentile is None:
        return named[limits.at]
    # From the samples: the summary has only the percentiles that were asked for.
    return summarize(row.samples_ns, [limits.percentile]).percentiles_ns[f"p{limits.percentile:g}"]


def _bounded(row: Row, name: str, value: float | None, limit: float, what: str, told: Callable[[float], str]) -> Check:
    if value is None:
        return Check(row.name, name, None, f"its {what} is not known")
    passed = value <= limit
    return Check(row.name, name, passed, f"{what} {told(value)}, {'within' if passed else 'over'} {told(limit)}")


def _time(ns: float) -> str:
    name = next((name for name in ("s", "ms", "µs") if ns >= _TIMES[name]), "ns")
    return f"{ns / _TIMES[name]:.4g} {name}"


def _regression(row: Row, before: Row | None, limit: float, beside: str | None = None) -> Check:
    """Fail only where even the interval's favourable end exceeds the limit; ``beside`` names a row of the same run."""
    if before is None:
        lacking = "the baseline has no such row" if beside is None else "the first model has no such row"
        return Check(row.name, "regression", None, lacking)
    ratio = ratio_of_medians(turns(row), turns(before), paired=beside is not None)
    told = f"{ratio.value - 1:+.1%} against {beside or 'the baseline'} ({ratio.low - 1:+.1%} to {ratio.high - 1:+.1%})"
    passed = ratio.low <= 1 + limit
    return Check(
        row.name, "regression", passed, f"{told}, {'within' if passed else 'over'} {limit:.3%}".replace(".000%", "%")
    )


def _quantity(text: str, flag: str, units: dict[str, float], example: str) -> float:
    found = quantity(text, units)
    if found is None:
        raise UsageError(f"{flag} {text}: not a quantity with its unit", f"for example {flag} {example}")
    return found
