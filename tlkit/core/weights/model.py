"""Which names and values tensors get on their way into GGUF or out of it, where the architecture is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tlkit.core.weights.metadata import Carried
from tlkit.core.weights.plan import NONE, Shaping
from tlkit.formats.base.tensors import TensorEntry, TensorFile
from tlkit.formats.gguf.model.architectures import by_gguf_name
from tlkit.formats.gguf.model.changes import Change, change_of, changes_back
from tlkit.formats.gguf.model.folder import GGUFModel, read_model
from tlkit.formats.gguf.model.row import Architecture
from tlkit.formats.gguf.names import are_gguf_names, find_architecture, to_gguf, to_hugging_face
from tlkit.formats.safetensors.read import folder_config
from tlkit.types import LeftOut

_SUFFIX = "_to_fp16"  # what coremltools appends to a parameter's name when it makes it f16
_CHANGES_ELSEWHERE = {
    "granite": "rows of q and k are in llama.cpp's order",
    "smollm3": "rows of q and k are in llama.cpp's order",
    "olmo": "rows of q and k are in llama.cpp's order",
}
"""What llama.cpp's converter does to the values of architectures that are only renamed here."""


@dataclass(frozen=True, slots=True)
class Naming:
    """New names by the source's own, values to change, tensors that are not written, metadata to add, and notes."""

    names: Mapping[str, str] = field(default_factory=dict)
    shaping: Shaping = NONE
    left_out: Sequence[LeftOut] = ()
    metadata: Carried = field(default_factory=dict)
    notes: Sequence[str] = ()
    architecture: str = ""


def naming(opened: TensorFile, entries: Mapping[str, TensorEntry], form: str, carried: Carried) -> Naming:
    """Return what becomes of ``entries``, by the names they now have, in a file of the format ``form``."""
    current = {name: entry.name for name, entry in entries.items()}
    if opened.format == "CoreML":
        short = {name: name.removesuffix(_SUFFIX) for name in current if name.endswith(_SUFFIX)}
        # Two parameters may differ in the suffix only.
        taken = Counter(short.get(name, name) for name in current)
        return Naming({current[old]: new for old, new in short.items() if taken[new] == 1})
    said = carried.get("general.architecture")
    if said is not None:
        return _by_metadata(current, entries, form, carried, find_architecture(str(said.value)))
    if form != "GGUF":
        return Naming()
    config = folder_config(opened.path)
    folder = opened.path if opened.path.is_dir() else opened.path.parent
    model = read_model(folder, config, entries)
    if model is not None and model.names:
        return _whole(model, current)
    arch = find_architecture(str(config.get("model_type", "")))
    known = to_gguf(current, arch) if arch and not are_gguf_names(current) else {}
    notes = _unnamed(arch, known, current)
    if known and arch in _CHANGES_ELSEWHERE:
        notes.append(f"names are mapped, values are not: as llama.cpp expects {arch}, {_CHANGES_ELSEWHERE[arch]}")
    return Naming({current[name]: new for name, new in known.items()}, notes=notes, architecture=arch)


def _by_metadata(
    current: Mapping[str, str], entries: Mapping[str, TensorEntry], form: str, carried: Carried, arch: str
) -> Naming:
    """Return the naming for a source that carries GGUF's metadata: a GGUF file, or SafeTensors made of one."""
    row, theirs = by_gguf_name(arch), are_gguf_names(current)
    # The names are those of the goal already.
    if not arch or theirs == (form == "GGUF"):
        return Naming(architecture=arch)
    known = to_gguf(current, arch) if form == "GGUF" else to_hugging_face(current, arch)
    notes = _unnamed(arch, known, current)
    changes = _changes(row, carried, known if form == "GGUF" else {name: name for name in known}, form != "GGUF")
    fitting = {name: change for name, change in changes.items() if change.fits(entries[name].shape)}
    if len(fitting) < len(changes):
        notes.append(
            f"the rows of q and k stay in {'Hugging Face' if form == 'GGUF' else 'llama.cpp'}'s order: "
            "the metadata lack the count of heads, or another one"
        )
    if known and row is None and arch in _CHANGES_ELSEWHERE and form != "GGUF":
        notes.append(f"names are mapped, values are not: as llama.cpp made {arch}, {_CHANGES_ELSEWHERE[arch]}")
    return Naming(
        {current[name]: new for name, new in known.items()},
        Shaping({current[name]: change for name, change in fitting.items()}),
        notes=notes,
        architecture=arch,
    )


def _changes(row: Architecture | None, carried: Carried, names: Mapping[str, str], back: bool) -> dict[str, Change]:
    """Return the changes of values, by the names that tensors now have; ``names`` gives GGUF's for each."""
    if row is None:
        return {}
    counts = [_count(carried.get(f"{row.name}.attention.head_count{end}")) for end in ("", "_kv")]
    heads = counts[0], counts[1] or counts[0]
    if back:
        return changes_back(names, row, heads)
    found = {name: change_of(new, row, heads) for name, new in names.items()}
    return {name: change for name, change in found.items() if change}


def _count(said: Any) -> int:
    value = said.value if said is not None else 0
    return value if type(value) is int and value > 0 else 0


def _whole(model: GGUFModel, current: Mapping[str, str]) -> Naming:
    """Return the naming for a folder whose architecture is known through and through."""
    shaping = Shaping(
        {current[name]: change for name, change in model.changes.items()},
        {new: [current[name] for name in members] for new, members in model.stacks.items()},
        model.made,
        model.joined,
        whole=True,
    )
    notes = [f"llama.cpp may not run it: {doubt}" for doubt in model.doubts]
    notes += [f"tlkit does not run it: {limit}" for limit in model.limits]
    left = [LeftOut(current[item.name], item.reason, item.bytes, item.kind) for item in model.left_out]
    names = {current[name]: new for name, new in model.names.items()}
    return Naming(names, shaping, left, model.metadata, notes, model.architecture)


def _unnamed(arch: str, known: Mapping[str, str], names: Mapping[str, str]) -> list[str]:
    if not known or len(known) == len(names):
        return []
    return [f"{len(names) - len(known)} of {len(names)} tensors keep their names: {arch} has no other names for them"]
