"""The operations of a model for people: a line each with what it reads, makes and costs, or a line for each module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from tlkit.cli.sink.figures import percent
from tlkit.cli.sink.named_table import NamedTable
from tlkit.words import byte_text, count_text, macs_text

if TYPE_CHECKING:
    from tlkit.core.inspect.costs import Cost, Costs, ModuleCost, Port

SHOWN = 5_000
"""Operations that are listed; of a larger graph the first ones, and --json has all."""
_KINDS = 3  # kinds of operation that the line of a module names


def ops_view(costs: Costs, ops: Sequence[Cost]) -> RenderableType:
    """Return a line for each of ``ops``: name, type, inputs -> outputs, weights, MACs, bytes alive meanwhile."""
    several = len({op.function for op in ops}) > 1
    table = NamedTable()
    table.add_column("operation", overflow="fold")
    table.add_column("type", no_wrap=True)
    table.add_column("inputs -> outputs")
    for heading in ("weights", "MACs", "alive"):
        table.add_column(heading, justify="right", no_wrap=True)
    for op in ops[:SHOWN]:
        name = f"{op.function}: {op.name}" if several else op.name
        macs = "?" if op.macs is None else count_text(op.macs) if op.macs else ""
        weights = count_text(op.weights) if op.weights else ""
        table.add_row(name, op.type, _flow(op), weights, macs, byte_text(op.alive_bytes))
    return Group(table, *_last(costs, ops))


def modules_view(costs: Costs, modules: Sequence[ModuleCost]) -> RenderableType:
    """Return a line for each module: its operations and their kinds, weights, MACs and their share."""
    table = NamedTable()
    table.add_column("module", overflow="fold")
    table.add_column("ops", justify="right", no_wrap=True)
    table.add_column("kinds")
    for heading in ("weights", "MACs", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in modules:
        kinds = ", ".join(f"{kind} {count}" for kind, count in row.types[:_KINDS])
        kinds += f", … {len(row.types) - _KINDS} more" if len(row.types) > _KINDS else ""
        share = percent(row.macs / costs.macs) if costs.macs and row.macs else ""
        macs = count_text(row.macs) if row.macs else ""
        name = row.module or "(no module recorded)"
        table.add_row(name, str(row.operations), kinds, count_text(row.weights) if row.weights else "", macs, share)
    return Group(table, *_notes(costs))


def _last(costs: Costs, ops: Sequence[Cost]) -> Iterator[RenderableType]:
    if len(ops) > SHOWN:
        said = f"{len(ops) - SHOWN:,} more of {len(ops):,} operations: choose with a pattern or --depth, or take --json"
        yield Text(said, "yellow")
    macs, weights = sum(op.macs or 0 for op in ops), sum(op.weights for op in ops)
    part = "" if len(ops) == len(costs.per_op) else f" of {len(costs.per_op):,}"
    yield Text(f"{len(ops):,}{part} operations: {macs_text(macs)}, {count_text(weights)} weights")
    memory = costs.activations
    if memory is not None:
        carried = ", ".join(
            f"{byte_text(size)} in {name}"
            for size, name in ((memory.eager_f16_bytes, "f16"), (memory.eager_f32_bytes, "f32"))
            if size is not None
        )
        yield Text(f"activations: {byte_text(memory.peak_bytes)} at their peak, beside '{memory.at}'")
        if carried:
            yield Text(f"run by PyTorch here: {carried}", "dim")
    yield from _notes(costs)


def _notes(costs: Costs) -> Iterator[RenderableType]:
    if costs.open:
        yield Text("open dimensions (?) count as 1, so figures are the least", "dim")
    yield from (Text(note, "yellow") for note in costs.notes)


def _flow(op: Cost) -> str:
    given, made = [_shape(port) for port in op.inputs], [_shape(port) for port in op.outputs]
    types = list(dict.fromkeys(_short(port.dtype) for port in (*op.inputs, *op.outputs)))
    if len(types) > 1:  # one type is said once, after all
        given = [f"{shape} {_short(port.dtype)}".strip() for shape, port in zip(given, op.inputs, strict=True)]
        made = [f"{shape} {_short(port.dtype)}".strip() for shape, port in zip(made, op.outputs, strict=True)]
    flow = f"{_several(given)} -> {_several(made)}" if given else f"-> {_several(made)}"
    return f"{flow} {types[0]}" if len(types) == 1 else flow


def _several(shapes: Sequence[str]) -> str:
    """Return shapes as a list, one that occurs several times in a row once."""
    found: list[tuple[str, int]] = []
    for shape in shapes:
        if found and found[-1][0] == shape:
            found[-1] = (shape, found[-1][1] + 1)
        else:
            found.append((shape, 1))
    return ", ".join(shape if count == 1 else f"{count} times {shape}" for shape, count in found)


def _shape(port: Port) -> str:
    return "" if port.dtype == "string" else port.dims


def _short(dtype: str) -> str:
    return dtype if dtype == "string" else dtype.replace("float", "f").replace("uint", "u").replace("int", "i")
