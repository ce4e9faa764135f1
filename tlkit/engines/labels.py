"""A classifier's answer: the index of the likeliest class and the probabilities, as ``classify`` gives them, become the
label and the dictionary that users see."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from tlkit.errors import ExecutionError, LoadError
from tlkit.mil.program import Function, Operation, Ref, Value


def presenters(function: Function) -> Mapping[str, Callable[[Any], Any]]:
    """Return, by output of a ``classify`` op, the function that makes its tensor or array a label or {label:
    probability}."""
    found: dict[str, Callable[[Any], Any]] = {}
    for operation in function.block.operations:
        if operation.type == "classify" and len(operation.outputs) == 2:
            names = _classes(function, operation)
            label, probabilities = (item.name for item in operation.outputs)
            found[label] = functools.partial(_label, names)
            found[probabilities] = functools.partial(_dictionary, names)
    return found


def _label(names: Sequence[Any], index: Any) -> Any:
    return names[int(index)] if int(index) < len(names) else _mismatch(names, int(index) + 1)


def _dictionary(names: Sequence[Any], values: Any) -> dict[Any, float]:
    found = values.tolist()
    return dict(zip(names, found, strict=True)) if len(names) == len(found) else _mismatch(names, len(found))


def _mismatch(names: Sequence[Any], scores: int) -> NoReturn:
    hint = "give one label for each score: tlkit edit --classes"
    raise ExecutionError(f"the model has {len(names)} class labels and gives {scores} scores", hint)


def _classes(function: Function, operation: Operation) -> list[Any]:
    given = next(iter(operation.inputs.get("classes", ())), None)
    if isinstance(given, Ref):
        wanted = given.name
        constants = (item for item in function.block.operations if item.type == "const" and item.outputs)
        given = next((item.attributes.get("val") for item in constants if item.outputs[0].name == wanted), None)
    found = given.python() if isinstance(given, Value) else None
    if not isinstance(found, list):
        raise LoadError(
            f"op '{operation.name}' (classify): its labels are not a list of constants", "the model is damaged"
        )
    return found
