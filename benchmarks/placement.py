"""How well placement is predicted: operations in context, as an M4 placed them under CPU_AND_NE, predicted anew.

``python benchmarks/placement.py [TABLE [SUPPORT]]``: TABLE has the published patterns, one graph per row (case, number
of operations, ``12A1C``: twelve on the Neural Engine, then one on the CPU), SUPPORT the units that single operations
can run on. ``placement_cases.py`` builds the graphs. Prints, ties free, the share of operations and of whole graphs
that are predicted right with all published prices, and **leave-one-family-out**: each graph predicted with prices made
without those of its operation's family (but for the layers around it), so that a family without any price is judged
as well. Beside them, what constant answers and slogans score, and the graphs that are not right.
"""

from __future__ import annotations

import csv
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SHARED = ROOT.parent / "shared/coreml"

from benchmarks.placement_cases import CASES, package  # noqa: E402
from benchmarks.placement_singles import EVERY  # noqa: E402
from benchmarks.planner_prices import fit, samples  # noqa: E402
from tlkit.formats.coreml.open import open_package  # noqa: E402
from tlkit.host.quiet import quiet  # noqa: E402
from tlkit.mil.program import Function  # noqa: E402
from tlkit.mil.work import steps  # noqa: E402
from tlkit.placement.facts import Rate, Rates  # noqa: E402
from tlkit.placement.predict import Placed, predict  # noqa: E402
from tlkit.placement.rules import against_ane  # noqa: E402
from tlkit.types import Unit  # noqa: E402

AROUND = ("3x3 64->64, 32x32", "1x64x256 -> 256")
"""The layers around every operation: their prices stay, whichever family is left out."""
LARGEST = 65536


def published(table: Path) -> Iterator[tuple[str, str]]:
    """Yield each case and its units, a letter an operation."""
    with table.open() as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            yield row["case"], "".join(unit * int(count) for count, unit in re.findall(r"(\d+)([AC])", row["pattern"]))


def without(family: str) -> Rates:
    """The prices that all published estimates make but those of one family."""
    kept = (item for item in samples() if item.family != family or item.case in AROUND or item.kind == "relu")
    return {
        key: Rate(0.0 if gbps == float("inf") else float(f"{gbps:.3g}"), tflops, weights)
        for key, (gbps, tflops, weights) in fit(kept).items()
    }


def score(found: Sequence[Placed], truth: str) -> list[bool]:
    """Whether each operation is right; a tie is."""
    return [placed.unit[0].upper() == unit or bool(placed.tied) for placed, unit in zip(found, truth, strict=True)]


def told(found: Sequence[Placed]) -> str:
    """A prediction as a pattern."""
    return "".join(placed.unit[0].upper() for placed in found)


def built(cases: Iterable[str], context: bool) -> dict[str, Function]:
    """Build the graphs that can be built here; what coremltools says meanwhile is not printed."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, quiet():
        for case in cases:
            if case in EVERY:
                program = open_package(package(EVERY[case], Path(folder) / f"{case}.mlpackage", context)).program
                assert program is not None
                found[case] = program.function()
    return found


def single(table: Path) -> None:
    """Print how well supported units and "always CPU" do on operations by themselves."""
    support: dict[str, list[tuple[str, set[str]]]] = {}
    with table.open() as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            support.setdefault(row["case"], []).append((row["preferred"], set(row["supported"].lower().split(","))))
    able, preferred = [], []
    for case, function in built(support, context=False).items():
        found = predict(function, Unit.ALL).operations
        if len(found) != len(support[case]):
            print(f"single {case}: {len(found)} operations here, {len(support[case])} published")
            continue
        for placed, (unit, units) in zip(found, support[case], strict=True):
            able.append(set(placed.supported) == units)
            preferred.append(placed.unit.upper() == unit or unit.lower() in placed.tied)
            if not able[-1]:
                print(f"single {case} {placed.type}: {' '.join(placed.supported)}, published {' '.join(sorted(units))}")
    print(f"single operations, supported units: {_share(able)}; preferred unit under all: {_share(preferred)}")


def _share(values: Sequence[bool]) -> str:
    return f"{sum(values) / len(values):.1%} of {len(values)}"


def main() -> None:
    """Print the scores."""
    table = Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED / "context_m4_cpu_and_ne.csv"
    names = ("operations", "graphs", "operations, family left out", "graphs, family left out")
    scores: dict[str, list[bool]] = {name: [] for name in (*names, "always CPU", "always ANE", "wherever supported")}
    families: dict[str, list[bool]] = {}
    graphs = dict(published(table))
    for case, function in built(graphs, context=True).items():
        truth = graphs[case]
        found = predict(function).operations
        if len(found) != len(truth):
            print(f"{case}: {len(found)} operations here, {len(truth)} published")
            continue
        left_out = predict(function, table=without(CASES[case].family)).operations
        for name, predicted in (("", found), (", family left out", left_out)):
            hits = score(predicted, truth)
            scores[f"operations{name}"] += hits
            scores[f"graphs{name}"].append(all(hits))
            if not all(hits):
                print(f"{case}{name}: predicted {told(predicted)}, published {truth}")
        families.setdefault(CASES[case].family, []).append(scores["graphs, family left out"][-1])
        _slogans(scores, function, truth)
    print(f"graphs not rebuilt: {', '.join(graphs.keys() - CASES.keys()) or 'none'}")
    _print(scores, families)
    single(Path(sys.argv[2]) if len(sys.argv) > 2 else SHARED / "op_support_m4.csv")


def _slogans(scores: Mapping[str, list[bool]], function: Function, truth: str) -> None:
    able = ["C" if against_ane(step, LARGEST) else "A" for step in steps(function)]
    scores["always CPU"].extend(unit == "C" for unit in truth)
    scores["always ANE"].extend(unit == "A" for unit in truth)
    scores["wherever supported"].extend(a == b for a, b in zip(able, truth, strict=True))


def _print(scores: Mapping[str, list[bool]], families: Mapping[str, list[bool]]) -> None:
    for name, values in scores.items():
        print(f"{name}: {_share(values)}")
    print("graphs by family left out: " + ", ".join(f"{name} {sum(v)}/{len(v)}" for name, v in families.items()))


if __name__ == "__main__":
    main()
