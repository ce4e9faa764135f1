"""The options that subcommands share, each defined once.

A command takes one as ``name: options.Json = False``: the default is in the command, the spelling and help are here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated

import typer


def values(*known: str) -> Callable[[str], list[str]]:
    """Return what completes an option's value: ``known`` names, each in a list with commas, too."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in known if name.startswith(last)]

    return complete


UNITS = values("all", "cpu", "gpu", "ane")


def fetched(text: str | None) -> str | None:
    """Return the path of a model that is named by an address (``hf://``, ``https://``, ``-``); other texts as they are.

    Of ``hf://org/name:callable`` and the like nothing is known: only whole addresses are fetched.
    """
    from tlkit.formats.fetch import is_address, local

    if text is None or not is_address(text):
        return text
    from tlkit.cli.sink import output

    with output.current().progress(f"fetching {text}") as bar:
        return str(local(text, bar.update))


def all_fetched(texts: list[str] | None) -> list[str] | None:
    """Return the paths of several models, as :func:`fetched` does."""
    return None if texts is None else [fetched(text) or text for text in texts]


def _offline(wanted: bool) -> bool:
    if wanted:
        os.environ["TLKIT_OFFLINE"] = "1"
    return wanted


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="The model: a path, hf://org/name[/file], https://..., or -.", callback=fetched
    ),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        is_eager=True,
        callback=_offline,
        help="Ask no network: hf:// and https:// models as they were fetched before.",
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress.")]
Verbose = Annotated[
    int,
    typer.Option("--verbose", "-v", count=True, show_default=False, help="Print more; -vv adds tracebacks to errors."),
]

Output = Annotated[str, typer.Option("--output", "-o", metavar="PATH", help="Where to write the result.")]
OutputUnlessPlanned = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="PATH", help="Where to write the result; required without --plan."),
]
Trust = Annotated[bool, typer.Option("--trust", help="Open a .pt or .pt2 whose code could do more than compute.")]
Force = Annotated[bool, typer.Option("--force", help="Replace output paths that exist.")]

Units = Annotated[
    str | None,
    typer.Option(
        "--units",
        metavar="UNITS",
        autocompletion=UNITS,
        help="Compute units, comma-separated: all, cpu, gpu, ane.",
    ),
]
Function = Annotated[
    str | None, typer.Option("--function", metavar="NAME", help="The function to use, of a package that has several.")
]
Stage = Annotated[
    str | None,
    typer.Option("--stage", metavar="N|NAME", help="Take only one stage of a pipeline: its number (from 0) or name."),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=VALUE",
        help="An input: image, .npy, .npz[:KEY], .safetensors[:KEY] or sound[:RATE] file, its https:// address, - for "
        "stdin, a literal ([1,2,3]), text:WORDS for the model's tokenizer, random or zeros.",
    ),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME=DIMS", help="The shape of a flexible input: NAME=1,3,224,224 (or 1x3x...)."),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of random inputs.")]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="f16|f32|bf16",
        autocompletion=values("f16", "f32", "bf16"),
        help="f16 rounds as declared, f32 never; bf16 (OpenVINO) is fast, not faithful.",
    ),
]
StrictMil = Annotated[
    bool,
    typer.Option("--strict-mil", help="Follow MIL's specification where Core ML was measured to depart from it."),
]
Emulate = Annotated[
    str | None,
    typer.Option(
        "--emulate",
        metavar="PROFILE",
        help="Compute as a unit was published to: mil, ane, ane-m4, ane-m1, cpu, gpu, or auto (by --units and --chip).",
    ),
]
Customs = Annotated[
    list[str] | None,
    typer.Option(
        "--custom", metavar="CLASS=module:function", help="What runs a network's custom layers of a class. Repeatable."
    ),
]
# Written out, since every command's help would import the table of engines for it; a test compares the two.
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="auto|eager|compile|openvino|onnxruntime|llama.cpp",
        autocompletion=values("auto", "eager", "compile", "openvino", "onnxruntime", "llama.cpp"),
        help="What runs the model; auto picks the fastest that is installed and faithful.",
    ),
]
Cache = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Keep compiled models in the cache folder, and use those kept.")
]

Iterations = Annotated[
    int, typer.Option("--iterations", "-n", metavar="N", min=1, help="Timed inferences per setting.")
]
Warmup = Annotated[int, typer.Option("--warmup", metavar="N", min=0, help="Inferences before timing starts.")]
Duration = Annotated[
    float | None,
    typer.Option("--duration", metavar="S", min=0.0, help="Measure for S seconds instead of -n inferences."),
]
Percentiles = Annotated[str, typer.Option("--percentiles", metavar="P,...", help="Percentiles to report.")]
PerOp = Annotated[bool, typer.Option("--per-op", help="Report each operation.")]
Top = Annotated[
    int, typer.Option("--top", metavar="N", min=0, help="How many likeliest classes (costliest operations) to show.")
]
Chip = Annotated[
    str | None, typer.Option("--chip", metavar="CHIP", help="The chip to predict for: m1 ... m5max, a14 ... [m4]")
]
