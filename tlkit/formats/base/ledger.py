"""Account for every byte of tensor data in a file, so that nothing is left out without being named.

A reader enters each range of tensor data in the container (a storage, a section, a member of an archive), then claims
the part of each tensor. What remains unclaimed belongs to no tensor, and is reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tlkit.types import LeftOut

_LISTED = 3


class Ledger:
    """The ranges of one file by key, and the parts of each that are claimed."""

    def __init__(self) -> None:
        self._stores: dict[str, tuple[int, str]] = {}
        self._claims: dict[str, list[tuple[int, int]]] = {}

    def enter(self, key: str, nbytes: int, label: str) -> None:
        """Enter a range of ``nbytes`` bytes; ``label`` is its name in messages."""
        self._stores[key] = (nbytes, label)

    def claim(self, key: str, start: int = 0, end: int | None = None) -> None:
        """Claim the bytes from ``start`` to ``end`` (None: all) of a range: they belong to a tensor, or were
        reported."""
        if key in self._stores:
            self._claims.setdefault(key, []).append((start, self._stores[key][0] if end is None else end))

    def claimed(self, key: str) -> bool:
        """Whether any part of a range is claimed; an empty range always is."""
        return key in self._claims or not self.size(key)

    def size(self, key: str) -> int:
        """Return the size of a range in bytes, 0 if it was not entered."""
        return self._stores.get(key, (0, ""))[0]

    @property
    def total(self) -> int:
        """The number of bytes entered."""
        return sum(nbytes for nbytes, _ in self._stores.values())

    def rest(self, reason: str) -> Iterator[LeftOut]:
        """Yield the unclaimed bytes, one item per range."""
        for key, (nbytes, label) in self._stores.items():
            free = nbytes - _covered(self._claims.get(key, ()))
            if free > 0:
                yield LeftOut(label, reason, free, "unnamed")


def _covered(spans: Sequence[tuple[int, int]]) -> int:
    """Return the number of bytes in the union of ``spans``."""
    # Spans may overlap: tensors share bytes.
    total, last = 0, 0
    for start, end in sorted(spans):
        if end > last:
            total += end - max(start, last)
            last = end
    return total


def sentences(items: Sequence[LeftOut]) -> list[str]:
    """Return sentences about what is left out: one line per reason."""
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
