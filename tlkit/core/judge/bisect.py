"""The first operation whose result strays: both sides run once, watched, on the same values, and are compared inside.

From an output that differs the search goes back through the operations whose results differ as well, to those whose
operands do not: an infinity that does no harm (a mask before a softmax) is passed over, since nothing that differs
leads to it. Operations without a counterpart are passed through and said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tlkit.core.compare.difference import snr_db
from tlkit.core.judge.inner import InnerValue, Inside, aligned
from tlkit.core.judge.inside import inside_of
from tlkit.core.judge.matching import match
from tlkit.core.judge.reasons import why
from tlkit.core.judge.sides import PackageSide, open_side
from tlkit.errors import UsageError

if TYPE_CHECKING:
    from tlkit.core.convert.capture.cases import Case
    from tlkit.core.judge.compare import Judgement
    from tlkit.core.judge.pair import TwoSides

FLOOR_DB, ABOVE_DB, STRICT_DB = 26.0, 10.0, 80.0
"""Below what signal to noise a value strays: what f16's limit allows, or this much above the worst output."""
SHARP_DB, DROP_DB = 40.0, 15.0
"""What loses DROP_DB in one operation strays below SHARP_DB already: a fault, where roundings lose little at a time."""


@dataclass(frozen=True, slots=True)
class OperandRange:
    """An operand of the operation that strays: its name, and the range that each side has (None: no counterpart)."""

    name: str
    low: float
    high: float
    reference: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Strayed:
    """One operation where the two part: its name and type, its value's signal to noise, its operands, and why.

    ``place`` is the PyTorch module and line, empty where neither side knows them. ``before`` are operations without a
    counterpart between it and what still agrees: it may be one of them.
    """

    operation: str
    type: str
    value: str
    snr_db: float
    not_finite: int
    operands: tuple[OperandRange, ...]
    why: str
    place: str = ""
    before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bisection:
    """Where two sides part on the input ``case``: ``first`` (None: nowhere), ``others`` that stray by themselves.

    ``matched`` of ``operations`` have a counterpart; ``unmatched`` names some of those that have none. ``runs`` counts
    the watched runs of each side. ``said`` is why there is no answer, where there is none.
    """

    case: str
    first: Strayed | None
    others: tuple[Strayed, ...]
    matched: int
    operations: int
    unmatched: tuple[str, ...]
    runs: tuple[int, int]
    said: str = ""

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield the answer as (label, text)."""
        if self.first is None:
            yield "first to stray", self.said or "none"
        else:
            yield from _strayed_lines("first to stray", self.first)
            for other in self.others[:3]:
                yield "also by itself", f"{other.operation} ({other.type}): {other.why}"
        yield "inside", f"{self.matched} of {self.operations} values have a counterpart, on {self.case}"
        if self.unmatched:
            more = f" and {len(self.unmatched) - 5} more" if len(self.unmatched) > 5 else ""
            yield "skipped", f"{', '.join(self.unmatched[:5])}{more}"
        yield "runs", f"{self.runs[0]} of a, {self.runs[1]} of b, watched"


def _strayed_lines(label: str, found: Strayed) -> Iterator[tuple[str, str]]:
    figure = f"{found.not_finite} not finite" if found.not_finite else f"signal to noise {found.snr_db:.1f} dB"
    yield label, f"{found.operation} ({found.type}): {figure}"
    yield "because", found.why
    if found.place:
        yield "in PyTorch", found.place
    for item in found.operands:
        other = f"; the reference has {item.reference[0]:.4g} to {item.reference[1]:.4g}" if item.reference else ""
        yield "operand", f"{item.name}: {item.low:.4g} to {item.high:.4g}{other}"
    if found.before:
        yield "or", f"one of those without a counterpart before it: {', '.join(found.before[:6])}"


def bisect_sides(pair: TwoSides, case: Case, compared: Judgement) -> Bisection:
    """Run both sides of ``pair`` once more on ``case``, watched, and return where they part.

    Where b is a package that computes in f16, it is compared with itself without rounding as well, since there every
    operation has its counterpart. That answer counts where rounding explains the difference: without it, b does what a
    does, or a's inside cannot be matched.
    """
    a, b = (inside_of(open_side(text, how), case) for text, how in zip(pair.texts, pair.hows, strict=True))
    half = pair.told[1][2]
    outputs = {item.name: item.other for item in compared.outputs}
    failing = [item.other for item in compared.outputs if _fails(compared, item.name)]
    passed, failing, limit = not failing, failing or list(outputs.values()), _limit(compared)
    if b is None:
        raise UsageError(f"--bisect: the inside of {compared.b} cannot be seen", "give a model, not saved outputs")
    exact = _unrounded(pair, case) if half else None
    own = None
    if exact is not None:
        own = find(exact, b, _same_names(exact, b), failing, limit, half=True, passed=passed)
        own = replace(own, case=case.name, runs=(1, 2))
    matched = {} if a is None else match(a, b, outputs)
    if a is None or not set(matched) - {b.outputs.get(name, name) for name in outputs.values()}:
        said = f"the inside of {compared.a} cannot be matched with {compared.b}'s"
        nothing = Bisection(case.name, None, (), 0, len(b.values), tuple(b.values)[:8], (1, 1), said)
        return own or nothing
    found = replace(find(a, b, matched, failing, limit, half=half, passed=passed), case=case.name)
    if own is None or exact is None or own.first is None:
        return found if own is None or found.first is not None else own
    order = list(b.values)
    first = found.first is None or order.index(own.first.value) < order.index(found.first.value)
    if first or _explained(a, b, exact, outputs, limit) or _near(b, found, own.first):
        place = own.first.place or _place(a, matched, own.first.value)
        return replace(own, first=replace(own.first, place=place))
    return found


def _same_names(a: Inside, b: Inside) -> dict[str, str]:
    return {name: name for name in b.values if name in a.values}


def _unrounded(pair: TwoSides, case: Case) -> Inside | None:
    """Return the inside of b without rounding; None where it is not a package."""
    side = open_side(pair.texts[1], replace(pair.hows[1], precision="f32", emulate=None, chip=None))
    return inside_of(side, case) if isinstance(side, PackageSide) else None


def _explained(a: Inside, b: Inside, exact: Inside, outputs: Mapping[str, str], limit: float) -> bool:
    """Whether b without rounding gives a's outputs: no fault is left in it, such as a constant that f16 does not hold,
    and it agrees within ``limit`` or far better than b."""
    for ours, theirs in outputs.items():
        reference = a.values.get(a.outputs.get(ours, ours))
        name = b.outputs.get(theirs, theirs)
        if reference is None or name not in exact.values or name not in b.values:
            return False
        apart = _distance(reference, exact.values[name])
        far_better = apart >= _distance(reference, b.values[name]) + ABOVE_DB
        if _strays(reference, exact.values[name], apart, SHARP_DB) or not (apart >= limit or far_better):
            return False
    return True


def _near(b: Inside, found: Bisection, own: Strayed) -> bool:
    """Whether ``own`` is one of the operations without a counterpart that ``found`` may be."""
    if found.first is None or not found.first.before:
        return False
    return own.operation in {found.first.operation, *(b.values[name].operation for name in found.first.before)}


def _place(a: Inside, matched: Mapping[str, str], name: str) -> str:
    other = a.values.get(matched.get(name, ""))
    return "" if other is None else other.place


def _fails(compared: Judgement, name: str) -> bool:
    return any(text.startswith(f"{name}: ") for text in compared.verification.reasons)


def _limit(compared: Judgement) -> float:
    """Return the signal to noise under which a value strays, in dB."""
    worst = min((item.difference.snr_db for item in compared.outputs), default=np.inf)
    wild = any(item.difference.not_finite for item in compared.outputs)
    return FLOOR_DB if wild else min(STRICT_DB, max(FLOOR_DB, worst + ABOVE_DB))


def find(
    a: Inside,
    b: Inside,
    matched: Mapping[str, str],
    failing: Sequence[str],
    limit: float,
    *,
    half: bool,
    passed: bool = False,
) -> Bisection:
    """Return where ``b`` parts from ``a``; ``matched`` gives a's value for b's, ``failing`` are b's outputs that do.

    ``limit`` is the signal to noise, in dB, under which a value strays. Where the outputs ``passed``, only an operation
    counts that loses much by itself.
    """
    apart = {name: _distance(a.values[other], b.values[name]) for name, other in matched.items()}
    order = {name: index for index, name in enumerate(b.values)}
    starts = [name for name in (b.outputs.get(name, name) for name in failing) if name in b.values]

    def roots(limit: float) -> dict[str, tuple[str, ...]]:
        strays = {name: _strays(a.values[matched[name]], b.values[name], apart[name], limit) for name in matched}
        found = _roots(b, strays, starts)
        if not found:
            alone = [name for name in order if strays.get(name) and not any(map(strays.get, b.values[name].inputs))]
            found = dict.fromkeys(alone, ())
        return found

    found_at = _sharp(a, b, matched, apart, roots(max(limit, SHARP_DB)))
    if not passed:
        found_at |= roots(limit)
    ranked = sorted(found_at, key=order.__getitem__)
    found = [_described(a, b, matched, apart, name, found_at[name], half) for name in ranked]
    unmatched = tuple(name for name in b.values if name not in matched)
    none = "every value inside that has a counterpart agrees"
    if passed:
        none = "none: the outputs agree within the limits, and no operation loses much by itself"
    said = "" if found else none
    return Bisection(
        "", found[0] if found else None, tuple(found[1:]), len(matched), len(order), unmatched, (1, 1), said
    )


def _sharp(
    a: Inside,
    b: Inside,
    matched: Mapping[str, str],
    apart: Mapping[str, float],
    roots: Mapping[str, tuple[str, ...]],
) -> dict[str, tuple[str, ...]]:
    """Return those of ``roots`` that lose ``DROP_DB`` or more in one operation, or that are not finite on one side."""
    found = {}
    for name, between in roots.items():
        before, _ = _nearest(b, matched, name)
        wild = (a.values[matched[name]].finite, b.values[name].finite) == (True, False)
        if wild or min((apart[item] for item in before), default=np.inf) - apart[name] >= DROP_DB:
            found[name] = between
    return found


def _roots(b: Inside, strays: Mapping[str, bool], starts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the values that stray while what they are computed from does not, with the unmatched ones in between."""
    found: dict[str, tuple[str, ...]] = {}
    seen, stack = set(starts), list(starts)
    while stack:
        name = stack.pop()
        before, between = _nearest(b, strays, name)
        further = [item for item in before if strays[item]]
        if strays.get(name) and not further:
            found[name] = between
        for item in further:
            if item not in seen:
                seen.add(item)
                stack.append(item)
    return found


