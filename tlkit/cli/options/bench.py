"""The options of ``tlkit bench``, some of which ``tlkit fleet`` has too; others are in ``shared.py``."""

from __future__ import annotations

from typing import Annotated

import typer

from tlkit.cli.options.shared import all_fetched, values
from tlkit.errors import UsageError

Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL]...",
        help="Models: files, PyTorch sources (net.py:Net) or a built-in; with --show, saved runs. [resnet50]",
        show_default=False,
        callback=all_fetched,
    ),
]
Estimate = Annotated[
    bool,
    typer.Option("--estimate", help="Measure nothing: estimate latency, power and efficiency on --chip, with ranges."),
]
Threads = Annotated[
    str | None, typer.Option("--threads", metavar="N,...", help="CPU threads (not with Core ML). [PyTorch's choice]")
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="S", min=0.1, help="Abort a setting after S seconds without an answer.")
]
Batch = Annotated[str | None, typer.Option("--batch", metavar="N,...", help="Batch sizes, one row for each: 1,4,16.")]
Concurrency = Annotated[
    int, typer.Option("--concurrency", metavar="N", min=1, help="Also measure throughput with N callers at once.")
]
Processes = Annotated[
    int | None,
    typer.Option(
        "--processes",
        metavar="N",
        min=1,
        help="Split a setting's samples over N processes, one by one. [5; fewer if each would get under 10 samples]",
        show_default=False,
    ),
]
Power = Annotated[
    bool | None,
    typer.Option("--power/--no-power", help="Measure energy. [where the machine has a counter]", show_default=False),
]
Against = Annotated[
    str | None, typer.Option("--against", metavar="ROW", help="Reference row for speed-ups. [the first]")
]
PromptTokens = Annotated[
    str | None,
    typer.Option("--prompt-tokens", metavar="N,...", help="Of language models: sizes of prompts. [128,512]"),
]
Generated = Annotated[
    int | None, typer.Option("--gen", metavar="N", help="Of language models: tokens generated after each. [128]")
]
Save = Annotated[
    str | None,
    typer.Option("--save", metavar="FILE", help="Write the run as JSON, with all samples; append it to a .db."),
]
Show = Annotated[bool, typer.Option("--show", help="Do not measure: show saved runs, and compare them with the first.")]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="With --show: of the runs in a .db those since a date, or 7d."),
]
Report = Annotated[str | None, typer.Option("--report", metavar="FILE", help="Write an HTML report.")]
FORMATS = ("text", "json", "jsonl", "csv", "md", "junit")
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="|".join(FORMATS),
        autocompletion=values(*FORMATS),
        help="Output format. [text]",
    ),
]
Baseline = Annotated[
    str | None, typer.Option("--baseline", metavar="FILE", help="A saved run to compare this one with.")
]
Regression = Annotated[
    str | None,
    typer.Option(
        "--max-regression",
        metavar="P%",
        help="Fail if a row is more than P % slower than the baseline row (or, without --baseline, than the first "
        "model).",
    ),
]
MaxLatency = Annotated[str | None, typer.Option("--max-latency", metavar="TIME", help="Fail above TIME: 5ms, 250us.")]
At = Annotated[str, typer.Option("--at", metavar="P", help="What --max-latency limits: median, mean, max, p95 ...")]
MaxMemory = Annotated[
    str | None, typer.Option("--max-memory", metavar="SIZE", help="Fail above a peak of SIZE: 500MB.")
]
MaxLoad = Annotated[str | None, typer.Option("--max-load", metavar="TIME", help="Fail if a first load takes longer.")]


def chosen_format(name: str | None, json: bool) -> str:
    """Return what ``--format`` or ``--json`` asks for; UsageError for a name that is none of :data:`FORMATS`."""
    if name is None:
        return "json" if json else "text"
    if name not in FORMATS:
        raise UsageError(f"--format {name}: unknown", f"formats are {', '.join(FORMATS[:-1])} and {FORMATS[-1]}")
    return name
