"""``tlkit convert``: a PyTorch model to a Core ML package, or weights from one format to another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlkit.cli import language
from tlkit.cli.options import compress as packing
from tlkit.cli.options import shared as options
from tlkit.cli.sink import output
from tlkit.cli.views import convert_export as exports
from tlkit.cli.views import convert_functions as combined
from tlkit.cli.views import convert_plan as planned
from tlkit.cli.views import convert_weights
from tlkit.errors import ConversionError, UsageError, reason
from tlkit.words import byte_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tlkit.core.compare.models import Verification
    from tlkit.core.convert.capture.preflight import PreflightError
    from tlkit.core.convert.result import ConversionResult
    from tlkit.types import TensorSpec

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="file.py:callable, package.module:callable, a TorchScript .pt, a .pt2 of torch.export, a Hugging Face "
        "model folder, or a built-in (resnet50). The callable is "
        "a torch.nn.Module, its class, or a function that returns one; or a .mlpackage to rebuild. For weights: "
        "any model file. Or an address: hf://org/name[/file], https://...",
        callback=options.fetched,
    ),
]
Tensors = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=DIMS[:TYPE]",
        help="A tensor input: x=1x3x224x224, ids=1x1..512:i32 (a range), x=1x8,1x16 (a choice of shapes). TYPE is f32, "
        "f16 or i32. Repeat it for each input; a name among "
        "forward's parameters goes to that one, the others by position.",
    ),
]
Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        metavar="NAME=DIMS[:SETTING...]",
        help="An image input: image=1x3x224x224:BGR:scale=1/127.5:bias=-1. Settings: RGB, BGR, GRAYSCALE or "
        "GRAYSCALE_FLOAT16; scale=S; bias=B or B,B,B. The model gets scale * pixel + bias, pixels 0 to 255.",
    ),
]
Classes = Annotated[
    str | None, typer.Option("--classes", metavar="FILE", help="Class labels, one per line: makes a classifier.")
]
_OUTPUTS = "Name the outputs, in order (repeat it). TYPE is f32, f16, i32, or RGB, BGR, GRAYSCALE for an image."
OutputNames = Annotated[list[str] | None, typer.Option("--output-name", metavar="NAME[:TYPE]", help=_OUTPUTS)]
TARGETS = ("iOS15", "iOS16", "iOS17", "iOS18", "iOS26")
"""What completes ``--target``: written out, since help would import the table of releases; a test compares."""
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        autocompletion=options.values(*TARGETS),
        metavar="OS",
        help="Oldest system to run on: iOS15 to iOS26, macOS12 ... [iOS17]",
    ),
]
Compute = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="f16|f32|auto",
        help="Type of weights and compute; ports stay f32. auto: f16 but for what --min-snr needs in f32. [f16]",
    ),
]


def convert(
    source: Source,
    output_path: options.OutputUnlessPlanned = None,
    kwargs: Annotated[
        str | None, typer.Option(metavar="JSON", help="Arguments for the callable: --kwargs '{\"depth\": 18}'.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The module's weights, all of them: .safetensors, .pth or .gguf."),
    ] = None,
    inputs: Tensors = None,
    images: Images = None,
    classes: Classes = None,
    output_names: OutputNames = None,
    states: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            metavar="NAME[=SHAPE]",
            help="A buffer to convert to a state (detected automatically if omitted).",
        ),
    ] = None,
    functions: Annotated[
        list[str] | None,
        typer.Option(
            "--function",
            metavar="NAME=SOURCE",
            help="Another source, or a .mlpackage, as the function NAME of the same package, weights shared; SOURCE is "
            "main (repeat it; iOS18). Its ports: --input NAME:x=1x8. For a .pt2 or .onnx: just NAME, the function to "
            "export.",
        ),
    ] = None,
    precision: Compute = None,
    target: Target = None,
    export: Annotated[bool, typer.Option("--export", help="Capture by torch.export, not by tracing.")] = False,
    auto: Annotated[
        bool,
        typer.Option(help="Try the other way of capturing where the first fails or differs, and say so."),
    ] = True,
    author: Annotated[str, typer.Option(metavar="TEXT", help="Who made the model.")] = "",
    description: Annotated[str, typer.Option(metavar="TEXT", help="What the model does.")] = "",
    version: Annotated[str, typer.Option(metavar="TEXT", help="The model's version.")] = "",
    license: Annotated[str, typer.Option(metavar="TEXT", help="The model's license.")] = "",
    verify: Annotated[
        bool, typer.Option(help="Run package and source on one seeded input; exit 1 where they differ.")
    ] = True,
    samples: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Capture and verify on the images or .npz files in this folder (at most 64)."),
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Capture on these real inputs, and verify on them too: .npz or an image."),
    ] = None,
    seed: options.Seed = 0,
    strict_mil: options.StrictMil = False,
    emulate: options.Emulate = None,
    dtype: convert_weights.Dtype = None,
    quantize: convert_weights.Quantize = None,
    palettize: packing.Palettize = None,
    prune: packing.Prune = None,
    rules: packing.Rules = None,
    skip: packing.Skip = None,
    activations: packing.Activations = None,
    calibrate: packing.Calibrate = None,
    weight_threshold: packing.Threshold = None,
    keep_f32: packing.KeepF32 = None,
    compress: packing.Compress = None,
    max_size: packing.MaxSize = None,
    min_cosine: packing.Cosine = None,
    min_snr: packing.Snr = None,
    min_top1: packing.Top1 = None,
    labels: packing.Labels = None,
    resume: packing.Resume = None,
    jobs: packing.Jobs = 1,
    max_shard_size: convert_weights.ShardSize = None,
    metadata: convert_weights.Edits = None,
    names: convert_weights.Names = "auto",
    raw: convert_weights.Raw = False,
    all_tensors: convert_weights.All = False,
    allow_missing: convert_weights.AllowMissing = False,
    strip_prefix: convert_weights.StripPrefix = None,
    imatrix: convert_weights.Imatrix = None,
    ane: Annotated[
        bool,
        typer.Option("--ane", help="Rewrite the program for the Neural Engine where that improves the prediction."),
    ] = False,
    context: Annotated[
        int | None,
        typer.Option("--context", metavar="N", help="Of a language model: tokens that its states hold. [2048]"),
    ] = None,
    nested: Annotated[
        bool, typer.Option("--nested", help="Keep K-quants with minima in blocks too, one constexpr inside another.")
    ] = False,
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            metavar="KIND",
            autocompletion=options.values("keep", "f16", "int8", "int4-channel"),
            help="Of a language model: keep (the file's blocks; CPU and GPU), f16, or int8, int4-channel: one scale "
            "per output channel, for the Neural Engine.",
        ),
    ] = "keep",
    requantize: Annotated[
        bool,
        typer.Option("--requantize", help="Keep blocks that one operation cannot hold exactly with rounded scales."),
    ] = False,
    prefill: Annotated[
        str | None,
        typer.Option("--prefill", metavar="N[,N...]", help="Tokens of a prompt per call: 64, 16,64 or 16-256. [64]"),
    ] = None,
    returns: Annotated[
        str,
        typer.Option(
            "--returns",
            metavar="logits|argmax",
            autocompletion=options.values("logits", "argmax"),
            help="What a language model's package answers: logits, or the likeliest token.",
        ),
    ] = "logits",
    stage: options.Stage = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Write nothing: predict where the package's operations would run, and why.")
    ] = False,
    units: options.Units = None,
    chip: options.Chip = None,
    force: options.Force = False,
    trust: options.Trust = False,
    offline: options.Offline = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Convert a PyTorch model to a Core ML package, checked against it; or weights from one format to another.

    \b
    tlkit convert model.py:Net --image image=1x3x224x224:scale=1/255 \\
        --classes labels.txt -o model.mlpackage
    tlkit convert net.pt --input x=1x80x3000 --precision f32 -o audio.mlpackage
    tlkit convert resnet50 -o resnet50.mlpackage
    tlkit convert resnet50 --plan --chip m4
    tlkit convert lm.py:Prefill --input ids=1x64:i32 \\
        --function step=lm.py:Step --input step:id=1x1:i32 -o lm.mlpackage
    tlkit convert net.mlpackage --precision f16 --target iOS18 -o net18.mlpackage
    tlkit convert resnet50 --quantize int8 -o small.mlpackage
    tlkit convert model.py:Net --image image=1x3x224x224 --precision auto --min-snr 40 \\
        -o mixed.mlpackage
    tlkit convert net.mlpackage -o net.onnx
    tlkit convert model.gguf -o model.mlpackage --context 2048
    tlkit convert model.gguf -o model.safetensors --dtype bf16
    tlkit convert hf-folder -o model.gguf --quantize q8_0

    Verification passes with a cosine of 0.999 (f16), or 0.9999 and errors up to 1e-4 of the range (f32).
    """
    values = dict(locals())
    given: dict[str, Any] = {name: values[name] for name in _TAKEN}
    given |= {name: values[name] or () for name in _LISTS}
    sink = output.start(json=json, quiet=quiet, verbose=verbose)
    from tlkit.core.convert.door import convert as run

    with sink.progress(f"converting {source}", 1.0) as bar:
        try:
            result = run(
                source,
                output_path,
                kwargs=_json(kwargs),
                units=units.split(",") if units else ("ane",),
                **given,
                report=bar.report,
            )
        except ConversionError as error:
            _say_more(sink, error)
            raise
    # By name: to ask for the classes themselves would import every way to convert.
    views: dict[str, Callable[[output.Sink, Any], None]] = {
        "WeightsResult": convert_weights.answer,
        "ExportResult": exports.answer,
        "Combined": combined.answer,
        "Plan": planned.answer,
        "LanguagePackage": language.answer,
    }
    views.get(type(result).__name__, _answer)(sink, result)


