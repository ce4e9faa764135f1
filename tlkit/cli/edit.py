"""``tlkit edit``: change a Core ML package's names, shapes, types, labels or metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlkit.cli.options import compress as packing
from tlkit.cli.options import shared as options
from tlkit.cli.sink import output
from tlkit.cli.sink.page import Page
from tlkit.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.core.compress.compress import Compressed
    from tlkit.core.compress.wish import AutoCompressed
    from tlkit.core.edit.edit import EditResult
    from tlkit.core.precision.mixed import MixedPrecision


Rename = Annotated[
    list[str] | None,
    typer.Option(
        "--rename", metavar="OLD=NEW", help="Rename an input, output or state. Repeat it; two may swap names."
    ),
]
InputShape = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        metavar="NAME=SHAPE",
        help="What an input takes: x=1x3x224x224, a range x=1x1..512 (1.. has no end), a list x=1x128,1x256.",
    ),
]
InputDtype = Annotated[
    list[str] | None, typer.Option("--input-dtype", metavar="NAME=TYPE", help="Type of an input: f16, f32 or i32.")
]
OutputDtype = Annotated[
    list[str] | None, typer.Option("--output-dtype", metavar="NAME=TYPE", help="Type of an output: f16, f32 or i32.")
]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="KEY=VALUE", help="Set an entry of the user's metadata; KEY= removes it."),
]
Author = Annotated[str | None, typer.Option("--author", metavar="TEXT", help="Who made the model.")]
Description = Annotated[str | None, typer.Option("--description", metavar="TEXT", help="What the model does.")]
License = Annotated[str | None, typer.Option("--license", metavar="TEXT", help="The model's license.")]
Version = Annotated[str | None, typer.Option("--version", metavar="TEXT", help="The model's version.")]
Classes = Annotated[
    str | None,
    typer.Option("--classes", metavar="FILE", help="Class labels, one per line. Replaces the model's, or adds them."),
]
SpecVersion = Annotated[
    int | None,
    typer.Option(
        "--spec-version", metavar="N", help="Specification version: 6 is iOS15's, 7 iOS16's, ... 9 iOS18's, 10 iOS26's."
    ),
]
Ane = Annotated[
    bool,
    typer.Option("--ane", help="Rewrite the program for the Neural Engine where that improves the prediction."),
]
MendRisks = Annotated[
    bool,
    typer.Option(
        "--mend-risks",
        help="Rewrite what goes wrong in the Neural Engine's arithmetic (emulated) on --input (or a folder), or drawn "
        "values.",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision", metavar="auto", help="f16 but for the fewest operations in f32 with which --min-snr is kept."
    ),
]
Samples = Annotated[
    str | None,
    typer.Option(
        "--samples", metavar="DIR", help="Choose precision or compression on these: half to search, half to check."
    ),
]
Target = Annotated[
    str | None, typer.Option("--target", metavar="OS", help="Oldest system for compressed weights. [what they need]")
]
Verify = Annotated[
    bool, typer.Option("--verify/--no-verify", help="Run both models on one seeded input; exit 1 where they differ.")
]


def edit(
    model: options.Model,
    output_path: options.Output,
    rename: Rename = None,
    input_shapes: InputShape = None,
    input_dtypes: InputDtype = None,
    output_dtypes: OutputDtype = None,
    metadata: Metadata = None,
    author: Author = None,
    description: Description = None,
    license: License = None,
    version: Version = None,
    classes: Classes = None,
    spec_version: SpecVersion = None,
    ane: Ane = False,
    chip: options.Chip = None,
    mend_risks: MendRisks = False,
    inputs: options.Inputs = None,
    quantize: packing.Quantize = None,
    palettize: packing.Palettize = None,
    prune: packing.Prune = None,
    rules: packing.Rules = None,
    skip: packing.Skip = None,
    activations: packing.Activations = None,
    calibrate: packing.Calibrate = None,
    weight_threshold: packing.Threshold = None,
    precision: Precision = None,
    keep_f32: packing.KeepF32 = None,
    samples: Samples = None,
    compress: packing.Compress = None,
    max_size: packing.MaxSize = None,
    min_top1: packing.Top1 = None,
    labels: packing.Labels = None,
    resume: packing.Resume = None,
    jobs: packing.Jobs = 1,
    report: packing.Report = None,
    target: Target = None,
    min_cosine: packing.Cosine = None,
    min_snr: packing.Snr = None,
    verify: Verify = True,
    seed: options.Seed = 0,
    force: options.Force = False,
    offline: options.Offline = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Change a Core ML model's names, shapes, types, labels or metadata, or its size, without converting it again.

    \b
    tlkit edit net.mlpackage --rename y=scores --author "A. Person" \\
        -o named.mlpackage
    tlkit edit net.mlpackage --input-dtype x=f16 --output-dtype y=f16 \\
        -o half.mlpackage
    tlkit edit net.mlpackage --input-shape x=4x8 -o four.mlpackage
    tlkit edit net.mlpackage --ane --chip m4 -o faster.mlpackage
    tlkit edit net.mlpackage --mend-risks -o mended.mlpackage
    tlkit edit net.mlpackage --quantize int8 --skip '*head*' -o small.mlpackage
    tlkit edit net.mlpackage --precision auto --min-snr 40 -o mixed.mlpackage
    tlkit edit net.mlpackage --compress auto --max-size 5MB -o best.mlpackage
    tlkit edit net.mlpackage --palettize 4 --rule '*head*=int8' --min-snr 20 -o smaller.mlpackage

    The original model is not changed; weights are linked or copied. All options use the old names. A fixed shape can
    become another fixed one if the program's operations follow it.
    """
    values = dict(locals())
    sink = output.start(json=json, quiet=quiet, verbose=verbose)
    from tlkit.core.compress.door import edit as change

    if report is not None and compress is None:
        raise UsageError("--report goes with --compress auto", "add that")
    page = None if report is None else Page(report, force, (model,))
    given: dict[str, Any] = {name: values[name] for name in _TAKEN}
    given |= {name: values[name] or () for name in _LISTS}
    with sink.progress(f"editing {model}", 1.0) as bar:
        result = change(model, output_path, **given, report=bar.report)
    # By name: to ask for the classes themselves would import what makes them.
    views: dict[str, Callable[[output.Sink, Any, Page | None], None]] = {
        "Compressed": _compressed,
        "MixedPrecision": _mixed,
        "AutoCompressed": _searched,
    }
    views.get(type(result).__name__, _edited)(sink, result, page)
    if not result.ok:
        raise typer.Exit(1)


