"""The calibration of estimated latencies on published ones, and its error on networks that it has not seen.

``python benchmarks/latency.py [--write] [FILE.json ...]``: fits, per unit, the rates of
``tlkit/placement/latency.py`` and a speed per chip to ``latency.csv`` (published figures, with sources) and
``latency_networks.csv`` (what the networks' operations have to do), prints them, then **leave-one-network-out**:
every figure of a network estimated by a fit without any figure of it (all sizes of it count as one network).
``--write`` writes the data files that tlkit estimates with; a unit's range is the factor within which nine of ten
left-out figures are, at least 1.5, and 2 where the figures are few. Rates and speeds are held near what is published
of the hardware (``NEAR``, ``NEURAL``, ``CPU``, ``GPU``), as some chips have one figure only: none of these was chosen
on the figures that are scored. FILEs are what ``tlkit doctor --contribute`` wrote: their figures are added.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
minimize: Any = import_module("scipy.optimize").minimize
HERE, DATA = ROOT / "benchmarks", ROOT / "tlkit/placement/data"
RATES = ("conv", "linear", "matmul", "weights", "values", "depthwise", "operation", "run")
NEAR = {
    "ane": (9.6, 3.4, 2.0, 61.0, 61.0, 61.0, 1.0, 118.0),
    "gpu": (1.3, 1.3, 1.3, 60.0, 60.0, 60.0, 19.0, 118.0),
    "cpu": (0.377, 0.4, 0.4, 30.4, 30.4, 3.0, 4.0, 20.0),
}
"""What rates are held near, at speed 1 (an M1): TFLOPS (three), GB/s (three), microseconds (two).

None was chosen on the figures that are scored. Neural Engine: a published chain of convolutions, the middle of
published matrix products and of the 1 to 4 of transformers, its published bandwidth, a microsecond, the middle of the
published 0.07 to 0.2 ms of a run. GPU: half the M1's 2.6 TFLOPS, nearly its 68 GB/s, a published 18 to 20 microseconds
an operation, the same run. CPU: the planner's own published rates for an M4 over 2; for matrix products the 0.4 TFLOPS
that were published of numpy's on two chips."""
_TOPS = {"A12": 5.0, "A13": 5.75, "A14": 11.0, "A15": 15.8, "A16": 17.0, "A17 Pro": 17.5, "A18": 17.5, "A18 Pro": 17.5}
_TOPS |= {"A10": 11.0, "A11": 11.0, "A19": 22.0, "A19 Pro": 22.0, "M1": 11.0, "M2": 15.8, "M3": 18.0, "M4": 19.0}
NEURAL = {chip: tops / 11.0 for chip, tops in (_TOPS | {"M5": 24.0}).items()}
"""Published TOPS in f16 (half of those that count int8) over the M1's; A19 and M5 are guesses."""
_CORES = {"A10": 950, "A11": 1600, "A12": 2700, "A13": 3900, "A14": 4600, "A15": 5600, "A16": 6300, "A17 Pro": 7200}
_CORES |= {"A18": 8100, "A18 Pro": 8600, "A19": 9400, "A19 Pro": 9900, "M1": 8300, "M2": 9600, "M3": 11900, "M4": 14700}
CPU = {chip: score / 8300 for chip, score in (_CORES | {"M5": 17800}).items()}
"""What a general benchmark of all cores says over the M1's, roughly; of larger chips as of the base."""
_TFLOPS = {"A10": 0.65, "A11": 0.98, "A12": 1.3, "A13": 1.3, "A14": 1.3, "A15": 1.6, "A16": 1.95, "A17 Pro": 2.2}
_TFLOPS |= {"A18": 2.3, "A18 Pro": 2.5, "A19": 3.1, "A19 Pro": 3.4, "M1": 2.6, "M2": 3.6, "M3": 4.1, "M4": 4.45}
GPU = {chip: tflops / 2.6 for chip, tflops in (_TFLOPS | {"M5": 5.5}).items()}
"""Published TFLOPS over the M1's; of phones their cores (0.325 each until A15, more later)."""
WIDER = {"": 1.0, "Pro": 2**0.5, "Max": 2.0, "Ultra": 8**0.5}
"""A GPU of twice the cores is not twice as fast on networks of many small operations: the root is taken."""


@dataclass(frozen=True)
class Network:
    """Columns of ``latency_networks.csv``, an element per group of operations alike."""

    rate: Any
    macs: Any
    nbytes: Any
    weights: Any
    count: Any


