"""A predicted placement as one HTML page: the program along its length, coloured by unit. No network, no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from tlkit import __version__
from tlkit.cli.sink.figures import percent
from tlkit.cli.sink.stream import clean
from tlkit.core.inspect.placement import origin, origins, reasons
from tlkit.placement.facts import PlacementRule
from tlkit.placement.predict import Placed, Prediction

_NAMES = {"ane": "Neural Engine", "gpu": "GPU", "cpu": "CPU"}
_WIDTH, _HEIGHT = 1000, 44
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5d6670; --paper: #ffffff; --line: #d9dee3;
  --cpu: #c98a1b; --gpu: #2b8fa3; --ane: #3b8a4a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa4ae; --paper: #14171a; --line: #343b42; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 14px/1.45 system-ui, sans-serif }
main { max-width: 1040px; margin: 0 auto; padding: 24px } h1 { font-size: 22px } h2 { font-size: 16px }
.note { color: var(--soft) } svg { width: 100%; height: auto } .ane { fill: var(--ane) } .gpu { fill: var(--gpu) }
.cpu { fill: var(--cpu) } svg text { fill: var(--soft); font-size: 11px } td, th { padding: 3px 10px 3px 0;
  text-align: left; border-bottom: 1px solid var(--line); vertical-align: top }
  pre { margin: 2px 0; color: var(--soft); white-space: pre-wrap } td.n { text-align: right }
"""


@dataclass(frozen=True, slots=True)
class Region:
    """Operations in a row that are on one unit, and what the planner estimates that they cost there."""

    unit: str
    operations: tuple[Placed, ...]

    @property
    def microseconds(self) -> float:
        """The planner's price of them all."""
        return sum(placed.microseconds[placed.unit] for placed in self.operations)


def regions(prediction: Prediction) -> list[Region]:
    """Return the program's regions in order."""
    grouped = groupby(prediction.operations, key=lambda placed: placed.unit)
    return [Region(unit, tuple(items)) for unit, items in grouped]


def placement_page(model: str, predictions: Sequence[Prediction]) -> str:
    """Return the page: for each setting two strips (by operations, by cost), the regions, and the reasons."""
    first = predictions[0]
    parts = [f"<h1>{_text(model)}</h1>", f"<p class=note>Predicted for {_text(first.chip.name)}, not measured: "]
    parts.append(f"{_text(first.basis)}. Costs are the planner's estimates, not latencies. tlkit {__version__}</p>")
    for prediction in predictions:
        parts.append(f"<h2>{_text(prediction.setting)}: {prediction.changes} changes of unit</h2>")
        found = regions(prediction)
        parts.append(_strip(found, "by operations", [len(region.operations) for region in found]))
        parts.append(_strip(found, "by estimated cost", [region.microseconds for region in found]))
        parts += [_regions(found), _reasons(prediction)]
    title = f"<title>{_text(model)}: predicted placement</title>"
    head = f'<!doctype html><html lang=en><meta charset="utf-8">{title}<style>{_STYLE}</style>'
    return f"{head}<main>{''.join(parts)}</main></html>\n"


def _text(value: object) -> str:
    return escape(clean(str(value)))


def _strip(found: Sequence[Region], label: str, sizes: Sequence[float]) -> str:
    whole, left, cells = sum(sizes) or 1.0, 0.0, []
    for region, size in zip(found, sizes, strict=True):
        width = _WIDTH * size / whole
        told = f"{_NAMES[region.unit]}: {len(region.operations)} operations, {region.microseconds:.3g} µs estimated"
        cells.append(f'<rect class={region.unit} x="{left:.2f}" y="16" width="{width:.2f}" height="{_HEIGHT - 18}">'
                     f"<title>{told}</title></rect>")  # fmt: skip
        left += width
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><text x="0" y="11">{label}</text>{"".join(cells)}</svg>'


def _regions(found: Sequence[Region]) -> str:
    rows = [
        f"<tr><td>{_NAMES[region.unit]}<td class=n>{len(region.operations)}<td class=n>{region.microseconds:.3g}"
        f"<td>{_text(region.operations[0].name)}<td>{_text(region.operations[-1].name)}"
        f"<td>{_text(origin(region.operations[0]))}<td>{_text(origin(region.operations[-1]))}"
        for region in found
    ]
    return (
        "<table><tr><th>region<th>operations<th>µs, estimated<th>from<th>to<th>from module<th>to module"
        + "".join(rows)
        + "</table>"
    )


def _mend(rule: PlacementRule) -> str:
    lines = [_text(line) for line in rule.example.strip().splitlines()]
    return f"{_text(rule.mend)}<pre>{'<br>'.join(lines)}</pre>" if lines else _text(rule.mend)


def _reasons(prediction: Prediction) -> str:
    found = reasons(prediction)
    if not found:
        return ""
    rows = [
        f"<tr><td>{reason.rule.id}<td class=n>{len(reason.operations)}<td class=n>{percent(reason.share)}"
        f"<td>{_text(reason.rule.why)}<td>{_mend(reason.rule)}<td>{_text(', '.join(origins(reason.operations)))}"
        for reason in found
    ]
    head = "<tr><th>not on the Neural Engine<th>operations<th>share of cost<th>why<th>what to do<th>module"
    return f"<p></p><table>{head}{''.join(rows)}</table>"
