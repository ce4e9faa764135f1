"""Where operations would run, for people. Everything here is a prediction, and is labelled so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tlkit.cli.sink.card import card, grid
from tlkit.cli.sink.figures import percent
from tlkit.core.inspect.placement import Reason, origin, origins, reasons
from tlkit.placement.facts import all_rules
from tlkit.placement.predict import Prediction
from tlkit.types import Unit

if TYPE_CHECKING:
    from tlkit.core.edit.ane import Rewrite
    from tlkit.core.inspect.measured import Beside
    from tlkit.core.inspect.placement import Offer

NAMES = {"ane": "the Neural Engine", "gpu": "the GPU", "cpu": "the CPU"}
_STYLES = {"ane": "green", "gpu": "cyan", "cpu": "yellow"}
_BAR = 60
_NAMED = 3  # operations that a line names


def placement_view(
    model: str,
    predictions: Sequence[Prediction],
    per_op: bool,
    offer: Offer | None = None,
    plans: Sequence[Beside] = (),
) -> RenderableType:
    """Return a summary, a bar and the reasons for each setting; with ``per_op`` a line for each operation.

    ``offer`` is what ``tlkit edit --ane`` would improve, ``plans`` are Core ML's own, beside the predictions.
    """
    parts: list[RenderableType] = [
        card(
            [
                ("model", model, "bold"),
                ("predicted", f"for {predictions[0].chip.name}, not measured", ""),
                ("basis", predictions[0].basis, ""),
            ]
        )
    ]
    for prediction in predictions:
        parts += [Text(), _summary(prediction), _Bar(prediction)]
        if Unit(prediction.setting) in (Unit.ANE, Unit.ALL):
            parts.append(_reasons(reasons(prediction), offer))
        if per_op:
            parts.append(_per_op(prediction))
    return Group(*parts, *(part for plan in plans for part in _beside(plan, per_op)), *_offer(offer))


def _beside(plan: Beside, per_op: bool) -> list[RenderableType]:
    """Core ML's plan beside the prediction: differences, and with ``per_op`` everything."""
    shown = [pair for pair in plan.pairs if per_op or pair.agrees is False]
    told = "nothing to compare" if plan.agreement is None else f"{percent(plan.agreement)} of operations as predicted"
    table = Table(box=None, header_style="dim", pad_edge=False)
    for heading in ("operation", "type", "planned by Core ML", "predicted"):
        table.add_column(heading, overflow="fold")
    for pair in shown:
        style = "yellow" if pair.agrees is False else ""
        table.add_row(pair.name, pair.type, Text(pair.planned or "-", style), pair.predicted or "-")
    head = Text(f"\n{plan.setting}, planned by Core ML: ", "bold").append(told, "")
    return [head, table] if shown else [head]


def _offer(offer: Offer | None) -> list[RenderableType]:
    if offer is None:
        return []
    before, after = offer.before, offer.after
    told = Text("\ntried: ", "bold").append(offer.command, "green")
    told.append(f" puts {percent(after.share)} of the cost on the Neural Engine ({percent(before.share)} now); ")
    told.append(f"estimated {after.milliseconds:.3g} ms ({before.milliseconds:.3g} ms now)")
    return [told]


def _summary(prediction: Prediction) -> Text:
    total = len(prediction.operations)
    best = max(("ane", "gpu", "cpu"), key=prediction.share)
    changes = prediction.changes
    unknown = sum(placed.confidence == "unknown" for placed in prediction.operations)
    text = Text(f"{prediction.setting}: ", "bold")
    share = f"{percent(prediction.share(best))} of the estimated cost"
    text.append(f"{prediction.count(best)} of {total} operations and {share} on {NAMES[best]}; ", "")
    text.append(f"{changes} change{'s' * (changes != 1)} of unit", "")
    return text.append(f"; {unknown} of them unknown to every rule", "yellow") if unknown else text


