"""``tlkit run --labels``: how often a classifier of any format is right, by class, and where it is most wrong."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.core.accuracy import figures
from tlkit.core.accuracy.answers import Answer, Answers
from tlkit.core.accuracy.figures import CalibrationFigures, ClassFigures, Confusion
from tlkit.core.accuracy.labelled import Labelled, labelled_samples
from tlkit.core.judge.side import HowToOpen, Side, side_error
from tlkit.core.judge.sides import open_side
from tlkit.core.model.engines import NOT_FAITHFUL
from tlkit.core.run.folder import read_ahead
from tlkit.errors import TlkitError, UsageError
from tlkit.ports.labels import class_labels
from tlkit.ports.parse import parse_ports
from tlkit.words import Told

if TYPE_CHECKING:
    from tlkit.core.convert.capture.cases import Case
    from tlkit.types import TensorSpec

WORST = 50
"""Mistakes that a result lists, the worst first."""
_FEW = 5


@dataclass(frozen=True, slots=True)
class Mistake:
    """A sample that was not told right: its label, the answer, and the scores of both (None: the model gives none)."""

    sample: str
    label: str
    answer: str
    score: float | None
    label_score: float | None


@dataclass(frozen=True, slots=True, repr=False)
class Accuracy(Told):
    """How often ``model`` is right on the samples of ``labels``. Shares are of 1.

    ``right`` samples have their class as the answer; ``top1`` is their share, with its 95 % ``interval``; ``top5`` the
    share whose class is among the five likeliest (None: no scores, or no more than five classes). ``by_class`` has the
    classes that occur, ``confusions`` every pair of class and answer that does, ``worst`` the mistakes whose class the
    model thought least likely beside its answer. ``not_finite`` samples got scores that are NaN, and count as wrong.
    ``ran`` says how the model ran, ``output`` which output was read.
    """

    model: str
    labels: str
    ran: str
    output: str
    classes: int
    samples: int
    right: int
    top1: float
    interval: tuple[float, float]
    top5: float | None
    not_finite: int
    by_class: tuple[ClassFigures, ...]
    confusions: tuple[Confusion, ...]
    worst: tuple[Mistake, ...]
    calibration: CalibrationFigures | None
    seconds: float
    min_top1: float | None = None
    notes: tuple[str, ...] = ()

    def facts(self) -> list[tuple[str, object]]:
        """See :class:`~tlkit.words.Told`: the shares."""
        top5 = "" if self.top5 is None else f"{self.top5:.2%}"
        return [("model", self.model), ("samples", self.samples), ("top-1", f"{self.top1:.2%}"), ("top-5", top5)]

    @property
    def ok(self) -> bool:
        """Whether it is right as often as was asked for."""
        return self.min_top1 is None or self.top1 >= self.min_top1


def accuracy(
    model: str | os.PathLike[str] | Any,
    labels: str | os.PathLike[str],
    *,
    inputs: Sequence[str] = (),
    ports: Sequence[str] = (),
    images: Sequence[str] = (),
    classes: str | Path | Sequence[str] | None = None,
    calibration: bool = False,
    min_top1: float | None = None,
    precision: str = "f16",
    engine: str = "auto",
    unit: str = "cpu",
    function: str | None = None,
    strict_mil: bool = False,
    emulate: str | None = None,
    chip: str | None = None,
    stage: int | str | None = None,
    custom: Mapping[str, Any] | None = None,
    cache: bool = True,
    trust: bool = False,
    note: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Accuracy:
    """Run ``model`` on every sample of ``labels`` and compare its answers with their labels.

    ``model`` is anything that :func:`~tlkit.compare` takes but saved outputs; ``labels`` a folder with a folder for
    each class, or a table (:func:`~tlkit.core.accuracy.labelled.labelled_samples`). A sample is the one input that
    ``inputs`` (texts ``NAME=VALUE``, the same for all) leaves open, or an archive that holds all of them by name;
    ``ports`` and ``images`` say what a PyTorch source takes. A model that names no classes has numbers, from 0;
    ``classes`` names them, in the order of the scores. The other options say how a package is run
    (:func:`~tlkit.load_model`); ``trust`` opens a ``.pt`` whose code could do more than compute.

    Raises UsageError for a label that is not among the model's classes, before more than one sample is run, and for a
    model that is no classifier.
    """
    if min_top1 is not None and not 0 <= min_top1 <= 1:
        raise UsageError(f"--min-top1 {min_top1:g}: not a share from 0 to 1", "write 0.95")
    names = class_labels(classes)
    if not Path(labels).exists():
        labelled_samples(labels)  # says so before the model is opened
    how = HowToOpen(precision, engine, unit, function, trust, emulate, chip, strict_mil, stage, cache, custom or {})
    side = open_side(model, how)
    if precision == "bf16":
        note(NOT_FAITHFUL)
    from tlkit.core.judge.inputs import source_ports  # late: it imports torch

    own = parse_ports(ports, images) or side.inputs or side.ports()
    own = source_ports(own, side.text)
    samples = labelled_samples(labels, [port.name for port in own])
    if samples.passed_over:
        note(f"{samples.passed_over} files in {samples.where} are neither images nor arrays, and were passed over")
    tally = _Tally(Answers(names, _named(side)), samples.where, calibration)
    start = perf_counter()
    read = _Reading(own, side, tuple(inputs))
    for place, (sample, case) in enumerate(read_ahead(samples.items, read)):
        tally.add(sample, _run(side, sample, case), samples.items)
        progress(place + 1, len(samples.items))
    found = tally.result(side, perf_counter() - start)
    return replace(found, min_top1=min_top1)


@dataclass(frozen=True, slots=True)
class LabelledCases:
    """Cases of labelled samples, the class's number of each, and the scores that the model gave for the first."""

    cases: tuple[Case, ...]
    truth: tuple[int, ...]
    scores: np.ndarray[Any, Any]


