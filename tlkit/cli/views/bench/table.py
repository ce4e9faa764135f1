"""A measurement for people: what was measured and how, latencies, start-up, energy, speed-ups, trust."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from tlkit.cli.sink import figures
from tlkit.cli.sink.card import Fact, card
from tlkit.cli.views.bench import sections
from tlkit.cli.views.bench.formats import over_first
from tlkit.cli.views.bench.matrix import matrix_figures, narrow_matrix, plain, several_machines
from tlkit.core.bench.bench import BenchResult
from tlkit.core.bench.gate import Check
from tlkit.core.bench.rows import Row
from tlkit.core.bench.stats import Summary
from tlkit.words import byte_text


def render(
    result: BenchResult, others: Sequence[BenchResult] = (), checks: Sequence[Check] = (), top: int = 10
) -> RenderableType:
    """Return the whole answer; settings that were not measured have no figures, and a line that says why."""
    parts: list[RenderableType] = [_facts(result), Text(), *_titled(_latencies(result))]
    if any(row.summary for row in result.rows):
        parts += [_Bars(result.rows)]
    tables = [
        _costs(result),
        sections.power(result),
        *sections.under_load(result.rows),
        *sections.placements(result.rows, top),
    ]
    for table in tables:
        parts += [Text(), *_titled(table)]
    for section in (
        sections.speedups(result.comparisons),
        sections.trust(result),
        list(sections.remarks(result)),
        sections.checks(checks),
    ):
        parts += [Text(), *section] if section else []
    for other in others:
        parts += [Text(), Text("─" * 40, "dim"), _facts(other)]
        parts += [Text(), *_titled(_latencies(other)), Text(), *_titled(_costs(other))]
        parts += [Text(), *sections.speedups(over_first(other, result), "Against the first run")]
    if several_machines([result, *others]):
        parts += [Text(), Text("─" * 40, "dim"), *_by_machine([result, *others])]
    return Group(*parts)


def _by_machine(runs: Sequence[BenchResult]) -> list[RenderableType]:
    found, notes = narrow_matrix(matrix_figures(runs))
    table = sections.ruled("Medians by model, machine and unit, and their trust", found.heads[0], list(found.heads[1:]))
    table.columns[1].justify = "left"
    for row in found.rows:
        table.add_row(*map(plain, row))
    return [*_titled(table), *map(Text, notes)]


class _Bars:
    """A bar for each median, only on a terminal: elsewhere each row stays one line for grep."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = [row for row in rows if row.summary]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not console.is_terminal:
            return
        yield Text()
        longest = max(row.summary.median_ns for row in self._rows if row.summary)
        indent = max(len(row.name) for row in self._rows)
        room = max(10, options.max_width - indent - 16)
        for row in self._rows:
            assert row.summary is not None
            length = max(1, round(room * row.summary.median_ns / longest))
            yield Text.assemble(
                (f"{row.name:<{indent}}  ", ""), ("█" * length, "cyan"), f" {figures.time(row.summary.median_ns)}"
            )


def _facts(result: BenchResult) -> RenderableType:
    facts: list[Fact] = []
    for model in result.models:
        named = f" ({model.name})" if len(result.models) > 1 and model.name != model.asked else ""
        facts.append(("model", f"{model.asked}{named}", "bold"))
    facts += [("input", told) for told in dict.fromkeys(_inputs(row, result) for row in result.rows)]
    facts += [("runs on", _backends(result.rows))]
    facts += [("chosen", why) for why in dict.fromkeys(row.why for row in result.rows) if why]
    facts += [("method", _method(result))]
    machine = result.machine
    memory = f", {byte_text(machine.memory)}" if machine.memory else ""
    facts.append(("machine", f"{machine.cpu}, {machine.cores} cores{memory}, {machine.os}"))
    return card(facts)


def _inputs(row: Row, result: BenchResult) -> str:
    def told(name: str, dtype: str, shape: Sequence[int], source: str) -> str:
        drawn = f"random, seed {result.method.seed}" if source == "random" else source
        return f"{name} {dtype} {'x'.join(map(str, shape)) or 'scalar'} ({drawn})"

    return ", ".join(told(item.name, item.dtype, item.shape, item.source) for item in row.inputs)


