"""A comparison as one HTML page: the verdict, the figures, the distribution of errors. No network, no script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tlkit import __version__
from tlkit.cli.sink.template import Bar, Table, render
from tlkit.cli.views.judge.compare import figure_columns
from tlkit.core.compare.figures import DECADES

if TYPE_CHECKING:
    from tlkit.core.compare.figures import OutputFigures
    from tlkit.core.judge.compare import Judgement


def page(result: Judgement) -> str:
    """Return the page."""
    found = result.verification
    return render(
        "compare.html",
        title=f"{result.a} and {result.b}: tlkit compare",
        a=result.a,
        b=result.b,
        verdict={True: "they agree", False: "they differ", None: "could not be judged"}[found.passed],
        kind={True: "good", False: "poor", None: "fair"}[found.passed],
        told=[
            f"a: {result.told[0]}; b: {result.told[1]}; limits: {result.limits}; tlkit {__version__}",
            f"{len(found.cases)} inputs, the worst is {result.worst}",
        ],
        reasons=found.reasons,
        remarks=result.notes,
        outputs=[_output(item) for item in result.outputs],
        bisection=list(result.bisection.lines()) if result.bisection is not None else [],
    )


def _output(item: OutputFigures) -> dict[str, Any]:
    cells = figure_columns(item)
    return {
        "name": item.name,
        "figures": Table([head for head, _ in cells], [[text for _, text in cells]]),
        "elements": item.difference.elements,
        "errors": _distribution(item),
    }


def _distribution(item: OutputFigures) -> list[Bar]:
    labels = [
        f"under 1e{DECADES[0]}",
        *(f"1e{low} to 1e{low + 1}" for low in DECADES[:-1]),
        f"1e{DECADES[-1]} and over",
    ]
    counted = [index for index, count in enumerate(item.errors) if count]
    if not counted:
        return []
    total = sum(item.errors)
    shown = range(counted[0], counted[-1] + 1)
    return [Bar(labels[i], float(item.errors[i]), f"{item.errors[i] / total:.1%}") for i in shown]
