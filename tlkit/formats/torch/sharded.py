"""PyTorch models in several files, or in a folder: ``pytorch_model-00001-of-00002.bin`` and their index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.errors import LoadError
from tlkit.formats.base.checkpoint_folder import choose, indexed, lone_shard, unlisted
from tlkit.formats.base.tensors import FormatName, TensorEntry
from tlkit.formats.files.mapped import DAMAGED
from tlkit.formats.torch.read import PyTorchFile
from tlkit.mil.program import Value
from tlkit.types import LeftOut

if TYPE_CHECKING:
    from numpy.typing import NDArray


def open_pytorch(path: Path) -> PyTorchFile | ShardedPyTorch:
    """Open a PyTorch file, an index of several, or a folder of them."""
    several = path.is_dir() or path.name.endswith(".json")
    chosen = lone_shard(path) if not several else choose(path, "bin") if path.is_dir() else indexed(path)
    if several:
        return ShardedPyTorch(path, chosen)
    found = PyTorchFile(path)
    found.notes += chosen.notes
    found.left_out = (*chosen.left_out, *found.left_out)
    return found


class ShardedPyTorch:
    """The tensors of several files as one model."""

    format: FormatName = "PyTorch"

    def __init__(self, path: Path, chosen: Any) -> None:
        self.path = path
        self._parts = {str(file): PyTorchFile(file) for file in chosen.files}
        parts = list(self._parts.values())
        self.shards: tuple[Path, ...] = tuple(sorted((*chosen.files, *chosen.missing)))
        self.metadata: dict[str, Any] = {key: value for part in parts for key, value in part.metadata.items()}
        self.imports = tuple(dict.fromkeys(name for part in parts for name in part.imports))
        self.kind = parts[0].kind if parts else "state_dict"
        self.details: dict[str, Any] = dict(parts[0].details) if len(parts) == 1 else {}
        found: dict[str, TensorEntry] = {}
        for part in parts:
            for entry in part.entries():
                if entry.name in found:
                    raise LoadError(
                        f"{part.path}: '{entry.name[:100]}' is in {found[entry.name].file} as well", DAMAGED
                    )
                found[entry.name] = entry
        self._entries = tuple(found.values())
        self.notes: Sequence[str] = [*chosen.notes, *(note for part in parts for note in part.notes)]
        left = (item for part in parts for item in part.left_out)
        self.left_out: Sequence[LeftOut] = (*chosen.left_out, *left, *unlisted(chosen, found))

    def entries(self) -> Sequence[TensorEntry]:
        """Return the tensors, file by file."""
        return self._entries

    def carried(self) -> Mapping[str, tuple[str, Any]]:
        """Return the metadata of all files that another format can take over."""
        return {key: pair for part in self._parts.values() for key, pair in part.carried().items()}

    def parts(self, entry: TensorEntry) -> Mapping[str, Value]:
        """Return the parts of a compressed tensor."""
        return self._parts[entry.file].parts(entry)

    def is_compressed(self, entry: TensorEntry) -> bool:
        """Whether a tensor's values must be computed from what is stored."""
        return self._parts[entry.file].is_compressed(entry)

    def decoded_type(self, entry: TensorEntry) -> str:
        """Return the type of what :meth:`array` gives."""
        return self._parts[entry.file].decoded_type(entry)

    def release(self, entry: TensorEntry, nbytes: int) -> None:
        """Release the first ``nbytes`` of a tensor's mapped pages."""
        self._parts[entry.file].release(entry, nbytes)

    def raw(self, entry: TensorEntry) -> memoryview:
        """Return a tensor's stored bytes."""
        return self._parts[entry.file].raw(entry)

    def decode(self, entry: TensorEntry, raw: memoryview) -> NDArray[Any]:
        """Return the values that stored bytes hold."""
        return self._parts[entry.file].decode(entry, raw)

    def array(self, entry: TensorEntry) -> NDArray[Any]:
        """Return a tensor's values."""
        return self._parts[entry.file].array(entry)