_LISTS = ("inputs", "images", "output_names", "states", "functions", "metadata", "rules", "skip", "keep_f32")
_TAKEN = (
    *("checkpoint", "strip_prefix", "classes", "precision", "target", "export", "auto", "author", "description"),
    *("version", "license", "verify", "samples", "example", "seed", "strict_mil", "emulate", "dtype", "quantize"),
    *("max_shard_size", "names", "raw", "all_tensors", "allow_missing", "ane", "context", "nested", "plan"),
    *("weights", "requantize", "prefill", "returns", "imatrix"),
    *(
        "palettize",
        "prune",
        "activations",
        "calibrate",
        "weight_threshold",
        "compress",
        "max_size",
        "min_cosine",
        "min_snr",
        "min_top1",
        "labels",
        "resume",
    ),
    *("chip", "stage", "jobs", "force", "trust"),
)


def _say_more(sink: output.Sink, error: ConversionError) -> None:
    """Say what the error's own two lines do not: the notes of the attempt, and each operation without a translation."""
    from tlkit.core.convert.capture.preflight import PreflightError

    for note in error.notes:
        sink.warn(note)
    if isinstance(error, PreflightError):
        sink.answer({"ok": False, "unsupported": error.unsupported}, partial(_show_unsupported, error))


def _answer(sink: output.Sink, result: ConversionResult) -> None:
    for note in result.version_notes:
        sink.note(note)
    for note in (*result.notes, *(result.verification.notes if result.verification else ())):
        sink.warn(note)
    sink.answer(_document(result), lambda: _show(result))
    if not result.ok:
        raise typer.Exit(1)


