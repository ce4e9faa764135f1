"""Turn the tensors that a pickle's calls describe into entries: their places, and an account of what is left out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from tlkit.errors import one_line
from tlkit.formats.base.dtypes import PLAIN, stored_bytes
from tlkit.formats.base.ledger import Ledger
from tlkit.formats.base.tensors import TensorEntry
from tlkit.formats.files.mapped import Mapped
from tlkit.formats.torch.objects import Array, Found, Quantized, Unread, View, storage_key
from tlkit.formats.torch.pickle_machine import Call, Dict, Persistent
from tlkit.formats.torch.walk import Path, children, dotted, find_tensors, storages_in
from tlkit.types import LeftOut

_TRAINING = re.compile(
    r"(optim|optimizers?|optimizer_(states?(_dict)?|state_dicts?)|lr_schedulers?|schedulers?|(\w+_)?rng_states?|rng|"
    r"random_states?|(grad_|amp_)?scaler|amp|callbacks|loops)"
)
_QUANTIZED = {"I8": "QINT8", "U8": "QUINT8", "I32": "QINT32"}


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of bytes that tensors view: its size, where it starts in the file (None: compressed) and its member."""

    nbytes: int
    start: int | None
    member: str = ""


class Assembly:
    """The entries found so far in one PyTorch file, and the account of its storages."""

    def __init__(self, file: Mapped, big_endian: bool) -> None:
        self.file, self.big_endian = file, big_endian
        self.ledger = Ledger()
        self.storages: dict[str, Storage] = {}
        self.entries: dict[str, TensorEntry] = {}
        self.notes: list[str] = []
        self.computed: dict[str, tuple[View | Quantized | Array, memoryview]] = {}
        self.views: dict[str, View] = {}
        self._left: list[LeftOut] = []

    def store(self, key: str, storage: Storage, label: str) -> None:
        """Enter a storage, under the key by which the pickle refers to it."""
        self.storages[key] = storage
        self.ledger.enter(key, storage.nbytes, label)

    def add(
        self, root: Any, references: Iterable[Persistent], pickle: memoryview, above: Path = (), prefix: str = ""
    ) -> None:
        """Add every tensor in a pickle's object; ``prefix`` precedes its storages' keys."""
        walked = find_tensors(root, str(self.file.path))
        if walked.once:
            self._left.append(LeftOut("", "second names of shared containers, of which there are too many", 0, "other"))
        training = _training(root)
        for name, path, found in self._named([((*above, *path), found) for path, found in walked.tensors]):
            # `_training` gives paths of one key or two.
            role = "training" if any(path[:length] in training for length in (1, 2)) else ""
            self._take(name, found, pickle, prefix, role)
        for absorbed in walked.absorbed:
            for key in storages_in(absorbed.holds):
                self.ledger.claim(f"{prefix}{key}")
        for key in dict.fromkeys(filter(None, map(storage_key, references))):
            if not self.ledger.claimed(f"{prefix}{key}"):
                nbytes = self.ledger.size(f"{prefix}{key}")
                self._left.append(LeftOut(f"storage {prefix}{key}", "what it belongs to is not known here", nbytes))
                self.ledger.claim(f"{prefix}{key}")

    def leave_out(self, item: LeftOut, keys: Iterable[str]) -> None:
        """Report something that is not read, and claim the storages that it uses."""
        self._left.append(item)
        for key in keys:
            self.ledger.claim(key)

    def left_out(self) -> tuple[LeftOut, ...]:
        """Return what is not among the entries: tensors that are not read, then bytes that no tensor views."""
        return (*self._left, *self.ledger.rest("no tensor views these bytes of its storage"))

    def _named(self, tensors: list[tuple[Path, Found]]) -> list[tuple[str, Path, Found]]:
        """Name each tensor; where two would share a name, the one whose key is that name keeps it."""
        groups: dict[str, list[int]] = {}
        for index, (path, _) in enumerate(tensors):
            groups.setdefault(dotted(path) or "tensor", []).append(index)
        names: dict[int, str] = {}
        taken = set(groups)
        for name, members in groups.items():
            ordered = sorted(members, key=lambda index: len(tensors[index][0]))
            for turn, index in enumerate(ordered):
                names[index] = name if not turn else _free(name, turn + 1, taken)
            if len(members) > 1:
                others = ", ".join(f"'{one_line(names[index][:100])}'" for index in ordered[1:4])
                self.notes.append(
                    f"{len(members)} tensors are called '{one_line(name[:100])}' by their paths: "
                    f"all but one are named {others}{' ...' if len(members) > 4 else ''} here"
                )
        return [(names[index], path, found) for index, (path, found) in enumerate(tensors)]

    def _take(self, name: str, found: Found, pickle: memoryview, prefix: str, role: str) -> None:
        where = str(self.file.path)
        if isinstance(found, Unread):
            keys = [f"{prefix}{key}" for key in storages_in(found.holds)]
            nbytes = found.nbytes + sum(self.ledger.size(key) for key in keys if not self.ledger.claimed(key))
            self.leave_out(LeftOut(name, found.reason, nbytes, "other" if found.other else "unread"), keys)
        elif isinstance(found, Array):
            # A single byte has no order.
            big = found.big_endian and PLAIN[found.dtype] > 1
            self.entries[name] = TensorEntry(
                name, found.dtype, found.shape, found.nbytes, where, None, found.strides, big, role=role
            )
            self.computed[name] = (found, pickle)
        elif isinstance(found, Quantized):
            view = _prefixed(found.view, prefix)
            scale, zero = (
                _prefixed(part, prefix) if isinstance(part, View) else part for part in (found.scale, found.zero)
            )
            entry = self.entry(name, view)
            # For their claims: scales and zeros have storages too.
            for part in (scale, zero):
                if isinstance(part, View):
                    self.entry(name, part)
            self.entries[name] = replace(entry, dtype=_QUANTIZED[view.dtype], offset=None, strides=(), role=role)
            self.computed[name] = (Quantized(view, scale, zero, found.axis), pickle)
        else:
            view = _prefixed(found, prefix)
            entry = replace(self.entry(name, view), role=role)
            if view.conj or view.neg:
                self.computed[name] = (view, pickle)
                entry = replace(entry, offset=None, strides=())
            self.entries[name] = entry

    def entry(self, name: str, view: View) -> TensorEntry:
        """Return the entry of a view and claim its bytes; LoadError where it leaves its storage."""
        storage = self.storages.get(view.storage)
        if storage is None:
            raise self.file.broken(f"'{name[:100]}' is in storage {view.storage[:40]}, which is missing")
        first, nbytes = (bytes_of(view.dtype, count) for count in (view.offset, view.span))
        room = min(storage.nbytes, view.room)
        if first + nbytes > room or (storage.start is not None and storage.start + first + nbytes > self.file.size):
            raise self.file.broken(f"'{name[:100]}' reads past the end of its storage of {room:,} bytes")
        self.ledger.claim(view.storage, first, first + nbytes)
        self.views[name] = view
        offset = None if storage.start is None else storage.start + first
        strides = () if view.contiguous else view.strides
        big = self.big_endian and PLAIN.get(view.dtype, 1) > 1
        where = str(self.file.path)
        return TensorEntry(name, view.dtype, view.shape, nbytes, where, offset, strides, big, view.storage)


