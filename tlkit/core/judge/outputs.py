"""Which outputs of two sides belong together: by name, by shape, by value, by place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.core.compare.difference import cosine
from tlkit.errors import UsageError
from tlkit.ports.shapes import shape_text

Array = NDArray[Any]
Outputs = Mapping[str, Any]


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


def chosen(outputs: Outputs, matched: Mapping[str, str]) -> Outputs:
    """Return those of a's outputs that have a counterpart."""
    return {name: outputs[name] for name in matched}


def renamed(ours: Outputs, theirs: Outputs, matched: Mapping[str, str]) -> Outputs:
    """Return b's outputs under a's names, in a's shapes where only those differ."""
    return {name: _reshaped(ours[name], theirs[other]) for name, other in matched.items()}


def _reshaped(one: Any, other: Any) -> Any:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return other
    if isinstance(one, Mapping):
        return np.ravel(np.asarray(other))
    array = np.fromiter(other.values(), np.float64, len(other)) if isinstance(other, Mapping) else np.asarray(other)
    return array.reshape(np.shape(one)) if array.size == np.size(one) else array
