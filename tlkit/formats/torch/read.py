"""Read PyTorch's files: state_dicts, checkpoints, modules, TorchScript, exported programs; zip or the older layout.

Nothing in them is executed: pickles are read by ``pickle.py``, tensors are mapped in place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.formats.base import sniff
from tlkit.formats.base.dtypes import PLAIN
from tlkit.formats.base.mapped_tensors import MappedTensors
from tlkit.formats.base.tensors import FormatName, TensorEntry
from tlkit.formats.files.mapped import Mapped
from tlkit.formats.files.zip import Zip
from tlkit.formats.torch import export
from tlkit.formats.torch.assemble import Assembly, Storage, bytes_of
from tlkit.formats.torch.describe import top_level
from tlkit.formats.torch.embedded import LOADER, adopt
from tlkit.formats.torch.objects import STORAGES, Array, Quantized, View, storage_key
from tlkit.formats.torch.pickle import Pickle, read_pickle
from tlkit.formats.torch.pickle_machine import Call, Dict, Global, Persistent
from tlkit.types import LeftOut

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BEHIND = "these bytes follow what was saved"
_FORWARD = re.compile(r"^  def forward\((.*?)\) -> (.+?):$", re.DOTALL | re.MULTILINE)


class PyTorchFile(MappedTensors):
    """A PyTorch file: ``kind`` is its kind, ``imports`` what its pickle would import, ``details`` everything else."""

    format: FormatName = "PyTorch"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.details: dict[str, Any] = {}
        self.imports: tuple[str, ...] = ()
        self.kind = "pickle"
        self._file = Mapped(path)
        self._files[str(path)] = self._file
        self._zip: Zip | None = None
        self._made = Assembly(self._file, big_endian=False)
        if bytes(self._file.view[:4]) == b"PK\x03\x04":
            self._read_zip()
        else:
            self._read_plain()
        self._entries = tuple(self._made.entries.values())
        self.notes += [f"{path}: {note}" for note in self._made.notes]
        self.left_out = self._made.left_out()

    def carried(self) -> Mapping[str, tuple[str, Any]]:
        """Return the numbers among a checkpoint's other entries: only those certainly are plain values."""
        numbers = {key: value for key, value in self.metadata.items() if isinstance(value, int | float)}
        return {key: ("str", str(value)) for key, value in numbers.items()}

    def raw(self, entry: TensorEntry) -> memoryview:
        """Return the tensor's stored bytes: mapped, or expanded where the archive compressed them."""
        if entry.offset is not None:
            return super().raw(entry)
        held, pickle = self._made.computed.get(entry.name, (None, None))
        if isinstance(held, Array) and pickle is not None:
            from tlkit.formats.torch.values import array_bytes

            return array_bytes(held, pickle)
        return self._stored(self._made.views[entry.name], entry.nbytes)

    def is_compressed(self, entry: TensorEntry) -> bool:
        """Whether a tensor's values must be computed: it is quantized, or marked as conjugate or negative."""
        return isinstance(self._made.computed.get(entry.name, (None,))[0], Quantized | View)

    def decoded_type(self, entry: TensorEntry) -> str:
        """Return the type of what :meth:`array` gives: f32 for a quantized tensor, as PyTorch's ``dequantize``."""
        return "F32" if entry.dtype.startswith("Q") and self.is_compressed(entry) else super().decoded_type(entry)

    def array(self, entry: TensorEntry) -> NDArray[Any]:
        """Return the tensor's values, computed where it is quantized or marked."""
        held, _ = self._made.computed.get(entry.name, (None, None))
        if held is None or isinstance(held, Array):
            return super().array(entry)
        from tlkit.formats.torch import values

        if isinstance(held, Quantized):
            return values.dequantize(held, self._values)
        return values.marked(held, self._values(held))

    def _values(self, view: View) -> NDArray[Any]:
        """Return a view's stored values, ignoring its marks."""
        scratch = Assembly(self._file, self._made.big_endian)
        scratch.storages = self._made.storages
        entry = scratch.entry("", view)
        return self.decode(entry, self._stored(view, entry.nbytes))

    def _stored(self, view: View, nbytes: int) -> memoryview:
        storage = self._made.storages[view.storage]
        first = bytes_of(view.dtype, view.offset)
        if storage.start is not None:
            return self._file.view[storage.start + first : storage.start + first + nbytes]
        assert self._zip is not None
        return self._zip.read(storage.member, storage.nbytes)[first : first + nbytes]

    def _read_zip(self) -> None:
        archive = self._zip = Zip(self._file)
        names = _inner(archive.names)
        # Files without it are little-endian.
        if "byteorder" in names:
            self._made.big_endian = bytes(archive.read(names["byteorder"], 64)) == b"big"
        if "data.pkl" not in names:
            self._exported(archive)
            return
        data = archive.read(names["data.pkl"])
        found = self._describe(data, 0)
        self._store_members(archive, names, "data/", "")
        self._made.add(found.root, found.references, data)
        if "constants.pkl" in names:
            self._script(archive, names, found.root)

    def _store_members(self, archive: Zip, names: dict[str, str], folder: str, prefix: str) -> None:
        """Enter each member of a folder of the archive as a storage."""
        for key in self._keys(names, folder):
            member = names[f"{folder}{key}"]
            self._made.store(f"{prefix}{key}", Storage(archive.size(member), archive.offset(member), member), member)

    def _keys(self, names: dict[str, str], folder: str) -> Iterator[str]:
        return (name.removeprefix(folder) for name in names if name.startswith(folder) and name != folder)

    def _read_plain(self) -> None:
        """Read a bare pickle, or the older layout: five pickles, then each storage's length and bytes."""
        place = self._after_magic(0)
        if not place:
            found = self._describe(self._file.view, 0)
            self.kind = "pickle"
            self._made.add(found.root, found.references, self._file.view)
            self._rest(found.end)
            return
        for _ in range(2):  # the protocol's number and the writer's byte order and sizes
            head = read_pickle(self._file.view, str(self.path), place)
            place = head.end
        system = head.root.pairs if isinstance(head.root, Dict) else ()
        self._made.big_endian = any(key == "little_endian" and value is False for key, value in system)
        found = self._describe(self._file.view, place)
        keys = read_pickle(self._file.view, str(self.path), found.end)
        self.details["layout"] = "from before PyTorch 1.6"
        self._store_runs(found.references, keys.root, keys.end)
        self._made.add(found.root, found.references, self._file.view)

    def _after_magic(self, place: int) -> int:
        """Return where the number ends with which the older layout begins at ``place``; 0 where there is none."""
        found = sniff.LEGACY_TORCH.match(bytes(self._file.view[place : place + 64]))
        return place + found.end() if found else 0

    def _rest(self, end: int) -> None:
        """Report what follows the pickles and storages that were read: ``end`` is where they do."""
        size = self._file.size - end
        another = size > 1 and (self._file.view[end] == 0x80 or bool(self._after_magic(end)))
        why = "another pickle follows the first; save what it holds to a file of its own" if another else _BEHIND
        if size > 0:
            item = LeftOut(f"from byte {end:,} on", why, size, "unread" if another else "unnamed")
            self._made.leave_out(item, ())

    def _store_runs(self, references: Iterable[Persistent], keys: Any, place: int) -> None:
        """Enter the storages that follow the pickles of the older layout: a count of elements each, then its bytes."""
        widths = {
            key: PLAIN[STORAGES.get(str(getattr(item.id[1], "name", "")), "U8")]
            for item in references
            if (key := storage_key(item))
        }
        for key in map(str, keys if isinstance(keys, list) else ()):
            if place + 8 > self._file.size or key not in widths:
                break  # what is left is reported as such
            nbytes = int.from_bytes(self._file.view[place : place + 8], "little") * widths[key]
            self._made.store(key, Storage(nbytes, place + 8), f"storage {key}")
            place += 8 + nbytes
        self._rest(place)

    def _describe(self, data: memoryview, start: int) -> Pickle:
        found = read_pickle(data, str(self.path), start)
        if LOADER in found.imports and data is self._file.view:
            found = replace(found, root=adopt(found.root, self._file, self._made.store))
        self.imports, root = found.imports, found.root
        self.metadata = top_level(root, str(self.path))
        func = root.func if isinstance(root, Call) else None
        plain = isinstance(root, Dict | list | tuple) or str(func) == "collections.OrderedDict"
        self.kind = "state_dict" if plain else "tensor" if str(func).startswith("torch._utils.") else "module"
        nested = isinstance(root, Dict) and any(isinstance(value, Dict | Call) for value in self._containers(root))
        if self.kind == "state_dict" and nested:
            self.kind = "checkpoint"
        if self.kind == "module" and isinstance(func, Global):
            self.details["class"] = str(func)
        return found

    def _containers(self, root: Dict) -> Iterator[Any]:
        return (
            value
            for _, value in root.pairs
            if isinstance(value, Dict) or (isinstance(value, Call) and str(value.func) == "collections.OrderedDict")
        )

    def _script(self, archive: Zip, names: dict[str, str], root: Any) -> None:
        self.kind = "TorchScript"
        name = str(root.func) if isinstance(root, Call) else ""
        self.details["class"] = name.removeprefix("__torch__.")
        code = names.get(f"code/{name.rpartition('.')[0].replace('.', '/')}.py", "")
        if code:
            source = bytes(archive.read(code)).decode("utf-8", "replace")
            body = source.partition(f"class {name.rpartition('.')[2]}(")[2].partition("\nclass ")[0]
            forward = _FORWARD.search(body)
            if forward:
                # Without self.
                arguments = " ".join(forward[1].split()).partition(", ")[2]
                self.details["forward"] = f"({arguments}) -> {forward[2]}"
        self._store_members(archive, names, "constants/", "constants/")
        constants = archive.read(names["constants.pkl"])
        found = read_pickle(constants, f"{self.path}: constants.pkl")
        self._made.add(_constants(found.root), found.references, constants, ("CONSTANTS",), "constants/")
        self.details["extra_files"] = list(self._keys(names, "extra/"))

    def _exported(self, archive: Zip) -> None:
        self.kind = "exported program"
        self.details |= export.describe(archive, self._file)
        export.read_weights(archive, self._file, self._made)


def _inner(members: Iterable[str]) -> dict[str, str]:
    """Return an archive's members by their names inside its single folder; a re-zipped archive may have no folder."""
    root = min((name for name in members if name.rpartition("/")[2] == "data.pkl"), key=len, default="x/")
    bare = "/" not in root
    return {name if bare else name.partition("/")[2]: name for name in members}


def _constants(root: Any) -> Any:
    """Name the constants as in the code: ``CONSTANTS.c0``."""
    return Dict([(f"c{index}", item) for index, item in enumerate(root)]) if isinstance(root, list | tuple) else root
