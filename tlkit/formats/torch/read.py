"""PyTorch's files: state_dicts, checkpoints, whole modules, TorchScript, exported programs; zip or the older layout.

Nothing in them is executed: the pickles are read by ``pickle.py``, tensors are mapped where they lie.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tlkit.formats.base.dtypes import PLAIN
from tlkit.formats.base.mapped_tensors import MappedTensors
from tlkit.formats.base.tensors import TensorEntry
from tlkit.formats.files.mapped import Mapped
from tlkit.formats.files.zip import Zip
from tlkit.formats.torch import export
from tlkit.formats.torch.objects import View, find_tensors, top_level
from tlkit.formats.torch.pickle import read_pickle
from tlkit.formats.torch.pickle_machine import Call, Dict, Global

LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""How a file of ``torch.save`` began until PyTorch 1.6: the pickled number 0x1950a86a20f9469cfc6c."""

_FORWARD = re.compile(r"^  def forward\((.*?)\) -> (.+?):$", re.DOTALL | re.MULTILINE)


class PyTorchFile(MappedTensors):
    """A file of PyTorch's. ``kind`` says which; ``imports`` what its pickle would import; ``details`` the rest."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.notes: list[str] = []
        self.metadata: dict[str, Any] = {}
        self.details: dict[str, Any] = {}
        self.imports: tuple[str, ...] = ()
        self.kind = "pickle"
        self._file = Mapped(path)
        self._files[str(path)] = self._file
        self._zip: Zip | None = None
        self._packed: dict[str, str] = {}
        self._big_endian = False
        if bytes(self._file.view[:4]) == b"PK\x03\x04":
            self._read_zip()
        else:
            self._read_plain()

    def raw(self, entry: TensorEntry) -> memoryview:
        """Return the tensor's stored bytes: mapped, or expanded where the archive compressed them."""
        if entry.offset is not None or not self._zip:
            return super().raw(entry)
        member, start = self._packed[entry.name].rsplit("@", 1)
        return self._zip.read(member, self._zip.size(member))[int(start) : int(start) + entry.nbytes]

    def _read_zip(self) -> None:
        archive = self._zip = Zip(self._file)
        names = {name.partition("/")[2]: name for name in archive.names}
        if "byteorder" in names:
            self._big_endian = bytes(archive.read(names["byteorder"], 64)) == b"big"
        if "data.pkl" in names:
            prefix = names["data.pkl"].removesuffix("data.pkl")
            root = self._describe(archive.read(names["data.pkl"]), 0)
            storages = {key: f"{prefix}data/{key}" for key in self._keys(names, "data/")}
            self._entries = tuple(self._zip_entries(root, storages))
            if "constants.pkl" in names:
                self._script(archive, names, root)
        else:
            self._exported(archive)

    def _keys(self, names: dict[str, str], folder: str) -> Iterator[str]:
        return (name.removeprefix(folder) for name in names if name.startswith(folder))

    def _read_plain(self) -> None:
        """A bare pickle, or the older layout: five pickles, then each storage's length and bytes."""
        if bytes(self._file.view[: len(LEGACY_MAGIC)]) != LEGACY_MAGIC:
            self._describe(self._file.view, 0)
            self.kind = "pickle"
            return
        place = len(LEGACY_MAGIC)
        for _ in range(2):  # the protocol's number and the writer's byte order and sizes
            head = read_pickle(self._file.view, str(self.path), place)
            place = head.end
        system = dict(head.root.pairs) if isinstance(head.root, Dict) else {}
        self._big_endian = system.get("little_endian") is False
        root = self._describe(self._file.view, place)
        keys = read_pickle(self._file.view, str(self.path), self._end)
        self.details["layout"] = "from before PyTorch 1.6"
        self._entries = tuple(self._legacy_entries(root, keys.root, keys.end))

    def _describe(self, data: memoryview, start: int) -> Any:
        found = read_pickle(data, str(self.path), start)
        self.imports, self._end, root = found.imports, found.end, found.root
        self.metadata = top_level(root, str(self.path))
        func = root.func if isinstance(root, Call) else None
        plain = isinstance(root, Dict | list | tuple) or str(func) == "collections.OrderedDict"
        self.kind = "state_dict" if plain else "tensor" if str(func).startswith("torch._utils.") else "module"
        nested = isinstance(root, Dict) and any(isinstance(value, Dict | Call) for value in self._containers(root))
        if self.kind == "state_dict" and nested:
            self.kind = "checkpoint"
        if self.kind == "module" and isinstance(func, Global):
            self.details["class"] = str(func)
        return root

    def _containers(self, root: Dict) -> Iterator[Any]:
        return (
            value
            for _, value in root.pairs
            if isinstance(value, Dict) or (isinstance(value, Call) and str(value.func) == "collections.OrderedDict")
        )

    def _zip_entries(self, root: Any, storages: dict[str, str]) -> Iterator[TensorEntry]:
        assert self._zip is not None
        for name, view in self._views(root):
            member = storages.get(view.storage)
            if member is None or member not in self._zip:
                raise self._file.broken(f"'{name[:100]}' is in storage {view.storage[:40]}, which is missing")
            start = self._zip.offset(member)
            if start is None:
                self._packed[name] = f"{member}@{view.offset * PLAIN[view.dtype]}"
            yield self._entry(name, view, start, self._zip.size(member))

    def _legacy_entries(self, root: Any, keys: Any, place: int) -> Iterator[TensorEntry]:
        views = list(self._views(root))
        sizes = {view.storage: view.room for _, view in views}
        starts: dict[str, int] = {}
        for key in keys if isinstance(keys, list) else ():
            if place + 8 > self._file.size or str(key) not in sizes:
                break
            starts[str(key)] = place + 8
            place += 8 + sizes[str(key)]
        for name, view in views:
            if view.storage not in starts:
                raise self._file.broken(f"'{name[:100]}' is in storage {view.storage[:40]}, which is missing")
            yield self._entry(name, view, starts[view.storage], sizes[view.storage])

    def _views(self, root: Any) -> Iterator[tuple[str, View]]:
        seen: Counter[str] = Counter()
        for name, view in find_tensors(root, str(self.path)):
            seen[name] += 1  # paths can meet, {"a": {"b": t}, "a.b": t}; names may not
            yield f"{name or 'tensor'}{f'#{seen[name]}' if seen[name] > 1 else ''}", view

    def _entry(self, name: str, view: View, start: int | None, room: int) -> TensorEntry:
        size = PLAIN[view.dtype]
        first, nbytes = view.offset * size, view.span * size
        if first + nbytes > room or (start is not None and start + first + nbytes > self._file.size):
            raise self._file.broken(f"'{name[:100]}' reads past the end of its storage of {room:,} bytes")
        offset = None if start is None else start + first
        strides = () if view.contiguous else view.strides
        file = str(self.path)
        return TensorEntry(
            name, view.dtype, view.shape, nbytes, file, offset, strides, self._big_endian and size > 1, view.storage
        )

    def _script(self, archive: Zip, names: dict[str, str], root: Any) -> None:
        self.kind = "TorchScript"
        name = str(root.func) if isinstance(root, Call) else ""
        self.details["class"] = name.removeprefix("__torch__.")
        code = names.get(f"code/{name.rpartition('.')[0].replace('.', '/')}.py", "")
        if code:
            source = bytes(archive.read(code)).decode("utf-8", "replace")
            body = source.partition(f"class {name.rpartition('.')[2]}(")[2].partition("\nclass ")[0]
            found = _FORWARD.search(body)
            if found:
                arguments = " ".join(found[1].split()).partition(", ")[2]
                self.details["forward"] = f"({arguments}) -> {found[2]}"
        self.details["extra_files"] = list(self._keys(names, "extra/"))

    def _exported(self, archive: Zip) -> None:
        self.kind = "exported program"
        self.details |= export.describe(archive, self._file)
        self._entries = tuple(export.entries(archive, self._file, self._entry))
        if not self._entries:
            self.notes.append(f"{self.path}: its weights are in a layout that is not read")
