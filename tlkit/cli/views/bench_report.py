"""A measurement as one HTML page: no network, no script, light and dark by the reader's choice, one printed page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from tlkit import __version__
from tlkit.cli.sink import figures as _figures
from tlkit.cli.sink.stream import clean
from tlkit.cli.views import svg
from tlkit.core.bench.bench import BenchResult
from tlkit.core.bench.rows import OpCost, Row
from tlkit.core.bench.versus import over_cpu
from tlkit.words import byte_text

_MOST_CHARTS = 6  # rows with charts of their own: more do not fit a page
_TOP = 12  # operations listed of a row; of three rows or more half as many
_ON_PAPER = {4: (4, 4), 6: (4, 2)}  # up to so many rows: of how many there are charts and operations on one page
_CROWDED = (2, 0)  # of still more

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5d6670; --paper: #ffffff; --panel: #f5f7f9; --line: #d9dee3;
  --accent: #2563c9; --cpu: #2f6fb0; --gpu: #3b8a4a; --ane: #9a5bb5; --all: #b0742f; --other: #7a828a;
  --good: #23783a; --fair: #946200; --poor: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa4ae; --paper: #14171a; --panel: #1d2226;
  --line: #343b42; --accent: #6ea8fe; --cpu: #3f7fc2; --gpu: #3f8f50; --ane: #a06ac0; --all: #b87f3c;
  --good: #6fce87; --fair: #e0b050; --poor: #ff8a80; } }
* { box-sizing: border-box } body { margin: 0; background: var(--paper); color: var(--ink);
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif }
main { max-width: 1040px; margin: 0 auto; padding: 24px }
h1 { font-size: 22px; margin: 0 } h2 { font-size: 15px; margin: 22px 0 6px } h3 { font-size: 13px; margin: 0 0 4px }
.lead, .note { color: var(--soft) } .lead { margin: 2px 0 0 } .wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: 4px 10px 4px 0; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line) }
th { color: var(--soft); font-weight: 500; font-size: 12px } th:first-child, td:first-child { text-align: left }
td.why { text-align: left; white-space: normal; color: var(--soft) }
.good { color: var(--good) } .fair { color: var(--fair) } .poor { color: var(--poor) }
.cards { display: grid; grid-template-columns: 1fr 1fr; gap: 10px }
@media screen and (max-width: 640px) { .cards { grid-template-columns: 1fr } }
.card { background: var(--panel); border-radius: 6px; padding: 10px 12px; break-inside: avoid }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; margin: 0 } dt { color: var(--soft) }
dd { margin: 0; overflow-wrap: anywhere }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif } svg text { fill: var(--ink) }
svg .end { text-anchor: end } svg .middle { text-anchor: middle } svg .small { font-size: 10.5px; fill: var(--soft) }
svg .bar { fill: var(--accent) } svg .dot { fill: var(--accent); opacity: .75 } svg .far { fill: var(--poor) }
svg .on { fill: #fff; font-size: 11px }
svg .grid { stroke: var(--line) } svg .mark { stroke: var(--ink); stroke-dasharray: 3 3 }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --panel: #f4f4f4; --line: #ccc;
  --accent: #2563c9; --good: #23783a; --fair: #946200; --poor: #b3261e }
  @page { size: A4; margin: 10mm }
  body { font-size: 9.5px; print-color-adjust: exact; -webkit-print-color-adjust: exact }
  main { padding: 0; max-width: none } h1 { font-size: 16px } h2 { font-size: 11px; margin: 8px 0 3px }
  .cards { grid-template-columns: repeat(4, 1fr); gap: 4px }
  .card { padding: 4px 6px } .card.ops { grid-column: span 2 }
  th, td { padding: 1px 6px 1px 0 } th { font-size: 8.5px } h3 { font-size: 9px; overflow-wrap: anywhere }
  .wide { overflow: visible } .card svg { max-height: 30mm } .card svg.ops { max-height: 40mm }
  .card svg.top6 { max-height: 18mm } svg.medians { max-height: 15mm } h2 { break-after: avoid }
  dl { grid-template-columns: max-content 1fr max-content 1fr; gap: 1px 8px }
  .dense { zoom: .84 } .crowded { zoom: .74 } .note { margin: 2px 0 } .screen { display: none } }
@media screen { .paper { display: none } }
"""


def page(result: BenchResult) -> str:
    """Return the whole page."""
    names = ", ".join(model.asked for model in result.models)
    measured = [row for row in result.rows if row.summary]
    parts = [
        f"<h1>{_text(names)}</h1>",
        f'<p class="lead">{_text(result.machine.cpu)}, {_text(result.machine.os)}, {_text(result.started)}</p>',
        *_latency(result, measured),
        *_energy(result),
        *_speedups(result),
        *_charts(measured),
        *_placements(measured),
        *_trust(result),
        *_about(result),
    ]
    body = "\n".join(parts)
    # on paper: a Mac's four settings fill a page
    size = "crowded" if len(measured) > max(_ON_PAPER) else "dense" if len(measured) > 2 else "roomy"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(names)}: tlkit bench</title><style>{_STYLE}</style></head>\n"
        f'<body><main class="{size}">\n{body}\n</main></body></html>\n'
    )