@dataclass(frozen=True)
class Figure:
    """A published latency in ms."""

    network: str
    chip: str
    unit: str
    ms: float

    @property
    def kin(self) -> str:
        """The network without its size in tokens: figures of one kin are left out together."""
        return self.network.split("x")[0] if self.network.startswith("gpt2") else self.network


def table(path: Path) -> Iterator[dict[str, str]]:
    """Read a table whose head has comments."""
    yield from csv.DictReader(line for line in path.read_text().splitlines() if not line.startswith("#"))


def networks() -> Mapping[str, Network]:
    """The networks by name."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in table(HERE / "latency_networks.csv"):
        found.setdefault(row["network"], []).append(row)

    def column(rows: Sequence[dict[str, str]], name: str) -> Any:
        return np.array([float(row[name]) for row in rows])

    return {
        name: Network(np.array([row["rate"] for row in rows]), *(column(rows, key) for key in COLUMNS))
        for name, rows in found.items()
    }


FEW = 20
COLUMNS = ("macs", "nbytes", "weights", "count")


def figures() -> list[Figure]:
    """The published figures."""
    return [Figure(row["network"], row["chip"], row["unit"], float(row["ms"])) for row in table(HERE / "latency.csv")]


def contributed(path: Path) -> tuple[list[Figure], dict[str, Network]]:
    """The figures of a file that ``tlkit doctor --contribute`` wrote, and what its probes have to do."""
    from tlkit.core.contribute import SCHEMA, probes
    from tlkit.mil.work import steps
    from tlkit.placement.latency import work

    document = json.loads(path.read_text())
    if document["schema_version"] != SCHEMA or document["kind"] != "measurement":
        raise SystemExit(f"{path}: not a contribution of schema {SCHEMA}")
    known = {}
    for name, program in probes().items():
        done = [work(step) for step in steps(program.function())]
        macs, nbytes, weights = (np.array([float(getattr(item, key)) for item in done]) for key in COLUMNS[:3])
        known[name] = Network(np.array([item.rate for item in done]), macs, nbytes, weights, np.ones(len(done)))
    rows = [row for row in document["rows"] if row["setting"] in NEAR and row["median_ms"] is not None]
    return [Figure(row["probe"], document["chip"], row["setting"], row["median_ms"]) for row in rows], known


def milliseconds(network: Network, rates: Any, speed: float) -> float:
    """What ``tlkit.placement.latency`` says of the network on one unit, by the logarithms of the rates."""
    return float(_all_milliseconds([network], rates, np.array([speed]))[0])


def _all_milliseconds(given: Sequence[Network], rates: Any, speed: Any) -> Any:
    """The same of several networks at once, each at its speed."""
    return _Stacked(given).milliseconds(rates, speed)


class _Stacked:
    """The groups of several networks one after another, so that a fit's every step is a few operations on arrays."""

    def __init__(self, given: Sequence[Network]) -> None:
        self.starts = np.cumsum([0, *(len(network.rate) for network in given)])[:-1]
        self.kinds = {
            name: np.concatenate([network.rate == name for network in given])
            for name in ("conv", "linear", "matmul", "depthwise", "values", "free")
        }
        self.macs, self.nbytes, self.weights, self.count = (
            np.concatenate([getattr(network, name) for network in given]) for name in COLUMNS
        )
        self.count = self.count * ~self.kinds["free"]

    def milliseconds(self, rates: Any, speed: Any) -> Any:
        """An element per network."""
        conv, linear, matmul, weights, values, depthwise, operation, run = np.exp(rates)
        kinds = self.kinds
        flops = kinds["conv"] / conv + kinds["linear"] / linear + kinds["matmul"] / matmul
        moved = kinds["depthwise"] / depthwise + kinds["values"] / values
        read = self.weights * ~kinds["values"] / weights / 1e3
        time = np.maximum(np.maximum(2 * self.macs * flops / 1e6, read), self.nbytes * moved / 1e3)
        spent = np.add.reduceat(time * self.count, self.starts)
        return (spent / speed + np.add.reduceat(self.count, self.starts) * operation + run) / 1e3


def generation(chip: str, unit: str) -> float:
    """The speed that a chip is held near, by its generation."""
    base, _, size = chip.partition(" ") if chip.startswith("M") else (chip, "", "")
    return {"ane": NEURAL, "cpu": CPU, "gpu": GPU}[unit][base] * (WIDER[size] if unit == "gpu" else 1.0)


