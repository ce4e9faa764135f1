"""A comparison as one HTML page: the verdict, the figures, the distribution of errors. No network, no script."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from tlkit import __version__
from tlkit.cli.sink.stream import clean
from tlkit.cli.views import svg
from tlkit.cli.views.judge.compare import figure_columns
from tlkit.core.compare.figures import DECADES

if TYPE_CHECKING:
    from tlkit.core.compare.figures import OutputFigures
    from tlkit.core.judge.compare import Judgement

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5d6670; --paper: #ffffff; --line: #d9dee3; --bar: #2563c9;
  --good: #23783a; --poor: #b3261e }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa4ae; --paper: #14171a; --line: #343b42;
  --bar: #6ea8fe; --good: #6fce87; --poor: #ff8a80 } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 14px/1.45 system-ui, sans-serif }
main { max-width: 1040px; margin: 0 auto; padding: 24px } h1 { font-size: 22px } h2 { font-size: 16px }
.note { color: var(--soft) } .good { color: var(--good) } .poor { color: var(--poor) }
svg { width: 100%; height: auto } svg text { fill: var(--ink); font-size: 11px } svg .end { text-anchor: end }
svg .bar { fill: var(--bar) } table { border-collapse: collapse } td, th { padding: 3px 12px 3px 0; text-align: right;
  border-bottom: 1px solid var(--line) } td:first-child, th:first-child { text-align: left }
"""
"""The style of pages of figures."""


def page(result: Judgement) -> str:
    """Return the page."""
    found = result.verification
    verdict = {True: "they agree", False: "they differ", None: "could not be judged"}[found.passed]
    style = "good" if found.passed else "poor"
    parts = [f"<h1>{text_of(result.a)} and {text_of(result.b)}: <span class={style}>{verdict}</span></h1>"]
    told = f"a: {result.told[0]}; b: {result.told[1]}; limits: {result.limits}; tlkit {__version__}"
    parts.append(f"<p class=note>{text_of(told)}</p>")
    parts.append(f"<p class=note>{len(found.cases)} inputs, the worst is {text_of(result.worst)}</p>")
    parts += [f"<p class=poor>{text_of(reason)}</p>" for reason in found.reasons]
    parts += [f"<p class=note>{text_of(note)}</p>" for note in result.notes]
    for item in result.outputs:
        parts.append(f"<h2>{text_of(item.name)}</h2>{_figures(item)}")
        parts.append(f"<p class=note>errors |a - b| of {item.difference.elements} elements, by power of ten</p>")
        parts.append(_distribution(item))
    if result.bisection is not None:
        rows = "".join(f"<tr><td>{text_of(label)}<td>{text_of(text)}" for label, text in result.bisection.lines())
        parts.append(f"<h2>where they part</h2><table>{rows}</table>")
    return framed(f"{result.a} and {result.b}", "".join(parts))


def framed(title: str, body: str) -> str:
    """Return a whole page with :data:`STYLE`."""
    head = f'<!doctype html><html lang=en><meta charset="utf-8"><title>{text_of(title)}</title><style>{STYLE}</style>'
    return f"{head}<main>{body}</main></html>\n"


def text_of(value: object) -> str:
    """Return a value as text that HTML shows as it is."""
    return escape(clean(str(value)))


def _figures(item: OutputFigures) -> str:
    cells = figure_columns(item)
    heads = "".join(f"<th>{head}" for head, _ in cells)
    return f"<table><tr>{heads}<tr>{''.join(f'<td>{text}' for _, text in cells)}</table>"


def _distribution(item: OutputFigures) -> str:
    labels = [
        f"under 1e{DECADES[0]}",
        *(f"1e{low} to 1e{low + 1}" for low in DECADES[:-1]),
        f"1e{DECADES[-1]} and over",
    ]
    counted = [index for index, count in enumerate(item.errors) if count]
    if not counted:
        return ""
    total = sum(item.errors)
    shown = range(counted[0], counted[-1] + 1)
    return svg.bars([(labels[i], float(item.errors[i]), f"{item.errors[i] / total:.1%}") for i in shown])
