"""``tlkit bench``: latency, start-up costs, memory and energy of models under each compute-unit setting."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from inspect import signature
from typing import TYPE_CHECKING, Any

import typer

from tlkit.cli.language_bench import bench_language, language_unit, measures_language, refuse_for_language
from tlkit.cli.options import bench as flags
from tlkit.cli.options import shared as options
from tlkit.cli.sink import output
from tlkit.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tlkit.core.bench.bench import BenchResult
    from tlkit.core.bench.gate import Check, Limits


def bench(
    models: flags.Models = None,
    units: options.Units = None,
    iterations: options.Iterations = 100,
    warmup: options.Warmup = 10,
    duration: options.Duration = None,
    inputs: options.Inputs = None,
    shapes: options.Shapes = None,
    batch: flags.Batch = None,
    seed: options.Seed = 0,
    engine: options.Engine = "auto",
    precision: options.Precision = "f16",
    function: options.Function = None,
    strict_mil: options.StrictMil = False,
    cache: options.Cache = True,
    custom: options.Customs = None,
    percentiles: options.Percentiles = "50,90,95,99",
    threads: flags.Threads = None,
    concurrency: flags.Concurrency = 1,
    processes: flags.Processes = None,
    power: flags.Power = None,
    per_op: options.PerOp = False,
    top: options.Top = 10,
    against: flags.Against = None,
    timeout: flags.Timeout = 300.0,
    save: flags.Save = None,
    report: flags.Report = None,
    force: options.Force = False,
    trust: options.Trust = False,
    show: flags.Show = False,
    since: flags.Since = None,
    baseline: flags.Baseline = None,
    max_regression: flags.Regression = None,
    max_latency: flags.MaxLatency = None,
    at: flags.At = "median",
    max_memory: flags.MaxMemory = None,
    max_load: flags.MaxLoad = None,
    format: flags.Format = None,
    estimate: flags.Estimate = False,
    prompt_tokens: flags.PromptTokens = None,
    gen: flags.Generated = None,
    chip: options.Chip = None,
    offline: options.Offline = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Measure models under each compute-unit setting: latency, throughput, load time, memory, energy.

    \b
    tlkit bench                               the built-in ResNet-50
    tlkit bench net.mlpackage --units ane,cpu   two settings, side by side
    tlkit bench a.mlpackage b.mlpackage       two models, and how sure it is
    tlkit bench net.py:Net net.mlpackage      the PyTorch module beside it
    tlkit bench flexible.mlpackage --batch 1,4,16   a row for each batch size
    tlkit bench net.mlpackage --save run.json --report run.html
    tlkit bench net.mlpackage --baseline run.json --max-regression 5%
    tlkit bench old.mlpackage new.mlpackage --max-regression 5%
    tlkit bench --show mac.json linux.json    saved runs, compared
    tlkit bench net.mlpackage --save runs.db   appended; --show runs.db --since 7d
    tlkit bench net.mlpackage --estimate --chip m4   not measured: estimated
    tlkit bench model.gguf --prompt-tokens 128,512 --gen 128   a language model

    Each setting runs in its own processes (--processes), and settings take turns. On a Mac, Core ML runs the model;
    elsewhere PyTorch does, and ane cannot be measured. Each row says how far it can be trusted, and why. Exits with 1
    if a limit is exceeded, 2 if --max-regression had no row to compare, 3 if a requested unit is not available, 4 if a
    setting failed (the others are still measured). Ctrl-C shows what was measured so far.
    """
    given = {name for name, value in locals().items() if value != signature(bench).parameters[name].default}
    sink = output.start(json=json or format == "json", quiet=quiet, verbose=verbose)
    format = flags.chosen_format(format, json)
    if measures_language(models or [], given):
        refuse_for_language(given)
        sizes = _numbers(prompt_tokens, "--prompt-tokens", int)
        unit = language_unit(units)
        return bench_language(sink, models or [], sizes, gen, engine, unit, processes, iterations, seed, timeout, given)
    if estimate:
        return _estimate(sink, models or [], units, chip, function)
    if chip is not None:
        raise UsageError("--chip goes with --estimate", "measuring happens on the chip of this machine")
    from tlkit.core.bench.bench import BenchInterrupted

    if since is not None and not show:
        raise UsageError("--since goes with --show", "it picks among the runs of a .db file")
    runs = _saved(models or [], since) if show else []
    compared = len({row.model for row in runs[0].rows}) if show else len(models or ())
    limits = _limits(max_latency, at, max_memory, max_load, max_regression, baseline, compared)
    interrupted = 0
    named = _inputs(models, inputs, baseline)
    if show:
        checks = _judge(runs[0], limits, baseline)
        _print(sink, runs[0], runs[1:], checks, format, top)
        _write(runs[0], None, report, force, named, runs[1:])
        return _leave(runs[0], checks, limits)
    asked: dict[str, Any] = {
        "units": None if units is None else _words(units),
        "iterations": iterations,
        "warmup": warmup,
        "duration": duration,
        "seed": seed,
        "batch": _numbers(batch, "--batch", int),
        "engine": engine,
        "precision": precision,
        "function": function,
        "strict_mil": strict_mil,
        "cache": cache,
        "custom": custom or (),
        "percentiles": _numbers(percentiles, "--percentiles", float),
        "threads": _numbers(threads, "--threads", int) or None,
        "concurrency": concurrency,
        "processes": processes,
        "against": against,
        "power": power,
        "per_op": per_op,
        "timeout": timeout,
        "trust": trust,
    }
    _before((save, report), force, limits, asked, baseline, named)
    try:
        result = _measure(sink, models, inputs, shapes, asked)
    except BenchInterrupted as error:
        result, interrupted = error.result, error.exit_code
    checks = _judge(result, limits, baseline)
    _print(sink, result, [], checks, format, top)
    _write(result, save, report, force, named)
    return _leave(result, checks, limits, interrupted, strict=units is not None)


