"""Weights from a file into a module, strictly: SafeTensors, PyTorch or GGUF, of which nothing is unpickled.

Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from tlkit.errors import LoadError
from tlkit.formats.base.tensors import Tensors

_LISTED = 8


def load_checkpoint(module: nn.Module, path: Path) -> None:
    """Give ``module`` the weights in ``path``; every name and shape has to be the module's, and none be left out.

    Raises :class:`LoadError` with what is missing, unexpected or of another shape; the module is then unchanged.
    """
    from tlkit.formats.describe import open_tensors

    if not path.exists():
        raise LoadError(f"{path}: no such file", "--checkpoint is a .safetensors, .pth or .gguf file")
    stored = Tensors(open_tensors(path))
    wanted: dict[str, Tensor] = {
        name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)
    }
    _check_names(path, wanted, stored)
    shapes = [name for name, value in wanted.items() if name in stored and tuple(value.shape) != stored[name].shape]
    if shapes:
        listed = ", ".join(
            f"{name} {_dims(stored[name].shape)} for {_dims(wanted[name].shape)}" for name in shapes[:_LISTED]
        )
        raise LoadError(f"{path}: {len(shapes)} weight(s) of another shape: {listed}", "check --kwargs")
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(torch.from_numpy(stored[name].numpy().copy()))


def _check_names(path: Path, wanted: dict[str, Tensor], stored: Tensors) -> None:
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
    raise LoadError(f"{path}: not the module's weights: {'; '.join(filter(None, parts))}", hint)


def _part(what: str, names: Collection[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)} {what}: {', '.join(sorted(names)[:_LISTED])}{more}" if names else ""


def _prefix(missing: list[str], unexpected: list[str]) -> str:
    """Return the prefix that alone sets the two lists apart, ``module.`` or ``model.`` mostly; empty if none does."""
    for shorter, longer in ((missing, unexpected), (unexpected, missing)):
        if shorter and len(shorter) == len(longer):
            prefix = sorted(longer)[0].removesuffix(sorted(shorter)[0])
            if {f"{prefix}{name}" for name in shorter} == set(longer):
                return prefix
    return ""


def _dims(shape: Collection[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
