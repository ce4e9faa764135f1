"""Choose the model's files in a folder, as ``transformers`` does: SafeTensors or PyTorch, whole or in shards.

A whole file is preferred to an index, SafeTensors to PyTorch, the plain name to its variants (``fp16``); an index lists
the shards. Files that are not chosen are noted, and missing ones are named.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tlkit.errors import LoadError, one_line
from tlkit.formats.base import sniff
from tlkit.formats.base.shard_names import INDEX, SHARD, STEMS, series
from tlkit.formats.files.mapped import DAMAGED, read_json
from tlkit.formats.files.paths import inside
from tlkit.types import LeftOut

# PEFT's adapter: weights to be added to a model's, not a model.
_ADAPTER = "adapter_model"
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Chosen:
    """The files of one model; ``names`` are the tensors that its ``index`` lists, by file."""

    files: tuple[Path, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    names: tuple[tuple[Path, tuple[str, ...]], ...] = ()
    missing: tuple[Path, ...] = ()


def choose(folder: Path, ending: str) -> Chosen:
    """Return the model's files in ``folder``; LoadError where there are none, or where one links outside."""
    found = _choose(folder, ending)
    for path in found.files:
        inside(folder, folder, str(path.relative_to(folder)))
    return found


def _choose(folder: Path, ending: str) -> Chosen:
    files = sorted(item for item in folder.glob(f"*.{ending}") if item.is_file())
    indexes = sorted(item for item in folder.glob(f"*.{ending}.index*.json") if re.fullmatch(INDEX, item.name))
    for stem in STEMS[ending]:
        whole, index = folder / f"{stem}.{ending}", folder / f"{stem}.{ending}.index.json"
        if whole in files:
            found = _whole(whole, index if index in indexes else None)
            return _said(found, [*files, *indexes], index)
        if index in indexes:
            return _said(indexed(index), [*files, *indexes], index)
    if indexes:
        plain = [index for index in indexes if index.name.endswith(".index.json")]
        index = (plain or indexes)[0]
        return _said(indexed(index), [*files, *indexes], index)
    if not files:
        raise LoadError(f"{folder}: no .{ending} file in it", "name a model file or folder")
    return _unindexed(folder, files)


def indexed(index: Path) -> Chosen:
    """Return the files that an index names; missing ones and git-lfs pointers are reported as left out."""
    content = read_json(index)
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise LoadError(f"{index}: it holds no weight_map", DAMAGED)
    by_file: dict[str, list[str]] = {}
    for tensor, file in names.items():
        by_file.setdefault(file, []).append(str(tensor))
    here, gone, left, notes = [], [], [], []
    for file, tensors in sorted(by_file.items()):
        path = below(index.parent, file)
        reason = _absent(path, len(tensors))
        if reason is None:
            here.append((path, tuple(tensors)))
            continue
        gone.append(path)
        notes.append(f"{path}: {reason}")
        left += [LeftOut(tensor, f"{path.name}: {reason}", None, "missing") for tensor in tensors]
    return Chosen(tuple(path for path, _ in here), tuple(left), tuple(notes), tuple(here), tuple(gone))


def lone_shard(path: Path) -> Chosen:
    """Return the file that the user named; if it is one shard of several, the others count as missing."""
    shard = re.fullmatch(SHARD, path.name)
    if not shard or int(shard["count"]) < 2:
        return Chosen((path,))
    count = int(shard["count"])
    note = f"{path.name} is one of {count} shards: name its folder or its index for them all"
    rest = LeftOut(f"{count - 1} other shards", f"only {path.name} was named", None, "missing")
    return Chosen((path,), (rest,), (note,))


def unlisted(chosen: Chosen, found: Container[str]) -> list[LeftOut]:
    """Return the tensors that the index lists and no file contains."""
    return [
        LeftOut(name, f"the index lists it, and {path.name} has no such tensor", None, "missing")
        for path, names in chosen.names
        for name in names
        if name not in found
    ]


def below(base: Path, name: str) -> Path:
    """Return ``base/name``, at most one folder below ``base``; LoadError for a name that leads elsewhere."""
    parts = PurePosixPath(name).parts
    # On Windows a backslash separates folders, too.
    plain = name and "\0" not in name and "\\" not in name and not name.startswith("/") and ".." not in parts
    target = base / name if plain else base
    if not plain or parts in ((), (".",)) or not target.parent.resolve().is_relative_to(base.resolve()):
        raise LoadError(
            f"{base}: it names the file '{one_line(name[:100])}', outside its folder", "do not trust this file"
        )
    return inside(base, base, name)


def _absent(path: Path, count: int) -> str | None:
    """Return why a shard is not available; None if it is."""
    if not path.is_file():
        return f"this shard is missing, and {count} tensors with it"
    if sniff.detect(path) is sniff.Format.LFS_POINTER:
        return f"{sniff.lfs_text(path)}; run `git lfs pull` in its repository"
    return None


def _whole(whole: Path, index: Path | None) -> Chosen:
    """Choose between a whole file and an index beside it, whose shards matter only if they may hold more."""
    if index is None:
        return Chosen((whole,))
    try:
        other = indexed(index)
    except LoadError as error:
        return Chosen((whole,), notes=(f"{whole.name} is read; beside it: {error.message}",))
    if not other.files:
        return Chosen((whole,), notes=(f"{index.name} is out of date: its shards are missing, {whole.name} is whole",))
    return Chosen((whole,), names=((whole, tuple(name for _, names in other.names for name in names)),))


def _said(found: Chosen, everything: Iterable[Path], index: Path) -> Chosen:
    """Add a note that names the files of the folder that were not chosen."""
    chosen = {*found.files, *found.missing, index}
    rest = [path.name for path in everything if path not in chosen]
    if not rest:
        return found
    more = f" and {len(rest) - _SHOWN} more" if len(rest) > _SHOWN else ""
    note = f"not part of the model that is read (to read it, name it by itself): {', '.join(rest[:_SHOWN])}{more}"
    return Chosen(found.files, found.left_out, (*found.notes, note), found.names, found.missing)


def _unindexed(folder: Path, files: Sequence[Path]) -> Chosen:
    """Choose among files without an index and with unusual names: all that are not an adapter are one model's.

    Shards that their names promise are missing; where there are shards of two counts, those of both.
    """
    models = [file for file in files if file.name.rpartition(".")[0] != _ADAPTER] or list(files)
    gone: list[Path] = []
    notes: list[str] = []
    for stem, count in sorted({kind for file in models if (kind := series(file.name))}):
        ending = models[0].name.rpartition(".")[2]
        # A file's name may claim 99,999 shards.
        wanted = [folder / f"{stem}-{turn:05}-of-{count}.{ending}" for turn in range(1, min(int(count), 9999) + 1)]
        lost = [path for path in wanted if path not in files]
        said = f"{len(wanted) - len(lost)} of {int(count)} shards, and no index that would list their tensors"
        notes.append(f"{folder}: {said}")
        gone += lost
    if len(models) > 1 and not notes:
        notes.append(f"{folder}: {len(models)} files and no index: they are read as one model")
    left = tuple(LeftOut(path.name, "this shard is missing", None, "missing") for path in gone)
    return _said(Chosen(tuple(models), left, tuple(notes), missing=tuple(gone)), files, folder)
