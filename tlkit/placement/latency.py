"""How long a program would take on a chip: an estimate with a range and its basis, never a measurement.

Each operation takes the longer of its arithmetic and of reading its weights (or, where it only moves values, of moving
them) at rates that ``benchmarks/latency.py`` calibrates on published latencies of whole networks: one set of rates per
unit, and a speed per chip that scales them. Reshapes and rectifiers are free, as what came before them does them; every
other operation costs a little whatever its size. Where a program runs is predicted first (``predict.py``).

The range is the factor within which nine of ten published figures fell of networks that the calibration had not seen,
at least 1.5, and 2 where few are published.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import groupby

from tlkit.mil.work import Step
from tlkit.placement.facts import data_rows
from tlkit.placement.predict import Prediction
from tlkit.placement.prices import kind

UNITS = ("ane", "gpu", "cpu")
COMPUTED = {
    "conv": "conv",
    "conv_transpose": "conv",
    "linear": "linear",
    "linear-square": "linear",
    "linear-narrow": "linear",
    "lstm": "linear",
    "gru": "linear",
    "rnn": "linear",
    "matmul": "matmul",
    "einsum": "matmul",
    "attention": "matmul",
    "depthwise": "depthwise",
}
"""Which rate an operation of a kind goes by; all others move values."""
FREE = frozenset(("reshape", "squeeze", "expand_dims", "relu", "relu6", "identity"))
WIDEST = 2.0
"""No range is stated that is wider than this factor each way."""


@dataclass(frozen=True, slots=True)
class Work:
    """What an operation has to do: the rate it goes by, multiply-accumulates, bytes of values and of weights."""

    rate: str
    macs: int
    nbytes: int
    weights: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """One unit's rates at speed 1: TFLOPS, GB/s, microseconds per operation and per run; and what they rest on.

    ``factor`` is the range's; ``least`` and ``most`` the smallest and largest published latency in ms.
    """

    unit: str
    conv: float
    linear: float
    matmul: float
    weights: float
    values: float
    depthwise: float
    operation: float
    run: float
    factor: float
    figures: int
    networks: int
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Latency:
    """An estimated latency in milliseconds, the range that should hold it, and what it rests on."""

    milliseconds: float
    low: float
    high: float
    basis: str


def work(step: Step) -> Work:
    """Return what ``step`` has to do."""
    named = kind(step)
    rate = "free" if named in FREE else COMPUTED.get(named, "values")
    # A product with a constant is a linear layer by another name.
    if rate == "matmul" and step.weights:
        rate = "linear"
    return Work(rate, step.macs, step.nbytes, sum(item.nbytes for item in step.weights))


def microseconds(done: Iterable[Work], by: Calibration, speed: float) -> float:
    """Return what operations take one after another on one unit, without the cost of a run."""
    flops = {"conv": by.conv, "linear": by.linear, "matmul": by.matmul}
    total, count = 0.0, 0
    for item in done:
        if item.rate == "free":
            continue
        count += 1
        if item.rate in flops:
            # FLOP by TFLOPS are 1e-6 microseconds, bytes by GB/s are 1e-3.
            total += max(2 * item.macs / flops[item.rate] / 1e6, item.weights / by.weights / 1e3)
        elif item.rate == "depthwise":
            total += max(item.nbytes / by.depthwise / 1e3, item.weights / by.weights / 1e3)
        else:
            total += item.nbytes / by.values / 1e3
    return total / speed + count * by.operation


@cache
def calibrations() -> Mapping[str, Calibration]:
    """Each unit's calibration."""
    return {row["unit"]: _calibration(row) for row in data_rows("latency_rates.csv")}


def _calibration(row: Mapping[str, str]) -> Calibration:
    whole = ("figures", "networks")
    return Calibration(**{name: text if name == "unit" else (int if name in whole else float)(text)
                          for name, text in row.items()})  # type: ignore[arg-type]  # fmt: skip


@cache
def speeds() -> Mapping[tuple[str, str], tuple[float, int]]:
    """The speed of each chip's units, and how many published figures it rests on (0: the chip's generation only)."""
    return {(row["chip"], row["unit"]): (float(row["speed"]), int(row["figures"])) for row in data_rows("speeds.csv")}


def estimate(prediction: Prediction, done: Iterable[Work]) -> Latency:
    """Return the latency of a program placed as ``prediction`` says; ``done`` is each operation's work, in order."""
    units = [placed.unit for placed in prediction.operations]
    total = 0.0
    for unit, region in groupby(zip(units, done, strict=True), key=lambda pair: pair[0]):
        by = calibrations()[unit]
        # Each region on a unit is a run of its own.
        total += microseconds((item for _, item in region), by, speeds()[prediction.chip.name, unit][0]) + by.run
    spent = total / 1e3
    factor, basis = _basis(prediction, sorted(set(units)), spent)
    return Latency(spent, spent / factor, spent * factor, basis)


def _basis(prediction: Prediction, units: list[str], spent: float) -> tuple[float, str]:
    if not units:
        return 1.0, "an empty program"
    used = [calibrations()[unit] for unit in units]
    # The unit with the fewest figures decides.
    known = min(speeds()[prediction.chip.name, unit][1] for unit in units)
    factor = max(by.factor for by in used)
    told = " and ".join(f"{by.figures} published figures of {by.networks} networks ({by.unit})" for by in used)
    parts = [f"from {told}"]
    if not known:
        parts.append(f"none of them on the {prediction.chip.name}")
    inside = all(by.least <= spent <= by.most for by in used)
    parts.append(f"this network is {'inside' if inside else 'outside'} their span")
    if prediction.setting == "all" and len(units) > 1:
        parts.append("no figure of a network split between units is among them")
    # Where no published figure applies, the range is the widest.
    if not known or not inside or len(units) > 1:
        factor = max(factor, WIDEST)
    return min(factor, WIDEST), "; ".join(parts)


@dataclass(frozen=True, slots=True)
class EstimatedPower:
    """An estimated power in watts while a unit works, its range and its basis; ``watts`` None: nothing is published."""

    watts: float | None
    low: float | None
    high: float | None
    basis: str


@cache
def powers() -> Mapping[str, EstimatedPower]:
    """What each unit draws while it works, as published: a few figures of few chips."""

    def figure(row: Mapping[str, str], name: str) -> float | None:
        return float(row[name]) if row[name] else None

    return {
        row["unit"]: EstimatedPower(figure(row, "watts"), figure(row, "low"), figure(row, "high"), row["basis"])
        for row in data_rows("power.csv")
    }
