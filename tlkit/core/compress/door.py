"""``tlkit.edit``: one door. Options of compression make a smaller package, those of precision one that is partly f32,
the others change what it says or does."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tlkit.core.compress.compress import Compressed, compress
from tlkit.core.compress.tools import THRESHOLD
from tlkit.core.edit.edit import EditResult, Pairs
from tlkit.core.edit.edit import edit as change
from tlkit.core.precision.mixed import MixedPrecision, mixed_precision
from tlkit.errors import UsageError

_BOTH = ("model", "output", "verify", "seed", "force")
_FLAGS = {
    "rules": "rule",
    "input_shapes": "input-shape",
    "input_dtypes": "input-dtype",
    "output_dtypes": "output-dtype",
}


def edit(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    rename: Pairs = (),
    input_shapes: Pairs = (),
    input_dtypes: Pairs = (),
    output_dtypes: Pairs = (),
    metadata: Pairs = (),
    author: str | None = None,
    description: str | None = None,
    license: str | None = None,
    version: str | None = None,
    classes: str | Path | Sequence[str] | None = None,
    spec_version: int | None = None,
    ane: bool = False,
    chip: str | None = None,
    mend_risks: bool = False,
    inputs: Iterable[str] = (),
    quantize: str | None = None,
    palettize: str | None = None,
    prune: str | None = None,
    rules: Sequence[str] = (),
    skip: Sequence[str] = (),
    weight_threshold: int = THRESHOLD,
    precision: str | None = None,
    keep_f32: Sequence[str] = (),
    samples: str | os.PathLike[str] | None = None,
    target: str | None = None,
    min_cosine: float | None = None,
    min_snr: float | None = None,
    verify: bool = True,
    seed: int = 0,
    force: bool = False,
    report: Callable[[str, float], None] = lambda what, share: None,
) -> EditResult | Compressed | MixedPrecision:
    """Write ``model`` to ``output`` with the changes asked for, as ``tlkit edit`` does; return what was made.

    ``quantize``, ``palettize``, ``prune`` or ``rules`` make a package with compressed weights (a Compressed), as
    :func:`tlkit.core.compress.compress.compress` documents; ``precision`` (``auto``) or ``keep_f32`` one in f16 with
    some operations in f32 (a MixedPrecision), as :func:`tlkit.core.precision.mixed.mixed_precision` does; everything
    else is an edit of the model's description or program (an EditResult), as :func:`tlkit.core.edit.edit.edit` does.
    They do not go together.
    """
    given = {name: value for name, value in locals().items() if name != "report"}
    if precision or keep_f32:
        return _mixed(given, report)
    if samples is not None:
        raise UsageError("--samples goes with --precision auto and --keep-f32", "add one of them")
    for name in ("precision", "keep_f32", "samples"):
        del given[name]
    packing = {"threshold": given.pop("weight_threshold")}
    parameters = inspect.signature(compress).parameters
    packing |= {name: given.pop(name) for name in list(given) if name in parameters and name not in _BOTH}
    both = {name: given.pop(name) for name in _BOTH}
    wanted = any(packing[name] for name in ("quantize", "palettize", "prune", "rules"))
    defaults = inspect.signature(edit).parameters
    if not wanted:
        _refuse(packing, defaults, "goes with compression", "add --quantize, --palettize or --prune")
        return change(**both, **given)
    _refuse(given, defaults, "and compression are two edits", "edit it first, and compress what that writes")
    return compress(**both, **packing, report=report)


def _mixed(given: dict[str, Any], report: Callable[[str, float], None]) -> MixedPrecision:
    """Make a package that is partly in f32; nothing else goes with it."""
    wanted = {name: given.pop(name) for name in inspect.signature(mixed_precision).parameters if name in given}
    why = "and a precision are two edits"
    _refuse(given, inspect.signature(edit).parameters, why, "choose the precision first, and edit what that writes")
    return mixed_precision(**wanted, report=report)


def _refuse(given: dict[str, Any], defaults: Any, why: str, hint: str) -> None:
    """Raise UsageError for the first option that is not its default."""
    for name, value in given.items():
        if name in defaults and value != defaults[name].default:
            raise UsageError(f"--{_FLAGS.get(name, name.replace('_', '-'))} {why}", hint)