def _json(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    from json import loads

    try:
        found = loads(text)
    except ValueError as error:
        raise UsageError(f"--kwargs {text}: not JSON: {reason(error)}", _KWARGS) from None
    if not isinstance(found, dict):
        raise UsageError(f"--kwargs {text}: not an object", _KWARGS)
    return found


_KWARGS = "write it as --kwargs '{\"depth\": 18}'"


def _document(result: ConversionResult) -> dict[str, Any]:
    from dataclasses import fields

    return {field.name: getattr(result, field.name) for field in fields(result)} | {"ok": result.ok}


def _show_unsupported(error: PreflightError) -> RenderableType:
    from rich.table import Table

    table = Table("torch op", "count", "where", box=None, header_style="dim", pad_edge=False)
    for item in error.unsupported:
        table.add_row(item.op, str(item.count), "\n".join(map(str, item.places)))
    return table


def _show(result: ConversionResult) -> RenderableType:
    from tlkit.cli.sink.card import card
    from tlkit.cli.views.placement import with_rewrites

    made = with_rewrites(card(_rows(result)), result.rewrites)
    if not result.parts:
        return made
    from rich.console import Group

    from tlkit.cli.views.judge.parts import show_part

    return Group(made, *map(show_part, result.parts))


def _rows(result: ConversionResult) -> list[tuple[str, str, str]]:
    info = result.info
    total = sum(info.operations.values())
    parts = ", ".join(f"{byte_text(size)} {part}" for part, size in info.sizes.items() if size)
    return [
        ("package", str(result.path), "bold"),
        ("source", result.source, ""),
        ("made", f"mlprogram, {result.precision} compute, for {result.target} and later", ""),
        ("size", f"{byte_text(result.size)}: {parts}" if parts else byte_text(result.size), ""),
        ("inputs", "; ".join(map(_port, info.inputs)), ""),
        ("outputs", "; ".join(map(_port, info.outputs)), ""),
        ("ops", f"{total}: {_histogram(info.operations)}", ""),
        *_verification(result),
        *(("advice", sentence, "yellow") for sentence in result.advice),
        *_risks(result),
        ("time", ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.timings.items()), ""),
    ]