def labelled_cases(model: str | os.PathLike[str], labels: str | os.PathLike[str], most: int) -> LabelledCases:
    """Return up to ``most`` of the samples of ``labels``, evenly taken, as cases of a package.

    Raises what :func:`accuracy` raises for a label that is not the model's, and UsageError for one without scores.
    """
    if not Path(labels).exists():
        labelled_samples(labels)
    side = open_side(model, HowToOpen(precision="f32", engine="eager"))
    own = side.inputs or ()
    samples = labelled_samples(labels, [port.name for port in own])
    answers = Answers((), _named(side))
    read = _Reading(own, side, ())
    # As many as are wanted, spread over all: a folder is in the order of its classes.
    places = sorted({place * len(samples.items) // most for place in range(most)})
    items = samples.items if len(samples.items) <= most else tuple(samples.items[place] for place in places)
    cases = tuple(map(read, items))
    answer = answers.read(_run(side, items[0], cases[0]))
    if answer.scores is None:
        raise UsageError("--labels: the model gives an answer and no scores", "judge it by --min-snr")
    _check_labels(answers, samples.items, samples.where, nameable=False)
    numbers = [answers.number(item.label) for item in items]
    return LabelledCases(cases, tuple(number for number in numbers if number is not None), answer.scores)


def _named(side: Side) -> tuple[str, ...]:
    """Return the classes that a model's description names."""
    info = getattr(getattr(side, "model", None), "info", None)
    return tuple(map(str, info.labels)) if info is not None else ()


def _run(side: Side, sample: Labelled, case: Case) -> Mapping[str, Any]:
    try:
        return side.run(case)
    except TlkitError as error:
        said = side_error(side, error)
        raise type(said)(f"{sample.name}: {said.message}", said.hint) from error


@dataclass(frozen=True)
class _Reading:
    """Makes the case of a sample."""

    ports: tuple[TensorSpec, ...]
    side: Side
    fixed: tuple[str, ...]

    def __call__(self, sample: Labelled) -> Case:
        from tlkit.core.judge.inputs import given_cases  # late: it imports torch

        texts = [*self.fixed, *self._texts(sample)]
        try:
            (case,) = given_cases(self.ports, [self.side], inputs=texts, note=_refuse_random)
        except TlkitError as error:
            raise type(error)(f"{sample.name}: {error.message}", error.hint) from error
        return case

    def _texts(self, sample: Labelled) -> list[str]:
        if sample.values is not None:
            return [f"{name}={value}" for name, value in sample.values.items()]
        assert sample.file is not None
        given = {text.partition("=")[0] for text in self.fixed}
        left = [port.name for port in self.ports if port.name not in given and not port.optional]
        # Absolute: no relative path may read as a number or a list.
        file = sample.file.absolute()
        return [f"{left[0]}={file}"] if len(left) == 1 else [str(file)]


def _refuse_random(text: str) -> None:
    raise UsageError(f"not every input has a value ({text.partition(': ')[2] or text})", "give the others with --input")


@dataclass
class _Tally:
    """What the samples showed so far."""

    answers: Answers
    where: str
    calibrated: bool
    truth: list[int] = field(default_factory=list)
    given: list[int] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    scores: list[Any] = field(default_factory=list)
    mistakes: list[tuple[float, Mistake]] = field(default_factory=list)
    wild: int = 0

    def add(self, sample: Labelled, outputs: Mapping[str, Any], samples: Sequence[Labelled]) -> None:
        """Add one sample's outputs; with the first the classes are known, and every label is looked up."""
        first = not self.truth
        answer = self.answers.read(outputs)
        if first:
            _check_labels(self.answers, samples, self.where)
        label = self.answers.number(sample.label)
        assert label is not None
        self.truth.append(label)
        self.given.append(answer.number)
        if answer.scores is not None:
            self.wild += bool(np.isnan(answer.scores).any())
            self.ranks.append(figures.rank(answer.scores, label))
            if self.calibrated:
                self.scores.append(np.asarray(answer.scores, np.float32))
        if answer.number != label:
            self._mistake(sample, answer, label)

    def _mistake(self, sample: Labelled, answer: Answer, label: int) -> None:
        said = self.answers.names[answer.number] if answer.number >= 0 else "none"
        if answer.scores is None:
            self.mistakes.append((0.0, Mistake(sample.name, sample.label, said, None, None)))
            return
        best = float(answer.scores[answer.number]) if answer.number >= 0 else math.nan
        mine = float(answer.scores[label])
        lead = best - mine
        found = Mistake(sample.name, sample.label, said, best, mine)
        self.mistakes.append((math.inf if math.isnan(lead) else lead, found))
        if len(self.mistakes) > 20 * WORST:  # no more are kept than are told
            self.mistakes = sorted(self.mistakes, key=lambda item: -item[0])[:WORST]

    def result(self, side: Side, seconds: float) -> Accuracy:
        """Return the figures of all samples."""
        names, count = self.answers.names, len(self.truth)
        right = sum(one == other for one, other in zip(self.truth, self.given, strict=True))
        found = figures.matrix(self.truth, self.given, len(names))
        support = np.bincount(self.truth, minlength=len(names)).tolist()
        ranked = self.ranks and len(names) > _FEW
        notes = list(self.answers.notes)
        if self.wild:
            notes.append(f"{self.wild} samples got scores that are NaN, and count as wrong")
        notes += [side.rests_on] if side.rests_on else []
        return Accuracy(
            side.text, self.where, side.told, self.answers.output, len(names), count, right, right / count,
            figures.interval(right, count),
            sum(place < _FEW for place in self.ranks) / count if ranked else None,
            self.wild,
            figures.by_class(found, names, support),
            figures.confusions(found, names),
            tuple(item for _, item in sorted(self.mistakes, key=lambda item: -item[0])[:WORST]),
            self._calibration(notes), seconds, notes=tuple(notes),
        )  # fmt: skip

    def _calibration(self, notes: list[str]) -> CalibrationFigures | None:
        if not self.calibrated:
            return None
        if not self.scores:
            raise UsageError("--calibration: the model gives an answer and no scores", "leave --calibration out")
        scores = np.stack(self.scores)
        sound = np.isfinite(scores).all(1)
        if not sound.all():
            notes.append(f"calibration leaves out {int((~sound).sum())} samples whose scores are not finite")
        if not sound.any():
            raise UsageError("--calibration: no sample has finite scores", "tlkit compare --find-nan says where")
        return figures.calibration(scores[sound], np.asarray(self.truth)[sound].tolist())


def _check_labels(answers: Answers, samples: Sequence[Labelled], where: str, *, nameable: bool = True) -> None:
    """Raise UsageError for labels that are not among the model's classes; it lists the nearest.

    ``nameable``: the caller has an option that names them.
    """
    if answers.unknown:
        for item in samples:
            if answers.number(item.label) is None:
                answers.add(item.label)
    strangers = list(dict.fromkeys(item.label for item in samples if answers.number(item.label) is None))
    if not strangers:
        return
    first = strangers[0]
    known = difflib.get_close_matches(first, answers.names, 3) or list(answers.names[:3])
    more = f" (and {len(strangers) - 1} more)" if len(strangers) > 1 else ""
    hint = f"it has {len(answers.names)}, such as {', '.join(known)}"
    hint += "" if answers.described or not nameable else "; --classes FILE names them, in the order of the scores"
    raise UsageError(f"{where}: the label '{first}'{more} is not among the model's classes", hint)
