"""``tlkit.edit``: one door. Options of compression make a smaller package, those of precision one that is partly f32,
the others change what it says or does."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tlkit.core.compress.activations import check_activations
from tlkit.core.compress.auto import compress_auto
from tlkit.core.compress.compress import Compressed
from tlkit.core.compress.compress import compress as compress_weights
from tlkit.core.compress.wish import AutoCompressed
from tlkit.core.edit.edit import EditResult, Pairs
from tlkit.core.edit.edit import edit as change
from tlkit.core.precision.mixed import MixedPrecision, mixed_precision
from tlkit.core.weights.plan import parse_size
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
    activations: str | None = None,
    calibrate: str | os.PathLike[str] | None = None,
    weight_threshold: int | None = None,
    precision: str | None = None,
    keep_f32: Sequence[str] = (),
    samples: str | os.PathLike[str] | None = None,
    compress: str | None = None,
    max_size: str | int | None = None,
    min_top1: float | None = None,
    labels: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    target: str | None = None,
    min_cosine: float | None = None,
    min_snr: float | None = None,
    verify: bool = True,
    seed: int = 0,
    force: bool = False,
    report: Callable[[str, float], None] = lambda what, share: None,
) -> EditResult | Compressed | MixedPrecision | AutoCompressed:
    """Write ``model`` to ``output`` with the changes asked for, as ``tlkit edit`` does; return what was made.

    ``quantize``, ``palettize``, ``prune``, ``rules`` or ``activations`` make a smaller package (a Compressed), as
    :func:`tlkit.core.compress.compress.compress` documents; ``precision`` (``auto``) or ``keep_f32`` one in f16 with
    some operations in f32 (a MixedPrecision), as :func:`tlkit.core.precision.mixed.mixed_precision` does; ``compress``
    (``auto``) the smallest or best one within ``max_size`` (``5MB``), ``min_snr`` and ``min_top1`` (an AutoCompressed),
    as :func:`tlkit.core.compress.auto.compress_auto` does; everything else is an edit of the model's description or
    program (an EditResult), as :func:`tlkit.core.edit.edit.edit` does. They do not go together.
    """
    given = {name: value for name, value in locals().items() if name != "report"}
    if precision or keep_f32:
        return _mixed(given, report)
    if compress is not None:
        return _searched(given, report)
    for name in ("precision", "keep_f32", "samples", "compress"):
        if name == "samples" and samples is not None:
            raise UsageError("--samples goes with --precision auto, --keep-f32 and --compress auto", "add one of them")
        del given[name]
    for name in ("max_size", "min_top1", "labels", "resume", "jobs"):
        _refuse({name: given.pop(name)}, inspect.signature(edit).parameters, "goes with --compress auto", "add that")
    check_activations(activations, calibrate)
    packing = {"threshold": given.pop("weight_threshold")}
    parameters = inspect.signature(compress_weights).parameters
    packing |= {name: given.pop(name) for name in list(given) if name in parameters and name not in _BOTH}
    both = {name: given.pop(name) for name in _BOTH}
    wanted = any(packing[name] for name in ("quantize", "palettize", "prune", "rules", "activations"))
    defaults = inspect.signature(edit).parameters
    if not wanted:
        _refuse(packing, defaults, "goes with compression", "add --quantize, --palettize or --prune")
        return change(**both, **given)
    _refuse(given, defaults, "and compression are two edits", "edit it first, and compress what that writes")
    return compress_weights(**both, **packing, report=report)


def _searched(given: dict[str, Any], report: Callable[[str, float], None]) -> AutoCompressed:
    """Search for the best choice of each weight; nothing that changes a model in another way goes with it."""
    if given.pop("compress") != "auto":
        raise UsageError("--compress: only auto searches", "--quantize, --palettize and --prune choose by hand")
    given["threshold"], given["max_size"] = given.pop("weight_threshold"), parse_size(given["max_size"])
    wanted = {name: given.pop(name) for name in inspect.signature(compress_auto).parameters if name in given}
    if not given.pop("verify"):
        raise UsageError("--no-verify: --compress auto rests on running what it makes", "leave it out")
    _refuse(given, inspect.signature(edit).parameters, "and --compress auto are two edits", "do one after the other")
    return compress_auto(**wanted, report=report)


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