def _backends(rows: Sequence[Row]) -> str:
    told: dict[str, list[str]] = {}
    for row in rows:
        if row.backend:
            threads = f", {row.threads} thread{'s' * (row.threads != 1)}" if row.threads else ""
            told.setdefault(f"{row.backend}, {row.device}{threads}", []).append(row.name)
    if len(told) == 1:
        return next(iter(told))
    return "; ".join(f"{', '.join(names)}: {backend}" for backend, names in told.items())


def _method(result: BenchResult) -> str:
    method = result.method
    amount = f"{method.iterations} inferences" if method.duration is None else f"{method.duration:g} s of inferences"
    turns = ", in turns" if len(result.rows) > 1 else ""
    warm = f"after at least {method.warmup} to warm up" if method.warmup else "cold"
    each = f"{method.processes} processes, one after another," if method.processes > 1 else "a process"
    overheads = [row.timer_ns for row in result.rows if row.timer_ns is not None]
    timer = f"; timing itself takes {figures.time(max(overheads))}" if overheads else ""
    return f"{amount} per setting{turns}, {warm}; {each} for each setting{timer}"


def _latencies(result: BenchResult) -> Table:
    shown = [p for p in result.method.percentiles if p != 50]
    summaries = [row.summary for row in result.rows if row.summary]
    name, divisor = figures.scale([summary.median_ns for summary in summaries])
    on_device = any(row.device_summary for row in result.rows)
    batched = any(row.batch != 1 for row in result.rows)
    columns = ["median", "mean", "std", "min", "max", *(f"p{p:g}" for p in shown), *(["device"] if on_device else [])]
    columns += ["per s", *(["items per s"] if batched else [])]
    table = sections.ruled(
        f"Latency in {name}, and inferences per second", "unit" if _plain(result) else "row", columns
    )
    for row in result.rows:
        cells = [figures.number(value, divisor) for value in _values(row.summary, shown)]
        if on_device:
            cells.append(figures.number(row.device_summary.median_ns if row.device_summary else None, divisor))
        cells.append(figures.rate(row.summary.throughput if row.summary else None))
        if batched:
            cells.append(figures.rate(row.items_per_second))
        table.add_row(row.name, *cells, style="" if row.summary else "dim")
    return table


def _plain(result: BenchResult) -> bool:
    return all(row.name == row.unit for row in result.rows)


def _values(summary: Summary | None, percentiles: Sequence[float]) -> list[float | None]:
    if summary is None:
        return [None] * (5 + len(percentiles))
    tails = [summary.percentiles_ns[f"p{p:g}"] for p in percentiles]
    return [summary.median_ns, summary.mean_ns, summary.std_ns, summary.min_ns, summary.max_ns, *tails]


def _costs(result: BenchResult) -> Table:
    compiled = result.method.engine == "compile"
    times = {
        "first load": [row.load_first_ns for row in result.rows],
        "warm load": [row.load_warm_ns for row in result.rows],
        **({"compile": [row.bind_ns for row in result.rows]} if compiled else {}),
        "first inference": [row.first_inference_ns for row in result.rows],
        "inputs": [row.convert_ns for row in result.rows],
    }
    name, divisor = figures.scale([v for column in times.values() for v in column if v is not None], least="ms")
    table = sections.ruled(f"Start in {name}, and memory", "row", [*times, "peak memory", "before load"])
    for index, row in enumerate(result.rows):
        cells = [figures.number(column[index], divisor) for column in times.values()]
        table.add_row(
            row.name,
            *cells,
            byte_text(row.peak_bytes),
            byte_text(row.runtime_bytes),
            style="" if row.summary else "dim",
        )
    return table


def _titled(table: RenderableType) -> list[RenderableType]:
    """Print a table's title before it, since rich would fold it to the table's width."""
    if not isinstance(table, Table) or table.title is None:
        return [table]
    title, table.title = table.title, None
    return [title, table]
