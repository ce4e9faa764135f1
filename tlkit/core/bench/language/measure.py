"""What ``tlkit bench`` measures of language models: how fast prompts are read and texts are generated.

Each model runs in processes of its own, which take turns. A process opens the model, reads a prompt of random tokens
for each size, and generates after it, token by token, greedily.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tlkit.core.bench.rows import Row
from tlkit.core.bench.stats import summarize
from tlkit.core.bench.trust import judge
from tlkit.core.bench.worker import peak_memory
from tlkit.errors import ExecutionError, TlkitError, UsageError
from tlkit.host.conditions import Conditions, watch
from tlkit.host.machine import Machine, describe_machine
from tlkit.host.power import Energy, Power, energy, watts
from tlkit.types import Unit

PROMPTS = (128, 512)
GENERATED = 128
PROCESSES = 3
TIMES = 2
"""Prompts of each size that a process reads."""
_REST = 1.5
"""Seconds in which an idle machine's power is measured."""
_TEXT = "The quick brown fox jumps over 13 lazy dogs; water boils at 100 degrees, and Paris is the capital of France."
"""Whose tokens prompts are drawn from: their order does not matter to how long they take."""


@dataclass(frozen=True, slots=True)
class LanguageRow:
    """Prompts of ``tokens`` tokens, or ``tokens`` tokens generated after ``after`` others. ``row`` has the samples in
    nanoseconds (a prompt, or a token, each), with their trust, and the energy of a token where the machine has a
    counter; ``rate`` is in tokens per second, over all of them."""

    model: str
    test: str
    tokens: int
    after: int
    rate: float
    row: Row


@dataclass(frozen=True, slots=True)
class LanguageStart:
    """A model's beginnings, in nanoseconds from the start of Python, the best of the processes: until it was ready, and
    until the first token after a prompt of the first size was known. ``peak_bytes`` of memory were resident at most,
    beside ``file_bytes`` on disk."""

    model: str
    engine: str
    load_ns: int
    first_token_ns: int
    peak_bytes: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class LanguageBench:
    """All of a measurement. ``power_note`` says which energy counters are missing, and why."""

    rows: tuple[LanguageRow, ...]
    starts: tuple[LanguageStart, ...]
    conditions: Conditions
    machine: Machine
    power_note: str = ""


@dataclass(frozen=True, slots=True)
class LanguageMethod:
    """What is measured: sizes of prompts, how many tokens are generated after each, and how often."""

    prompts: tuple[int, ...] = PROMPTS
    generated: int = GENERATED
    engine: str = "auto"
    unit: Unit = Unit.CPU
    processes: int = PROCESSES
    times: int = TIMES
    seed: int = 0
    timeout: float = 300.0

    def check(self) -> None:
        """UsageError where there is nothing to measure."""
        if not self.prompts or min(self.prompts) < 1:
            raise UsageError("--prompt-tokens: counts of tokens from 1 on", "for example --prompt-tokens 128,512")
        if self.generated < 2:
            raise UsageError(f"--gen {self.generated}: at least 2 tokens", "for example --gen 128")


def measure_language(
    models: Sequence[str | os.PathLike[str]], method: LanguageMethod, told: Callable[[str], None] = lambda _: None
) -> LanguageBench:
    """Measure models; the error of the first that fails."""
    method.check()
    end = watch()
    found: dict[str, list[dict[str, Any]]] = {os.fspath(model): [] for model in models}
    for turn in range(method.processes):
        for model in found:
            told(f"{Path(model).name}: process {turn + 1} of {method.processes}")
            # Once each: the machine has to rest before.
            found[model].append(_process(model, method, power=turn == 0))
    conditions = end()
    rows = [row for model, runs in found.items() for row in _rows(model, runs, method, conditions)]
    starts = [_start(model, runs) for model, runs in found.items()]
    notes = dict.fromkeys(run["power_note"] for runs in found.values() for run in runs if run["power_note"])
    return LanguageBench(tuple(rows), tuple(starts), conditions, describe_machine(), "; ".join(notes))


def _process(model: str, method: LanguageMethod, *, power: bool) -> dict[str, Any]:
    """Return what one process measured, with ``power`` energy among it."""
    asked = {"model": model, "prompts": method.prompts, "generated": method.generated, "engine": method.engine}
    asked |= {"times": method.times, "seed": method.seed, "unit": method.unit.value, "power": power}
    command = [sys.executable, "-P", "-m", "tlkit.core.bench.language.measure"]
    start = time.perf_counter_ns()
    try:
        # The system's clock is the same for both processes, so that the start of Python counts.
        asked["started"] = time.time_ns()
        done = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=method.timeout, check=False
        )
    except subprocess.TimeoutExpired:
        said = f"{model}: no answer in {method.timeout:g} s"
        raise ExecutionError(said, "allow more (--timeout), or measure less") from None
    told = done.stdout.strip().splitlines()[-1:] if done.returncode == 0 else []
    if not told:
        seconds = (time.perf_counter_ns() - start) / 1e9
        lines = done.stderr.strip().splitlines()
        raise ExecutionError(f"{model}: its process ended after {seconds:.0f} s: {lines[-1] if lines else 'no word'}")
    answer: dict[str, Any] = json.loads(told[0])
    if "error" in answer:
        error = TlkitError(answer["error"], answer["hint"])
        error.exit_code = answer["code"]
        raise error
    return answer


