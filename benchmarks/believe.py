"""Can `tlkit bench` be believed? Experiments with a known answer, on this machine as it is now.

    python benchmarks/believe.py [MODEL] [--apart] [--trials 20] [-n 300] [--processes 10] [--minutes 40] [--json FILE]

* own cost    what `bench` itself adds to each sample, measured on a call that does nothing (held to 20 us)
* agreement   the median of `bench --units cpu` beside torch.utils.benchmark's on the same executor (held to 3 %);
              the two take turns, in twice as many processes
* A/A         twice the same, nothing changed: how often their interval holds 1 (held to 19 in 20)
* false alarm the same pairs under `--max-regression 5%`: how often it fails (held to 1 in 20)
* caught      every inference takes 10 % longer: how often `--max-regression 5%` fails (held to 9 in 10). What is
              added is `--slowdown` of each inference's own time, spent in a loop that also costs the next inference
              something (its caches): the mean of all trials says what it came to, and 8 % come to about 10

A trial is a model, the same again, and the same slowed down, measured as `tlkit bench OLD NEW` does: side by side, in
turns. With `--apart` each is a run of its own, one after the other, and the later ones are held against the saved
first one: what the machine does meanwhile then is part of the answer. On one thread (`--threads`). MODEL is a package
or a network of fixtures/networks.py: the default, mobilenet_v2, needs about two minutes a trial.
After `--minutes` no further trial is begun. What else ran meanwhile is printed too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from tlkit.core.bench.gate import Limits, judge_limits
from tlkit.core.bench.intervals import Ratio, Turns, ratio_of_medians
from tlkit.core.bench.plan import Subject, Sweep, settings
from tlkit.core.bench.rounds import measure
from tlkit.core.bench.rows import Method, Row, Setting
from tlkit.core.bench.subject import make
from tlkit.core.bench.trust import judge
from tlkit.core.bench.versus import turns
from tlkit.core.bench.worker import _nothing, _sample
from tlkit.core.model.load import inspect
from tlkit.host.conditions import watch
from tlkit.host.machine import describe_machine, versions
from tlkit.types import Unit

LIMIT = Limits(regression=0.05)


class Slowed:
    """The torch engine, each inference followed by a share of its own time (``slowdown``) of doing nothing else."""

    def __init__(self, slowdown: float, **arguments: Any) -> None:
        self._longer = 1 + slowdown
        inner = make(**arguments)
        self._inner = inner
        self.load, self.describe = inner.load, inner.describe

    def bind(self, model: Any) -> Callable[[], object]:
        """Return the call to time."""
        call = self._inner.bind(model)

        def slowed() -> object:
            start = perf_counter_ns()
            result = call()
            end = start + (perf_counter_ns() - start) * self._longer
            while perf_counter_ns() < end:
                pass
            return result

        return slowed


class Timer:
    """torch.utils.benchmark on the same executor, one call a sample, as a subject of its own process."""

    def __init__(self, **arguments: Any) -> None:
        inner = make(**arguments)
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


@dataclass(frozen=True)
class Trial:
    """A model, the same again, and the same slowed down."""

    seconds: float
    again: Ratio
    slowed: Ratio
    alarm: bool
    caught: bool
    trust: tuple[str, ...]


def main() -> None:
    """Run the experiments and print a line for each."""
    options = _options()
    end = watch()
    with tempfile.TemporaryDirectory() as folder:
        setting = _setting(options, Path(folder))
        method = Method(iterations=options.iterations, processes=options.processes, power=False)
        verdicts = [_own_cost(), _agreement(setting, method)]
        _show(verdicts)
        trials = list(_trials(setting, method, options, time.monotonic() + 60 * options.minutes))
        judged = _judged(trials)
        _show(judged)
    conditions = end()
    print(
        f"{describe_machine().cpu}; {setting.model}, {options.iterations} inferences in {options.processes} processes"
    )
    print(f"other processes used {conditions.other_load or 0:.0%} of the machine meanwhile")
    if options.json:
        facts: dict[str, Any] = {
            "machine": asdict(describe_machine()),
            "versions": versions(),
            "conditions": asdict(conditions),
        }
        facts |= {"verdicts": [asdict(v) for v in verdicts + judged], "trials": [asdict(trial) for trial in trials]}
        Path(options.json).write_text(json.dumps(facts, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", default="mobilenet_v2")
    parser.add_argument("--apart", action="store_true", help="runs one after another, held against a saved one")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("-n", "--iterations", type=int, default=300)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--slowdown", type=float, default=0.08, help="what is added to an inference, as a share of it")
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args()


def _setting(options: argparse.Namespace, folder: Path) -> Setting:
    path = Path(options.model)
    path = path if path.exists() else _converted(options.model, folder)
    subject = Subject(path.stem, str(path), False, inspect(path).inputs)
    sweep = Sweep((Unit.CPU,), threads=(options.threads,))
    return settings([subject], sweep, {}, 0, {"precision": "f16", "engine": "eager"}, folder)[0]


def _converted(name: str, folder: Path) -> Path:
    from fixtures.networks import NETWORKS
    from tlkit.core.convert.convert import convert

    module, inputs = NETWORKS[name]()
    ports = [f"x{index}={'x'.join(map(str, tensor.shape))}" for index, tensor in enumerate(inputs)]
    convert(module, folder / f"{name}.mlpackage", inputs=ports, verify=False)
    return folder / f"{name}.mlpackage"


def _own_cost() -> Verdict:
    count = 100_000
    start = perf_counter_ns()
    samples, _ = _sample(_nothing, count, 60.0)
    each = (perf_counter_ns() - start) / count / 1e3
    inside = statistics.median(samples) / 1e3
    return Verdict("own cost", f"{each:.2f} us a sample, {inside:.2f} of it inside it", "20 us", each < 20)


def _agreement(setting: Setting, method: Method) -> Verdict:
    twice = replace(method, iterations=2 * method.iterations, processes=2 * method.processes)  # it is taken only once
    ours, theirs = measure([setting, replace(setting, factory="believe:Timer")], twice).rows
    found = ratio_of_medians(turns(ours), Turns(theirs.device_ns, theirs.turns), paired=True)
    told = f"bench / torch.utils.benchmark = {_told(found)}"
    return Verdict("agreement", told, "0.97 to 1.03", abs(found.value - 1) <= 0.03)


def _trials(setting: Setting, method: Method, options: argparse.Namespace, end: float) -> Iterator[Trial]:
    for number in range(1, options.trials + 1):
        if (began := time.monotonic()) > end:
            return
        trial = _trial(setting, method, options, began)
        told = f"again {_told(trial.again)}, slowed {_told(trial.slowed)}, trust {', '.join(trial.trust)}"
        print(f"  trial {number}, {trial.seconds:.0f} s: {told}", file=sys.stderr, flush=True)
        yield trial


def _trial(setting: Setting, method: Method, options: argparse.Namespace, began: float) -> Trial:
    slower = setting.arguments | {"slowdown": options.slowdown}
    slowed = replace(setting, model="slowed", factory="believe:Slowed", arguments=slower)
    asked, apart = [setting, replace(setting, model="again"), slowed], options.apart
    rows = [_rows([one], method)[0] for one in asked] if apart else _rows(asked, method)
    ratios = [ratio_of_medians(turns(row), turns(rows[0]), paired=not apart) for row in rows[1:]]
    alarm, caught = (_failed(row, rows[0], apart) for row in rows[1:])
    return Trial(time.monotonic() - began, ratios[0], ratios[1], alarm, caught, tuple(map(_trust, rows)))


def _judged(trials: list[Trial]) -> list[Verdict]:
    count = len(trials)
    agreed, alarms = sum(not trial.again.shown for trial in trials), sum(trial.alarm for trial in trials)
    caught = sum(trial.caught for trial in trials)
    slowdown = statistics.geometric_mean(trial.slowed.value for trial in trials)
    far = math.sqrt(sum(math.log(trial.again.value) ** 2 for trial in trials) / count)
    wide = statistics.median(trial.again.high / trial.again.low for trial in trials) ** 0.5 - 1
    told = (
        f"{agreed} of {count} pairs agree; they lie {far:.1%} apart (rms), the intervals reach {wide:.1%} to each side"
    )
    slower = f"{caught} of {count} slowdowns, of {slowdown - 1:.1%} in the mean"
    return [
        Verdict("A/A", told, "19 in 20", agreed >= 0.95 * count),
        Verdict("false alarm", f"{alarms} of {count}", "at most 1 in 20", alarms <= count / 20),
        Verdict("caught", slower, "9 in 10", caught >= 0.9 * count),
    ]


def _rows(asked: list[Setting], method: Method) -> list[Row]:
    end = watch()
    found = measure(asked, method)
    if found.errors:
        raise SystemExit(f"{found.errors[0].message}\n{found.errors[0].hint}")
    conditions = end()
    return [replace(row, trust=judge(row, conditions)) for row in found.rows]


def _failed(row: Row, before: Row, apart: bool) -> bool:
    checks = judge_limits([row], LIMIT, [before]) if apart else judge_limits([before, row], LIMIT)
    (passed,) = (check.passed for check in checks)
    return passed is False


def _trust(row: Row) -> str:
    return row.trust.level if row.trust else "-"


def _told(ratio: Ratio) -> str:
    return f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


def _show(verdicts: list[Verdict]) -> None:
    for verdict in verdicts:
        mark = "ok  " if verdict.passed else "MISS"
        print(f"{mark} {verdict.experiment:<12} {verdict.found}; held to {verdict.held_to}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
