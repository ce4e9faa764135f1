"""Files of jobs on nodes that may not see them: known by their hash, sent in pieces, kept once a node.

A node that sees a file or folder under the same path, with the same content, uses it there. Another gets it from
whoever gives out the jobs, and keeps it in its cache folder under its hash, for all jobs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError, reason
from tlkit.fleet.job import FleetJob, mark
from tlkit.host.machine import cache_folder

_PIECE = 64 << 20
"""Bytes that are in memory at a time, here and there."""


@dataclass(frozen=True)
class Parcel:
    """A file, or a folder's files, as data: ``digest`` (SHA-256 of names and contents), and of each file its name in
    the folder (empty: the file itself) and the handles of its pieces."""

    path: str
    digest: str
    files: tuple[tuple[str, tuple[Any, ...]], ...]


def named_files(job: FleetJob) -> dict[str, Path]:
    """Return what a job's words name that exists: by the text in the word, the file or folder.

    A word may be a path, ``NAME=PATH``, and either with ``:KEY`` behind. The job's own output is not among them.
    """
    found: dict[str, Path] = {}
    for word in job.words:
        value = word.partition("=")[2]
        for text in filter(None, (word, word.rpartition(":")[0], value, value.rpartition(":")[0])):
            path = Path(job.folder) / text
            if text != job.output and not word.startswith("-") and path.exists():
                found[text] = path
                break
    return found


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of a folder's files."""
    whole = hashlib.sha256()
    for name, file in _files(path):
        whole.update(json.dumps([name, file.stat().st_size]).encode())
        for content in _pieces(file):
            whole.update(content)
    return whole.hexdigest()


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield "", path
        return
    for file in sorted(item for item in path.rglob("*") if item.is_file()):
        yield file.relative_to(path).as_posix(), file


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while content := opened.read(_PIECE):
            yield content


class Sender:
    """Makes parcels of files, each once as long as it does not change; ``put`` keeps a piece and returns a handle."""

    def __init__(self, put: Callable[[bytes], Any]) -> None:
        self._put = put
        self._known: dict[Path, tuple[tuple[int, int], Parcel]] = {}

    def parcel(self, path: Path) -> Parcel:
        """Return the parcel of a file or folder. Raises LoadError where it cannot be read."""
        now = mark(path)
        before = self._known.get(path)
        if before is not None and before[0] == now:
            return before[1]
        try:
            files = tuple((name, tuple(map(self._put, _pieces(file)))) for name, file in _files(path))
            made = Parcel(str(path), digest(path), files)
        except OSError as error:
            raise LoadError(f"{path}: {reason(error)}", "the job's file has to be readable here") from error
        self._known[path] = (now, made)
        return made


class Receiver:
    """Gives a node's jobs the files of parcels; ``get`` returns the piece of a handle."""

    def __init__(self, get: Callable[[Any], bytes], folder: Path | None = None) -> None:
        self._get, self._folder = get, folder
        self._seen: dict[tuple[str, str], tuple[int, int]] = {}

    def place(self, parcel: Parcel) -> Path:
        """Return where a parcel's content is on this node: at its own path, or in the cache, fetched if it must be.

        Raises LoadError where what arrived is not what was sent.
        """
        own, key = Path(parcel.path), (parcel.path, parcel.digest)
        now = mark(own)
        if self._seen.get(key) == now or (own.exists() and digest(own) == parcel.digest):
            self._seen[key] = now
            return own
        folder = self._folder or cache_folder() / "fleet"
        goal = folder / parcel.digest / own.name
        if not goal.exists():
            self._fetch(parcel, goal)
        return goal

    def _fetch(self, parcel: Parcel, goal: Path) -> None:
        folder = goal.parent.parent
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as name:
            made = Path(name) / "whole" / goal.name
            (made.parent if [inside for inside, _ in parcel.files] == [""] else made).mkdir(parents=True)
            for inside, handles in parcel.files:
                file = made / inside if inside else made
                if not file.resolve().is_relative_to(made.resolve()):
                    raise LoadError(f"{parcel.path}: '{inside}' is not inside it")
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("wb") as opened:
                    for handle in handles:
                        opened.write(self._get(handle))
            if digest(made) != parcel.digest:
                raise LoadError(f"{parcel.path}: what arrived on this node has another hash", "try again")
            try:
                os.rename(made.parent, goal.parent)  # another of the node's jobs may have been first
            except OSError:
                if not goal.exists():
                    raise


def placed_words(words: Sequence[str], places: Mapping[str, Path]) -> list[str]:
    """Return a job's words with the files where they are on this node."""
    made = []
    for word in words:
        value = word.partition("=")[2]
        texts = [text for text in (word, word.rpartition(":")[0], value, value.rpartition(":")[0]) if text in places]
        at = word.find(texts[0]) if texts and not word.startswith("-") else -1
        made.append(word if at < 0 else word[:at] + str(places[texts[0]]) + word[at + len(texts[0]) :])
    return made


def told_as_sent(text: str | None, places: Iterable[tuple[str, Path]]) -> str | None:
    """Return what a job printed with the files' own paths, whatever they were on its node."""
    for own, there in places:
        text = text and text.replace(str(there), own)
    return text


def packed(path: Path, put: Callable[[bytes], Any]) -> Parcel | None:
    """Return an output as a parcel that whoever gave the job can unpack; None where it is not there."""
    return Sender(put).parcel(path) if path.exists() else None


def unpacked(parcel: Parcel, goal: Path, get: Callable[[Any], bytes]) -> None:
    """Write a parcel to ``goal``, in the place of what is there, by renaming it once it is whole."""
    with tempfile.TemporaryDirectory(prefix=".tlkit-", dir=goal.parent) as name:
        made = Receiver(get, Path(name)).place(Parcel(str(Path(name) / "no" / goal.name), parcel.digest, parcel.files))
        if goal.is_dir():
            shutil.rmtree(goal)
        os.replace(made, goal)
