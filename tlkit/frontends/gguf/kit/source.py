"""Where a language model's metadata and weights come from: a GGUF file, or a Hugging Face folder told in GGUF's words.

Both give the tensors by GGUF's names, with the values that llama.cpp would have, so that one builder serves both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.errors import LoadError
from tlkit.formats.base.tensors import TensorEntry, TensorFile
from tlkit.formats.gguf.model.changes import Change
from tlkit.formats.gguf.model.folder import read_model
from tlkit.formats.gguf.model.hyperparameters import OWN_LIMITS
from tlkit.formats.gguf.read import GGUFFile
from tlkit.formats.safetensors.read import folder_config

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIECE = 1 << 22
"""Weights that are decoded at a time."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor: the entries that it is stacked of, and the changes that its values need, in order.

    ``made`` are values that no file stores.
    """

    name: str
    file: TensorFile
    entries: tuple[TensorEntry, ...] = ()
    changes: tuple[Change, ...] = ()
    made: tuple[float, ...] = ()
    joined: bool = False
    """Whether entries lie one below the other, and not along a new axis."""
    stacked: bool = False
    """Whether there is an axis of entries though there is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, row-major."""
        if not self.entries:
            return (len(self.made),)
        shape = self.entries[0].shape
        for change in self.changes:
            shape = change.shape(shape)
        if self.joined:
            return (len(self.entries) * shape[0], *shape[1:])
        return (len(self.entries), *shape) if self.stacked or len(self.entries) > 1 else shape

    @property
    def stored(self) -> int:
        """The bytes that the file stores of it."""
        return sum(entry.nbytes for entry in self.entries)

    def changed(self, change: Change) -> StoredTensor:
        """Return the tensor with one more change; one that undoes the last one takes it away."""
        last = self.changes[-1] if self.changes else None
        undone = last is not None and (last.kind, last.heads) == (change.kind, change.heads)
        if last is not None and undone and last.back != change.back:
            changes = self.changes[:-1]
        else:
            changes = (*self.changes, change)
        return replace(self, changes=changes)

    def array(self) -> NDArray[Any]:
        """Return the values as float32."""
        import numpy as np

        if not self.entries:
            return np.array(self.made, np.float32)
        parts = []
        for entry in self.entries:
            values = self.file.array(entry)
            for change in self.changes:
                values = change.apply(values)
            parts.append(np.asarray(values, np.float32))
            self.file.release(entry, entry.nbytes)
        if self.joined:
            return np.concatenate(parts)
        return np.stack(parts) if self.stacked or len(parts) > 1 else parts[0]

    def pieces(self) -> Iterator[NDArray[Any]]:
        """Yield the values as float32, some rows at a time, [rows, last axis] each; leading axes are one."""
        import numpy as np

        for entry in self.entries:
            order = self._order(entry)
            if order is None:
                whole = StoredTensor(self.name, self.file, (entry,), self.changes).array()
                yield whole.reshape(-1, whole.shape[-1])
                continue
            raw = np.frombuffer(self.file.raw(entry), np.uint8).reshape(len(order), -1)
            step = max(_PIECE // entry.shape[-1], 1)
            for start in range(0, len(order), step):
                taken = raw[order[start : start + step]]
                part = replace(entry, shape=(len(taken), entry.shape[-1]), nbytes=taken.nbytes)
                yield np.asarray(self.file.decode(part, taken.reshape(-1).data), np.float32)
                self.file.release(entry, min((start + step) * raw.shape[1], entry.nbytes))
        if not self.entries:
            yield self.array().reshape(1, -1)

    def _order(self, entry: TensorEntry) -> NDArray[Any] | None:
        """Return the stored rows' places in their order here; None where values are not rows of bytes that follow one
        another."""
        import numpy as np

        moved = all(change.moves for change in self.changes)
        count = math.prod(entry.shape[:-1])
        apart = self.file.is_compressed(entry) or bool(entry.strides)
        if len(entry.shape) < 2 or not moved or apart or not count or entry.nbytes % count:
            return None
        places = np.arange(count).reshape(entry.shape[0], -1)
        for change in self.changes:
            places = change.apply(places)
        return places.reshape(-1)

    def rows(self, indices: Sequence[int]) -> NDArray[Any]:
        """Return some rows as float32, of which only the bytes are read where they lie in the file as such."""
        import numpy as np

        beyond = max(indices, default=0)
        if beyond >= self.shape[0]:
            said = f"{self.file.path}: the text has the token {beyond}, and '{self.name}' {self.shape[0]} rows"
            raise LoadError(said, "the tokenizer is another model's, or its special tokens have no weights")
        entry = self.entries[0] if len(self.entries) == 1 and not self.changes and not self.stacked else None
        if entry is None or self.file.is_compressed(entry) or entry.strides or entry.nbytes % entry.shape[0]:
            return np.asarray(self.array()[list(indices)])
        raw = np.frombuffer(self.file.raw(entry), np.uint8).reshape(entry.shape[0], -1)[list(indices)]
        self.file.release(entry, entry.nbytes)  # more is mapped than was asked for
        part = replace(entry, shape=(len(indices), *entry.shape[1:]), nbytes=raw.nbytes)
        return np.asarray(self.file.decode(part, raw.reshape(-1).data), np.float32)


@dataclass(frozen=True, slots=True)
class LanguageSource:
    """A language model's metadata (plain values by GGUF's keys) and tensors by GGUF's names; ``files`` are
    what it lies in beside the files of its tensors."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    files: tuple[Path, ...] = ()

    def tensor(self, name: str, shape: Sequence[int] | None = None) -> StoredTensor:
        """Return a tensor; LoadError where it is not there, or of another shape than ``shape`` (-1: any length)."""
        found = self.tensors.get(name)
        if found is None:
            said = f"{self.path}: the tensor '{name}' is not there"
            raise LoadError(said, "the model is incomplete: get the whole file")
        wrong = shape is not None and (
            len(shape) != len(found.shape) or any(w not in (-1, n) for w, n in zip(shape, found.shape, strict=True))
        )
        if wrong:
            there, wanted = ("x".join(map(str, s)) for s in (found.shape, shape or ()))
            said = f"{self.path}: the tensor '{name}' is {there}, where the hyperparameters say {wanted}"
            raise LoadError(said.replace("-1", "?"), "the file is damaged")
        return found

    @property
    def stored(self) -> int:
        """The bytes that the weights have on disk."""
        return sum(tensor.stored for tensor in self.tensors.values())


