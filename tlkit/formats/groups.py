"""Group tensors by block: ``model.layers.[0-31].mlp.up_proj.weight`` is one row for 32 of one type and shape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tlkit.formats.base.tensors import TensorEntry

# ASCII digits that stand by themselves: of `h.0.fc1` only the 0.
_NUMBER = r"(?a:(?<![A-Za-z0-9])\d+(?![A-Za-z0-9]))"


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors of one type and shape whose names differ only in numbers; ``parameters`` and ``bytes`` are sums."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    count: int
    parameters: int
    bytes: int


def group(entries: Iterable[TensorEntry]) -> tuple[Group, ...]:
    """Group ``entries``, in order of each group's first entry."""
    found: dict[tuple[tuple[str, ...], str, tuple[int, ...]], list[TensorEntry]] = {}
    for entry in entries:
        found.setdefault((tuple(re.split(_NUMBER, entry.name)), entry.dtype, entry.shape), []).append(entry)
    return tuple(
        Group(
            _name(parts, [re.findall(_NUMBER, entry.name) for entry in members]),
            dtype,
            shape,
            len(members),
            sum(entry.elements for entry in members),
            sum(entry.nbytes for entry in members),
        )
        for (parts, dtype, shape), members in found.items()
    )


def _name(parts: Sequence[str], numbers: Sequence[Sequence[str]]) -> str:
    filled = [parts[0]]
    for position, part in enumerate(parts[1:]):
        filled += [_span({row[position] for row in numbers}), part]
    return "".join(filled)


def _span(texts: set[str]) -> str:
    """Return ``7`` for one number, ``[0-3,7]`` for several."""
    if len(texts) == 1:
        return next(iter(texts))
    if max(map(len, texts)) > 18:
        return "*"
    runs: list[list[int]] = []
    for number in sorted(map(int, texts)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        elif not runs or number != runs[-1][1]:
            runs.append([number, number])
    shown = [str(low) if low == high else f"{low}-{high}" for low, high in runs]
    return f"[{','.join(shown)}]"
