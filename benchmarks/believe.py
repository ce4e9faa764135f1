"""Can `tlkit bench` be believed? Experiments with a known answer, on this machine as it is now.

    python benchmarks/believe.py [MODEL] [--trials 20] [-n 100] [--processes 1] [--threads 1] [--json FILE]

* own cost    what `bench` itself adds to each sample, measured on a call that does nothing (held to 20 us)
* agreement   the median of `bench --units cpu` beside torch.utils.benchmark's on the same executor (held to 3 %);
              the two take turns, and the median of the turns' ratios counts
* A/A         two runs back to back, nothing changed: how often their interval holds 1 (held to 19 in 20)
* false alarm the same pairs under `--max-regression 5%`: how often it fails (held to 1 in 20)
* caught      a second run in which every inference takes 10 % longer: how often `--max-regression 5%` fails (9 in 10)

MODEL is a package, or the built-in resnet50 (the default). Only an idle machine can pass: the load is printed too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from tlkit.core import builtin
from tlkit.core._plan import Subject, Sweep, settings
from tlkit.core._rounds import measure
from tlkit.core._subject import TorchSubject, make
from tlkit.core._worker import _nothing, _sample
from tlkit.core.conditions import watch
from tlkit.core.gate import Limits, judge_limits
from tlkit.core.intervals import ratio_of_medians
from tlkit.core.load import inspect
from tlkit.core.machine import describe_machine, versions
from tlkit.core.rows import Method, Row, Setting
from tlkit.core.versus import turns
from tlkit.types import Unit

SLOWDOWN = 1.10
LIMIT = Limits(regression=0.05)


class Slowed:
    """The torch engine, each inference followed by a tenth of its own time of doing nothing else."""

    def __init__(self, **arguments: Any) -> None:
        inner = make(**arguments)
        assert isinstance(inner, TorchSubject)
        self._inner = inner
        self.load, self.describe = inner.load, inner.describe

    def bind(self, model: Any) -> Callable[[], object]:
        """Return the call to time."""
        call = self._inner.bind(model)

        def slowed() -> object:
            start = perf_counter_ns()
            result = call()
            end = start + (perf_counter_ns() - start) * SLOWDOWN
            while perf_counter_ns() < end:
                pass
            return result

        return slowed


class Timer:
    """torch.utils.benchmark on the same executor, one call a sample, as a subject of its own process."""

    def __init__(self, **arguments: Any) -> None:
        inner = make(**arguments)
        assert isinstance(inner, TorchSubject)
        self._inner = inner
        self.load, self.describe = inner.load, inner.describe

    def bind(self, model: Any) -> Callable[[], object]:
        """Return a call that takes one measurement with torch's timer; its result is kept in ``medians``."""
        import torch
        from torch.utils import benchmark

        call = self._inner.bind(model)
        timer = benchmark.Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())

        class Measured:
            device_ns = 0

            def __call__(self) -> None:
                found = timer.timeit(1)
                self.device_ns = int(found.median * 1e9)

        return Measured()


@dataclass(frozen=True)
class Verdict:
    """One experiment: what came out, what it is held to, and whether it does."""

    experiment: str
    found: str
    held_to: str
    passed: bool


def main() -> None:
    """Run the experiments and print a line for each."""
    options = _options()
    import tempfile

    end = watch()
    with tempfile.TemporaryDirectory() as folder:
        setting = _setting(options, Path(folder))
        method = Method(iterations=options.iterations, processes=options.processes, power=False)
        verdicts = [_own_cost()]
        _show(verdicts[-1])
        for experiment in (_agreement, _repeated):
            for verdict in experiment(setting, method, options.trials):
                verdicts.append(verdict)
                _show(verdict)
    conditions = end()
    print(f"other processes used {conditions.other_load or 0:.0%} of the machine meanwhile")
    if options.json:
        facts = {"machine": asdict(describe_machine()), "versions": versions(), "conditions": asdict(conditions)}
        Path(options.json).write_text(json.dumps(facts | {"verdicts": [asdict(v) for v in verdicts]}, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", default="resnet50")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("-n", "--iterations", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args()


def _setting(options: argparse.Namespace, folder: Path) -> Setting:
    path = Path(options.model)
    path = path if path.exists() else builtin.package(options.model)
    subject = Subject(path.stem, str(path), False, inspect(path).inputs)
    sweep = Sweep((Unit.CPU,), threads=(options.threads,))
    return settings([subject], sweep, {}, 0, {"precision": "f16", "engine": "eager"}, folder)[0]


def _own_cost() -> Verdict:
    count = 100_000
    start = perf_counter_ns()
    samples, _ = _sample(_nothing, count, 60.0)
    each = (perf_counter_ns() - start) / count / 1e3
    inside = statistics.median(samples) / 1e3
    return Verdict("own cost", f"{each:.2f} us a sample, {inside:.2f} of it inside it", "20 us", each < 20)


def _agreement(setting: Setting, method: Method, trials: int) -> list[Verdict]:
    ratios = []
    for _ in range(max(3, trials // 4)):
        ours, theirs = measure([setting, _replaced(setting, "believe:Timer")], method).rows
        assert ours.summary is not None
        ratios.append(ours.summary.median_ns / statistics.median(theirs.device_ns))
    middle = statistics.median(ratios)
    told = f"bench / torch.utils.benchmark = {middle:.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    return [Verdict("agreement", told, "0.97 to 1.03", abs(middle - 1) <= 0.03)]


def _repeated(setting: Setting, method: Method, trials: int) -> list[Verdict]:
    agreed = alarms = caught = 0
    for trial in range(trials):
        first, second = _row(setting, method), _row(setting, method)
        slow = _row(_replaced(setting, "believe:Slowed"), method)
        agreed += not ratio_of_medians(turns(second), turns(first)).shown
        alarms += _failed(second, first)
        caught += _failed(slow, first)
        print(f"  trial {trial + 1}: A/A {agreed}, alarms {alarms}, caught {caught}", file=sys.stderr)
    return [
        Verdict("A/A", f"{agreed} of {trials} pairs agree", "19 in 20", agreed >= 0.95 * trials),
        Verdict("false alarm", f"{alarms} of {trials}", "at most 1 in 20", alarms <= trials / 20),
        Verdict("caught", f"{caught} of {trials} slowdowns of 10 %", "9 in 10", caught >= 0.9 * trials),
    ]


def _row(setting: Setting, method: Method) -> Row:
    found = measure([setting], method)
    if found.errors:
        raise SystemExit(f"{found.errors[0].message}\n{found.errors[0].hint}")
    return found.rows[0]


def _failed(row: Row, before: Row) -> bool:
    (check,) = judge_limits([row], LIMIT, [before])
    return check.passed is False


def _replaced(setting: Setting, factory: str) -> Setting:
    from dataclasses import replace

    return replace(setting, factory=factory)


def _show(verdict: Verdict) -> None:
    mark = "ok  " if verdict.passed else "MISS"
    print(f"{mark} {verdict.experiment:<12} {verdict.found}; held to {verdict.held_to}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