def bytes_of(dtype: str, elements: int) -> int:
    """Return the bytes that ``elements`` of a PyTorch type take; F4 has two per byte."""
    return stored_bytes(dtype, elements + elements % 2 if dtype == "F4" else elements) or 0


def _prefixed(view: View, prefix: str) -> View:
    return replace(view, storage=f"{prefix}{view.storage}") if prefix else view


def _free(name: str, turn: int, taken: set[str]) -> str:
    """Return ``name#2`` or the next number that no tensor has."""
    while f"{name}#{turn}" in taken:
        turn += 1
    taken.add(f"{name}#{turn}")
    return f"{name}#{turn}"


def _training(root: Any) -> set[Path]:
    """Return the paths whose tensors serve only to resume training, recognised by key or structure."""
    if not isinstance(root, Call | Dict):
        return set()
    found: set[Path] = set()
    for key, value in children(root):
        if (isinstance(key, str) and _TRAINING.fullmatch(key.lower())) or _is_optimizer(value):
            found.add((key,))
        elif isinstance(value, Dict | list | tuple):
            # Optimizers in a list or a dictionary of any name.
            found |= {(key, inner) for inner, item in children(value) if _is_optimizer(item)}
    return found


def _is_optimizer(value: Any) -> bool:
    pairs = value.pairs if isinstance(value, Dict | Call) else ()
    return {"state", "param_groups"} <= {key for key, _ in pairs if isinstance(key, str)}
