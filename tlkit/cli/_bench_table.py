"""A measurement for people: what was measured and how, the latencies, the start-up costs, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tlkit.core._rounds import Row
from tlkit.core.measure import BenchResult
from tlkit.core.stats import Summary, samples_for

_SCALES = (("ns", 1), ("µs", 1e3), ("ms", 1e6), ("s", 1e9))


def render(result: BenchResult) -> RenderableType:
    """Return the whole answer; settings that were not measured have no figures, and a line that says why."""
    parts: list[RenderableType] = [_facts(result), Text(), _latencies(result), Text(), _costs(result)]
    remarks = list(_remarks(result))
    if remarks:
        parts += [Text(), *remarks]
    return Group(*parts)


def _facts(result: BenchResult) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("model", Text(result.model, "bold"))
    for item in result.inputs:
        shape = "x".join(map(str, item.shape)) or "scalar"
        source = f"random, seed {result.method.seed}" if item.source == "random" else item.source
        table.add_row("input", f"{item.name} {item.dtype} {shape} ({source})")
    table.add_row("runs on", _backends(result.rows))
    table.add_row("method", _method(result))
    table.add_row("machine", _machine(result))
    return table


def _backends(rows: Sequence[Row]) -> str:
    told: dict[str, list[str]] = {}
    for row in rows:
        if row.backend:
            threads = f", {row.threads} thread{'s' * (row.threads != 1)}" if row.threads else ""
            told.setdefault(f"{row.backend}, {row.device}{threads}", []).append(row.unit)
    if len(told) == 1:
        return next(iter(told))
    return "; ".join(f"{', '.join(units)}: {backend}" for backend, units in told.items())


def _method(result: BenchResult) -> str:
    method = result.method
    amount = f"{method.iterations} inferences" if method.duration is None else f"{method.duration:g} s of inferences"
    turns = ", in turns" if len(result.rows) > 1 else ""
    return f"{amount} a setting{turns}, after {method.warmup} to warm up; a process for each setting"


def _machine(result: BenchResult) -> str:
    machine = result.machine
    memory = f", {_bytes(machine.memory)}" if machine.memory else ""
    return f"{machine.cpu}, {machine.cores} cores{memory}, {machine.os}"


def _latencies(result: BenchResult) -> Table:
    shown = [p for p in result.method.percentiles if p != 50]
    summaries = [row.summary for row in result.rows if row.summary]
    name, scale, decimals = _scale([summary.median_ns for summary in summaries])
    columns = ["median", "mean", "std", "min", "max", *(f"p{p:g}" for p in shown)]
    table = _table(f"Latency in {name}, and inferences a second", [*columns, "per s"])
    for row in result.rows:
        cells = [_number(value, scale, decimals) for value in _figures(row.summary, shown)]
        rate = _rate(row.summary.throughput) if row.summary else "-"
        table.add_row(row.unit, *cells, rate, style="" if row.summary else "dim")
    return table


def _figures(summary: Summary | None, percentiles: Sequence[float]) -> list[float | None]:
    if summary is None:
        return [None] * (5 + len(percentiles))
    tails = [summary.percentiles_ns[f"p{p:g}"] for p in percentiles]
    return [summary.median_ns, summary.mean_ns, summary.std_ns, summary.min_ns, summary.max_ns, *tails]


def _costs(result: BenchResult) -> Table:
    compiled = result.method.engine == "compile"
    names = ["first load", "warm load", *(["compile"] if compiled else []), "first inference"]
    times = {row.unit: _start_times(row, compiled) for row in result.rows}
    name, scale, decimals = _scale([value for row in times.values() for value in row if value is not None], least="ms")
    table = _table(f"Start in {name}, and memory", [*names, "peak memory", "before load"])
    for row in result.rows:
        cells = [_number(value, scale, decimals) for value in times[row.unit]]
        memory = [_bytes(row.peak_bytes), _bytes(row.runtime_bytes)]
        table.add_row(row.unit, *cells, *memory, style="" if row.summary else "dim")
    return table


def _start_times(row: Row, compiled: bool) -> list[int | None]:
    return [row.load_first_ns, row.load_warm_ns, *([row.bind_ns] if compiled else []), row.first_inference_ns]


def _remarks(result: BenchResult) -> Iterable[Text]:
    for row in result.rows:
        if row.status == "absent":
            yield Text.assemble((f"{row.unit}: ", "yellow"), row.reason)
        elif row.status == "failed":
            yield Text.assemble((f"{row.unit} failed: ", "bold red"), row.reason)
    counts = [row.summary.count for row in result.rows if row.summary]
    for p in result.method.percentiles:
        if counts and min(counts) < samples_for(p):
            yield Text(f"p{p:g} needs {samples_for(p)} samples: give -n {samples_for(p)}", "dim")


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(
        title=Text(title, "bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        header_style="dim",
    )
    table.add_column("unit", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _scale(values_ns: Sequence[float], least: str = "ns") -> tuple[str, float, int]:
    """Choose one unit (``least`` or above) and one number of decimals, so that the smallest value keeps 3 figures.

    At most 3 decimals: in one table with seconds, microseconds must not make every row long.
    """
    smallest = min((value for value in values_ns if value > 0), default=1e6)
    usable = _SCALES[[name for name, _ in _SCALES].index(least) :]
    name, scale = next((pair for pair in reversed(usable) if smallest >= pair[1]), usable[0])
    return name, scale, min(3, max(0, 2 - math.floor(math.log10(smallest / scale))))


def _number(value: float | None, scale: float, decimals: int) -> str:
    return "-" if value is None else f"{value / scale:.{decimals}f}"


def _rate(per_second: float) -> str:
    return f"{per_second:.0f}" if per_second >= 1000 else f"{per_second:.4g}"


def _bytes(count: int | None) -> str:
    if count is None:
        return "-"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
