"""Further sections of a measurement's text: energy, load, placement, speed-ups, trust, remarks and limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tlkit.cli.sink import figures
from tlkit.cli.sink.named_table import NamedTable
from tlkit.core.bench.bench import BenchResult
from tlkit.core.bench.gate import Check
from tlkit.core.bench.intervals import Ratio
from tlkit.core.bench.rows import Placement, Row
from tlkit.core.bench.stats import samples_for
from tlkit.core.bench.versus import Comparison, over_cpu

_COLOURS = {"good": "green", "fair": "yellow", "poor": "red"}
_MARKS = {True: ("pass", "green"), False: ("FAIL", "bold red"), None: ("not checked", "yellow")}


def power(result: BenchResult) -> RenderableType:
    """Energy by channel, or why there is none."""
    if not result.power_channels:
        return Text(f"power n/a: {result.power_note or 'no energy counter here'}", "dim")
    channels = list(result.power_channels)
    columns = [*(f"{channel} W" for channel in channels), "idle W", "mJ", "per J", "over cpu"]
    table = ruled("Power; energy per inference above the idle machine", "row", columns)
    for row in result.rows:
        energy = row.energy
        if energy is None:
            table.add_row(row.name, *["n/a"] * len(columns), style="dim")
            continue
        gain = over_cpu(row, result.rows)
        cells = [figures.number(energy.watts.get(channel)) for channel in channels]
        cells += [figures.number(sum(energy.idle_watts.values())), figures.number(energy.millijoules)]
        cells += [figures.rate(energy.per_joule), f"{gain:.3g}x" if gain is not None else "n/a"]
        table.add_row(row.name, *("n/a" if cell == "-" else cell for cell in cells))
    return table


def under_load(rows: Sequence[Row]) -> Iterator[Table]:
    """The results with several callers at once."""
    loaded = [row for row in rows if row.load]
    if not loaded:
        return
    table = ruled("Under load", "row", ["callers", "per s", "of one caller", "median", "p95"])
    for row in loaded:
        load = row.load
        assert load is not None and row.summary is not None
        p95 = load.summary.percentiles_ns.get("p95")
        gain = f"{load.throughput / row.summary.throughput:.2f}x"
        times = [figures.time(load.summary.median_ns), figures.time(p95)]
        table.add_row(row.name, str(load.callers), figures.rate(load.throughput), gain, *times)
    yield table


def placements(rows: Sequence[Row], top: int) -> Iterator[RenderableType]:
    """Where the operations go, and the costliest of them."""
    planned = [row for row in rows if row.placement]
    if any(row.placement and row.placement.source == "MLComputePlan" for row in planned):
        table = ruled("Where Core ML plans to run it: operations, and share of the estimated cost", "row", [])
        table.add_column("operations")
        table.add_column("cost")
        for row in planned:
            assert row.placement is not None
            counts = ", ".join(f"{unit} {count}" for unit, count in row.placement.counts.items())
            shares = ", ".join(f"{unit} {figures.percent(share)}" for unit, share in row.placement.shares.items())
            table.add_row(row.name, counts, shares or "-")
        yield table
    for row in planned:
        assert row.placement is not None
        if not row.placement.ops or not top:
            continue
        how = "estimated by Core ML" if row.placement.source == "MLComputePlan" else "measured op by op"
        title = f"{row.name}: the costliest operations, {how}"
        if row.placement.ops[0].nanoseconds is not None:
            yield _timed(title, row.placement, top)
            continue
        table = ruled(title, "operation", ["cost"])
        table.add_column("type")
        table.add_column("unit")
        for op in row.placement.ops[:top]:
            table.add_row(op.name, "-" if op.share is None else figures.percent(op.share), op.type, op.unit)
        yield table


def _timed(title: str, placement: Placement, top: int) -> RenderableType:
    """The costliest operations, with their times, shapes and rates, and what bounds them."""
    table = NamedTable()
    for heading in ("operation", "type"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "type")
    for heading in ("us", "calls", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("shapes")
    for heading in ("GMAC/s", "GB/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bound by", no_wrap=True)
    for op in placement.ops[:top]:
        shapes = f"{', '.join(op.inputs)} -> {', '.join(op.outputs)}"
        per_s = (figures.number(op.gmacs_per_s) if op.macs else "", figures.number(op.gb_per_s))
        took = figures.number(op.nanoseconds, 1e3)
        table.add_row(op.name, op.type, took, str(op.calls), figures.percent(op.share or 0.0), shapes, *per_s, op.bound)
    roof, limits = placement.roofline, ""
    if roof:
        rates = figures.number(roof["gmacs_per_s"]), figures.number(roof["gb_per_s"])
        limits = f"measured here, at most: {rates[0]} GMAC/s (a matrix product), {rates[1]} GB/s (a copy)"
    return Group(Text(title, "bold"), table, Text(limits, "dim"))


def speedups(comparisons: Sequence[Comparison], title: str = "Speed-up") -> list[Text]:
    """A line for each comparison."""
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
    low, value, high = map(figures.number, (ratio.low, ratio.value, ratio.high))
    return f"{value}x ({ratio.level:.0%} interval {low} to {high})"


def trust(result: BenchResult) -> list[Text]:
    """A line for each row, then what to do about it."""
    return trust_lines(result.rows)


def trust_lines(rows: Sequence[Row]) -> list[Text]:
    """A line for each row, then what to do about it."""
    lines = []
    for row in rows:
        trust = row.trust
        if trust is None:
            continue
        why = f": {'; '.join(trust.reasons)}" if trust.reasons else ""
        lines.append(
            Text.assemble(
                f"trust in {row.name}: ",
                (trust.level, _COLOURS[trust.level]),
                f" (variation {figures.percent(trust.variation)}, drift {figures.percent(trust.drift, signed=True)})",
                why,
            )
        )
    advice = dict.fromkeys(word for row in rows if row.trust for word in row.trust.advice)
    return [*lines, *(Text(f"  to do: {word}", "dim") for word in advice)]


def remarks(result: BenchResult) -> Iterable[Text]:
    """What is missing and why, and what to be warned of."""
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
    total = sum(placement.counts.values()) or 1  # a neural network's layers have no costs
    shares = placement.shares or {unit: count / total for unit, count in placement.counts.items()}
    share = shares.get("ane", 0.0)
    if share < 0.5:
        most = max(shares, key=lambda unit: shares[unit], default="cpu")
        of = "the cost is" if placement.shares else "the operations are"
        told = f"only {figures.percent(share)} of {of} planned for the Neural Engine, most for the {most}"
        yield Text.assemble(("warning: ", "bold yellow"), f"{row.name}: {told}; see --per-op")


def checks(checks: Sequence[Check]) -> list[Text]:
    """The limits, kept or not."""
    lines = [Text("Limits", "bold")] if checks else []
    for check in checks:
        lines.append(Text.assemble(_MARKS[check.passed], f" {check.limit} of {check.row}: {check.detail}"))
    return lines


def ruled(title: str, first: str, columns: Sequence[str]) -> Table:
    """Return an empty table: a column of names, then figures."""
    table = Table(
        title=Text(title, "bold"),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        header_style="dim",
    )
    table.add_column(first, overflow="fold")  # where there is too little room, a name is folded and no figure cut
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table
