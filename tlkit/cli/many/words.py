"""Options of a command as the words that a job of it is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_FLAGS = {"hashes": "--hash", "from_": "--from", "inputs": "--input", "cache": "--no-cache"}


def words_of(given: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    """Yield the words of those ``given`` options (by their parameters' names, none at its default) that are named."""
    for name in names:
        if name not in given:
            continue
        flag, value = _FLAGS.get(name, f"--{name.replace('_', '-')}"), given[name]
        for one in value if isinstance(value, list) else [value]:
            yield from [flag] if isinstance(one, bool) else [flag, str(one)]
