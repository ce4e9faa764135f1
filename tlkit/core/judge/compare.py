"""``tlkit.compare``: two runnable models on the same inputs, output by output, and a verdict.

One side runs on all inputs and is let go before the other is loaded, so that only one model's weights are expanded at
a time. Where they part inside is :mod:`bisect`'s question.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tlkit.core.compare.difference import TOLERANCES, Tolerance, cosine
from tlkit.core.compare.figures import METRICS, OutputFigures, Tally
from tlkit.core.compare.models import Trial, Verification
from tlkit.core.compare.models import compare as compare_trials
from tlkit.core.judge.side import HowToOpen, Side, paired_inputs, side_error
from tlkit.core.judge.sides import open_side
from tlkit.core.run.run import read_saved
from tlkit.errors import TlkitError, UsageError
from tlkit.host.goals import files_named
from tlkit.host.staging import prepare, staged
from tlkit.mil.units.profiles import AUTO, DEFAULT, profile_named, rules
from tlkit.ports.parse import parse_ports
from tlkit.ports.shapes import shape_text

if TYPE_CHECKING:
    from tlkit.core.convert.capture.cases import Case
    from tlkit.core.judge.bisect import Bisection
    from tlkit.types import TensorSpec

Array = NDArray[Any]
Outputs = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Agreement:
    """When two models count as equal; all None: by the precision of the two (``convert``'s limits for f16 or f32)."""

    rtol: float | None = None
    atol: float | None = None
    min_cosine: float | None = None
    min_snr: float | None = None
    min_top1: float | None = None

    def tolerance(self, half: bool) -> Tolerance:
        """Return the limits of numbers as a tolerance; ``half``: one of the two computes in f16."""
        if all(value is None for value in (self.rtol, self.atol, self.min_cosine, self.min_snr, self.min_top1)):
            return TOLERANCES["f16" if half else "f32"]
        least = -1.0 if self.min_cosine is None else self.min_cosine
        return Tolerance(least, snr_db=self.min_snr, atol=self.atol, rtol=self.rtol)

    def missed(self, figures: Sequence[OutputFigures]) -> tuple[str, ...]:
        """Return a phrase for each output whose top-1 agreement is below ``min_top1``; UsageError where none has
        classes."""
        if self.min_top1 is None:
            return ()
        shares = {item.name: item.top1 for item in figures if item.top1 is not None}
        if figures and not shares:
            raise UsageError("--min-top1: no output is a row of scores of classes", "use --min-snr or --min-cosine")
        return tuple(
            f"{name}: top-1 agreement {share:.2%}, under {self.min_top1:.2%}"
            for name, share in shares.items()
            if share < self.min_top1
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was compared and how far it is apart. ``told`` says how each side ran, ``limits`` what was asked for.

    ``worst`` is the input with the worst output. ``bisection`` is there where it was asked for.
    """

    a: str
    b: str
    told: tuple[str, str]
    verification: Verification
    outputs: tuple[OutputFigures, ...]
    worst: str
    limits: str
    notes: tuple[str, ...] = ()
    bisection: Bisection | None = None

    @property
    def ok(self) -> bool:
        """Whether the two agree within the limits."""
        return self.verification.ok


def compare(
    a: str | os.PathLike[str] | Any,
    b: str | os.PathLike[str] | Any | None = None,
    *,
    inputs: Sequence[str] = (),
    shapes: Sequence[str] = (),
    ports: Sequence[str] = (),
    images: Sequence[str] = (),
    samples: str | os.PathLike[str] | None = None,
    count: int | None = None,
    seed: int = 0,
    precision: str = "f16",
    engine: str = "eager",
    emulate: str | None = None,
    chip: str | None = None,
    unit: str = "cpu",
    function: str | None = None,
    metrics: Sequence[str] = (),
    rtol: float | None = None,
    atol: float | None = None,
    min_cosine: float | None = None,
    min_snr: float | None = None,
    min_top1: float | None = None,
    bisect: bool = False,
    save_worst: str | os.PathLike[str] | None = None,
    force: bool = False,
    trust: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> Judgement:
    """Run ``a``, the reference, and ``b`` on the same inputs and compare their outputs.

    Each is a Core ML model (package, .mlmodel, compiled), an ONNX file (run by onnxruntime), a ``.npz`` of saved
    outputs, or a source as ``convert`` takes them: ``file.py:callable``, TorchScript, ``.pt2``, a module.
    ``precision`` and ``engine`` are one value for both or two, ``"f32,f16"``; with two, ``b`` may be left out, and is
    ``a`` again. Inputs are ``count`` seeded ones (3, or 1 with ``bisect``), ``inputs`` (texts
    ``NAME=VALUE``) or the folder ``samples``;
    ``emulate`` is one profile of a unit's arithmetic or two, ``"mil,ane"``, on ``chip`` (:func:`~tlkit.load_model`).
    ``shapes`` (``NAME=DIMS``) fixes flexible ports, ``ports`` (``NAME=DIMS:TYPE``) and ``images`` say what two sources
    take that have no ports. Inputs and outputs are matched by name, and else by shape, which ``notes`` say.

    Without a limit those of ``convert`` hold, by precision. ``metrics`` are figures to compute besides (``iou``).
    ``bisect`` looks for the first operation that strays, on the worst input. ``save_worst`` is a .npz to write: the
    worst input by name, and both sides' outputs as ``a.NAME`` and ``b.NAME``.

    Raises UsageError, LoadError, UnavailableError or ExecutionError.
    """
    from tlkit.core.judge.inputs import check_folder  # late: it imports torch

    _check_metrics(metrics)
    check_folder(Path(samples) if samples is not None else None)
    hows = _hows(precision, engine, emulate or DEFAULT, HowToOpen(unit=unit, function=function, trust=trust, chip=chip))
    if b is None and hows[0] == hows[1]:
        raise UsageError(
            "nothing to compare with", "name a second model, or give --precision f32,f16 or --emulate mil,ane"
        )
    texts = (a, a if b is None else b)
    goal = None if save_worst is None else Path(save_worst)
    if goal is not None:
        if goal.suffix != ".npz":
            raise UsageError(f"--save-worst {goal}: the worst input goes into a .npz", "name it .npz")
        prepare(goal, force=force, inputs=tuple(files_named(a, b, *inputs)))
    limits = Agreement(rtol, atol, min_cosine, min_snr, min_top1)
    pair = TwoSides(texts, hows)
    cases = pair.cases(parse_ports(ports, images), inputs, shapes, samples, count or (1 if bisect else 3), seed, note)
    found = _judged(pair, cases, limits, "iou" in metrics)
    if goal is not None:
        with staged(goal, read_saved, force=force) as path:
            _save(path, _case(cases, found.worst), pair)
    if not bisect:
        return found
    from tlkit.core.judge.bisect import bisect_sides  # late: it imports torch

    bisection = bisect_sides(pair, _case(cases, found.worst), found)
    return replace(found, bisection=_by_rules(bisection, hows[1]))


def _by_rules(found: Bisection, how: HowToOpen) -> Bisection:
    """Say which rules of an emulated unit are about the operation that strays."""
    if found.first is None or how.emulate is None or how.emulate == AUTO:
        return found
    about = [rules()[name] for name in profile_named(how.emulate).rules if found.first.type in rules()[name].ops]
    told = "; ".join(f"{rule.text} ({rule.row}, emulated)" for rule in about)
    return replace(found, first=replace(found.first, why=f"{told}; {found.first.why}")) if told else found


def across(a: str | os.PathLike[str] | Any, profiles: Sequence[str], **settings: Any) -> tuple[Judgement, ...]:
    """Compare ``a`` by the first of ``profiles`` with itself by each other: how far units disagree.

    ``settings`` are those of :func:`compare`. Raises UsageError for fewer than two profiles.
    """
    if len(profiles) < 2:
        raise UsageError(f"--emulate {','.join(profiles)}: one profile is not a comparison", "such as mil,ane,cpu,gpu")
    return tuple(compare(a, emulate=f"{profiles[0]},{other}", **settings) for other in profiles[1:])


class TwoSides:
    """The two sides, opened when they are needed and let go when they have run; and what they gave."""

    def __init__(self, texts: tuple[Any, Any], hows: tuple[HowToOpen, HowToOpen]) -> None:
        self.texts, self.hows = texts, hows
        self._open: dict[int, Side] = {}
        self.outputs: dict[int, list[Outputs]] = {}
        self.told: dict[int, tuple[str, str, bool]] = {}
        self.rests_on: dict[int, str] = {}
        self._names: list[str] = []

    def side(self, index: int) -> Side:
        """Return side 0 or 1, opening it if it is not."""
        if index not in self._open:
            self._open[index] = open_side(self.texts[index], self.hows[index])
        side = self._open[index]
        self.told[index] = (side.text, side.told, side.half)
        return side

    def cases(
        self,
        ports: tuple[TensorSpec, ...],
        inputs: Sequence[str],
        shapes: Sequence[str],
        samples: str | os.PathLike[str] | None,
        count: int,
        seed: int,
        note: Callable[[str], None],
    ) -> tuple[Case, ...]:
        """Return the inputs to run on, for the ports of the first side that has some (``ports`` before both)."""
        from tlkit.core.judge.inputs import given_cases, source_ports  # late: it imports torch

        found = ports or self.side(0).inputs or self.side(1).inputs or self.side(0).ports() or self.side(1).ports()
        found = source_ports(found or (), self.side(0).text)
        sides = [self.side(index) for index in (0, 1)]
        folder = None if samples is None else Path(samples)
        cases = given_cases(
            found, sides, inputs=inputs, shapes=shapes, samples=folder, count=count, seed=seed, note=note
        )
        for side in sides:
            if side.inputs is not None:
                paired_inputs(cases[0], side.inputs, side.text)  # before either is loaded
        return cases

    def run(self, cases: Sequence[Case]) -> tuple[list[Outputs], list[Outputs]]:
        """Run each side on all cases; the first is let go before the second is loaded."""
        self._names = [case.name for case in cases]
        # A source is loaded once it is open: it runs first, and goes.
        order = sorted((0, 1), key=lambda index: self.side(index).inputs is not None)
        for index in order:
            side = self.side(index)
            try:
                self.outputs[index] = [side.run(case) for case in cases]
                self.rests_on[index] = side.rests_on
            except TlkitError as error:
                raise side_error(side, error) from error
            finally:
                del side
                self._open.pop(index, None)
                gc.collect()  # a lowered graph refers to itself: its expanded weights would stay beside the other's
        return self.outputs[0], self.outputs[1]

    def place(self, case: Case) -> int:
        """Return the number of a case that has run."""
        return self._names.index(case.name)


def _hows(precision: str, engine: str, emulate: str, both: HowToOpen) -> tuple[HowToOpen, HowToOpen]:
    def two(text: str, flag: str) -> tuple[str, str]:
        parts = [part.strip() for part in text.split(",")]
        if len(parts) > 2 or not all(parts):
            raise UsageError(f"{flag} {text}: one for both sides, or two with a comma", f"such as {flag} f32,f16")
        return parts[0], parts[-1]

    pairs = zip(two(precision, "--precision"), two(engine, "--engine"), two(emulate, "--emulate"), strict=True)
    first, second = (
        replace(both, precision=exact, engine=how, emulate=None if name == DEFAULT else name)
        for exact, how, name in pairs
    )
    return first, second


def _check_metrics(metrics: Sequence[str]) -> None:
    unknown = next((name for name in metrics if name not in METRICS), None)
    if unknown is not None:
        raise UsageError(f"--metric {unknown}: unknown", f"it is one of {', '.join(METRICS)}")


def _judged(pair: TwoSides, cases: Sequence[Case], limits: Agreement, with_iou: bool) -> Judgement:
    ours, theirs = pair.run(cases)
    matched, notes = match_outputs(ours[0], theirs[0], pair.told[0][0], pair.told[1][0])
    half = pair.told[0][2] or pair.told[1][2]
    tolerance = limits.tolerance(half)
    tally = Tally(matched, with_iou)
    trials = [
        Trial(case.name, partial(_chosen, one, matched), partial(_other, one, other, matched))
        for case, one, other in zip(cases, ours, theirs, strict=True)
    ]
    found = compare_trials(trials, tolerance, each=tally)
    figures = tally.figures()
    missed = limits.missed(figures)
    if missed:
        found = replace(found, passed=False, reasons=(*found.reasons, *missed))
    wild = [
        f"{item.name}: {item.not_finite} NaN or infinite in the reference itself" for item in figures if item.not_finite
    ]
    names = (pair.told[0], pair.told[1])
    return Judgement(
        names[0][0],
        names[1][0],
        (names[0][1], names[1][1]),
        found,
        figures,
        tally.worst_case() or cases[0].name,
        _limits_text(limits, tolerance, half),
        (*notes, *filter(None, (pair.rests_on[0], pair.rests_on[1])), *wild, *found.notes),
    )


def _limits_text(limits: Agreement, tolerance: Tolerance, half: bool) -> str:
    names = {"cosine": tolerance.cosine if tolerance.cosine > -1 else None, "relative error": tolerance.relative}
    names |= {"SNR": tolerance.snr_db, "atol": tolerance.atol, "rtol": tolerance.rtol, "top-1": limits.min_top1}
    told = ", ".join(f"{name} {value:g}" for name, value in names.items() if value is not None)
    asked = limits != Agreement()
    return told if asked else f"{told} (what convert asks of {'f16' if half else 'f32'})"


def match_outputs(ours: Outputs, theirs: Outputs, a: str, b: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the outputs that belong together, by a's names, and notes on those not matched by name.

    By name first, then by shape where one of each is left, then by values that are close, then by order. UsageError,
    with both lists, where none match.
    """
    ours = {name: value for name, value in ours.items() if not isinstance(value, str | int)}
    theirs = {name: value for name, value in theirs.items() if not isinstance(value, str | int)}
    matched = {name: name for name in ours if name in theirs and _size(ours[name]) == _size(theirs[name])}
    left = [name for name in ours if name not in matched]
    rest = [name for name in theirs if name not in matched.values()]
    notes = []
    for name in list(left):
        alike = [other for other in rest if _size(theirs[other]) == _size(ours[name])]
        same = [other for other in left if _size(ours[other]) == _size(ours[name])]
        # As many alike must be left on both sides: else nothing says which have no counterpart.
        if alike and len(alike) == len(same):
            matched[name], how = _nearest(ours[name], {other: theirs[other] for other in alike})
            left.remove(name)
            rest.remove(matched[name])
            notes.append(f"output {name} of a is compared with {matched[name]} of b, matched by its shape{how}")
    if not matched:
        lists = [", ".join(f"{name} {_shape_text(value)}" for name, value in side.items()) for side in (ours, theirs)]
        raise UsageError(f"no outputs match: {a} has {lists[0]}; {b} has {lists[1]}", "compare models of one kind")
    notes += [f"output {name} of a has no counterpart in b" for name in left]
    notes += [f"output {name} of b has no counterpart in a" for name in rest]
    return {name: matched[name] for name in ours if name in matched}, tuple(notes)


def _nearest(one: Any, others: Mapping[str, Any]) -> tuple[str, str]:
    """Return which of several outputs of one size ``one`` is, and how that was told: by its values, else the first."""
    if len(others) == 1:
        return next(iter(others)), ""
    reference = np.nan_to_num(_flat(one))
    ranked = sorted(others, key=lambda name: -cosine(reference, np.nan_to_num(_flat(others[name]))))
    if cosine(reference, np.nan_to_num(_flat(others[ranked[0]]))) >= _ALIKE:
        return ranked[0], " and its values"
    return next(iter(others)), " and place"


_ALIKE = 0.98  # the cosine from which two outputs are taken for one where only their shapes agree


def _flat(value: Any) -> Array:
    array = np.fromiter(value.values(), np.float64, len(value)) if isinstance(value, Mapping) else np.asarray(value)
    return np.asarray(array, np.float64).ravel()


def _size(value: Any) -> int:
    return len(value) if isinstance(value, Mapping) else int(np.asarray(value).size)


def _shape_text(value: Any) -> str:
    return f"{len(value)} classes" if isinstance(value, Mapping) else shape_text(np.shape(value)) or "scalar"


def _chosen(outputs: Outputs, matched: Mapping[str, str]) -> Outputs:
    return {name: outputs[name] for name in matched}


def _other(ours: Outputs, theirs: Outputs, matched: Mapping[str, str]) -> Outputs:
    """Return b's outputs under a's names, in a's shapes where only those differ."""
    return {name: _reshaped(ours[name], theirs[other]) for name, other in matched.items()}


def _reshaped(one: Any, other: Any) -> Any:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return other
    if isinstance(one, Mapping):
        return np.ravel(np.asarray(other))
    array = np.fromiter(other.values(), np.float64, len(other)) if isinstance(other, Mapping) else np.asarray(other)
    return array.reshape(np.shape(one)) if array.size == np.size(one) else array


def _case(cases: Sequence[Case], name: str) -> Case:
    return next((case for case in cases if case.name == name), cases[0])


def _save(path: Path, case: Case, pair: TwoSides) -> None:
    """Write a case's inputs and both sides' outputs."""
    arrays: dict[str, Array] = {
        port.name: value[None] if port.image is not None and value.ndim == 3 else value
        for port, value in zip(case.ports, case.values, strict=True)
        if isinstance(value, np.ndarray)
    }
    for letter, index in (("a", 0), ("b", 1)):
        outputs = pair.outputs[index][pair.place(case)]
        for name, value in outputs.items():
            if isinstance(value, Mapping):
                value = np.fromiter(value.values(), np.float64, len(value))
            if not isinstance(value, str | int):
                arrays[f"{letter}.{name}"] = np.asarray(value)
    np.savez(path, allow_pickle=False, **arrays)