def _estimate(sink: output.Sink, models: list[str], units: str | None, chip: str | None, function: str | None) -> None:
    """Answer ``--estimate``: nothing is run."""
    if len(models) > 1:
        raise UsageError("--estimate takes one model", "estimate them one by one")
    from tlkit.core.bench.estimate import SETTINGS, document, estimates

    found = estimates(models[0] if models else None, SETTINGS if units is None else _words(units), chip, function)

    def show() -> Any:
        from tlkit.cli.views.estimate import estimates_view

        return estimates_view(found)

    sink.answer(document(found), show)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str | None, flag: str, kind: type[int] | type[float]) -> tuple[Any, ...]:
    try:
        return tuple(kind(word) for word in _words(text or ""))
    except ValueError:
        example = "1,4,16" if kind is int else "50,90,95,99"
        raise UsageError(f"{flag} {text}: not a list of numbers", f"for example {flag} {example}") from None


def _limits(
    latency: str | None,
    at: str,
    memory: str | None,
    load: str | None,
    regression: str | None,
    baseline: str | None,
    models: int,
) -> Limits:
    from tlkit.core.bench.gate import Limits, parse_share, parse_size, parse_time

    if regression is not None and baseline is None and models < 2:
        hint = "give --baseline run.json, or two models: the first is the baseline then"
        raise UsageError("--max-regression needs something to compare with", hint)
    if baseline is not None and regression is None:
        regression = "5%"
    return Limits(
        latency_ns=None if latency is None else parse_time(latency, "--max-latency"),
        at=at,
        memory_bytes=None if memory is None else parse_size(memory, "--max-memory"),
        load_ns=None if load is None else parse_time(load, "--max-load"),
        regression=None if regression is None else parse_share(regression, "--max-regression"),
    )


def _inputs(*named: object) -> list[Path]:
    """Return the files that the command reads: models, inputs, the baseline or the saved runs."""
    from tlkit.host.goals import files_named

    return list(files_named(*named))


def _before(
    outputs: tuple[str | None, ...],
    force: bool,
    limits: Limits,
    asked: dict[str, Any],
    baseline: str | None,
    named: list[Path],
) -> None:
    """Check before measuring for anything that would make the result useless."""
    from pathlib import Path

    from tlkit.core.bench.gate import check_limits
    from tlkit.core.bench.saved import SUFFIXES, check_history
    from tlkit.host.goals import check_distinct
    from tlkit.host.staging import prepare

    goals = [Path(goal) for goal in outputs if goal is not None]
    for goal in goals:
        if goal.suffix in SUFFIXES:
            check_history(goal)
        else:
            prepare(goal, force=force, inputs=named)
    check_distinct(goals)
    check_limits(limits, asked["percentiles"], asked["iterations"], asked["duration"])
    if baseline is not None:
        _last_of(baseline)


