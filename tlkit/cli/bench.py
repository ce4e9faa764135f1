"""``tlkit bench``: latency, load time and memory of a model under each compute-unit setting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tlkit.cli import options, output
from tlkit.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.core.measure import BenchResult

Model = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]", help="The model: a file, or a built-in. [the built-in resnet50]", show_default=False
    ),
]
Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=1, help="CPU threads (not with Core ML). [PyTorch's choice]")
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="S", min=0.1, help="Give a setting up when it is silent for S seconds.")
]


def bench(
    model: Model = None,
    units: options.Units = None,
    iterations: options.Iterations = 100,
    warmup: options.Warmup = 10,
    duration: options.Duration = None,
    inputs: options.Inputs = None,
    seed: options.Seed = 0,
    engine: options.Engine = "eager",
    precision: options.Precision = "f16",
    percentiles: options.Percentiles = "50,90,95,99",
    threads: Threads = None,
    timeout: Timeout = 300.0,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Measure a model under each compute-unit setting: latency, throughput, load time, memory.

    \b
    tlkit bench                                  the built-in ResNet-50, every setting of this machine
    tlkit bench net.mlpackage --units ane,cpu    two settings, side by side
    tlkit bench net.mlpackage --json > run.json  with the raw samples

    Each setting runs in a process of its own; their samples are taken in turns. On a Mac, Core ML runs the model;
    elsewhere PyTorch does, and ane cannot be measured. Exits with 3 if no setting is here, 4 if one failed.
    """
    sink = output.start(json=json, quiet=quiet, verbose=verbose)
    from tlkit.core.measure import bench as measure
    from tlkit.core.values import parse_inputs

    with sink.progress("starting", 1.0) as bar:

        def progress(what: str, done: float, total: float) -> None:
            bar.describe(what)
            bar.update(done, total)

        result = measure(
            model,
            units=None if units is None else [unit for unit in units.split(",") if unit.strip()],
            iterations=iterations,
            warmup=warmup,
            duration=duration,
            inputs=parse_inputs(inputs or ()),
            seed=seed,
            engine=engine,
            precision=precision,
            percentiles=_percentiles(percentiles),
            threads=threads,
            timeout=timeout,
            progress=progress,
        )
    sink.answer(_document(result), lambda: _show(result))
    if result.failed:
        raise typer.Exit(4)


def _percentiles(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UsageError(
            f"--percentiles {text}: not a list of numbers", "for example --percentiles 50,90,95,99"
        ) from None


def _document(result: BenchResult) -> dict[str, object]:
    from dataclasses import fields

    return {field.name: getattr(result, field.name) for field in fields(result)}


def _show(result: BenchResult) -> RenderableType:
    from tlkit.cli._bench_table import render

    return render(result)
