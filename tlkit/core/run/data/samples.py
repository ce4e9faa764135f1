"""What ``--input`` names when it is many samples: a folder of files, a pattern (``photos/*.jpg``), a Parquet file, or a
folder of Parquet shards.

A set knows how many samples it has and yields any range of them in order, so that parts of it can be run elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path

from tlkit.core.run.data.sample import Sample, SampleSet
from tlkit.errors import UsageError
from tlkit.types import TensorSpec

PARQUET = (".parquet", ".pq")
"""How files of Parquet are named."""
_OTHER = re.compile(
    r"([^=/]*=)?([\[{]|text:|[a-z]+://)"
)  # a list, a dictionary, a text, an address: no pattern, whatever is in it


class FolderSet:
    """The files of a folder, by name, each a value of the input ``name``; hidden files and folders are passed over.

    ``pattern`` takes only those that match it below the folder, as the shell has it (``**`` for any folders between).
    Raises UsageError where there is no file. Its memory is that of the names.
    """

    def __init__(self, folder: Path, name: str, pattern: str = "") -> None:
        self.place, self.inputs = folder, (name,)
        if pattern:
            found = glob(pattern, root_dir=folder, recursive=True)
            self._files = sorted(item for item in found if (folder / item).is_file())
        else:
            self._files = sorted(item.name for item in os.scandir(folder) if item.is_file() and item.name[:1] != ".")
        if not self._files:
            said = f"{folder / pattern}: no file matches" if pattern else f"{folder}: no file in it to run on"
            raise UsageError(said, "name a folder of images or arrays, or a pattern such as photos/*.jpg")
        self.count = len(self._files)

    def samples(self, start: int, stop: int) -> Iterator[Sample]:
        """See :class:`SampleSet`."""
        for file in self._files[start:stop]:
            yield Sample(file, {self.inputs[0]: self.place / file})


def many(text: str) -> bool:
    """Whether an ``--input`` text names a data set, and not one value."""
    _, equals, value = text.partition("=")
    if equals and Path(value).is_file() and not _is_parquet(Path(value)):
        return False
    return any(_placed(item) is not None for item in ([text, value] if equals else [text]))


def samples_of(ports: Sequence[TensorSpec], texts: Iterable[str]) -> tuple[SampleSet, list[str]] | None:
    """Return the data set that one of the ``--input`` texts names, and the other texts; None where none does.

    A text is ``PLACE``, ``NAME=PLACE`` and, of Parquet, either with ``:COLUMN`` behind. Raises UsageError for two of
    them, where it is not known which input is meant, and what reading the set's head raises.
    """
    found: list[tuple[str, str, Path, str]] = []
    rest: list[str] = []
    for text in texts:
        name, equals, value = text.partition("=")
        named = bool(equals) and any(spec.name == name for spec in ports)
        placed = _placed(value if named else text)
        if placed is None:
            rest.append(text)
        else:
            found.append((text, name if named else "", *placed))
    if not found:
        return None
    if len(found) > 1:
        raise UsageError("two inputs are given folders", "give one, and one value to each of the others")
    return _set(ports, *found[0]), rest


def _set(ports: Sequence[TensorSpec], text: str, name: str, place: Path, column: str) -> SampleSet:
    pattern = ""
    if not place.exists():
        place, pattern = _split(place)
    shards = [] if pattern else [place]
    if not pattern and place.is_dir():
        shards = sorted(item for item in place.iterdir() if _is_parquet(item))
    if shards:
        from tlkit.core.run.data.parquet import ParquetSet  # an extra

        return ParquetSet(place, shards, ports, name, column)
    if not name and len(ports) != 1:
        names = ", ".join(spec.name for spec in ports)
        raise UsageError(f"--input {text}: which input is it for?", f"write --input NAME={text}; names: {names}")
    return FolderSet(place, name or ports[0].name, pattern)


def _placed(text: str) -> tuple[Path, str] | None:
    """Return the place and column of a text that names a folder, Parquet, or a pattern of files."""
    path = Path(text)
    if path.is_dir() or _is_parquet(path):
        return path, ""
    if has_magic(text) and not _OTHER.match(text) and not path.is_file():
        return path, ""
    before, colon, column = text.rpartition(":")
    if colon and (_is_parquet(Path(before)) or Path(before or ".no").is_dir()):
        return Path(before), column
    return None


def _split(pattern: Path) -> tuple[Path, str]:
    """Return the folder of a pattern, and what is to match below it."""
    parts = pattern.parts
    first = next(place for place, part in enumerate(parts) if has_magic(part))
    return Path(*parts[:first]), str(Path(*parts[first:]))


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in PARQUET and path.is_file() and path.name[:1] not in "._"


def part_range(text: str | None, count: int) -> tuple[int, int]:
    """Return the first sample of a part ``K/N`` (K from 1) and the one after its last; without a text, all.

    The parts of one N have every sample once, and differ by at most one in size.
    """
    if text is None:
        return 0, count
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--part {text}: not K/N with K from 1 to N", "write --part 3/16 for the third of 16 parts")
    part, parts = int(found[1]), int(found[2])
    return count * (part - 1) // parts, count * part // parts
