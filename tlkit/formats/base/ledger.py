"""What a file holds and what is given of it, counted in bytes, so that nothing vanishes without being named.

A reader enters each stretch of tensor data that the container shows (a storage, a section, a member of an archive),
whoever refers to it, and claims what each tensor takes. What is left belongs to no tensor, and is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tlkit.types import LeftOut

_LISTED = 3


class Ledger:
    """The stretches of one file by key, and which parts of each are spoken for."""

    def __init__(self) -> None:
        self._stores: dict[str, tuple[int, str]] = {}
        self._claims: dict[str, list[tuple[int, int]]] = {}

    def enter(self, key: str, nbytes: int, label: str) -> None:
        """Enter a stretch of ``nbytes`` bytes, called ``label`` where it has to be named."""
        self._stores[key] = (nbytes, label)

    def claim(self, key: str, start: int = 0, end: int | None = None) -> None:
        """Say that the bytes from ``start`` to ``end`` (all, if None) of a stretch belong to a tensor, or are named."""
        if key in self._stores:
            self._claims.setdefault(key, []).append((start, self._stores[key][0] if end is None else end))

    def claimed(self, key: str) -> bool:
        """Whether anything of a stretch is spoken for; an empty one always is."""
        return key in self._claims or not self.size(key)

    def size(self, key: str) -> int:
        """Return the bytes of a stretch, 0 for one that was not entered."""
        return self._stores.get(key, (0, ""))[0]

    @property
    def total(self) -> int:
        """All bytes that were entered."""
        return sum(nbytes for nbytes, _ in self._stores.values())

    def rest(self, reason: str) -> Iterator[LeftOut]:
        """Yield what nobody claimed, a stretch each."""
        for key, (nbytes, label) in self._stores.items():
            free = nbytes - _covered(self._claims.get(key, ()))
            if free > 0:
                yield LeftOut(label, reason, free, "unnamed")


def _covered(spans: Sequence[tuple[int, int]]) -> int:
    """Return the bytes that ``spans`` cover together."""
    total, last = 0, 0
    for start, end in sorted(spans):
        if end > last:
            total += end - max(start, last)
            last = end
    return total


def sentences(items: Sequence[LeftOut]) -> list[str]:
    """Return what is left out as people read it: one line for all of the same reason."""
    groups: dict[tuple[str, str], list[LeftOut]] = {}
    for item in items:
        groups.setdefault((item.kind, item.reason), []).append(item)
    return [_sentence(reason, group) for (_, reason), group in groups.items()]


def _sentence(reason: str, group: Sequence[LeftOut]) -> str:
    names = ", ".join(f"'{item.name[:100]}'" for item in group[:_LISTED])
    more = f" and {len(group) - _LISTED:,} more" if len(group) > _LISTED else ""
    known = [item.bytes for item in group if item.bytes is not None]
    size = f" ({sum(known):,} bytes)" if known and sum(known) else ""
    return f"left out: {names}{more}{size}: {reason}"
