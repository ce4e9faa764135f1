"""Load weights from a file into a module, strictly: SafeTensors, PyTorch or GGUF, without unpickling.

Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tlkit.errors import LoadError
from tlkit.formats.base.ledger import sentences
from tlkit.formats.base.tensors import LazyTensor, Tensors
from tlkit.formats.describe import open_tensors

_LISTED = 8


def load_checkpoint(module: nn.Module, path: Path, strip_prefix: str | None = None) -> list[str]:
    """Load the weights in ``path`` into ``module``; every name and shape must match, and none may be missing.

    ``strip_prefix`` is cut from the file's names; names without it are ignored. By default, a prefix that all names
    share is cut if they then match the module's; an optimizer's state is ignored. Returns notes that say so. Raises
    :class:`LoadError` with what is missing, unexpected or of another shape; the module is then unchanged.
    """
    if not path.exists():
        raise LoadError(f"{path}: no such file", "--checkpoint is a .safetensors, .pth or .gguf file")
    opened = Tensors(open_tensors(path))
    wanted: dict[str, Tensor] = {
        name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)
    }
    stored, notes = _named(opened, wanted, strip_prefix)
    lost = [item for item in opened.source.left_out if item.lost]
    if lost:
        raise LoadError(f"{path}: {sentences(lost)[0]}", "name a file that holds them all")
    _check_names(path, wanted, stored)
    shapes = [name for name, value in wanted.items() if tuple(value.shape) != stored[name].shape]
    if shapes:
        listed = ", ".join(
            f"{name} {_dims(stored[name].shape)} for {_dims(wanted[name].shape)}" for name in shapes[:_LISTED]
        )
        raise LoadError(f"{path}: {len(shapes)} weight(s) of another shape: {listed}", "check --kwargs")
    with torch.no_grad():
        for name, value in wanted.items():
            # A copy: torch warns of memory that it cannot write to, such as a mapped file's.
            value.copy_(torch.from_numpy(stored[name].numpy().copy()))
    return notes


def _named(
    opened: Tensors, wanted: Mapping[str, Tensor], prefix: str | None
) -> tuple[dict[str, LazyTensor], list[str]]:
    """Return the stored tensors by the module's names, and what was done to get those."""
    found = {name: tensor for name, tensor in opened.items() if name in wanted or not tensor.entry.role}
    notes = []
    if len(found) < len(opened):
        notes.append(f"{len(opened) - len(found)} tensors of training state are ignored")
    if prefix is None and found and not set(wanted) & set(found):
        shared = _shared_prefix(found, wanted)
        if shared:
            notes.append(f"the prefix '{shared}' is cut from all names of the checkpoint")
            prefix = shared
    if prefix is not None:
        cut = {name: tensor for name, tensor in found.items() if name.startswith(prefix) and name != prefix}
        if len(cut) < len(found):
            notes.append(f"{len(found) - len(cut)} tensors whose names do not begin with '{prefix}' are ignored")
        found = {name.removeprefix(prefix): tensor for name, tensor in cut.items()}
    return found, notes


def _shared_prefix(names: Collection[str], wanted: Collection[str]) -> str:
    """Return the prefix of whole parts, ``state_dict.model.``, without which all names are wanted ones; "" if none."""
    first = next(iter(names))
    for dot in (index + 1 for index, mark in enumerate(first) if mark == "."):
        prefix = first[:dot]
        if all(name.startswith(prefix) and name[dot:] in wanted for name in names):
            return prefix
    return ""


def _check_names(path: Path, wanted: Mapping[str, Tensor], stored: Mapping[str, LazyTensor]) -> None:
    missing = [name for name in wanted if name not in stored]
    unexpected = [name for name in stored if name not in wanted]
    if not missing and not unexpected:
        return
    parts = [_part("missing", missing), _part("unexpected", unexpected)]
    hint = "the module and the checkpoint must have the same names"
    prefix = _prefix(missing, unexpected)
    if prefix:
        change = "added to" if missing[0].startswith(prefix) else "cut from"
        hint = f"they would match with the prefix '{prefix}' {change} the checkpoint's names"
        if change == "cut from":
            hint = f"cut the prefix from the checkpoint's names: --strip-prefix '{prefix}'"
    raise LoadError(f"{path}: not the module's weights: {'; '.join(filter(None, parts))}", hint)


def _part(what: str, names: Collection[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)} {what}: {', '.join(sorted(names)[:_LISTED])}{more}" if names else ""


def _prefix(missing: list[str], unexpected: list[str]) -> str:
    """Return the prefix by which alone the two lists differ, usually ``module.`` or ``model.``; empty if there is
    none."""
    for shorter, longer in ((missing, unexpected), (unexpected, missing)):
        if shorter and len(shorter) == len(longer):
            # A common prefix does not change the order: the first of both belong together.
            prefix = sorted(longer)[0].removesuffix(sorted(shorter)[0])
            if {f"{prefix}{name}" for name in shorter} == set(longer):
                return prefix
    return ""


def _dims(shape: Collection[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
