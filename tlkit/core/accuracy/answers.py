"""What a classifier answers, read from the outputs of any model: its label, its scores, its classes' names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.errors import UsageError

Array = NDArray[Any]
_SUM = 1e-2  # how far from 1 the sum of a distribution may be, in f16


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: the class's number (-1: none, its scores are NaN), and the scores of all classes (K,), if any."""

    number: int
    scores: Array | None


class Answers:
    """Reads answers from outputs. ``names`` are the classes: those ``given``, those that the outputs or the model's
    description (``described``) have, else numbers. ``output`` is what was read, known from the first answer on."""

    def __init__(self, given: Sequence[str], described: Sequence[str]) -> None:
        self.names: tuple[str, ...] = tuple(given)
        self.described = bool(described) or bool(given)
        self.unknown = False
        """Whether the model says only its answers, so that any label may be one of its classes."""
        self.output = ""
        self.notes: list[str] = []
        self._given, self._known = tuple(given), tuple(described)
        self._numbers: dict[str, int] = {}
        self._scores: str | None = None

    def read(self, outputs: Mapping[str, Any]) -> Answer:
        """Return the answer in one sample's outputs; UsageError where there is none that could be one."""
        if not self.output:
            self._begin(outputs)
        scores = _scores(outputs[self._scores]) if self._scores is not None else None
        label = next((value for value in outputs.values() if _is_label(value)), None)
        if scores is None:
            number = self._numbered(label if label is not None else int(np.ravel(outputs[self.output])[0]))
            return Answer(number, None)
        if np.isnan(scores).any():
            return Answer(-1, scores)
        # What the user is told is the label, where the model has one.
        told = self.number(str(label)) if label is not None and not self._given else None
        return Answer(int(np.argmax(scores)) if told is None else told, scores)

    def number(self, label: str) -> int | None:
        """Return the class that ``label`` names, None for a stranger; 3, 03 and 3.0 are one name where 3 is a class."""
        found = self._numbers.get(label)
        if found is None:
            try:
                whole = float(label)
            except ValueError:
                return None
            found = self._numbers.get(str(int(whole))) if whole.is_integer() else None
        return found

    def _begin(self, outputs: Mapping[str, Any]) -> None:
        named = {name: value for name, value in outputs.items() if isinstance(value, Mapping)}
        if named:
            self._scores, table = next(iter(named.items()))
            self._named(tuple(map(str, table)))
            self.output = self._scores
            return
        self._scores = self._choose(outputs)
        if self._scores is not None:
            self.output = self._scores
            count = np.size(outputs[self._scores])
            self._named(self._known if len(self._known) == count else tuple(map(str, range(count))))
            return
        whole = [name for name, value in outputs.items() if _is_label(value) or _is_index(value)]
        if not whole:
            raise UsageError(
                "no output has a class or the scores of classes",
                "--labels is for classifiers; tlkit compare for others",
            )
        self.output = whole[0]
        self.names = self._given or self._known
        self.unknown = not self.names
        self._numbers = {name: index for index, name in enumerate(self.names)}

    def _named(self, names: tuple[str, ...]) -> None:
        if self._given and len(self._given) != len(names):
            raise UsageError(
                f"--classes: {len(self._given)} names, and '{self.output or self._scores}' has {len(names)} classes",
                "give a name for each, in the order of the scores",
            )
        self.names = self._given or names
        self._numbers = {name: index for index, name in enumerate(self.names)}

    def _choose(self, outputs: Mapping[str, Any]) -> str | None:
        """Return the output that has scores: as many as there are names, else a distribution, else the first."""
        rows = {name: _scores(value) for name, value in outputs.items() if _could_be_scores(value)}
        wanted = len(self._given or self._known)
        fitting = {name: row for name, row in rows.items() if len(row) == wanted} or rows
        if len(fitting) < 2:
            return next(iter(fitting), None)
        sums = [name for name, row in fitting.items() if (row >= 0).all() and abs(float(row.sum()) - 1) <= _SUM]
        chosen = (sums or list(fitting))[0]
        self.notes.append(f"several outputs could be scores ({', '.join(fitting)}): read {chosen}")
        return chosen

    def _numbered(self, label: str | int) -> int:
        """Return the number of an answer's class; one that was never named is added."""
        if isinstance(label, int) and self.names and str(label) not in self._numbers and 0 <= label < len(self.names):
            return label
        return self._numbers[self.add(str(label))]

    def add(self, label: str) -> str:
        """Make ``label`` a class, where the model says only its answers, and return its name."""
        if label not in self._numbers:
            self._numbers[label] = len(self.names)
            self.names = (*self.names, label)
        return label


def _is_label(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def _is_index(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.size == 1


def _could_be_scores(value: Any) -> bool:
    """Whether an output is one row of floats: all of its axes but one are 1."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.size < 2:
        return False
    return bool(max(value.shape) == value.size)


def _scores(value: Any) -> Array:
    if isinstance(value, Mapping):
        return np.fromiter(value.values(), np.float64, len(value))
    return np.asarray(value, np.float64).ravel()
