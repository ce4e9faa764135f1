"""The first NaN or infinity inside one model, on given inputs or on inputs that are tried to provoke one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.core.convert.capture.cases import Case
from tlkit.core.judge.inner import InnerValue, Inside
from tlkit.core.judge.inside import inside_of
from tlkit.core.judge.matching import canonical
from tlkit.core.judge.pair import TwoSides
from tlkit.core.judge.reasons import why
from tlkit.core.judge.side import HowToOpen
from tlkit.errors import UsageError
from tlkit.ports.parse import parse_ports

SCALES = (1.0, 10.0, 100.0, 1000.0, 10000.0)
"""What the values of floating inputs are multiplied by, one after another."""
_CHOSEN = ("select", "fill", "full", "constant", "full_like", "zeros_like", "expand")
"""Operations that may write a given infinity, as masks do."""


@dataclass(frozen=True, slots=True)
class FirstNan:
    """What was looked for and found: ``operation`` is empty where every value stayed finite on all inputs ``tried``.

    ``case`` says on which input; ``nan`` and ``infinite`` count elements; ``operands`` are (name, lowest, highest);
    ``emulated`` says what that rests on where a unit's arithmetic was emulated.
    """

    model: str
    tried: tuple[str, ...]
    case: str = ""
    operation: str = ""
    type: str = ""
    nan: int = 0
    infinite: int = 0
    operands: tuple[tuple[str, float, float], ...] = ()
    why: str = ""
    place: str = ""
    emulated: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.operation


def find_nan(
    model: str | os.PathLike[str] | Any,
    *,
    inputs: Sequence[str] = (),
    shapes: Sequence[str] = (),
    ports: Sequence[str] = (),
    images: Sequence[str] = (),
    samples: str | os.PathLike[str] | None = None,
    seed: int = 0,
    precision: str = "f16",
    function: str | None = None,
    trust: bool = False,
    emulate: str | None = None,
    unit: str = "cpu",
    chip: str | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> FirstNan:
    """Run ``model`` operation by operation and return the first that makes a NaN or an infinity of finite operands.

    Without ``inputs`` or ``samples`` a search tries to provoke one: seeded values, the same ten to ten thousand times
    as large, zeros, and equal values; of integers and pixels the lowest and the highest. It stops at the first find.
    Infinities that are written on purpose (a mask's) do not count, a NaN always does. ``emulate``: by what was
    published of a unit's arithmetic.
    """
    how = HowToOpen(precision, "eager", unit, function, trust, emulate, chip)
    pair = TwoSides((model, model), (how, how))
    folder = None if samples is None else Path(samples)
    first = pair.cases(parse_ports(ports, images), inputs, shapes, folder, 1, seed, note)
    side = pair.side(0)
    cases = iter(first) if inputs or samples else _provoking(first[0])
    tried = []
    for case in cases:
        tried.append(case.name)
        inside = inside_of(side, case)
        if inside is None:
            raise UsageError(f"{side.text}: its inside cannot be seen", "name a package, an ONNX file or a source")
        found = _first(inside)
        if found is not None:
            told = _told(side.text, tuple(tried), case, inside, found, half=side.half)
            return replace(told, emulated=side.rests_on)
    return FirstNan(side.text, tuple(tried), emulated=side.rests_on)


def _provoking(case: Case) -> Iterator[Case]:
    """Yield inputs that are more and more likely to leave the finite numbers, the plain one first."""
    for scale in SCALES:
        yield _changed(case, f"{case.name}, {scale:g} times as large", lambda value, scale=scale: value * scale)
    yield _changed(case, "zeros", np.zeros_like)
    yield _changed(case, "equal values", np.ones_like)
    yield _changed(case, "the lowest values", lambda value: np.full_like(value, value.min()))
    yield _changed(case, "the highest values", lambda value: np.full_like(value, value.max()))


def _changed(case: Case, name: str, change: Callable[..., Any]) -> Case:
    """Return ``case`` with its floating inputs changed; integers and pixels keep to their range."""
    values = tuple(
        change(value).astype(value.dtype)
        if isinstance(value, np.ndarray) and (value.dtype.kind == "f" or "times" not in name)
        else value
        for value in case.values
    )
    return replace(case, name=name, values=values)


def _first(inside: Inside) -> InnerValue | None:
    for value in inside.values.values():
        if value.finite:
            continue
        operands = [inside.values[name] for name in value.inputs if name in inside.values]
        from_nan = any(item.nan for item in operands)
        from_infinity = any(item.inf for item in operands)
        masks = canonical(value.type) in _CHOSEN or any(item.infinite for item in value.constants)
        if value.nan and not from_nan:
            return value
        if value.inf and not (from_nan or from_infinity or masks):
            return value
    return None


def _told(text: str, tried: tuple[str, ...], case: Case, inside: Inside, found: InnerValue, *, half: bool) -> FirstNan:
    operands = [inside.values[name] for name in found.inputs if name in inside.values]
    maker = found
    while maker.type == "cast" and len(maker.inputs) == 1 and maker.inputs[0] in inside.values:
        maker = inside.values[maker.inputs[0]]
    # Without a reference, what a cast was given is what f16 did not hold.
    reference = maker if maker is not found else None
    told = why(replace(found, type=maker.type), reference, operands, [], half=half)
    ranges = tuple((item.name, item.low, item.high) for item in operands)
    counts = (found.nan, found.inf)
    return FirstNan(text, tried, case.name, maker.operation, maker.type, *counts, ranges, told, found.place)