def fit(given: Sequence[Figure], unit: str, known: Mapping[str, Network]) -> tuple[Any, dict[str, float]]:
    """Return the logarithms of the rates and each chip's speed. A network's figures share one vote, softened."""
    chips = sorted({figure.chip for figure in given})
    near = np.log(NEAR[unit])
    votes = {kin: sum(figure.kin == kin for figure in given) for kin in {figure.kin for figure in given}}

    stacked = _Stacked([known[figure.network] for figure in given])
    base = np.array([generation(figure.chip, unit) for figure in given])
    which = 8 + np.array([chips.index(figure.chip) for figure in given])
    wanted = np.array([figure.ms for figure in given])
    soft = np.array([votes[figure.kin] ** 0.5 for figure in given])

    def loss(x: Any) -> float:
        errors = np.log(stacked.milliseconds(x[:8], base * np.exp(x[which])) / wanted) / soft
        held = 0.09 * np.sum((x[:8] - near) ** 2) + 1.2 * np.sum(x[8:] ** 2)
        return float(np.sum(np.sqrt(errors**2 + 0.02)) + held)

    done = minimize(loss, np.concatenate([near, np.zeros(len(chips))]), method="L-BFGS-B", options={"maxiter": 60}).x
    return done[:8], {chip: generation(chip, unit) * math.exp(done[8 + i]) for i, chip in enumerate(chips)}


def left_out(given: Sequence[Figure], unit: str, known: Mapping[str, Network]) -> list[tuple[Figure, float]]:
    """Return each figure with what a fit without its network says."""
    found = []
    for kin in dict.fromkeys(figure.kin for figure in given):
        rates, speeds = fit([figure for figure in given if figure.kin != kin], unit, known)
        for figure in given:
            if figure.kin == kin:
                speed = speeds.get(figure.chip, generation(figure.chip, unit))
                found.append((figure, milliseconds(known[figure.network], rates, speed)))
    return found


def within(found: Sequence[tuple[Figure, float]], factor: float) -> float:
    """Return the share of figures that are estimated within ``factor``."""
    return statistics.mean(abs(math.log(told / figure.ms)) <= math.log(factor) for figure, told in found)


def main() -> None:
    """Fit, judge, print, and write if asked."""
    from tlkit.placement.facts import chips

    known, every = dict(networks()), figures()
    for path in sys.argv[1:]:
        if path.endswith(".json"):
            more, probes = contributed(Path(path))
            every, known = every + more, known | probes
    head = ["unit", *RATES, "factor", "figures", "networks", "least", "most"]
    rates_file, speeds_file = [",".join(head)], ["chip,unit,speed,figures"]
    for unit in ("ane", "gpu", "cpu"):
        given = [figure for figure in every if figure.unit == unit]
        rates, speeds = fit(given, unit, known)
        found = left_out(given, unit, known)
        for figure, told in found:
            said = f"{figure.ms:>8.2f} ms, left out: {told:8.2f} ({told / figure.ms:.2f}x)"
            print(f"{unit} {figure.network:<20}{figure.chip:<9}{said}")
        errors = sorted(abs(math.log(told / figure.ms)) for figure, told in found)
        nine = math.exp(errors[math.ceil(0.9 * len(errors)) - 1])
        factor = min(max(nine, 1.5), 2.0) if len(given) >= FEW else 2.0
        good = f"within 1.5x {within(found, 1.5):.1%}, within the stated {factor:.2f}x {within(found, factor):.1%}"
        print(f"{unit}: {good} of {len(found)} figures of {len({f.kin for f in given})} networks")
        row = [
            unit,
            *(f"{value:.3g}" for value in np.exp(rates)),
            f"{factor:.2f}",
            len(given),
            len({f.kin for f in given}),
        ]
        row += [f"{min(f.ms for f in given):g}", f"{max(f.ms for f in given):g}"]
        rates_file.append(",".join(map(str, row)))
        for chip in (chip.name for chip in chips().values()):
            count = sum(figure.chip == chip for figure in given)
            speeds_file.append(f"{chip},{unit},{speeds.get(chip, generation(chip, unit)):.3g},{count}")
    print("\n".join(rates_file))
    if "--write" in sys.argv:
        comment = "# Made by benchmarks/latency.py of published latencies: see there.\n"
        (DATA / "latency_rates.csv").write_text(comment + "\n".join(rates_file) + "\n")
        (DATA / "speeds.csv").write_text(comment + "\n".join(speeds_file) + "\n")


if __name__ == "__main__":
    main()