def _rows(
    model: str, runs: Sequence[Mapping[str, Any]], method: LanguageMethod, conditions: Conditions
) -> list[LanguageRow]:
    found = []
    for size in method.prompts:
        for test, tokens, after in (("prompt", size, 0), ("generate", method.generated, size)):
            turns = [run[test][str(size)] for run in runs]
            samples = tuple(sample for turn in turns for sample in turn)
            label = f"{Path(model).name} prompt {size}" if test == "prompt" else f"{Path(model).name} after {size}"
            row = Row(
                method.unit.value,
                label=label,
                model=model,
                backend=runs[0]["engine"],
                summary=summarize(samples),
                samples_ns=samples,
                turns=tuple((len(turn),) for turn in turns),
            )
            trusted = judge(row, conditions, tokens=True)
            each = size if test == "prompt" else 1
            rate = 1e9 * each * len(samples) / sum(samples)
            spent = runs[0]["energy"].get(f"{test} {size}")
            row = replace(row, trust=trusted, energy=None if spent is None else Energy(**spent))
            found.append(LanguageRow(model, test, tokens, after, rate, row))
    return found


def _start(model: str, runs: Sequence[Mapping[str, Any]]) -> LanguageStart:
    best = {key: min(run[key] for run in runs) for key in ("load_ns", "first_token_ns")}
    return LanguageStart(
        model, runs[0]["engine"], **best, peak_bytes=max(run["peak_bytes"] for run in runs), file_bytes=_size(model)
    )


def _size(model: str) -> int:
    place = Path(model)
    files = place.rglob("*") if place.is_dir() else [place]
    return sum(file.stat().st_size for file in files if file.is_file())


def take(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Measure one model in this process."""
    import numpy as np

    from tlkit.core.language.answer import decoder_of

    prompts, generated = asked["prompts"], asked["generated"]
    model = decoder_of(asked["model"])
    needed = max(prompts) + generated
    if needed > model.context_length:
        said = f"{asked['model']}: {needed} tokens are needed, and its context has {model.context_length}"
        raise UsageError(said, "choose smaller --prompt-tokens or --gen")
    runner = model.runner(needed, asked["engine"], unit=Unit(asked["unit"]))
    load = time.time_ns() - asked["started"]
    known = model.tokenizer.encode(_TEXT, whole=False)
    draw = np.random.default_rng(asked["seed"])
    found: dict[str, Any] = {"load_ns": load, "engine": runner.name, "prompt": {}, "generate": {}}
    # A GPU's counter covers the GPU; every other engine here runs on the CPU.
    meter = _Meter(Power() if asked.get("power") else None, "gpu" if asked["unit"] == Unit.GPU.value else "cpu")
    for size in prompts:
        ids = [int(token) for token in draw.choice(known, size)]
        read: list[int] = []
        # The first call of a size prepares what the others use; of the first size it is the first token, too.
        logits = runner.feed(ids)
        found.setdefault("first_token_ns", time.time_ns() - asked["started"])
        meter.rest()
        with meter.measures(f"prompt {size}", size * asked["times"]):
            for _ in range(asked["times"]):
                runner.rewind(0)
                begin = time.perf_counter_ns()
                logits = runner.feed(ids)
                read.append(time.perf_counter_ns() - begin)
        steps: list[int] = []
        logits = runner.feed([int(np.argmax(logits))])
        with meter.measures(f"generate {size}", generated - 1):
            for _ in range(generated - 1):
                begin = time.perf_counter_ns()
                logits = runner.feed([int(np.argmax(logits))])
                steps.append(time.perf_counter_ns() - begin)
        runner.rewind(0)
        found["prompt"][size], found["generate"][size] = read, steps
    found["peak_bytes"] = peak_memory()
    return found | {"energy": meter.found, "power_note": meter.note}


class _Meter:
    """The energy of a token, of parts of a measurement, above the idle machine; nothing where there is no counter."""

    def __init__(self, power: Power | None, device: str) -> None:
        self._power = power if power is not None and power.available else None
        self._device = device
        self._idle: dict[str, float] = {}
        self.note = "" if power is None else power.note
        self.found: dict[str, dict[str, Any]] = {}

    def rest(self) -> None:
        """Measure the idle machine, once: with the model in memory, and after it has run."""
        if self._power is not None and not self._idle:
            time.sleep(_REST / 3)  # clocks and fans come down after the last inference
            before = self._power.read()
            time.sleep(_REST)
            self._idle = watts(before, self._power.read())

    @contextmanager
    def measures(self, name: str, count: int) -> Iterator[None]:
        """Measure what happens meanwhile, which is ``count`` tokens."""
        before = None if self._power is None else self._power.read()
        yield
        if self._power is not None and before is not None:
            after = self._power.read()
            spent = energy(watts(before, after), self._idle, after.at - before.at, count, self._device)
            self.found[name] = asdict(spent)


def main() -> None:
    """Measure what stdin asks for; print one line of JSON."""
    try:
        answer = take(json.load(sys.stdin))
    except TlkitError as error:
        answer = {"error": error.message, "hint": error.hint, "code": error.exit_code}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
