"""Two models on the same inputs: the one loop behind every verification, and its result.

Converting, exporting, remaking, editing and combining all end in :func:`compare`. Each says only how its two models
are run on one input (a :class:`Trial`) and under which names their outputs belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.core.compare.difference import Difference, Tolerance, difference, worst
from tlkit.errors import TlkitError, UsageError, reason

Array = NDArray[Any]
Run = Callable[[], Mapping[str, Any]]
"""One run on one input: the outputs by name, as ``Model.predict`` gives them or as plain arrays."""
Each = Callable[[str, str, Array, Array], None]
"""Called with the input's name, the output's, and its arrays: the reference's and the other model's."""

NO_SIGNAL = "its source gives only zeros or nothing finite"


@dataclass(frozen=True, slots=True)
class Verification:
    """How a model compares with its source, output by output: the worst figures of all inputs tried.

    ``passed`` is True where both ran and every output agrees, False where an output differs or the model fails on
    inputs that its source takes. It is None where nothing could be judged: one of the two could not be run on any
    input, the source is random, or it gave nothing that could have differed; ``reasons`` says which. That is no
    agreement: :attr:`ok` is False then, in every command. Only where the request itself left no input that both take
    (``unmatched``: an edit to a new fixed shape) it is enough that the new model runs.

    ``top1`` says whether a classifier's likeliest class is always the same (None for other models), ``agreement`` for
    which share of the inputs it is; ``cases`` names the inputs, ``values`` what they were drawn from.
    ``notes`` are further findings, ``cause`` is why it differs. ``random``: the source's results differ by themselves.
    """

    passed: bool | None
    outputs: Mapping[str, Difference]
    reasons: tuple[str, ...] = ()
    top1: bool | None = None
    agreement: float | None = None
    seed: int = 0
    cases: tuple[str, ...] = ()
    values: str = ""
    notes: tuple[str, ...] = ()
    random: bool = False
    cause: str = ""
    unmatched: bool = field(default=False, metadata={"json": False})

    @property
    def ok(self) -> bool:
        """Whether the model agrees with its source, or nothing more could be asked of it."""
        return self.passed is True or (self.passed is None and self.unmatched)

    @property
    def max_abs(self) -> float | None:
        """The largest difference of any output (0: bit for bit), None where nothing was compared."""
        return max((item.max_abs for item in self.outputs.values()), default=None)


@dataclass(frozen=True, slots=True)
class Trial:
    """One input, and what each of the two models gives for it. Outputs of one name belong together.

    ``reference`` is None where the source takes no such input: the other model has only to run on it. ``limits`` are
    for this input only, None for those of all.
    """

    name: str
    reference: Run | None
    actual: Run
    limits: Tolerance | None = None


@dataclass
class _Findings:
    """What the trials showed so far."""

    outputs: dict[str, list[Difference]] = field(default_factory=dict)
    reasons: dict[str, None] = field(default_factory=dict)
    same: list[bool] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)


def compare(
    trials: Iterable[Trial],
    limits: Tolerance,
    *,
    named: Callable[[str], str] = str,
    retry: str = "try another --seed",
    each: Each = lambda *_: None,
) -> Verification:
    """Run each trial on both models, the reference first, and compare their outputs by ``limits``.

    An error of the reference ends it: nothing can be judged then. One of the other model is a reason. ``named``
    rewrites paths in errors; ``retry`` is what to do where no output of the reference could have differed. ``each``
    hears of every pair of arrays of one shape.
    """
    found, names = _Findings(), []
    trials = tuple(trials)
    for trial in trials:
        names.append(trial.name)
        where = f" ({trial.name})" if len(trials) > 1 else ""
        try:
            reference = trial.reference() if trial.reference is not None else {}
        except Exception as error:
            return Verification(None, {}, (named(_said(error)),), cases=tuple(names))
        try:
            actual = trial.actual()
        except Exception as error:  # a fault in an executor must not cost the user what was made
            found.failed[trial.name] = named(_said(error))
            continue
        for name, value in reference.items():
            arrays = _compare(found, name, value, actual.get(name), trial.limits or limits, where)
            if arrays is not None:
                each(trial.name, name, *arrays)
    if not any(trial.reference for trial in trials) and not found.failed:
        return Verification(None, {}, (_UNMATCHED,), cases=tuple(names), unmatched=True)
    return _judged(found, tuple(names), retry)


_UNMATCHED = "it runs at the new shape; the original has no such shape to compare with"


def _said(error: Exception) -> str:
    return reason(error, named=not isinstance(error, TlkitError))


def _judged(found: _Findings, cases: tuple[str, ...], retry: str) -> Verification:
    if found.failed and not found.outputs:
        return Verification(None, {}, tuple(dict.fromkeys(found.failed.values())), cases=cases)
    reasons = (*found.reasons, *(f"it does not run on {name}: {why}" for name, why in found.failed.items()))
    figures = {name: worst(items) for name, items in found.outputs.items()}
    idle = [name for name in figures if name not in found.told]
    if not reasons and len(idle) == len(figures):
        nothing = f"nothing was compared: {NO_SIGNAL} for every input tried; {retry}"
        return Verification(None, figures, (nothing,), cases=cases)
    notes = (f"output {', '.join(idle)} was not compared: {NO_SIGNAL} for every input tried; {retry}",) if idle else ()
    share = float(np.mean(found.same)) if found.same else None
    top1 = all(found.same) if found.same else None
    return Verification(not reasons, figures, reasons, top1, share, cases=cases, notes=notes)


def _compare(
    found: _Findings, name: str, reference: Any, actual: Any, limits: Tolerance, where: str
) -> tuple[Array, Array] | None:
    """Compare one output and return its arrays, None where there are none of one shape.

    A label says less than the probabilities beside it, and is compared where limits are 0.
    """
    if isinstance(reference, str | int):
        if limits.max_abs == 0 and reference != actual:
            found.reasons[f"{name}: '{actual}' instead of '{reference}'{where}"] = None
        return None
    expected, got = _arrays(reference, actual)
    try:
        item = difference(expected, got)
    except UsageError as error:  # of another shape
        found.reasons[f"{name}: {error.message}{where}"] = None
        return None
    if isinstance(actual, Mapping):
        # Both are in the order of the reference's labels.
        found.same.append(bool(np.argmax(expected) == np.argmax(got)))
    found.outputs.setdefault(name, []).append(item)
    if _tells(expected):
        found.told.add(name)
    breaches = (*limits.breaches(item, integer=expected.dtype.kind in "iub"), *limits.outside(expected, got))
    found.reasons |= {f"{name}: {phrase}{where}": None for phrase in breaches}
    return expected, got


def _arrays(reference: Any, actual: Any) -> tuple[Array, Array]:
    """Return both as arrays; probabilities by label where both have the same labels, else in their order."""
    if isinstance(reference, Mapping) and isinstance(actual, Mapping) and reference.keys() == actual.keys():
        actual = {label: actual[label] for label in reference}
    return _array(reference), _array(actual)


def _array(value: Any) -> Array:
    """Return an output as an array; a picture as its pixels, (height, width[, 3]), in f32 and without alpha."""
    if isinstance(value, Mapping):
        return np.fromiter(value.values(), np.float64, len(value))
    if isinstance(value, np.ndarray) or not hasattr(value, "getbands"):
        return np.asarray(value)
    array = np.asarray(value, np.float32)
    return array[..., :3] if array.ndim == 3 else array


def _tells(reference: Array) -> bool:
    """Whether agreeing with ``reference`` means anything: it has a finite value other than 0, or is a few integers."""
    # A class's index may well be 0.
    few = reference.dtype.kind in "iub" and reference.size < 8
    return few or not reference.size or bool((np.isfinite(reference) & (reference != 0)).any())