def _measure(
    sink: output.Sink,
    models: list[str] | None,
    inputs: list[str] | None,
    shapes: list[str] | None,
    asked: dict[str, Any],
) -> BenchResult:
    from tlkit.core.bench.bench import bench as measure
    from tlkit.core.model.values import parse_inputs

    bars: AbstractContextManager[Any] = sink.progress("starting", 1.0)
    with bars as bar:
        return measure(
            models, inputs=parse_inputs(inputs or ()), shapes=_shapes(shapes or []), progress=bar.report, **asked
        )


def _shapes(texts: list[str]) -> dict[str, list[tuple[int, ...]]]:
    from tlkit.core.model.values import parse_dims

    found: dict[str, list[tuple[int, ...]]] = {}
    for text in texts:
        name, equals, dims = text.rpartition("=")
        if not equals:
            raise UsageError(f"--shape {text}: not NAME=DIMS", "write it as --shape NAME=1,3,224,224")
        found.setdefault(name, []).append(parse_dims(dims, f"--shape {text}"))
    return found


def _saved(paths: list[str], since: str | None = None) -> list[BenchResult]:
    """Return the runs to show, in the order of their files; those of one .db, oldest first."""
    from pathlib import Path

    from tlkit.core.bench.saved import is_history, load_history, load_run

    if not paths:
        raise UsageError("--show: no run to show", "give files that `tlkit bench --save` wrote")
    if since is not None and not all(is_history(Path(path)) for path in paths):
        raise UsageError("--since picks among the runs of a .db file", "leave it out")
    runs: list[BenchResult] = []
    for path in paths:
        runs += load_history(Path(path), since) if is_history(Path(path)) else [load_run(Path(path))]
    return runs


def _last_of(baseline: str) -> BenchResult:
    from pathlib import Path

    from tlkit.core.bench.saved import load_run

    return load_run(Path(baseline))


def _judge(result: BenchResult, limits: Limits, baseline: str | None) -> tuple[Check, ...]:
    from tlkit.core.bench.gate import judge_limits

    if baseline is None:
        return judge_limits(result.rows, limits)
    before = _last_of(baseline)
    return judge_limits(result.rows, limits, before.rows, (before.machine, result.machine))


def _print(
    sink: output.Sink, result: BenchResult, others: list[BenchResult], checks: tuple[Check, ...], format: str, top: int
) -> None:
    from tlkit.cli.views.bench import formats

    document = formats.document(result, others, checks)
    if format in ("csv", "jsonl", "md", "junit"):
        made = getattr(formats, format)(result, others, checks)
        return sink.answer(document, made)
    from tlkit.cli.views.bench.table import render

    return sink.answer(document, lambda: render(result, others, checks, top))


def _write(
    result: BenchResult,
    save: str | None,
    report: str | None,
    force: bool,
    named: list[Path],
    others: Sequence[BenchResult] = (),
) -> None:
    from json import dumps
    from pathlib import Path

    from tlkit.cli.views.bench.formats import document
    from tlkit.cli.views.bench.report import page
    from tlkit.core.bench.saved import SUFFIXES, append
    from tlkit.core.bench.saved import save as write
    from tlkit.host.interrupt import last_output
    from tlkit.words import jsonable

    if save is None and report is None:
        return
    # As --json would print it: a saved run is the same document.
    whole = {"schema_version": output.SCHEMA_VERSION} | jsonable(document(result, [], ()))
    kept = save is not None and Path(save).suffix in SUFFIXES
    run = None if save is None or kept else (Path(save), dumps(whole) + "\n")
    with last_output():
        if save is not None and kept:
            append(Path(save), result, dumps(whole))
        if run is None and report is None:
            return
        write(run, None if report is None else (Path(report), page(result, others)), force=force, inputs=named)


def _leave(
    result: BenchResult, checks: tuple[Check, ...], limits: Limits, interrupted: int = 0, strict: bool = False
) -> None:
    """Exit with the result's code; ``strict``: the user named units, so a missing one is an error."""
    # The gravest first: one code has to stand for all rows.
    if interrupted:
        raise typer.Exit(interrupted)
    if result.failed:
        raise typer.Exit(4)
    here = {row.unit for row in result.rows if row.summary}
    # A PyTorch source has no ane row, which says nothing of a machine that measured its package's.
    if strict and any(row.status == "absent" and row.unit not in here for row in result.rows):
        raise typer.Exit(3)
    if any(check.passed is False for check in checks):
        raise typer.Exit(1)
    from tlkit.core.bench.gate import require_compared

    require_compared(checks, limits)
