"""``tlkit edit``: change a Core ML package's names, shapes, types, labels or metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from tlkit.cli.options import shared as options
from tlkit.cli.sink import output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.core.compress.compress import Compressed
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
        help="Rewrite what goes wrong in the Neural Engine's arithmetic (emulated) on --input, or drawn values.",
    ),
]
Quantize = Annotated[
    str | None,
    typer.Option(
        "--quantize",
        metavar="int8|int4[:...]",
        help="Weights as integers: int8, int4:per-block=32, int8:per-tensor.",
    ),
]
Palettize = Annotated[
    str | None,
    typer.Option(
        "--palettize", metavar="BITS[:...]", help="Weights as palettes of 8, 6, 4, 3, 2 or 1 bits; 4:group=16."
    ),
]
Prune = Annotated[
    str | None, typer.Option("--prune", metavar="SHARE|N:M", help="Set the smallest weights to 0: 0.5, or 2:4.")
]
Rules = Annotated[
    list[str] | None,
    typer.Option(
        "--rule", metavar="PATTERN=WHAT", help="What some get: 'linear*=int4', '*=prune0.5+int8'. Repeatable."
    ),
]
Skip = Annotated[
    list[str] | None, typer.Option("--skip", metavar="PATTERN", help="Weights to leave as they are. Repeatable.")
]
Threshold = Annotated[
    int, typer.Option("--weight-threshold", metavar="N", min=1, help="Leave weights of fewer elements as they are.")
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision", metavar="auto", help="f16 but for the fewest operations in f32 with which --min-snr is kept."
    ),
]
KeepF32 = Annotated[
    list[str] | None,
    typer.Option("--keep-f32", metavar="PATTERN", help="Operations that stay in f32, the rest f16. Repeatable."),
]
Samples = Annotated[
    str | None,
    typer.Option("--samples", metavar="DIR", help="Choose the precision on these: search on half, check on the rest."),
]
Target = Annotated[
    str | None, typer.Option("--target", metavar="OS", help="Oldest system for compressed weights. [what they need]")
]
Cosine = Annotated[
    float | None, typer.Option("--min-cosine", metavar="C", help="What compressed weights have to keep; else exit 1.")
]
Snr = Annotated[
    float | None,
    typer.Option(
        "--min-snr", metavar="DB", help="A signal-to-noise ratio in dB, which --precision auto keeps too. [26]"
    ),
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
    quantize: Quantize = None,
    palettize: Palettize = None,
    prune: Prune = None,
    rules: Rules = None,
    skip: Skip = None,
    weight_threshold: Threshold = 2048,
    precision: Precision = None,
    keep_f32: KeepF32 = None,
    samples: Samples = None,
    target: Target = None,
    min_cosine: Cosine = None,
    min_snr: Snr = None,
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
    tlkit edit net.mlpackage --palettize 4 --rule 'conv=int8' --min-snr 30 -o smaller.mlpackage

    The original model is not changed; weights are linked or copied. All options use the old names. A fixed shape can
    become another fixed one if the program's operations follow it.
    """
    sink = output.start(json=json, quiet=quiet, verbose=verbose)
    from tlkit.core.compress.door import edit as change

    with sink.progress(f"editing {model}") as bar:
        result = change(
            model,
            output_path,
            rename=rename or (),
            input_shapes=input_shapes or (),
            input_dtypes=input_dtypes or (),
            output_dtypes=output_dtypes or (),
            metadata=metadata or (),
            author=author,
            description=description,
            license=license,
            version=version,
            classes=classes,
            spec_version=spec_version,
            ane=ane,
            chip=chip,
            mend_risks=mend_risks,
            inputs=inputs or (),
            quantize=quantize,
            palettize=palettize,
            prune=prune,
            rules=rules or (),
            skip=skip or (),
            weight_threshold=weight_threshold,
            precision=precision,
            keep_f32=keep_f32 or (),
            samples=samples,
            target=target,
            min_cosine=min_cosine,
            min_snr=min_snr,
            verify=verify,
            seed=seed,
            force=force,
            report=lambda what, share: bar.describe(what),
        )
    # By name: to ask for the class itself would import what compresses.
    if type(result).__name__ == "Compressed":
        from tlkit.cli.views.judge.compressed import document, show

        sink.answer(document(cast("Compressed", result)), lambda: show(cast("Compressed", result)))
    elif type(result).__name__ == "MixedPrecision":
        from tlkit.cli.views.judge import mixed

        sink.answer(mixed.document(cast("MixedPrecision", result)), lambda: mixed.show(cast("MixedPrecision", result)))
    else:
        sink.answer(_document(cast("EditResult", result)), lambda: _show(cast("EditResult", result)))
    if not result.ok:
        raise typer.Exit(1)


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