_LISTS = ("rename", "input_shapes", "input_dtypes", "output_dtypes", "metadata", "inputs", "rules", "skip", "keep_f32")
_TAKEN = (
    *("author", "description", "license", "version", "classes", "spec_version", "ane", "chip", "mend_risks"),
    *("quantize", "palettize", "prune", "weight_threshold", "precision", "samples", "target", "min_cosine", "min_snr"),
    *(
        "activations",
        "calibrate",
        "compress",
        "max_size",
        "min_top1",
        "labels",
        "resume",
        "jobs",
        "verify",
        "seed",
        "force",
    ),
)


def _compressed(sink: output.Sink, result: Compressed, _: Page | None) -> None:
    from tlkit.cli.views.judge.compressed import document, show

    sink.answer(document(result), lambda: show(result))


def _mixed(sink: output.Sink, result: MixedPrecision, _: Page | None) -> None:
    from tlkit.cli.views.judge.mixed import document, show

    sink.answer(document(result), lambda: show(result))


def _searched(sink: output.Sink, result: AutoCompressed, page: Page | None) -> None:
    from tlkit.cli.views.judge.searched import document, page_text, show

    if page is not None:
        page.write(page_text(result))
        sink.note(f"report written to {page.path}")
    sink.answer(document(result), lambda: show(result))


def _edited(sink: output.Sink, result: EditResult, _: Page | None) -> None:
    sink.answer(_document(result), lambda: _show(result))


def _document(result: EditResult) -> dict[str, Any]:
    from dataclasses import fields

    found = result.check
    check = {"passed": found.passed, "max_abs": found.max_abs, "reasons": found.reasons} if found else None
    return {field.name: getattr(result, field.name) for field in fields(result)} | {"check": check, "ok": result.ok}


def _show(result: EditResult) -> RenderableType:
    from tlkit.cli.sink.card import card
    from tlkit.cli.views.placement import with_rewrites

    changes = [("" if index else "changed", change, "") for index, change in enumerate(result.changes)]
    rows = [("model", str(result.path), "bold"), ("source", result.source, ""), *changes, *_verdict(result)]
    return with_rewrites(card([*rows, *_mended(result)]), result.rewrites)


def _mended(result: EditResult) -> list[tuple[str, str, str]]:
    """What was found under the emulation, and what came of it."""
    rows = []
    for item in result.mendings:
        if not item.mended:
            rows.append(("risks", f"none that can be mended on these inputs, under {item.profile} (emulated)", "dim"))
            continue
        rows += [
            ("risk" if not i else "", f"{m.operation} ({m.type}), {m.row}: {m.why}", "")
            for i, m in enumerate(item.mended)
        ]
        verdict = "" if item.kept else "; no better, so it was left as it was"
        rows.append(
            (
                "emulated",
                f"under {item.profile} off by {item.before:.2g} of the range before, {item.after:.2g} after; by MIL's"
                f" rule the new form is off by {item.mil:.2g}{verdict}",
                "green" if item.kept else "yellow",
            )
        )
    return rows


def _verdict(result: EditResult) -> list[tuple[str, str, str]]:
    check = result.check
    if check is None:
        return []
    reasons = [("", reason, "dim" if check.ok else "red") for reason in check.reasons]
    if check.passed is None:
        verdict = ("no", "yellow") if check.unmatched else ("could not be judged; the model is written", "red")
        return [("verified", *verdict), *reasons]
    if not check.passed:
        return [("verified", "DIFFERS from the original; the model is written", "bold red"), *reasons]
    same = "gives what the original gives, bit for bit" if not check.max_abs else "agrees with the original"
    told = f"{same}{f' (max abs {check.max_abs:.2e})' if check.max_abs else ''}, on a seeded input"
    return [("verified", told, "green"), *reasons]