class _Bar:
    """The program as a bar: each cell covers an equal number of operations, coloured by their most frequent unit."""

    def __init__(self, prediction: Prediction) -> None:
        self._units = [placed.unit for placed in prediction.operations]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        units, text = self._units, Text()
        width = min(_BAR, options.max_width, len(units))
        for cell in range(width):
            part = units[cell * len(units) // width : (cell + 1) * len(units) // width]
            most = max(dict.fromkeys(part), key=part.count)
            text.append(_CELLS[most], _STYLES[most])
        yield text
        yield Text("█ Neural Engine  ▓ GPU  ░ CPU", "dim")


_CELLS = {"ane": "█", "gpu": "▓", "cpu": "░"}


def _reasons(found: Sequence[Reason], offer: Offer | None) -> RenderableType:
    table = grid()
    for justify in ("right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_column(overflow="fold")
    for reason in found:
        named = ", ".join(f"{placed.name} ({placed.type})" for placed in reason.operations[:_NAMED])
        more = f" and {len(reason.operations) - _NAMED} more" if len(reason.operations) > _NAMED else ""
        told = Text(f"{reason.rule.id}: {reason.rule.why}\n")
        told.append(f"{named}{more}", "dim")
        if places := origins(reason.operations):
            rest = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
            told.append(f"\nfrom: {', '.join(places[:_NAMED])}{rest}", "dim")
        if reason.rule.mend:
            tried = offer is not None and "--ane" in reason.rule.mend
            told.append(f"\n{'tried (see below)' if tried else 'guess'}: {reason.rule.mend}", "")
            if reason.rule.example and not tried:
                told.append("".join(_example(reason.rule.example)), "dim")
        table.add_row(percent(reason.share), f"{len(reason.operations)} op{'s' * (len(reason.operations) != 1)}", told)
    return table


def _example(lines: str) -> Iterator[str]:
    """A change of the source, line by line: what it was, what it becomes."""
    for mark, line in zip("-+", lines.strip().splitlines(), strict=False):
        yield f"\n{mark} {line}"


def _per_op(prediction: Prediction) -> RenderableType:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for heading in ("operation", "type", "unit", "can run on", "µs", "why not ANE", "module"):
        table.add_column(heading, justify="right" if heading == "µs" else "left", overflow="fold")
    for placed in prediction.operations:
        tied = f" = {'/'.join(placed.tied)}" if placed.tied else ""
        price = f"{placed.microseconds[placed.unit]:.3g}"
        why = ", ".join(placed.reasons)
        unit = Text(f"{placed.unit}{tied}", _STYLES[placed.unit])
        table.add_row(placed.name, placed.type, unit, " ".join(placed.supported), price, why, origin(placed))
    return table


def rules_view() -> RenderableType:
    """Return every rule: id, sentence, what to do with an example, trust and source."""
    table = grid()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for rule in all_rules().values():
        told = Text(rule.why)
        if rule.mend:
            told.append(f"\nwhat to do (a guess, untried): {rule.mend}")
        told.append("".join(_example(rule.example)), "dim")
        told.append(f"\ntrust: {rule.trust}" + (f"; {rule.source}" if rule.source else ""), "dim")
        table.add_row(Text(rule.id, "bold"), told)
    return table


def with_rewrites(view: RenderableType, rewrites: Sequence[Rewrite]) -> RenderableType:
    """Return ``view`` with a table of ``rewrites`` below it, if there are any."""
    if not rewrites:
        return view
    table = Table(box=None, header_style="dim", pad_edge=False)
    for heading in ("rewrite", "", "Neural Engine's share", "estimated ms"):
        table.add_column(heading, overflow="fold")
    for item in rewrites:
        where = f"{item.function}: " if len({other.function for other in rewrites}) > 1 else ""
        made = Text("made", "green") if item.made else Text("not made: it does not help", "yellow")
        share = f"{percent(item.before.share)} → {percent(item.after.share)}"
        table.add_row(
            f"{where}{item.change}", made, share, f"{item.before.milliseconds:.3g} → {item.after.milliseconds:.3g}"
        )
    notes = [Text(f"{item.change}: {item.caution}", "yellow") for item in rewrites if item.made and item.caution]
    return Group(view, Text(), table, *notes, Text("predicted from published figures, not measured", "dim"))