def gguf_source(file: GGUFFile) -> LanguageSource:
    """Return what a GGUF file holds; LoadError where it says that it cannot tell what it computes."""
    limits = file.metadata.get(OWN_LIMITS)
    _check_limits(file.path, limits if isinstance(limits, Sequence) else ())
    tensors = {entry.name: StoredTensor(entry.name, file, (entry,)) for entry in file.entries()}
    return LanguageSource(file.path, file.metadata, tensors)


def _check_limits(path: Path, limits: Sequence[Any]) -> None:
    if limits:
        raise LoadError(f"{path}: {str(limits[0])[:200]}", "run the folder with transformers")


def folder_source(file: TensorFile) -> LanguageSource:
    """Return what the Hugging Face folder of ``file`` holds, in GGUF's words.

    LoadError where the architecture is not one that a GGUF file could have, or where tensors are missing.
    """
    config = folder_config(file.path)
    folder = file.path if file.path.is_dir() else file.path.parent
    entries = {entry.name: entry for entry in file.entries() if entry.role != "training"}
    model = read_model(folder, config, entries)
    if model is None:
        kind = str(config.get("model_type", ""))[:60]
        said = f"{file.path}: " + (f"a model of type '{kind}'" if kind else "no config.json says which model it is")
        raise LoadError(said, "tlkit builds the language models that `tlkit run --help` names")
    _check_limits(file.path, model.limits)
    tensors: dict[str, StoredTensor] = {}
    stacked = {name for members in model.stacks.values() for name in members}
    for name, new in model.names.items():
        members = model.stacks[new] if name in stacked else [name]
        changes = tuple(model.changes[part] for part in members[:1] if part in model.changes)
        parts = tuple(entries[part] for part in members)
        joined = new in model.joined
        tensors[new] = StoredTensor(new, file, parts, changes, joined=joined, stacked=name in stacked and not joined)
    tensors |= {name: StoredTensor(name, file, made=tuple(row)) for name, row in model.made.items()}
    metadata = {key: typed.value for key, typed in model.metadata.items()}
    return LanguageSource(file.path, metadata, tensors)
