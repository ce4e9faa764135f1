"""``tlkit run``: run one inference, and print its outputs or save them to a file."""

from __future__ import annotations

import math
from inspect import signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlkit.cli.accuracy import refuse, run_labels
from tlkit.cli.language import Wanted, refuse_others, run_language
from tlkit.cli.many.run import many_inputs, run_many, slow_work
from tlkit.cli.options import accuracy, language
from tlkit.cli.options import many as many_options
from tlkit.cli.options import shared as options
from tlkit.cli.sink import output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.core.run.run import OutputSummary, RunResult

SaveOutputs = Annotated[
    str | None,
    typer.Option(
        "--save-outputs",
        metavar="FILE",
        help="Write the outputs: a .npz or .safetensors; of many inputs a .npz, a .parquet or a folder.",
    ),
]
Until = Annotated[
    str | None,
    typer.Option(
        "--until", metavar="OP", help="Stop after this operation (its name, value, type or module) and show its result."
    ),
]
Dump = Annotated[
    str | None,
    typer.Option("--dump", metavar="DIR", help="Write every value to a new folder: one .npy each, and index.json."),
]
Ops = Annotated[
    list[str] | None,
    typer.Option("--ops", metavar="PATTERN", help="What --dump keeps: names or types (conv, *attention*). Repeat it."),
]
CheckNan = Annotated[
    bool, typer.Option("--check-nan", help="Exit 1 if an output or a value inside is a NaN or an infinity.")
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="N|NAME",
        help="Run a pipeline from this stage on, on features that you give: its number (from 0) or name.",
    ),
]
Unit = Annotated[
    str,
    typer.Option("--units", metavar="UNIT", autocompletion=options.UNITS, help="Compute units: all, cpu, gpu or ane."),
]


_HOW = ("precision", "engine", "function", "strict_mil", "stage", "cache", "emulate", "chip")
_BAR = 24  # columns of a class's bar at probability 1


