"""Storages inside a pickle: what ``pickle.dump`` makes of tensors, whose storages are files of PyTorch's old layout.

Loading such a pickle would call ``torch.storage._load_from_bytes``, which unpickles again; here the inner file's parts
are read like any other, and the call becomes a reference to the run of bytes that it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlkit.errors import LoadError
from tlkit.formats.base.dtypes import PLAIN
from tlkit.formats.files.mapped import DAMAGED, Mapped
from tlkit.formats.torch.assemble import Storage
from tlkit.formats.torch.objects import STORAGES, storage_key
from tlkit.formats.torch.pickle import LEGACY_MAGIC, read_pickle
from tlkit.formats.torch.pickle_machine import Call, Dict, LongBytes, Persistent
from tlkit.formats.torch.walk import children, is_container

LOADER = "torch.storage._load_from_bytes"
"""What such a pickle calls for each storage."""

_AGAIN = "load it where it comes from, and save it with torch.save"

Store = Callable[[str, Storage, str], None]


def adopt(root: Any, file: Mapped, store: Store) -> Any:
    """Return ``root`` with references in place of embedded storages, each of which is given to ``store``."""
    # Each call is kept beside its id, which another object could get otherwise.
    found = {id(call): (call, _reference(call, file, store)) for call in _calls(root)}

    def put(value: Any) -> Any:
        return found[id(value)][1] if id(value) in found else value

    for holder in _holders(root):
        if isinstance(holder, list):
            # In place: others may hold the same list.
            holder[:] = map(put, holder)
        elif isinstance(holder, Dict):
            holder.pairs[:] = [(key, put(value)) for key, value in holder.pairs]
        elif isinstance(holder, Call):
            holder.pairs[:] = [(key, put(value)) for key, value in holder.pairs]
            holder.items[:] = map(put, holder.items)
            if isinstance(holder.args, tuple):
                holder.args = tuple(map(put, holder.args))
            holder.state = put(holder.state)
    return put(root)


def _holders(root: Any) -> list[Any]:
    """Return every container in ``root``, each once."""
    seen: dict[int, Any] = {}
    stack = [root]
    while stack:
        value = stack.pop()
        if is_container(value) and id(value) not in seen:
            seen[id(value)] = value
            stack += [inner for _, inner in children(value)]
            if isinstance(value, Call) and isinstance(value.args, tuple):
                stack += value.args
    return list(seen.values())


def _calls(root: Any) -> list[Call]:
    return [value for value in _holders(root) if isinstance(value, Call) and str(value.func) == LOADER]


def _reference(call: Call, file: Mapped, store: Store) -> Persistent:
    """Return a reference to the storage that ``call`` would load."""
    data = call.args[0] if isinstance(call.args, tuple) and call.args else None
    where = f"{file.path}: a storage inside the pickle"
    if isinstance(data, Call):  # protocols up to 2 have no bytes, and write them as text
        raise LoadError(f"{where} is written as text, as pickle's protocols up to 2 do", _AGAIN)
    if not isinstance(data, LongBytes):
        raise LoadError(f"{where} is not in PyTorch's old layout", DAMAGED)
    start, view = data.start, file.view[: data.start + data.length]
    if bytes(view[start : start + len(LEGACY_MAGIC)]) != LEGACY_MAGIC:
        raise LoadError(f"{where} is not in PyTorch's old layout", DAMAGED)
    place = start + len(LEGACY_MAGIC)
    parts = []
    for _ in range(4):  # the protocol, the writer's system, the storage, the keys of what follows
        parts.append(read_pickle(view, where, place))
        place = parts[-1].end
    inner = parts[2].root
    if storage_key(inner) is None or place + 8 > len(view):
        raise LoadError(f"{where} holds no storage", DAMAGED)
    # ("storage", class, key, device, number of elements, ...)
    _, kind, _, _, count, *_ = inner.id
    width = PLAIN[STORAGES.get(str(getattr(kind, "name", "")), "U8")]
    if type(count) is not int or count != int.from_bytes(view[place : place + 8], "little"):
        raise LoadError(f"{where} has another length than it says", DAMAGED)
    if place + 8 + count * width > len(view):
        raise LoadError(f"{where} has fewer bytes than it says", DAMAGED)
    key = f"at byte {start}"
    store(key, Storage(count * width, place + 8), f"the storage at byte {start:,}")
    return Persistent(("storage", kind, key, "cpu", count))
