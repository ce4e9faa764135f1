"""A measurement as one HTML page: no network, no script, light and dark by the reader's choice, one printed page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tlkit import __version__
from tlkit.cli.sink import figures as _figures
from tlkit.cli.sink.template import Bar, Cell, Piece, Table, chart, render
from tlkit.cli.views import svg
from tlkit.cli.views.bench.matrix import matrix, matrix_figures, several_machines
from tlkit.core.bench.bench import BenchResult
from tlkit.core.bench.rows import OpCost, Row, energy_notes
from tlkit.core.bench.versus import over_cpu
from tlkit.words import byte_text

_MOST_CHARTS = 6  # rows with charts of their own: more do not fit a page
_TOP = 12  # operations listed of a row; of three rows or more half as many
_ON_PAPER = {4: (4, 4), 6: (4, 2)}  # up to so many rows: of how many there are charts and operations on one page
_CROWDED = (2, 0)  # of still more


def page(result: BenchResult, others: Sequence[BenchResult] = ()) -> str:
    """Return the whole page; with ``others`` of further machines, all medians by model, machine and unit first."""
    runs = [result, *others]
    names = ", ".join(model.asked for model in result.models)
    measured = [row for row in result.rows if row.summary]
    placed = [row for row in measured if row.placement and (row.placement.ops or len(row.placement.shares) > 1)]
    return render(
        "bench.html",
        title=f"{names}: tlkit bench",
        names=names,
        lead=f"{result.machine.cpu}, {result.machine.os}, {result.started}",
        # on paper: a Mac's four settings fill a page
        size="crowded" if len(measured) > max(_ON_PAPER) else "dense" if len(measured) > 2 else "roomy",
        medians=_medians(measured) if len(measured) > 1 else (),
        matrix=matrix(matrix_figures(runs)) if several_machines(runs) else None,
        latency=_latency(result, measured),
        energy=_energy(result) if result.power_channels else None,
        energy_notes=_energy_notes(result),
        speedups=_speedups(result) if result.comparisons else None,
        charts=list(_charts(measured)),
        chart_notes=_chart_notes(measured),
        placed=list(_placements(placed, _on_paper(measured)[1])),
        operations=list(_costly(placed)),
        trust=_trust(result),
        advice=_advice(result),
        facts=_facts(result),
    )


def _medians(measured: Sequence[Row]) -> list[Bar]:
    return [
        Bar(row.name, row.summary.median_ns, _figures.time(row.summary.median_ns)) for row in measured if row.summary
    ]


def _latency(result: BenchResult, measured: Sequence[Row]) -> Table:
    shown = [p for p in result.method.percentiles if p != 50]
    name, divisor = _figures.scale([row.summary.median_ns for row in measured if row.summary])
    heads = ["row", f"median {name}", *(f"p{p:g}" for p in shown), "min", "max", "per s"]
    heads += ["first load", "warm load", "first inference", "peak memory", "trust"]
    rows: list[list[str | Cell]] = []
    for row in result.rows:
        if row.summary is None:
            rows.append([row.name, Cell(f"{row.status}: {row.reason}", "why", len(heads) - 1)])
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
        rows.append([row.name, *cells, _level(row.trust.level if row.trust else "-")])
    return Table(heads, rows)


def _level(level: str) -> Cell:
    return Cell(level, level if level != "-" else "")


def _energy(result: BenchResult) -> Table:
    heads = ["row", *(f"{channel} W" for channel in result.power_channels), "idle W", "mJ per inference"]
    rows = []
    for row in result.rows:
        energy, gain = row.energy, over_cpu(row, result.rows)
        if energy is None:
            # The name is there, and two headings follow.
            rows.append([row.name, *["n/a"] * (len(heads) + 1)])
            continue
        cells = [_figures.number(energy.watts.get(channel)) for channel in result.power_channels]
        cells += [_figures.number(sum(energy.idle_watts.values())), _figures.number(energy.millijoules)]
        cells += [_figures.rate(energy.per_joule), "n/a" if gain is None else f"{gain:.3g}x"]
        rows.append([row.name, *("n/a" if cell == "-" else cell for cell in cells)])
    return Table([*heads, "inferences per joule", "over the CPU"], rows)


def _energy_notes(result: BenchResult) -> list[str]:
    if not result.power_channels:
        return [f"n/a: {result.power_note or 'no energy counter here'}"]
    return energy_notes(result.power_note, result.rows)


def _speedups(result: BenchResult) -> Table:
    rows = []
    for found in result.comparisons:
        ratio = found.speedup
        interval = f"{ratio.low:.3g} to {ratio.high:.3g}"
        rows.append([f"{found.row} over {found.against}", f"{ratio.value:.3g}x", interval, found.verdict])
    return Table(["rows", "times", f"{result.comparisons[0].speedup.level:.0%} interval", "verdict"], rows)


def _charts(measured: Sequence[Row]) -> Iterator[tuple[str, Any, bool]]:
    """Give the charts with their titles, and whether there is room for them on paper."""
    on_paper, _ = _on_paper(measured)
    for index, row in enumerate(measured[:_MOST_CHARTS]):
        assert row.summary is not None
        marks = {"median": row.summary.median_ns}
        marks |= {name: value for name, value in row.summary.percentiles_ns.items() if value and name == "p95"}
        yield f"{row.name}: distribution", chart(svg.histogram(row.samples_ns, marks)), index < on_paper
        yield f"{row.name}: timeline", chart(svg.timeline(row.samples_ns)), index < on_paper


def _chart_notes(measured: Sequence[Row]) -> list[tuple[str, str]]:
    shown = {"screen": _MOST_CHARTS, "paper": _on_paper(measured)[0]}
    return [
        (medium, f"Charts of the first {most} of {len(measured)} rows.")
        for medium, most in shown.items()
        if len(measured) > most
    ]


def _placements(placed: Sequence[Row], on_paper: int) -> Iterator[dict[str, Any]]:
    top = _TOP if len(placed) < 3 else _TOP // 2
    for index, row in enumerate(placed[:_MOST_CHARTS]):
        placement = row.placement
        assert placement is not None
        how = "planned by Core ML" if placement.source == "MLComputePlan" else "measured op by op"
        shares = placement.shares if len(placement.shares) > 1 else {}
        yield {
            "title": f"{row.name}, {how}",
            "units": [Piece(unit, share, f"{unit} {_figures.percent(share)}") for unit, share in shares.items()],
            "counts": ", ".join(f"{unit}: {count} operations" for unit, count in placement.counts.items()),
            "costs": [
                Bar(f"{op.name} ({op.type})", op.share or 0.0, _figures.percent(op.share or 0.0))
                for op in placement.ops[:top]
            ],
            "on_paper": index < on_paper,
        }


def _costly(placed: Sequence[Row]) -> Iterator[tuple[str, Table]]:
    for row in placed:
        if row.placement and row.placement.ops and row.placement.ops[0].nanoseconds is not None:
            yield f"{row.name}, its costliest operations", _operations(row.placement.ops[: 2 * _TOP])


def _operations(ops: Sequence[OpCost]) -> Table:
    """The figures of operations that were measured one by one."""
    heads = ["operation", "type", "µs", "share", "shapes", "GMAC/s", "GB/s", "bound by"]
    rows: list[list[str | Cell]] = []
    for op in ops:
        shapes = f"{', '.join(op.inputs)} → {', '.join(op.outputs)}"
        took = _figures.number(op.nanoseconds, 1e3), _figures.percent(op.share or 0.0)
        rates = _figures.number(op.gmacs_per_s) if op.macs else "", _figures.number(op.gb_per_s)
        rows.append([op.name, Cell(op.type, "text"), *took, Cell(shapes, "why"), *rates, Cell(op.bound, "text")])
    return Table(heads, rows)


def _on_paper(measured: Sequence[Row]) -> tuple[int, int]:
    """Return of how many rows the printed page has charts, and of how many operations."""
    return next((shown for rows, shown in _ON_PAPER.items() if len(measured) <= rows), _CROWDED)


def _trust(result: BenchResult) -> Table:
    rows: list[list[str | Cell]] = []
    for row in result.rows:
        if (trust := row.trust) is None:
            continue
        why = "; ".join(trust.reasons) or "nothing found against it"
        figures = [_figures.percent(trust.variation), _figures.percent(trust.drift, signed=True)]
        rows.append([row.name, _level(trust.level), *figures, Cell(why, "why")])
    return Table(["row", "trust", "variation", "drift", ""], rows)


def _advice(result: BenchResult) -> list[str]:
    advice = dict.fromkeys(word for row in result.rows if row.trust for word in row.trust.advice)
    return [f"To do: {'; '.join(advice)}."] if advice else []


def _facts(result: BenchResult) -> Mapping[str, str]:
    method, machine = result.method, result.machine
    amount = f"{method.iterations} inferences" if method.duration is None else f"{method.duration:g} s of inferences"
    inputs = dict.fromkeys(
        f"{item.name} {item.dtype} {'x'.join(map(str, item.shape))} ({item.source})"
        for row in result.rows
        for item in row.inputs
    )
    return {
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


def _processes(count: int) -> str:
    return "a separate process" if count == 1 else f"{count} separate processes, one after another"