def run(
    model: options.Model,
    inputs: options.Inputs = None,
    shapes: options.Shapes = None,
    seed: options.Seed = 0,
    precision: options.Precision = "f16",
    engine: options.Engine = "auto",
    units: Unit = "cpu",
    function: options.Function = None,
    strict_mil: options.StrictMil = False,
    cache: options.Cache = True,
    emulate: options.Emulate = None,
    chip: options.Chip = None,
    stage: options.Stage = None,
    from_: From = None,
    custom: options.Customs = None,
    until: Until = None,
    dump: Dump = None,
    ops: Ops = None,
    top: options.Top = 5,
    save_outputs: SaveOutputs = None,
    check_nan: CheckNan = False,
    jobs: many_options.Jobs = None,
    cluster: many_options.Cluster = None,
    part: many_options.Part = None,
    rows: many_options.Rows = None,
    force: options.Force = False,
    labels: accuracy.Labels = None,
    classes: accuracy.Classes = None,
    calibration: accuracy.Calibration = False,
    min_top1: accuracy.Top1 = None,
    ports: accuracy.Ports = None,
    images: accuracy.Images = None,
    prompt: language.Prompt = None,
    prompt_file: language.PromptFile = None,
    chat: language.Chat = False,
    system: language.System = None,
    perplexity: language.Perplexity = None,
    embed: language.Embed = False,
    context: language.Context = None,
    max_tokens: language.MaxTokens = 256,
    temperature: language.Temperature = 0.0,
    top_k: language.TopK = 0,
    top_p: language.TopP = 1.0,
    min_p: language.MinP = 0.0,
    repeat_penalty: language.RepeatPenalty = 1.0,
    stop: language.Stop = None,
    offline: options.Offline = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Run a model once and show its outputs; inputs that are not given are random.

    \b
    tlkit run digits.mlpackage --input image=scan.png
    tlkit run net.mlpackage --input x=features.npy --input scale=[0.5] \\
        --save-outputs out.npz
    tlkit run flexible.mlpackage --shape x=4,8 --check-nan --json
    tlkit run digits.mlpackage --input images/   each file of a folder, a row each
    tlkit run net.mlpackage --input x=data.parquet:column --jobs 4 \\
        --save-outputs out.parquet
    tlkit run digits.mlpackage --labels held-out/   accuracy: a folder per class
    tlkit run net.mlpackage --emulate ane --check-nan   as the Neural Engine would
    tlkit run net.mlpackage --until softmax_0 --dump values --ops 'linear*'
    tlkit run model.gguf --prompt "The capital of France is"   a language model
    """
    values = dict(locals())
    given = {name: value for name, value in values.items() if value != signature(run).parameters[name].default}
    sink = output.start(json=json, quiet=quiet, verbose=verbose)
    drawn = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": seed}
    drawn |= {"repeat_penalty": repeat_penalty}
    texts = (prompt, prompt_file, chat, system, perplexity, embed)
    wanted = Wanted(*texts, context, max_tokens, stop or [], engine, cache, units, drawn)
    refuse_others(set(given), wanted)
    if wanted.anything:
        return run_language(sink, model, wanted)
    refuse(given)
    from tlkit.core.run.run import part_of
    from tlkit.core.run.run import run as execute

    values["stage"] = part_of(stage, from_)
    settings = {name: values[name] for name in _HOW} | {"unit": units}
    if labels is not None:
        return run_labels(sink, model, labels, settings | values, top)
    if many_inputs(given):
        return run_many(sink, model, settings, given)

    with sink.progress(f"running {model}") as bar, slow_work(bar, f"running {model}"):
        # Told when the bar is gone, which they would break.
        notes: list[str] = []
        result = execute(
            model,
            inputs or (),
            shapes or (),
            seed=seed,
            custom=custom or (),
            until=until,
            dump=dump,
            ops=ops or (),
            save_outputs=save_outputs,
            check_nan=check_nan,
            force=force,
            note=notes.append,
            **settings,
        )
    for note in notes:
        sink.note(note)
    if result.emulated is not None:
        sink.note(result.emulated.text)
    if save_outputs:
        sink.note(f"outputs written to {save_outputs}")
    if dump:
        sink.note(f"{len(result.dumped)} values written to {dump}")
        _warn_first_stray(sink, result)
    for summary in result.summaries:
        if summary.nan or summary.inf:
            sink.warn(f"output '{summary.name}' is not finite: {summary.nan} NaN, {summary.inf} infinite")
    if result.stray is not None:
        sink.warn(str(result.stray))
    sink.debug(f"ran by {result.ran}")
    sink.answer(_document(result, notes, top), lambda: _show(result, top))
    if check_nan and (result.not_finite or result.stray):
        raise typer.Exit(1)


def _document(result: RunResult, notes: list[str], top: int) -> dict[str, Any]:
    return {
        "model": result.model,
        "unit": result.unit,
        "engine": result.engine,
        "precision": result.precision,
        "seed": result.seed,
        "inputs": result.inputs,
        "outputs": result.summaries,
        "top": {s.name: [label for label, _ in s.classes[:top]] for s in result.summaries if s.classes},
        "not_finite": result.not_finite,
        "notes": notes,
        "function": result.function,
        "until": result.until,
        "dumped": result.dumped,
        "stray": result.stray,
        "emulated": result.emulated,
    }


def _warn_first_stray(sink: output.Sink, result: RunResult) -> None:
    stray = next((item for item in result.dumped if item.nan or item.inf), None)
    if stray:
        what = f"{stray.nan} NaN, {stray.inf} infinite"
        sink.warn(f"the first value kept that is not finite: '{stray.value}' ({stray.type}): {what}")


def _show(result: RunResult, top: int) -> RenderableType:
    from rich.console import Group

    tensors = [summary for summary in result.summaries if summary.kind in ("tensor", "image")]
    parts: list[RenderableType] = [_classes(summary, top) for summary in result.summaries if summary.classes]
    parts += [f"{summary.name}: {summary.label}" for summary in result.summaries if summary.kind == "label"]
    if tensors:
        parts.append(_tensors(tensors))
    if result.emulated is not None:
        parts.append(f"emulated: {result.emulated.about}")
    if result.not_finite:
        parts.append(f"not finite: {', '.join(result.not_finite)}")
    return Group(*parts)


def _classes(summary: OutputSummary, top: int) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), title=summary.name, title_justify="left", title_style="bold")
    table.show_header = False
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    table.add_column()
    shares = all(0 <= share <= 1 for _, share in summary.classes)  # some classifiers end in logits: no bars for them
    for rank, (label, share) in enumerate(summary.classes[:top]):
        length = round(share * _BAR) if shares else 0
        style = "bold green" if rank == 0 else ""
        table.add_row(Text(label, style), f"{share:.4f}", Text("█" * length, style or "dim"))
    return table


def _tensors(summaries: list[OutputSummary]) -> RenderableType:
    from tlkit.cli.sink.named_table import NamedTable
    from tlkit.ports.shapes import shape_text

    table = NamedTable()
    for heading in ("output", "type", "shape"):
        table.add_column(heading, no_wrap=True)
    for heading in ("min", "max", "mean"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("first values")
    for summary in summaries:
        figures = [_number(value) for value in (summary.minimum, summary.maximum, summary.mean)]
        more = " …" if len(summary.first) < math.prod(summary.shape) else ""
        table.add_row(
            summary.name,
            summary.dtype,
            shape_text(summary.shape),
            *figures,
            " ".join(map(_number, summary.first)) + more,
        )
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    # Integers in full, not rounded to five digits.
    return str(value) if isinstance(value, int) else f"{value:.5g}"
