"""``tlkit compare``: two models on the same inputs; where they part, and which operation makes a NaN."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlkit.cli.options import shared as options
from tlkit.cli.sink import output
from tlkit.cli.sink.page import Page
from tlkit.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.core.judge.compare import Judgement
    from tlkit.core.judge.nan import FirstNan

_SIDE = "a package, .mlmodel, .onnx, .pt2, TorchScript, file.py:callable, or a .npz of saved outputs"
First = Annotated[str, typer.Argument(metavar="A", help=f"The reference: {_SIDE}.", callback=options.fetched)]
Second = Annotated[
    str | None,
    typer.Argument(
        metavar="B",
        help="What is compared with it; left out, it is A at the second setting.",
        callback=options.fetched,
    ),
]
Two = Annotated[
    str, typer.Option("--precision", metavar="f16|f32[,...]", help="f16 rounds as declared, f32 never; A's, then B's.")
]
Engines = Annotated[
    str, typer.Option("--engine", metavar="ENGINE[,ENGINE]", help="What runs a package: one for both, or A's and B's.")
]
Profiles = Annotated[
    str | None,
    typer.Option(
        "--emulate",
        metavar="PROFILE[,...]",
        help="Compute as units were published to: mil,ane or mil,ane,cpu,gpu, the first against each other one.",
    ),
]
Units = Annotated[
    str, typer.Option("--units", metavar="UNIT", help="Compute units; for --emulate auto, where Core ML may run it.")
]
Ports = Annotated[
    list[str] | None,
    typer.Option("--port", metavar="NAME=DIMS[:TYPE]", help="What PyTorch sources take: x=1x3x224x224, ids=1x8:i32."),
]
Images = Annotated[
    list[str] | None,
    typer.Option("--image", metavar="NAME=DIMS[:SETTING...]", help="An image input of a source, as in tlkit convert."),
]
Samples = Annotated[
    str | None,
    typer.Option("--samples", metavar="DIR", help="Run on the images or .npz files in this folder (up to 64)."),
]
Count = Annotated[
    int | None,
    typer.Option("--count", metavar="N", min=1, help="How many seeded inputs. [3; 1 with --bisect]"),
]
Metric = Annotated[
    list[str] | None,
    typer.Option("--metric", metavar="NAME", help="Compute this as well: iou, of masks and label maps. Repeatable."),
]
Rtol = Annotated[float | None, typer.Option("--rtol", help="Exit 1 where |a-b| > atol + rtol |a| for an element.")]
Atol = Annotated[float | None, typer.Option("--atol", help="See --rtol.")]
Cosine = Annotated[float | None, typer.Option("--min-cosine", metavar="C", help="Exit 1 below this cosine.")]
Snr = Annotated[
    float | None, typer.Option("--min-snr", metavar="DB", help="Exit 1 below this signal-to-noise ratio, in dB.")
]
Top1 = Annotated[
    float | None, typer.Option("--min-top1", metavar="SHARE", help="Exit 1 if the top class agrees more rarely: 0.99.")
]
Bisect = Annotated[bool, typer.Option("--bisect", help="Find the first operation whose result strays, and why.")]
FindNan = Annotated[
    bool,
    typer.Option("--find-nan", help="Find A's first NaN or infinity, on --input or on inputs tried to provoke one."),
]
Worst = Annotated[
    str | None, typer.Option("--save-worst", metavar="FILE", help="Write the worst input and both outputs to a .npz.")
]
Report = Annotated[str | None, typer.Option("--report", metavar="FILE", help="Write an HTML page with the figures.")]


def compare(
    a: First,
    b: Second = None,
    inputs: options.Inputs = None,
    shapes: options.Shapes = None,
    ports: Ports = None,
    images: Images = None,
    samples: Samples = None,
    count: Count = None,
    seed: options.Seed = 0,
    precision: Two = "f16",
    engine: Engines = "eager",
    emulate: Profiles = None,
    chip: options.Chip = None,
    units: Units = "cpu",
    function: options.Function = None,
    metrics: Metric = None,
    rtol: Rtol = None,
    atol: Atol = None,
    min_cosine: Cosine = None,
    min_snr: Snr = None,
    min_top1: Top1 = None,
    bisect: Bisect = False,
    find_nan: FindNan = False,
    save_worst: Worst = None,
    report: Report = None,
    force: options.Force = False,
    trust: options.Trust = False,
    offline: options.Offline = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Run two models on the same inputs and compare their outputs; exit 1 where they differ.

    \b
    tlkit compare model.py:Net net.mlpackage
    tlkit compare net.mlpackage --precision f32,f16 --min-snr 40 --bisect
    tlkit compare net.mlpackage --emulate mil,ane,cpu,gpu   how far units disagree
    tlkit compare net.onnx net.mlpackage --samples images/ --min-top1 0.99 --report out.html
    tlkit compare net.mlpackage before.npz --input x=x.npy --rtol 1e-3
    tlkit compare net.mlpackage --find-nan

    Without a limit those of tlkit convert hold: a cosine of 0.999 and 26 dB (f16), or 0.9999 and 1e-4 of the range.
    """
    sink = output.start(json=json, quiet=quiet, verbose=verbose)
    if find_nan:
        given: dict[str, Any] = {"inputs": inputs or (), "shapes": shapes or (), "ports": ports or (), "seed": seed}
        given |= {"images": images or (), "samples": samples, "precision": precision, "function": function}
        given |= {"trust": trust, "emulate": emulate, "unit": units, "chip": chip}
        return _find_nan(sink, a, b, given)
    from tlkit.cli.views.judge.compare import document, show
    from tlkit.core.judge.compare import across
    from tlkit.core.judge.compare import compare as judge

    page = None if report is None else Page(report, force, (a, b, inputs, save_worst))
    with sink.progress(f"comparing {a}"):
        notes: list[str] = []
        settings: dict[str, Any] = {
            "inputs": inputs or (),
            "shapes": shapes or (),
            "ports": ports or (),
            "images": images or (),
            "samples": samples,
            "count": count,
            "seed": seed,
            "precision": precision,
            "engine": engine,
            "function": function,
            "metrics": metrics or (),
            "rtol": rtol,
            "atol": atol,
            "min_cosine": min_cosine,
            "min_snr": min_snr,
            "min_top1": min_top1,
            "bisect": bisect,
            "save_worst": save_worst,
            "force": force,
            "trust": trust,
            "note": notes.append,
            "unit": units,
            "chip": chip,
        }
        names = (emulate or "").split(",")
        if b is None and len(names) > 2:
            return _across(sink, across(a, names, **settings), notes)
        result = judge(a, b, emulate=emulate, **settings)
    for note in notes:
        sink.note(note)
    if page is not None:
        from tlkit.cli.views.judge.compare_page import page as page_text

        page.write(page_text(result))
        sink.note(f"report written to {page.path}")
    if save_worst:
        sink.note(f"the worst input, {result.worst}, and both outputs written to {save_worst}")
    sink.answer(document(result, notes), partial(show, result))
    if not result.ok:
        raise typer.Exit(1)


