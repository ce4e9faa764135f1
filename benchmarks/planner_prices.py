"""The planner's rates, made of what is published of its prices; and how well they foretell a price that was left out.

``python benchmarks/planner_prices.py [--write]``: prints the rates, then, for each published estimate, what the rates
made without it say; ``--write`` writes ``tlkit/placement/data/prices.csv``. Nothing is fitted to a published placement:
those judge (``benchmarks/placement.py``).

A kind of operation has a rate for what its estimates are taken to scale with: flops, bytes of values, or also bytes of
weights; several estimates of one thing give their geometric mean. ``other`` is the median of the kinds that are priced
by their bytes and are neither moves nor sums of two tensors, whose rates are their own.
"""

from __future__ import annotations

import csv
import math
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
DATA = ROOT / "tlkit/placement/data"
PLAIN = ("softmax", "layer_norm", "max_pool", "reduce_mean", "topk", "gelu")
HEAD = """\
# Core ML's planner: GB/s of values moved, TFLOPS of arithmetic (two per MAC), the slower of the two decides; weights:
# their bytes count as moved. Its prices, not latencies. Made by benchmarks/planner_prices.py of samples.csv.
"""


@dataclass(frozen=True)
class Sample:
    """One published estimate, or a published rate."""

    chip: str
    kind: str
    family: str
    unit: str
    case: str
    by: str
    rate: float  # GB/s or TFLOPS

    @property
    def measure(self) -> str:
        """What the rate is of: flops or bytes."""
        return self.by.removesuffix("+w")


Rates = Mapping[tuple[str, str, str], tuple[float, float, bool]]
"""GB/s (infinite: does not matter), TFLOPS (0: does not matter) and whether weights count, by chip, kind and unit."""


def samples() -> list[Sample]:
    """Read what is published."""
    lines = (DATA / "samples.csv").read_text(encoding="utf-8").splitlines()
    return [_sample(row) for row in csv.DictReader(line for line in lines if not line.startswith("#"))]


def _sample(row: dict[str, str]) -> Sample:
    by = row["by"]
    flops = by == "flops"
    if row["us"]:
        rate = float(row["flops"]) / float(row["us"]) / 1e6 if flops else float(row["bytes"]) / float(row["us"]) / 1e3
    else:
        rate = float(row["tflops"] if flops else row["gbps"])
    return Sample(row["chip"], row["kind"], row["family"], row["unit"], row["case"], by, rate)


def fit(given: Iterable[Sample]) -> Rates:
    """Return the rates that ``given`` estimates make."""
    grouped: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in given:
        grouped.setdefault((sample.chip, sample.kind, sample.unit), []).append(sample)
    found = {key: _rate(items) for key, items in grouped.items()}
    for chip, unit in sorted({(chip, unit) for chip, _, unit in grouped}):
        plain = [found[chip, kind, unit][0] for kind in PLAIN if (chip, kind, unit) in found]
        if plain:
            found[chip, "other", unit] = (statistics.median_low(plain), 0.0, False)
    return found


def _rate(items: list[Sample]) -> tuple[float, float, bool]:
    moved = [item.rate for item in items if item.measure == "bytes"]
    computed = [item.rate for item in items if item.measure == "flops"]
    return (
        statistics.geometric_mean(moved) if moved else math.inf,
        statistics.geometric_mean(computed) if computed else 0.0,
        any(item.by.endswith("+w") for item in items),
    )


def left_out() -> Iterator[tuple[Sample, float]]:
    """Yield each estimate with the rate that all others make for its kind (or for ``other``)."""
    every = samples()
    for sample in every:
        rates = fit(item for item in every if item is not sample)
        key = (sample.chip, sample.kind, sample.unit)
        gbps, tflops, _ = rates.get(key) or rates.get((sample.chip, "other", sample.unit)) or (math.inf, 0.0, False)
        rate = tflops if sample.measure == "flops" else gbps
        yield sample, rate if rate and math.isfinite(rate) else math.nan


def table(rates: Rates) -> str:
    """Return the rates as the data file."""
    rows = [
        f"{chip},{kind},{unit},{_figure(gbps, 3)},{_figure(tflops, 4)},{weights:d}"
        for (chip, kind, unit), (gbps, tflops, weights) in rates.items()
    ]
    return HEAD + "chip,kind,unit,gbps,tflops,weights\n" + "\n".join(rows) + "\n"


def _figure(rate: float, digits: int) -> str:
    return f"{rate:.{digits}g}" if rate and math.isfinite(rate) else ""


def main() -> None:
    """Print the rates and the errors, and write the file if asked."""
    made = table(fit(samples()))
    print(made)
    errors = []
    for sample, rate in left_out():
        factor = rate / sample.rate
        errors.append(abs(math.log(factor)) if not math.isnan(factor) else math.inf)
        print(f"{sample.chip:<7}{sample.kind:<18}{sample.unit:<5}{sample.rate:>9.4g}  left out: {rate:>9.4g}")
    known = [error for error in errors if math.isfinite(error)]
    near = sum(error <= math.log(1.5) for error in known)
    print(f"left out, foretold within 1.5x: {near} of {len(known)}; {len(errors) - len(known)} have no like")
    if "--write" in sys.argv:
        (DATA / "prices.csv").write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
