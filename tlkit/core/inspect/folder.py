"""List the models in a folder, one row each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tlkit.errors import LoadError, TlkitError
from tlkit.formats.base import sniff
from tlkit.formats.describe import describe
from tlkit.types import ModelInfo

_DEPTH = 8
_FILES = 20_000
_NO_MODELS = (sniff.Format.IMAGE, sniff.Format.ZIP)
_LATER_SHARD = r".*-(?!00001)\d{5}-of-\d{5}\.gguf"


@dataclass(frozen=True, slots=True)
class Listed:
    """One model: its path and description, or why it cannot be described."""

    path: str
    info: ModelInfo | None = None
    problem: str = ""


def is_collection(path: Path) -> bool:
    """Whether ``path`` is a folder that is not itself a model."""
    if not path.is_dir():
        return False
    try:
        sniff.detect(path)
    except LoadError:
        # A damaged package is a model, not a folder of models.
        return path.suffix.lower() not in (".mlpackage", ".mlmodelc")
    return False


def list_models(path: Path) -> Iterator[Listed]:
    """Yield a row for each model under ``path``, sorted by path; files that are not models are skipped."""
    for found in model_paths(path):
        try:
            yield Listed(str(found), describe(found))
        except TlkitError as error:
            yield Listed(str(found), problem=error.message.removeprefix(f"{found}: "))


def model_paths(root: Path) -> Iterator[Path]:
    """Yield each model under ``root``, sorted by path; LoadError where there are too many files to look at."""
    seen = 0
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        deep = len(here.relative_to(root).parts) >= _DEPTH
        models = sorted(name for name in folders if not name.startswith(".") and _is_model(here / name))
        # os.walk goes on into what is left in its list.
        folders[:] = [] if deep else sorted(n for n in folders if n not in models and not n.startswith("."))
        seen += len(files)
        if seen > _FILES:
            raise LoadError(f"{root}: over {_FILES:,} files in it", "name a folder of models")
        names = [name for name in files if not name.startswith(".") and _is_model(here / name)]
        yield from (here / name for name in sorted([*models, *names]))


def _is_model(path: Path) -> bool:
    if path.suffix.lower() in (".mlpackage", ".mlmodelc"):
        return True
    if path.name.endswith(".index.json") or re.fullmatch(_LATER_SHARD, path.name):
        return False  # its folder, or the first shard, stands for it
    try:
        return sniff.detect(path) not in _NO_MODELS
    except LoadError:
        return False
