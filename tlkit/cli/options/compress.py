"""The options of compression and precision, each defined once."""

from __future__ import annotations

from typing import Annotated

import typer

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
        "--palettize",
        metavar="BITS[:...]",
        help="Weights as palettes of 8, 6, 4, 3, 2 or 1 bits; 4:group=16.",
    ),
]
Prune = Annotated[
    str | None,
    typer.Option("--prune", metavar="SHARE|N:M", help="Set the smallest weights to 0: 0.5, or 2:4."),
]
Rules = Annotated[
    list[str] | None,
    typer.Option(
        "--rule",
        metavar="PATTERN=WHAT",
        help="What some get: 'linear*=int4', '*=prune0.5+int8'. Repeatable.",
    ),
]
Skip = Annotated[
    list[str] | None,
    typer.Option("--skip", metavar="PATTERN", help="Weights (or operations) to leave as they are. Repeatable."),
]
Activations = Annotated[
    str | None,
    typer.Option(
        "--activations",
        metavar="int8",
        help="Compute between 8-bit integers, in ranges measured on --calibrate (iOS17).",
    ),
]
Calibrate = Annotated[
    str | None,
    typer.Option("--calibrate", metavar="DIR", help="Samples for --activations: half to measure, half to check."),
]
Threshold = Annotated[
    int | None,
    typer.Option(
        "--weight-threshold",
        metavar="N",
        min=1,
        help="Leave weights of fewer elements as they are. [2048, or fewer where those would be over 1 % of all]",
    ),
]
Compress = Annotated[
    str | None,
    typer.Option(
        "--compress",
        metavar="auto",
        help="Choose for each weight, by measured sensitivity, within --max-size, --min-snr or --min-top1.",
    ),
]
MaxSize = Annotated[
    str | None,
    typer.Option(
        "--max-size",
        metavar="SIZE",
        help="For --compress auto: the most that the package may have: 5MB.",
    ),
]
Top1 = Annotated[
    float | None,
    typer.Option(
        "--min-top1",
        metavar="SHARE",
        help="How often --compress auto and --precision auto keep the top class (with --labels: are right): 0.99.",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="DIR|CSV",
        help="For --compress auto: labelled samples, as run --labels takes them, which --min-top1 is about.",
    ),
]
Resume = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="FILE",
        help="For --compress auto: keep what was measured in this file, and go on with what is in it.",
    ),
]
Jobs = Annotated[
    int,
    typer.Option("--jobs", metavar="N", min=1, help="For --compress auto: processes that measure."),
]
Report = Annotated[
    str | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="For --compress auto: an HTML page with size against error.",
    ),
]
KeepF32 = Annotated[
    list[str] | None,
    typer.Option(
        "--keep-f32",
        metavar="PATTERN",
        help="Operations that stay in f32, the rest f16. Repeatable.",
    ),
]
Cosine = Annotated[
    float | None,
    typer.Option(
        "--min-cosine",
        metavar="C",
        help="A cosine that compressed weights and --precision auto have to keep; else exit 1.",
    ),
]
Snr = Annotated[
    float | None,
    typer.Option(
        "--min-snr",
        metavar="DB",
        help="A signal-to-noise ratio in dB, which --precision auto and --compress auto keep too. [26]",
    ),
]
