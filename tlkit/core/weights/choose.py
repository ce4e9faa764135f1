"""Choose which of a file's tensors are converted, under which names; whatever is left out is reported."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlkit.errors import IncompleteError, LoadError, TlkitError, UsageError
from tlkit.formats.base.ledger import sentences
from tlkit.formats.base.tensors import TensorEntry, TensorFile
from tlkit.types import LeftOut

_TRAINING = "only resuming training needs it; --all includes it"
_WRAPPERS = ("state_dict.", "module.", "_orig_mod.")
"""Prefixes that Lightning, DataParallel and torch.compile put before a model's own names."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The tensors to convert, the new names of those that lose a prefix, and what is not among them."""

    entries: tuple[TensorEntry, ...]
    renamed: Mapping[str, str]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def choose(
    opened: TensorFile,
    *,
    everything: bool,
    allow_missing: bool,
    prefix: str | None,
    cut: bool,
    able: Collection[str] = (),
) -> Choice:
    """Choose the tensors of ``opened``; IncompleteError if some cannot be given, unless ``allow_missing``.

    ``everything`` includes training state. ``prefix`` is cut from the names that begin with it (UsageError if none
    does); without one, and if ``cut``, a wrapper's prefix that all names share. Types in ``able`` are kept as they are.
    """
    entries = tuple(entry for entry in opened.entries() if everything or not entry.role)
    # A file of nothing but training state was named for just that.
    entries = entries or tuple(opened.entries())
    left = [*opened.left_out, *_training(opened, entries), *_unreadable(opened, entries, able)]
    lost = [item for item in left if item.lost]
    if lost and not allow_missing:
        raise _incomplete(opened.path, lost)
    unreadable = {item.name for item in left}
    entries = tuple(entry for entry in entries if entry.name not in unreadable)
    if not entries:
        raise LoadError(f"{opened.path}: it holds no tensors", "name a file of weights")
    renamed, notes = _cut([entry.name for entry in entries], prefix, cut)
    return Choice(entries, renamed, tuple(left), tuple(notes))


def _training(opened: TensorFile, entries: Sequence[TensorEntry]) -> list[LeftOut]:
    kept = {entry.name for entry in entries}
    return [
        LeftOut(entry.name, _TRAINING, entry.nbytes, "unasked") for entry in opened.entries() if entry.name not in kept
    ]


def _unreadable(opened: TensorFile, entries: Sequence[TensorEntry], able: Collection[str]) -> list[LeftOut]:
    """Return the tensors whose values cannot be read and whose types cannot be kept unchanged either."""
    found = []
    for entry in entries:
        if entry.dtype in able and not entry.big_endian:
            continue
        try:
            # Asked for its error: what has a type can be decoded.
            opened.decoded_type(entry)
        except TlkitError as error:
            reason = error.message.partition(f"{entry.name}: ")[2] or error.message
            found.append(LeftOut(entry.name, reason, entry.nbytes))
    return found


def _incomplete(path: Path, lost: Sequence[LeftOut]) -> TlkitError:
    """Return the error for a conversion that would leave something out."""
    said = "; ".join(sentences(lost)[:3]).removeprefix("left out: ")
    if all(item.kind == "missing" for item in lost):
        return LoadError(f"{path}: part of it is missing: {said}", _ALL_OF_IT)
    return IncompleteError(
        f"{path}: {len(lost)} of its tensors would be left out: {said}",
        "convert the rest with --allow-missing (nothing was written)",
    )


_ALL_OF_IT = "fetch all of the model first, or convert what is here with --allow-missing"


def _cut(names: Sequence[str], prefix: str | None, cut: bool) -> tuple[dict[str, str], list[str]]:
    """Return the shortened names, and a note for a prefix that was cut unasked."""
    if prefix is not None:
        if not any(name.startswith(prefix) and name != prefix for name in names):
            raise UsageError(f"--strip-prefix: no tensor's name begins with '{prefix}'", f"the first is '{names[0]}'")
        return _without(names, prefix), []
    found: dict[str, str] = {}
    notes = []
    # Wrappers nest: `module._orig_mod.`.
    while cut:
        now = [found.get(name, name) for name in names]
        # A name that is only the prefix would be empty.
        shared = next((one for one in _WRAPPERS if all(name.startswith(one) and name != one for name in now)), None)
        if shared is None:
            break
        notes.append(f"the prefix '{shared}', which all names share, is cut: --names keep leaves it")
        found |= {name: short.removeprefix(shared) for name, short in zip(names, now, strict=True)}
    return found, notes


def _without(names: Sequence[str], prefix: str) -> dict[str, str]:
    return {name: name.removeprefix(prefix) for name in names if name.startswith(prefix) and name != prefix}
