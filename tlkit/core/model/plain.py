"""Values that are not arrays: the texts, dictionaries and sequences that models of before mlprograms take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.errors import UsageError
from tlkit.types import TensorSpec

KINDS = ("string", "dictionary", "sequence")
"""The kinds of port whose values are not arrays."""

_EXAMPLES = {
    "string": "--input {name}=text",
    "dictionary": '--input {name}={{"key": 1.0}}',
    "sequence": "--input {name}=[1, 2]",
}


def to_plain(spec: TensorSpec, value: Any) -> str | dict[Any, float] | list[Any]:
    """Return ``value`` as the port ``spec`` takes it: a text, a dictionary of numbers, or a list; else UsageError.

    A dictionary's keys are texts or integers, its values float64. Converters declare texts for dictionaries whose
    keys are integers, and Core ML takes those, so integers stay what they are.
    """
    if spec.kind == "string":
        if not isinstance(value, str | Path):
            raise _refused(spec, value)
        return str(value)
    if spec.kind == "dictionary":
        if not isinstance(value, Mapping):
            raise _refused(spec, value)
        whole = spec.dtype.startswith("int64")
        return {_item(spec, key, whole): _number(spec, number) for key, number in value.items()}
    items = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(items, list | tuple):
        raise _refused(spec, value)
    return [_item(spec, item, spec.dtype == "int64") for item in items]


def read_plain(spec: TensorSpec, text: str) -> Any:
    """Return what the words of the command line say for such a port: a text as it is, the others as JSON."""
    if spec.kind == "string":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f"input '{spec.name}': '{text}' is not JSON", f"write it as {example(spec)}") from None


def example(spec: TensorSpec) -> str:
    """Return how such a port's value is given on the command line."""
    return _EXAMPLES[spec.kind].format(name=spec.name)


def _item(spec: TensorSpec, item: Any, whole: bool) -> str | int:
    if isinstance(item, int | np.integer) and not isinstance(item, bool):
        return int(item)
    if isinstance(item, str) and not whole:
        return item
    if isinstance(item, str) and item.removeprefix("-").isdecimal():  # the keys of a JSON object are texts
        return int(item)
    raise _refused(spec, item)


def _number(spec: TensorSpec, number: Any) -> float:
    if isinstance(number, int | float | np.number) and not isinstance(number, bool):
        return float(number)
    raise _refused(spec, number)


def _refused(spec: TensorSpec, value: Any) -> UsageError:
    kind = {"string": "text"}.get(spec.kind, spec.kind)
    of = "" if spec.kind == "string" else f" ({spec.dtype})"
    return UsageError(
        f"input '{spec.name}' takes a {kind}{of}, not {type(value).__name__} {value!r:.40}", example(spec)
    )
