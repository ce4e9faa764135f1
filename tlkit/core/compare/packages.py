"""Check that a package made from another computes the same: both run on the same seeded values.

Inputs are drawn from values both models represent exactly, so any difference is a real error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.core.compare.difference import TOLERANCES, Difference, difference, worst
from tlkit.core.model.inputs import draw
from tlkit.core.model.load import Model, load_model
from tlkit.errors import TlkitError, reason
from tlkit.host import budget
from tlkit.ports.shapes import allows, shape_text
from tlkit.types import TensorSpec

Array = NDArray[Any]
Values = dict[str, Array]
_NARROWEST_FIRST = ("bool", "int8", "int32", "float16", "float32", "float64")
_MOST = 4  # shapes of a flexible port that are tried


@budget.drawn()
def compare(
    original: Path, edited: Path, seed: int, limits: str = "f32"
) -> tuple[tuple[str, ...], dict[str, Difference]]:
    """Return what differs by more than ``limits`` of :data:`TOLERANCES` (a phrase each), and the figures by output.

    There are no figures where the two have no shape in common. TlkitError where the original cannot run here; if the
    edited model cannot, that is one of the phrases.
    """
    functions = load_model(edited).info.functions
    reasons: list[str] = []
    figures: dict[str, Difference] = {}
    for function in functions if len(functions) > 1 else (None,):
        old, new = (load_model(path, function=function) for path in (original, edited))
        old.prepare()
        try:
            pairs = _pairs(old, new, seed)
        except _FailsError as error:
            reasons.append(reason(error))
            continue
        for name, reference, actual in pairs:
            found = difference(reference, actual)
            label = name if function is None else f"{function}: {name}"
            figures[label] = worst((figures[label], found)) if label in figures else found
            phrases = TOLERANCES[limits].breaches(found, integer=reference.dtype.kind in "iub")
            reasons += [f"{label}: {phrase}" for phrase in phrases]
        reasons += _failures(new, seed)
    return tuple(reasons), figures


def _pairs(old: Model, new: Model, seed: int) -> list[tuple[str, Array, Array]]:
    """Run both; return name, reference and actual value of each output that can be compared."""
    if all(allows(then, now.shape) for then, now in zip(old.inputs, new.inputs, strict=True)):
        values = _draw(old, new, seed)
        return _outputs(old, new, _predict(old, list(values.values())), _try(new, list(values.values())))
    if not all(then.shape[1:] == now.shape[1:] and then.shape[:1] == (1,) for then, now in _ports(old, new)):
        _try(new, list(_draw(old, new, seed).values()))
        return []
    values = _draw(old, new, seed)  # a batch of what the original takes one by one
    got = _try(new, list(values.values()))
    rows = []
    for row in (0, -1):
        one = _predict(old, [value[row][None] for value in values.values()])
        rows += _outputs(old, new, one, {name: _row(value, row) for name, value in got.items()})
    return rows


def _ports(old: Model, new: Model) -> list[tuple[TensorSpec, TensorSpec]]:
    return list(zip(old.inputs, new.inputs, strict=True))


def _row(value: Any, row: int) -> Any:
    return value[row][None] if isinstance(value, np.ndarray) else value


def _draw(old: Model, new: Model, seed: int) -> Values:
    """Return a value for each input in the new model's default shapes, exact in the types of both models."""
    rng = np.random.default_rng(seed)
    values: Values = {}
    for then, now in _ports(old, new):
        narrow = min(then, now, key=lambda spec: _NARROWEST_FIRST.index(spec.dtype or "float32"))
        shape = now.shape
        values[now.name] = draw(
            narrow if allows(narrow, shape) else _shaped(narrow, now), "random", rng, shape, stored=old.stored
        )
    return values


def _shaped(narrow: TensorSpec, now: TensorSpec) -> TensorSpec:
    from dataclasses import replace

    return replace(now, dtype=narrow.dtype)


def _predict(model: Model, values: list[Array]) -> dict[str, Any]:
    state = model.make_state() if model.info.states else None
    return model.predict({spec.name: value for spec, value in zip(model.inputs, values, strict=True)}, state)


class _FailsError(Exception):
    """The edited model does not run."""


def _try(model: Model, values: list[Array]) -> dict[str, Any]:
    try:
        return _predict(model, values)
    except TlkitError as error:
        raise _FailsError(error.message.replace(str(model.path), model.path.name)) from error


def _outputs(
    old: Model, new: Model, before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[tuple[str, Array, Array]]:
    """Pair the outputs by their order; of a model that became a classifier, its scores with the probabilities."""
    if len(old.outputs) != len(new.outputs):
        (scores,) = before.values()
        (name, shares), *_ = [(name, value) for name, value in after.items() if isinstance(value, Mapping)]
        return [(name, np.ravel(scores), np.fromiter(shares.values(), np.float64))]
    pairs = []
    for then, now in zip(old.outputs, new.outputs, strict=True):
        reference, actual = before[then.name], after[now.name]
        if isinstance(reference, Mapping):
            reference, actual = (np.fromiter(value.values(), np.float64) for value in (reference, actual))
        if not isinstance(reference, str | int):  # a label: the probabilities say more
            pairs.append((now.name, _as(np.asarray(reference), now.dtype), np.asarray(actual)))
    return pairs


def _as(reference: Array, dtype: str) -> Array:
    """Return the original's output as the new type of the port holds it."""
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return reference.astype(np.float16).astype(np.float32)
    if dtype == "int32" and reference.dtype.kind == "f":
        return np.clip(np.trunc(np.nan_to_num(reference.astype(np.float64))), -(2**31), 2**31 - 1).astype(np.int32)
    return reference


def _failures(model: Model, seed: int) -> list[str]:
    """Return a phrase for each of the other shapes of flexible inputs at which the model does not run."""
    phrases = []
    for spec in model.inputs:
        lowest = tuple(low for low, _ in spec.spans)
        for shape in (*spec.listed[:_MOST], *([lowest] if spec.flexible and not spec.listed else [])):
            if shape == spec.shape or sum(other.flexible for other in model.inputs) > 1:
                continue  # flexible inputs may have to change together
            rng = np.random.default_rng(seed)
            try:
                _predict(
                    model,
                    [
                        draw(s, "random", rng, shape if s is spec else s.shape, stored=model.stored)
                        for s in model.inputs
                    ],
                )
            except TlkitError as error:
                phrases.append(f"{spec.name} at {shape_text(shape)}: {error.message}")
    return phrases