def _across(sink: output.Sink, found: tuple[Judgement, ...], notes: list[str]) -> None:
    """Tell how far each unit is from the first."""
    from rich.console import Group

    from tlkit.cli.views.judge.compare import document, show

    for note in dict.fromkeys(notes):
        sink.note(note)
    sink.answer({"units": [document(item, []) for item in found]}, lambda: Group(*map(show, found)))
    if not all(item.ok for item in found):
        raise typer.Exit(1)


def _find_nan(sink: output.Sink, model: str, other: str | None, given: dict[str, Any]) -> None:
    from dataclasses import fields

    from tlkit.core.judge.nan import find_nan

    if other is not None:
        raise UsageError("--find-nan looks into one model", "name one; --bisect is for two")
    with sink.progress(f"looking into {model}"):
        result = find_nan(model, note=sink.note, **given)
    if result.emulated:
        sink.note(result.emulated)
    data = {field.name: getattr(result, field.name) for field in fields(result)} | {"ok": result.ok}
    sink.answer(data, partial(_show_nan, result))
    if not result.ok:
        raise typer.Exit(1)


def _show_nan(result: FirstNan) -> RenderableType:
    from tlkit.cli.sink.card import card

    rows = [("model", result.model, "bold")]
    if result.ok:
        tried = f"every value inside is finite on {len(result.tried)} inputs: {', '.join(result.tried)}"
        return card([*rows, ("found", tried, "green")])
    counts = ((result.nan, "NaN"), (result.infinite, "infinite"))
    what = ", ".join(f"{count} {word}" for count, word in counts if count)
    rows += [("first", f"{result.operation} ({result.type}): {what}", "bold red"), ("because", result.why, "yellow")]
    rows += [("on", result.case, ""), *((("in PyTorch", result.place, ""),) if result.place else ())]
    return card([*rows, *(("operand", f"{name}: {low:.4g} to {high:.4g}", "") for name, low, high in result.operands)])
