"""The options of compression and precision, each defined once."""

from __future__ import annotations

from typing import Annotated

import typer

_PANEL = "Size and precision"

Quantize = Annotated[
    str | None,
    typer.Option(
        "--quantize",
        metavar="int8|int4[:...]",
        help="Weights as integers: int8, int4:per-block=32, int8:per-tensor.",
        rich_help_panel=_PANEL,
    ),
]
Palettize = Annotated[
    str | None,
    typer.Option(
        "--palettize",
        metavar="BITS[:...]",
        help="Weights as palettes of 8, 6, 4, 3, 2 or 1 bits; 4:group=16.",
        rich_help_panel=_PANEL,
    ),
]
Prune = Annotated[
    str | None,
    typer.Option(
        "--prune", metavar="SHARE|N:M", help="Set the smallest weights to 0: 0.5, or 2:4.", rich_help_panel=_PANEL
    ),
]
Rules = Annotated[
    list[str] | None,
    typer.Option(
        "--rule",
        metavar="PATTERN=WHAT",
        help="What some get: 'linear*=int4', '*=prune0.5+int8'. Repeatable.",
        rich_help_panel=_PANEL,
    ),
]
Skip = Annotated[
    list[str] | None,
    typer.Option("--skip", metavar="PATTERN", help="Weights to leave as they are. Repeatable.", rich_help_panel=_PANEL),
]
Threshold = Annotated[
    int,
    typer.Option(
        "--weight-threshold",
        metavar="N",
        min=1,
        help="Leave weights of fewer elements as they are.",
        rich_help_panel=_PANEL,
    ),
]
Compress = Annotated[
    str | None,
    typer.Option(
        "--compress",
        metavar="auto",
        help="Choose for each weight, by measured sensitivity, within --max-size, --min-snr or --min-top1.",
        rich_help_panel=_PANEL,
    ),
]
MaxSize = Annotated[
    str | None,
    typer.Option(
        "--max-size",
        metavar="SIZE",
        help="For --compress auto: the most that the package may have: 5MB.",
        rich_help_panel=_PANEL,
    ),
]
Top1 = Annotated[
    float | None,
    typer.Option(
        "--min-top1",
        metavar="SHARE",
        help="For --compress auto: how often the top class has to stay the same: 0.99.",
        rich_help_panel=_PANEL,
    ),
]
Resume = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="FILE",
        help="For --compress auto: keep what was measured in this file, and go on with what is in it.",
        rich_help_panel=_PANEL,
    ),
]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs", metavar="N", min=1, help="For --compress auto: processes that measure.", rich_help_panel=_PANEL
    ),
]
Report = Annotated[
    str | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="For --compress auto: an HTML page with size against error.",
        rich_help_panel=_PANEL,
    ),
]
KeepF32 = Annotated[
    list[str] | None,
    typer.Option(
        "--keep-f32",
        metavar="PATTERN",
        help="Operations that stay in f32, the rest f16. Repeatable.",
        rich_help_panel=_PANEL,
    ),
]
Cosine = Annotated[
    float | None,
    typer.Option(
        "--min-cosine",
        metavar="C",
        help="What compressed weights have to keep; else exit 1.",
        rich_help_panel=_PANEL,
    ),
]
Snr = Annotated[
    float | None,
    typer.Option(
        "--min-snr",
        metavar="DB",
        help="A signal-to-noise ratio in dB, which --precision auto and --compress auto keep too. [26]",
        rich_help_panel=_PANEL,
    ),
]