def _latency(result: BenchResult, measured: Sequence[Row]) -> Iterable[str]:
    shown = [p for p in result.method.percentiles if p != 50]
    name, divisor = _figures.scale([row.summary.median_ns for row in measured if row.summary])
    heads = ["row", f"median {name}", *(f"p{p:g}" for p in shown), "min", "max", "per s"]
    heads += ["first load", "warm load", "first inference", "peak memory", "trust"]
    rows = []
    for row in result.rows:
        if row.summary is None:
            rows.append(
                f'<tr><td>{_text(row.name)}</td><td class="why" colspan="{len(heads) - 1}">'
                f"{row.status}: {_text(row.reason)}</td></tr>"
            )
            continue
        summary = row.summary
        values = [
            summary.median_ns,
            *(summary.percentiles_ns[f"p{p:g}"] for p in shown),
            summary.min_ns,
            summary.max_ns,
        ]
        cells = [_figures.number(value, divisor) for value in values]
        cells += [_figures.rate(summary.throughput), _figures.time(row.load_first_ns), _figures.time(row.load_warm_ns)]
        cells += [_figures.time(row.first_inference_ns), byte_text(row.peak_bytes)]
        level = row.trust.level if row.trust else "-"
        rows.append(_row([_text(row.name), *cells, f'<span class="{level}">{level}</span>']))
    yield "<h2>Latency</h2>"
    if len(measured) > 1:
        median = [
            (row.name, row.summary.median_ns, _figures.time(row.summary.median_ns)) for row in measured if row.summary
        ]
        yield svg.bars(median, name="medians")
    yield _table(heads, rows)


def _energy(result: BenchResult) -> Iterable[str]:
    yield "<h2>Power and energy</h2>"
    if not result.power_channels:
        yield f'<p class="note">n/a: {_text(result.power_note or "no energy counter here")}</p>'
        return
    heads = ["row", *(f"{channel} W" for channel in result.power_channels), "idle W", "mJ per inference"]
    rows = []
    for row in result.rows:
        energy, gain = row.energy, over_cpu(row, result.rows)
        if energy is None:
            # The name is there, and two headings follow.
            rows.append(_row([_text(row.name), *["n/a"] * (len(heads) + 1)]))
            continue
        cells = [_figures.number(energy.watts.get(channel)) for channel in result.power_channels]
        cells += [_figures.number(sum(energy.idle_watts.values())), _figures.number(energy.millijoules)]
        cells += [_figures.rate(energy.per_joule), "n/a" if gain is None else f"{gain:.3g}x"]
        rows.append(_row([_text(row.name), *("n/a" if cell == "-" else cell for cell in cells)]))
    yield _table([*heads, "inferences per joule", "over the CPU"], rows)
    notes = dict.fromkeys([result.power_note, *(row.energy.note for row in result.rows if row.energy)])
    yield "".join(f'<p class="note">{_text(note)}</p>' for note in notes if note)


def _speedups(result: BenchResult) -> Iterable[str]:
    if not result.comparisons:
        return
    rows = []
    for found in result.comparisons:
        ratio = found.speedup
        interval = f"{ratio.low:.3g} to {ratio.high:.3g}"
        rows.append(_row([_text(f"{found.row} over {found.against}"), f"{ratio.value:.3g}x", interval, found.verdict]))
    yield "<h2>Speed-up</h2>"
    yield _table(["rows", "times", f"{result.comparisons[0].speedup.level:.0%} interval", "verdict"], rows)


def _charts(measured: Sequence[Row]) -> Iterable[str]:
    on_paper, _ = _on_paper(measured)
    yield "<h2>Distribution, and samples in the order they were taken</h2><div class='cards'>"
    for index, row in enumerate(measured[:_MOST_CHARTS]):
        assert row.summary is not None
        marks = {"median": row.summary.median_ns}
        marks |= {name: value for name, value in row.summary.percentiles_ns.items() if value and name == "p95"}
        charts = svg.histogram(row.samples_ns, marks), svg.timeline(row.samples_ns)
        for title, chart in zip(("distribution", "timeline"), charts, strict=True):
            yield f'<div class="card{_kept(index < on_paper)}"><h3>{_text(row.name)}: {title}</h3>{chart}</div>'
    yield "</div>"
    for medium, shown in (("screen", _MOST_CHARTS), ("paper", on_paper)):
        if len(measured) > shown:
            yield f'<p class="note {medium}">Charts of the first {shown} of {len(measured)} rows.</p>'