def _risks(result: ConversionResult) -> list[tuple[str, str, str]]:
    """Return what Core ML refuses or a unit computes incorrectly, and where to read about it and lesser risks."""
    from tlkit.core.inspect.risks import grave
    from tlkit.mil.risks.kit import risk_text

    told = grave(result.risks)
    rows = [("risk", risk_text(risk), "bold red" if risk.level == "refused" else "yellow") for risk in told]
    return [*rows, ("", f"ways out: tlkit inspect {result.path} --risks", "dim")] if rows else []


def _verification(result: ConversionResult) -> list[tuple[str, str, str]]:
    found = result.verification
    if found is None:
        return [("verified", "no (--no-verify)", "dim")]
    rows = [
        (
            "",
            f"{name}: max abs {d.max_abs:.2e}, relative {d.relative:.2e}, cosine {d.cosine:.6f}, SNR {d.snr_db:.1f} dB",
            "",
        )
        for name, d in found.outputs.items()
    ]
    reasons = [("", reason, "red") for reason in found.reasons]
    if found.cause:
        reasons.append(("because", found.cause, "red"))
    if found.passed is None:
        return [("verified", "could not be judged; the package is written", "red"), *reasons]
    if not found.passed:
        return [("verified", "DIFFERS from its source; the package is written", "bold red"), *rows, *reasons]
    inputs = f"{len(found.cases)} inputs" if len(found.cases) > 1 else f"an input ({found.cases[0]})"
    on = [("", f"drawn: {found.values}", "dim")] if found.values else []
    return [("verified", f"agrees with its source on {inputs}{_top1(found)}", "green"), *on, *rows]


def _top1(found: Verification) -> str:
    if found.agreement is None:
        return ""
    if len(found.cases) > 1:
        return f", same top class on {found.agreement:.1%}"
    return ", same top class" if found.top1 else ", top class differs"


def _port(port: TensorSpec) -> str:
    if port.image:
        return f"{port.name}: {port.image.width}x{port.image.height} {port.image.layout} image"
    if port.kind != "tensor":
        return f"{port.name}: {port.kind}"
    return f"{port.name}: {port.dtype} {'x'.join(map(str, port.shape))}".rstrip()


def _histogram(counts: Any) -> str:
    """Return all ops, the most frequent first: a program rarely has more than thirty kinds."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
