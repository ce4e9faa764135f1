"""Check that a package made from another computes the same: both run on the same seeded values.

Inputs are drawn from values both models represent exactly, so any difference is a real error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.core.compare.difference import TOLERANCES, Tolerance
from tlkit.core.compare.models import Trial, Verification, compare
from tlkit.core.model.inputs import draw
from tlkit.core.model.load import Model, load_model
from tlkit.errors import TlkitError
from tlkit.host import budget
from tlkit.ports.shapes import allows, shape_text
from tlkit.types import TensorSpec

Array = NDArray[Any]
Values = dict[str, Array]
_NARROWEST_FIRST = ("bool", "int8", "int32", "float16", "float32", "float64")
_MOST = 4  # shapes of a flexible port that are tried


@budget.drawn()
def compare_packages(
    original: Path,
    made: Path,
    seed: int,
    limits: Tolerance = TOLERANCES["f32"],
    functions: Mapping[str, str] | None = None,
) -> Verification:
    """Compare the outputs of two packages, function by function.

    ``functions`` maps functions of ``made`` to those of ``original``: by default all of ``made``, by their own names.
    """

    def named(text: str) -> str:
        return text.replace(str(made), made.name)

    try:
        pairs = list(_models(original, made, functions))
        trials = [trial for old, new, function in pairs for trial in _trials(old, new, seed, function)]
    except TlkitError as error:
        return Verification(None, {}, (named(error.message),), seed=seed)
    return replace(compare(trials, limits, named=named), seed=seed)


def _models(
    original: Path, made: Path, functions: Mapping[str, str] | None
) -> Iterator[tuple[Model, Model, str | None]]:
    if functions is None:
        names = load_model(made).info.functions
        functions = {name: name for name in names} if len(names) > 1 else None
    for new, old in functions.items() if functions else ((None, None),):
        models = load_model(original, engine="eager", function=old), load_model(made, engine="eager", function=new)
        # Where the original cannot be loaded, that is said before anything runs.
        models[0].prepare()
        yield *models, new


def _trials(old: Model, new: Model, seed: int, function: str | None) -> Iterator[Trial]:
    """Yield what to run: the new model's default shapes, then the other shapes that it takes."""
    name = f"seed {seed}" if function is None else f"{function}, seed {seed}"
    prefix = "" if function is None else f"{function}: "

    def trial(name: str, values: Sequence[Array], before: Sequence[Array] | None, row: int | None = None) -> Trial:
        """``before`` is what the original takes, None where it takes no such shape; ``row`` the one to compare."""
        reference = None if before is None else partial(_before, old, new, before, prefix)
        return Trial(name, reference, partial(_after, new, values, prefix, row))

    values = list(_draw(old, new, seed).values())
    if all(allows(then, now.shape) for then, now in zip(old.inputs, new.inputs, strict=True)):
        yield trial(name, values, values)
    elif all(then.shape[1:] == now.shape[1:] and then.shape[:1] == (1,) for then, now in _ports(old, new)):
        for row in (0, -1):  # a batch of what the original takes one by one
            where = f"{name}, {'first' if row == 0 else 'last'} of the batch"
            yield trial(where, values, [value[row][None] for value in values], row)
    else:
        yield trial(name, values, None)
    for where, drawn in _other_shapes(new, seed):
        yield trial(where, drawn, None)


def _ports(old: Model, new: Model) -> list[tuple[TensorSpec, TensorSpec]]:
    return list(zip(old.inputs, new.inputs, strict=True))


def _row(value: Any, row: int) -> Any:
    return value[row][None] if isinstance(value, np.ndarray) else value


def _width(spec: TensorSpec) -> int:
    """Return how wide a port's numbers are, from 0; what is drawn for a port of texts is refused where it is drawn."""
    dtype = spec.dtype or "float32"
    return _NARROWEST_FIRST.index(dtype) if dtype in _NARROWEST_FIRST else len(_NARROWEST_FIRST)


def _draw(old: Model, new: Model, seed: int) -> Values:
    """Return a value for each input in the new model's default shapes, exact in the types of both models."""
    rng = np.random.default_rng(seed)
    values: Values = {}
    for then, now in _ports(old, new):
        narrow = min(then, now, key=_width)
        shape = now.shape
        values[now.name] = draw(
            narrow if allows(narrow, shape) else _shaped(narrow, now), "random", rng, shape, stored=old.stored
        )
    return values


def _shaped(narrow: TensorSpec, now: TensorSpec) -> TensorSpec:
    return replace(now, dtype=narrow.dtype)


def _predict(model: Model, values: Sequence[Array]) -> dict[str, Any]:
    state = model.make_state() if model.info.states else None
    return model.predict({spec.name: value for spec, value in zip(model.inputs, values, strict=True)}, state)


def _after(new: Model, values: Sequence[Array], prefix: str, row: int | None) -> Mapping[str, Any]:
    got = _predict(new, values)
    return {prefix + name: value if row is None else _row(value, row) for name, value in got.items()}


def _before(old: Model, new: Model, values: Sequence[Array], prefix: str) -> Mapping[str, Any]:
    """Return the original's outputs under the new model's names: they are paired by their order.

    Of a model that became a classifier, its scores are what the probabilities have to be.
    """
    got = _predict(old, values)
    if len(old.outputs) != len(new.outputs):
        (scores,) = got.values()
        probabilities = next(spec.name for spec in new.outputs if spec.kind == "dictionary")
        return {prefix + probabilities: np.ravel(scores)}
    pairs = list(zip(old.outputs, new.outputs, strict=True))
    return {prefix + now.name: _as(got[then.name], now.dtype) for then, now in pairs}


def _as(value: Any, dtype: str) -> Any:
    """Return the original's output as the new type of the port holds it."""
    if not isinstance(value, np.ndarray):
        return value
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return value.astype(np.float16).astype(np.float32)
    if dtype == "int32" and value.dtype.kind == "f":
        return np.clip(np.trunc(np.nan_to_num(value.astype(np.float64))), -(2**31), 2**31 - 1).astype(np.int32)
    return value


def _other_shapes(model: Model, seed: int) -> Iterator[tuple[str, list[Array]]]:
    """Yield values at the other shapes of a flexible input; none where several are, which may have to go together."""
    if sum(spec.flexible for spec in model.inputs) > 1:
        return
    for spec in model.inputs:
        lowest = tuple(low for low, _ in spec.spans)
        for shape in (*spec.listed[:_MOST], *([lowest] if spec.flexible and not spec.listed else [])):
            if shape != spec.shape:
                rng = np.random.default_rng(seed)
                at = {port.name: shape if port is spec else port.shape for port in model.inputs}
                drawn = [draw(port, "random", rng, at[port.name], stored=model.stored) for port in model.inputs]
                yield f"{spec.name} at {shape_text(shape)}", drawn
