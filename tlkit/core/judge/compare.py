"""``tlkit.compare``: two runnable models on the same inputs, output by output, and a verdict.

One side runs on all inputs and is let go before the other is loaded, so that only one model's weights are expanded at
a time. Where they part inside is :mod:`bisect`'s question.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tlkit.core.compare.difference import TOLERANCES, Tolerance
from tlkit.core.compare.figures import METRICS, OutputFigures, Tally
from tlkit.core.compare.models import Trial, Verification
from tlkit.core.compare.models import compare as compare_trials
from tlkit.core.judge.outputs import chosen, match_outputs, renamed
from tlkit.core.judge.pair import TwoSides, two_ways
from tlkit.core.judge.side import HowToOpen
from tlkit.core.run.run import read_saved
from tlkit.errors import UsageError
from tlkit.host.goals import files_named
from tlkit.host.staging import prepare, staged
from tlkit.mil.units.profiles import AUTO, DEFAULT, profile_named, rules
from tlkit.ports.parse import parse_ports

if TYPE_CHECKING:
    from tlkit.core.convert.capture.cases import Case
    from tlkit.core.judge.bisect import Bisection

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
    hows = two_ways(
        precision, engine, emulate or DEFAULT, HowToOpen(unit=unit, function=function, trust=trust, chip=chip)
    )
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
        Trial(case.name, partial(chosen, one, matched), partial(renamed, one, other, matched))
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
