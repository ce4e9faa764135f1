"""How things are said, the same everywhere: counts and sizes for people, facts in notebooks, data as JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

BYTES = {"b": 1.0} | {
    f"{prefix}{ending}": (1024.0 if ending == "ib" else 1000.0) ** power
    for power, prefix in enumerate("kmgt", 1)
    for ending in ("", "b", "ib")
}
"""Bytes in a unit, in small letters: ``kb`` and ``k`` are 1000, ``kib`` 1024."""


def quantity(text: str, units: Mapping[str, float]) -> float | None:
    """Return a number that has one of ``units`` (in small letters) behind it, times what that unit is worth; None for
    another text.

    >>> quantity("1.5 MB", BYTES)
    1500000.0
    """
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([A-Za-zµ]*)", text.strip())
    scale = units.get(found[2].lower()) if found else None
    return None if found is None or scale is None else float(found[1]) * scale


def one(noun: str) -> str:
    """Return a noun with its article: ``a wordTagger``, ``an imputer``; by its first letter.

    >>> one("audioFeaturePrint")
    'an audioFeaturePrint'
    """
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}"


def number_of(count: int, noun: str) -> str:
    """Return a count and its noun, which takes an s where it is not one.

    >>> number_of(1, "job"), number_of(2000, "job")
    ('1 job', '2000 jobs')
    """
    return f"{count} {noun}{'s' * (count != 1)}"


def count_text(count: int) -> str:
    """Return a count in three significant figures: ``268M``, ``1.24B``."""
    return _scaled(count, ("", "k", "M", "B", "T"))


def byte_text(count: float | None) -> str:
    """Return bytes in three significant figures and decimal units: ``1.13 GB``; ``-`` where the size is not known."""
    return "-" if count is None else _scaled(count, (" B", " kB", " MB", " GB", " TB"))


def _scaled(count: float, units: tuple[str, ...]) -> str:
    value, *larger = count, *units[1:]
    unit = units[0]
    # 999.5 is where three figures round up to 1000.
    while larger and abs(value) >= 999.5:
        value, unit = value / 1000, larger.pop(0)
    if unit == units[0] or abs(value) >= 1000:
        return f"{value:.0f}{unit}"
    return f"{value:.3g}{unit}"


def macs_text(count: int, unit: str = "MACs") -> str:
    """Return a number of operations in three significant figures: ``4.09 GMACs``."""
    return _scaled(count, tuple(f" {prefix}{unit}" for prefix in ("", "k", "M", "G", "T")))


class Told:
    """What notebooks and prompts show of an object: its class and the facts that :meth:`facts` gives."""

    __slots__ = ()

    def facts(self) -> list[tuple[str, object]]:
        """Return what matters most, as labels and values; those without a value are not shown."""
        raise NotImplementedError

    def __repr__(self) -> str:
        told = ", ".join(f"{label} {value}" for label, value in self.facts() if value not in ("", None))
        return f"<{type(self).__name__}: {told}>"

    def _repr_html_(self) -> str:
        return card_html(type(self).__name__, self.facts())


def card_html(title: str, facts: Iterable[tuple[str, object]]) -> str:
    """Return facts as a small table for notebooks (``_repr_html_``); those without a value are left out."""
    from html import escape  # only a notebook asks for it, and it brings a table of all entities

    rows = "".join(
        f"<tr><td><b>{escape(label)}</b></td><td style='text-align:left'>{escape(str(value))}</td></tr>"
        for label, value in facts
        if value not in ("", None)
    )
    return f"<b>{escape(title)}</b><table>{rows}</table>"


def jsonable(value: Any) -> Any:
    """Return ``value`` as plain JSON data; floats that JSON cannot hold become ``"NaN"`` and ``"±Infinity"``."""
    # An IntEnum is an int too.
    if value is None or (isinstance(value, bool | int) and not isinstance(value, Enum)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _NOT_FINITE[str(float(value))]
    if isinstance(value, Enum):
        return jsonable(value.value)
    if isinstance(value, str | PurePath):
        # Halves of surrogate pairs, which file names may hold, have no UTF-8.
        return str(value).encode("utf-8", "backslashreplace").decode()
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: jsonable(getattr(value, field.name))
            for field in fields(value)
            if field.metadata.get("json", True)
        }
    if isinstance(value, Mapping):
        return {str(jsonable(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if set(map(type, value)) == {float} and all(map(math.isfinite, value)):
            return list(value)  # as below, at a fortieth of the cost: a thousand outputs, ten thousand times
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):  # a numpy array or scalar, known by this so that numpy need not be imported
        return jsonable(value.tolist())
    raise TypeError(f"no JSON form for {type(value).__name__}")


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