def _placements(measured: Sequence[Row]) -> Iterable[str]:
    placed = [row for row in measured if row.placement and (row.placement.ops or len(row.placement.shares) > 1)]
    if not placed:
        return
    _, on_paper = _on_paper(measured)
    yield f"<h2 class='{_kept(on_paper > 0)}'>Where the operations go, and what they cost</h2><div class='cards'>"
    top = _TOP if len(placed) < 3 else _TOP // 2
    for index, row in enumerate(placed[:_MOST_CHARTS]):
        placement = row.placement
        assert placement is not None
        how = "planned by Core ML" if placement.source == "MLComputePlan" else "measured op by op"
        counts = ", ".join(f"{unit}: {count} operations" for unit, count in placement.counts.items())
        ops = [(f"{op.name} ({op.type})", op.share or 0.0, _figures.percent(op.share or 0.0)) for op in placement.ops]
        units = svg.stacked(placement.shares) if len(placement.shares) > 1 else ""
        yield f'<div class="card ops{_kept(index < on_paper)}"><h3>{_text(row.name)}, {how}</h3>{units}'
        costs = svg.bars(ops[:top], svg.WIDTH, f"ops top{top}") if ops else ""
        yield f'<p class="note">{_text(counts)}</p>{costs}</div>'
    yield "</div>"
    for row in placed:
        if row.placement and row.placement.ops and row.placement.ops[0].nanoseconds is not None:
            yield f"<h3>{_text(row.name)}, its costliest operations</h3>"
            yield _operations(row.placement.ops[: 2 * _TOP])


def _operations(ops: Sequence[OpCost]) -> str:
    """The figures of operations that were measured one by one."""
    heads = ["operation", "type", "µs", "share", "shapes", "GMAC/s", "GB/s", "bound by"]
    rows = []
    for op in ops:
        shapes = f"{', '.join(op.inputs)} → {', '.join(op.outputs)}"
        cells = [op.name, op.type, _figures.number(op.nanoseconds, 1e3), _figures.percent(op.share or 0.0), shapes]
        cells += [_figures.number(op.gmacs_per_s) if op.macs else "", _figures.number(op.gb_per_s), op.bound]
        rows.append("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>")
    return _table(heads, rows)


def _on_paper(measured: Sequence[Row]) -> tuple[int, int]:
    """Return of how many rows the printed page has charts, and of how many operations."""
    return next((shown for rows, shown in _ON_PAPER.items() if len(measured) <= rows), _CROWDED)


def _kept(on_paper: bool) -> str:
    """Return the class of what only a screen has room for."""
    return "" if on_paper else " screen"


def _trust(result: BenchResult) -> Iterable[str]:
    rows = []
    for row in result.rows:
        if (trust := row.trust) is None:
            continue
        why = "; ".join(trust.reasons) or "nothing found against it"
        figures = [_figures.percent(trust.variation), _figures.percent(trust.drift, signed=True)]
        level = f'<span class="{trust.level}">{trust.level}</span>'
        rows.append(
            # One more cell, which is not a figure.
            _row([_text(row.name), level, *figures]).replace("</tr>", f'<td class="why">{_text(why)}</td></tr>')
        )
    yield "<h2>How far to trust it</h2>"
    yield _table(["row", "trust", "variation", "drift", ""], rows)
    advice = dict.fromkeys(word for row in result.rows if row.trust for word in row.trust.advice)
    if advice:
        yield f'<p class="note">To do: {_text("; ".join(advice))}.</p>'


def _about(result: BenchResult) -> Iterable[str]:
    method, machine = result.method, result.machine
    amount = f"{method.iterations} inferences" if method.duration is None else f"{method.duration:g} s of inferences"
    inputs = dict.fromkeys(
        f"{item.name} {item.dtype} {'x'.join(map(str, item.shape))} ({item.source})"
        for row in result.rows
        for item in row.inputs
    )
    facts = {
        "machine": f"{machine.cpu} ({machine.architecture}), {machine.cores} cores, {byte_text(machine.memory)}",
        "system": f"{machine.os}, Python {machine.python}",
        "versions": ", ".join(f"{name} {version}" for name, version in result.versions.items() if version),
        "runs on": "; ".join(dict.fromkeys(f"{row.backend}, {row.device}" for row in result.rows if row.backend)),
        "inputs": ", ".join(inputs),
        "method": f"{amount} per setting, at least {method.warmup} before that to warm up, settings in turns, each in "
        f"{_processes(method.processes)}, seed {method.seed}; {method.timer}",
        "percentiles": method.percentile_method,
        "made by": f"tlkit {__version__}",
    }
    yield "<h2>Machine and method</h2><dl>"
    yield "".join(f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in facts.items())
    yield "</dl>"


def _processes(count: int) -> str:
    return "a separate process" if count == 1 else f"{count} separate processes, one after another"


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in heads)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _row(cells: Sequence[str]) -> str:
    """A row of cells that are HTML already: names have been through :func:`_text`, figures need not."""
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _text(value: str) -> str:
    return escape(clean(value))
