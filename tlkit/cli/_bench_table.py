"""A measurement for people: what was measured and how, latencies, start-up, energy, speed-ups, trust."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from tlkit.cli import _figures
from tlkit.cli._bench_formats import over_first
from tlkit.core.gate import Check
from tlkit.core.intervals import Ratio
from tlkit.core.measure import BenchResult
from tlkit.core.rows import Row
from tlkit.core.stats import Summary, samples_for
from tlkit.core.versus import Comparison, over_cpu

_COLOURS = {"good": "green", "fair": "yellow", "poor": "red"}
_MARKS = {True: ("pass", "green"), False: ("FAIL", "bold red"), None: ("not checked", "yellow")}


def render(
    result: BenchResult, others: Sequence[BenchResult] = (), checks: Sequence[Check] = (), top: int = 10
) -> RenderableType:
    """Return the whole answer; settings that were not measured have no figures, and a line that says why."""
    parts: list[RenderableType] = [_facts(result), Text(), *_titled(_latencies(result))]
    if any(row.summary for row in result.rows):
        parts += [_Bars(result.rows)]
    tables = [_costs(result), _power(result), *_under_load(result.rows), *_placements(result.rows, top)]
    for table in tables:
        parts += [Text(), *_titled(table)]
    for section in (_speedups(result.comparisons), _trust(result), list(_remarks(result)), _checks(checks)):
        parts += [Text(), *section] if section else []
    for other in others:
        parts += [Text(), Text("─" * 40, "dim"), _facts(other)]
        parts += [Text(), *_titled(_latencies(other)), Text(), *_titled(_costs(other))]
        parts += [Text(), *_speedups(over_first(other, result), "Against the first run")]
    return Group(*parts)


class _Bars:
    """A bar for each median, on a terminal only: elsewhere a row is a line for grep."""

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
                (f"{row.name:<{indent}}  ", ""), ("█" * length, "cyan"), f" {_figures.time(row.summary.median_ns)}"
            )


def _facts(result: BenchResult) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for model in result.models:
        named = f" ({model.name})" if len(result.models) > 1 and model.name != model.asked else ""
        table.add_row("model", Text(f"{model.asked}{named}", "bold"))
    for told in dict.fromkeys(_inputs(row, result) for row in result.rows):
        table.add_row("input", told)
    table.add_row("runs on", _backends(result.rows))
    table.add_row("method", _method(result))
    machine = result.machine
    memory = f", {_figures.size(machine.memory)}" if machine.memory else ""
    table.add_row("machine", f"{machine.cpu}, {machine.cores} cores{memory}, {machine.os}")
    return table


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
    each = f"{method.processes} processes" if method.processes > 1 else "a process"
    overheads = [row.timer_ns for row in result.rows if row.timer_ns is not None]
    timer = f"; timing itself takes {_figures.time(max(overheads))}" if overheads else ""
    return f"{amount} a setting{turns}, {warm}; {each} for each setting{timer}"


def _latencies(result: BenchResult) -> Table:
    shown = [p for p in result.method.percentiles if p != 50]
    summaries = [row.summary for row in result.rows if row.summary]
    name, divisor = _figures.scale([summary.median_ns for summary in summaries])
    on_device = any(row.device_summary for row in result.rows)
    batched = any(row.batch != 1 for row in result.rows)
    columns = ["median", "mean", "std", "min", "max", *(f"p{p:g}" for p in shown), *(["device"] if on_device else [])]
    columns += ["per s", *(["items per s"] if batched else [])]
    table = _table(f"Latency in {name}, and inferences a second", "unit" if _plain(result) else "row", columns)
    for row in result.rows:
        cells = [_figures.number(value, divisor) for value in _values(row.summary, shown)]
        if on_device:
            cells.append(_figures.number(row.device_summary.median_ns if row.device_summary else None, divisor))
        cells.append(_figures.rate(row.summary.throughput if row.summary else None))
        if batched:
            cells.append(_figures.rate(row.items_per_second))
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
    name, divisor = _figures.scale([v for column in times.values() for v in column if v is not None], least="ms")
    table = _table(f"Start in {name}, and memory", "row", [*times, "peak memory", "before load"])
    for index, row in enumerate(result.rows):
        cells = [_figures.number(column[index], divisor) for column in times.values()]
        table.add_row(
            row.name,
            *cells,
            _figures.size(row.peak_bytes),
            _figures.size(row.runtime_bytes),
            style="" if row.summary else "dim",
        )
    return table


def _power(result: BenchResult) -> RenderableType:
    if not result.power_channels:
        return Text(f"power n/a: {result.power_note or 'no energy counter here'}", "dim")
    channels = list(result.power_channels)
    columns = [*(f"{channel} W" for channel in channels), "idle W", "mJ", "per J", "over cpu"]
    table = _table("Power; energy an inference above the idle machine", "row", columns)
    for row in result.rows:
        energy = row.energy
        if energy is None:
            table.add_row(row.name, *["n/a"] * len(columns), style="dim")
            continue
        gain = over_cpu(row, result.rows)
        cells = [_figures.number(energy.watts.get(channel)) for channel in channels]
        cells += [_figures.number(sum(energy.idle_watts.values())), _figures.number(energy.millijoules)]
        cells += [_figures.rate(energy.per_joule), f"{gain:.3g}x" if gain is not None else "n/a"]
        table.add_row(row.name, *("n/a" if cell == "-" else cell for cell in cells))
    return table


def _under_load(rows: Sequence[Row]) -> Iterator[Table]:
    loaded = [row for row in rows if row.load]
    if not loaded:
        return
    table = _table("Under load", "row", ["callers", "per s", "of one caller", "median", "p95"])
    for row in loaded:
        load = row.load
        assert load is not None and row.summary is not None
        p95 = load.summary.percentiles_ns.get("p95")
        gain = f"{load.throughput / row.summary.throughput:.2f}x"
        times = [_figures.time(load.summary.median_ns), _figures.time(p95)]
        table.add_row(row.name, str(load.callers), _figures.rate(load.throughput), gain, *times)
    yield table


def _placements(rows: Sequence[Row], top: int) -> Iterator[RenderableType]:
    planned = [row for row in rows if row.placement]
    if any(row.placement and row.placement.source == "MLComputePlan" for row in planned):
        table = _table("Where Core ML plans to run it: operations, and share of the estimated cost", "row", [])
        table.add_column("operations")
        table.add_column("cost")
        for row in planned:
            assert row.placement is not None
            counts = ", ".join(f"{unit} {count}" for unit, count in row.placement.counts.items())
            shares = ", ".join(f"{unit} {_figures.percent(share)}" for unit, share in row.placement.shares.items())
            table.add_row(row.name, counts, shares)
        yield table
    for row in planned:
        assert row.placement is not None
        if not row.placement.ops or not top:
            continue
        how = "estimated by Core ML" if row.placement.source == "MLComputePlan" else "measured op by op"
        table = _table(f"{row.name}: the costliest operations, {how}", "operation", ["cost"])
        table.add_column("type")
        table.add_column("unit")
        for op in row.placement.ops[:top]:
            table.add_row(op.name, "-" if op.share is None else _figures.percent(op.share), op.type, op.unit)
        yield table


def _speedups(comparisons: Sequence[Comparison], title: str = "Speed-up") -> list[Text]:
    if not comparisons:
        return []
    lines = [Text(title, "bold")]
    for found in comparisons:
        style = {"faster": "green", "slower": "red"}.get(found.verdict, "dim")
        lines.append(
            Text.assemble(f"{found.row} over {found.against}: {_ratio(found.speedup)}, ", (found.verdict, style))
        )
    return lines


def _ratio(ratio: Ratio) -> str:
    low, value, high = map(_figures.number, (ratio.low, ratio.value, ratio.high))
    return f"{value}x ({ratio.level:.0%} interval {low} to {high})"


def _trust(result: BenchResult) -> list[Text]:
    lines = []
    for row in result.rows:
        trust = row.trust
        if trust is None:
            continue
        why = f": {'; '.join(trust.reasons)}" if trust.reasons else ""
        lines.append(
            Text.assemble(
                f"trust in {row.name}: ",
                (trust.level, _COLOURS[trust.level]),
                f" (variation {_figures.percent(trust.variation)}, drift {_figures.percent(trust.drift, signed=True)})",
                why,
            )
        )
    advice = dict.fromkeys(word for row in result.rows if row.trust for word in row.trust.advice)
    return [*lines, *(Text(f"  to do: {word}", "dim") for word in advice)]


def _remarks(result: BenchResult) -> Iterable[Text]:
    if result.power_channels and result.power_note:
        yield Text(f"power: {result.power_note}", "dim")
    for row in result.rows:
        if row.status == "absent":
            yield Text.assemble((f"{row.name}: ", "yellow"), row.reason)
        elif row.status == "failed":
            yield Text.assemble((f"{row.name} failed: ", "bold red"), row.reason)
        elif row.status == "partial":
            yield Text.assemble((f"{row.name}: ", "yellow"), row.reason)
        if row.energy and row.energy.note:
            missing = "n/a: " if row.energy.millijoules is None else ""
            yield Text(f"{row.name}: energy {missing}{row.energy.note}", "dim")
        if row.placement_note:
            yield Text(f"{row.name}: {row.placement_note}", "dim")
        yield from _elsewhere(row)
    counts = [row.summary.count for row in result.rows if row.summary]
    for p in result.method.percentiles:
        if counts and min(counts) < samples_for(p):
            yield Text(f"p{p:g} needs {samples_for(p)} samples: give -n {samples_for(p)}", "dim")


def _elsewhere(row: Row) -> Iterator[Text]:
    """Warn where the setting named ``ane`` left the Neural Engine little to do."""
    placement = row.placement
    if row.unit != "ane" or placement is None or placement.source != "MLComputePlan":
        return
    share = placement.shares.get("ane", 0.0)
    if share < 0.5:
        most = max(placement.shares, key=lambda unit: placement.shares[unit], default="cpu")
        told = f"only {_figures.percent(share)} of the cost is planned for the Neural Engine, most for the {most}"
        yield Text.assemble(("warning: ", "bold yellow"), f"{row.name}: {told}; see --per-op")


def _checks(checks: Sequence[Check]) -> list[Text]:
    lines = [Text("Limits", "bold")] if checks else []
    for check in checks:
        lines.append(Text.assemble(_MARKS[check.passed], f" {check.limit} of {check.row}: {check.detail}"))
    return lines


def _titled(table: RenderableType) -> list[RenderableType]:
    """Take a table's title out in front of it: rich would fold it to the table's width."""
    if not isinstance(table, Table) or table.title is None:
        return [table]
    title, table.title = table.title, None
    return [title, table]


def _table(title: str, first: str, columns: Sequence[str]) -> Table:
    table = Table(
        title=Text(title, "bold"),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        header_style="dim",
    )
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table
