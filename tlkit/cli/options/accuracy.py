"""The options of ``tlkit run --labels``."""

from __future__ import annotations

from typing import Annotated

import typer

Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="DIR|CSV",
        help="Accuracy on labelled samples: a folder per class, or a table (.csv, .tsv, .parquet) of path and label.",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="FILE",
        help="Names of the classes, one per line, for a model that has numbers only.",
    ),
]
Calibration = Annotated[
    bool,
    typer.Option(
        "--calibration",
        help="How far its probabilities can be believed: the expected calibration error (ECE).",
    ),
]
Top1 = Annotated[
    float | None,
    typer.Option("--min-top1", metavar="SHARE", help="Exit 1 if it is right more rarely: 0.95."),
]
Ports = Annotated[
    list[str] | None,
    typer.Option("--port", metavar="NAME=DIMS[:TYPE]", help="What a PyTorch source takes: x=1x3x32x32."),
]
Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        metavar="NAME=DIMS[:SETTING...]",
        help="An image input of a PyTorch source or an ONNX file, as in tlkit convert.",
    ),
]