def _nearest(b: Inside, strays: Mapping[str, object], name: str) -> tuple[list[str], tuple[str, ...]]:
    """Return the matched values that ``name`` is computed from, and the unmatched ones on the way."""
    matched: list[str] = []
    between: list[str] = []
    seen: set[str] = set()
    stack = list(b.values[name].inputs)
    while stack:
        item = stack.pop()
        if item in seen or item not in b.values:
            continue
        seen.add(item)
        if item in strays:
            matched.append(item)
        else:
            if b.values[item].type != "cast":  # a cast only hands on what it is given
                between.append(item)
            stack.extend(b.values[item].inputs)
    return matched, tuple(between)


def _distance(one: InnerValue, other: InnerValue) -> float:
    """Return the signal to noise of ``other`` beside ``one``, in dB, over elements that are finite in both."""
    pair = aligned(one, other)
    if pair is None:
        return np.inf if one.finite == other.finite else -np.inf
    r, a = pair
    both = np.isfinite(r) & np.isfinite(a)
    return snr_db(r[both], a[both]) if both.any() else np.inf


def _strays(one: InnerValue, other: InnerValue, apart: float, limit: float) -> bool:
    if (one.nan, one.inf) != (other.nan, other.inf):
        return True
    if other.kind in "iub" and one.kind in "iub":
        pair = aligned(one, other)
        return pair is not None and bool(np.mean(pair[0] == pair[1]) < 0.99)
    # What is about zero on both sides has no signal to be compared with.
    if max(one.largest, other.largest) < 1e-30:
        return False
    return apart < limit


def _described(
    a: Inside,
    b: Inside,
    matched: Mapping[str, str],
    apart: Mapping[str, float],
    name: str,
    before: tuple[str, ...],
    half: bool,
) -> Strayed:
    value, reference = b.values[name], a.values[matched[name]]
    maker = value
    # A cast makes f16 of what an operation gave in f32: that operation is the one to look at.
    while maker.type == "cast" and len(maker.inputs) == 1 and maker.inputs[0] in b.values:
        maker = b.values[maker.inputs[0]]
    operands = [b.values[item] for item in value.inputs if item in b.values]
    given = [a.values[matched[item.name]] for item in operands if item.name in matched]
    ranges = tuple(OperandRange(item.name, item.low, item.high, _range(a, matched, item.name)) for item in operands)
    told = why(replace(value, type=maker.type, constants=maker.constants), reference, operands, given, half=half)
    strays = value.nan + value.inf
    place = value.place or reference.place
    return Strayed(maker.operation, maker.type, name, apart[name], strays, ranges, told, place, before)


def _range(a: Inside, matched: Mapping[str, str], name: str) -> tuple[float, float] | None:
    other = a.values.get(matched.get(name, ""))
    return None if other is None else (other.low, other.high)
