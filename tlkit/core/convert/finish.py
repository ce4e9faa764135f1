"""What ``convert`` does to a package that it made: keep some operations in f32, and make the weights smaller.

The package is made in full precision beside its goal's scratch, and ``tlkit.edit`` makes the one that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.core.compress.activations import IOS17, check_activations
from tlkit.core.compress.auto import check_wish
from tlkit.core.compress.choices import parse_rules
from tlkit.core.compress.door import edit
from tlkit.core.convert.result import ConversionResult
from tlkit.core.convert.tools.targets import choose_target, target_of_version
from tlkit.core.model.load import inspect
from tlkit.core.weights.plan import parse_size
from tlkit.errors import UsageError
from tlkit.formats.coreml.written import PACKAGE
from tlkit.host.goals import files_named
from tlkit.host.scratch import temporary_files
from tlkit.host.staging import prepare

if TYPE_CHECKING:
    from tlkit.core.compress.compress import Compressed
    from tlkit.core.compress.wish import AutoCompressed
    from tlkit.core.precision.mixed import MixedPrecision

    Part = Compressed | MixedPrecision | AutoCompressed

_WEIGHTS = ("quantize", "palettize", "prune", "rules", "activations")
_BY_HAND = (*_WEIGHTS, "calibrate", "skip", "weight_threshold", "min_cosine")
_SEARCHED = ("compress", "max_size", "min_top1", "labels", "resume", "jobs", "skip", "weight_threshold", "samples")
FINISHING = tuple(dict.fromkeys((*_BY_HAND, *_SEARCHED, "min_snr", "keep_f32")))
"""Options of ``convert`` that are about what is done to the package; ``samples`` is an option of both."""


def wanted(given: Mapping[str, Any]) -> bool:
    """Whether anything is to be done to a package after it is made."""
    mixed = given["precision"] == "auto" or given["keep_f32"]
    return bool(mixed or given["compress"] or any(given[name] for name in _WEIGHTS))


def finish(
    source: Any, output: str | Path, given: dict[str, Any], make: Callable[[Path, dict[str, Any]], ConversionResult]
) -> ConversionResult:
    """Make the package by ``make``, at a path and with the options that are left, and do the rest of ``given`` to it.

    Every option is checked before anything is converted. Raises what ``convert`` and ``edit`` raise.
    """
    goal = Path(output)
    mixed = {name: given[name] for name in ("keep_f32", "min_snr", "min_cosine", "min_top1", "samples")}
    mixed["precision"] = "auto" if given["precision"] == "auto" else None
    keeps = mixed["precision"] is not None or bool(mixed["keep_f32"])
    _check(source, goal, given)
    common = {"seed": given["seed"], "force": given["force"], "report": given["report"] or (lambda what, share: None)}
    parts: list[Part] = []
    with temporary_files("tlkit-finish-") as folder:
        made = make(folder / goal.name, {**given, "precision": "f32" if keeps else given["precision"], "force": False})
        path = folder / goal.name
        last = not (given["compress"] or any(given[name] for name in _WEIGHTS))
        if keeps:
            mixed_goal = goal if last else folder / f"mixed-{goal.name}"
            parts.append(_edited(path, mixed_goal, {**mixed, "verify": given["verify"]}, common))
            path = mixed_goal
        if not last and all(_written(part) for part in parts):
            names = _SEARCHED if given["compress"] else _BY_HAND
            options = {name: given[name] for name in (*names, "target", "min_snr")}
            options["verify"] = given["verify"] or bool(given["compress"])
            parts.append(_edited(path, goal, options, common))
    return _result(made, goal, source, parts)


def _edited(path: Path, goal: Path, options: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
    return edit(path, goal, **{name: value for name, value in options.items() if value is not None}, **common)


def _check(source: Any, goal: Path, given: Mapping[str, Any]) -> None:
    if isinstance(source, str | Path) and Path(source).suffix in (".mlpackage", ".mlmodel", ".mlmodelc"):
        raise UsageError(
            f"{source}: what is done to the weights or the precision of a package is edit's",
            f"tlkit edit {source} ... -o {goal}, with the same options",
        )
    if given["precision"] == "f32" and given["keep_f32"]:
        raise UsageError("--keep-f32 and --precision f32: all of it is in f32 then", "leave one of them out")
    if given["compress"] is not None:
        if given["compress"] != "auto":
            raise UsageError("--compress: only auto searches", "--quantize, --palettize and --prune choose by hand")
        other = next((name for name in _WEIGHTS if given[name]), None)
        if other is not None:
            flag = {"rules": "rule"}.get(other, other)
            raise UsageError(f"--{flag} and --compress auto both choose", "leave one of them out")
        check_wish(parse_size(given["max_size"]), given["min_snr"], given["min_top1"], given["jobs"], given["labels"])
    elif any(given[name] for name in _WEIGHTS):
        names = ("quantize", "palettize", "prune", "rules", "skip", "activations")
        rules = parse_rules(*(given[name] for name in names))
        needed = max(choice.needs for choice in (rules.default, *(choice for _, choice in rules.rules)))
        needed = max(needed, IOS17 if given["activations"] else 0)
        if given["target"] is not None and choose_target(given["target"]).version < needed:
            oldest = target_of_version(needed).name
            raise UsageError(f"this needs {oldest}; --target {given['target']} is older", f"use --target {oldest}")
    check_activations(given["activations"], given["calibrate"])
    named = tuple(files_named(source, given["checkpoint"], given["classes"], given["samples"], given["example"]))
    prepare(goal, force=given["force"], kind=PACKAGE, inputs=named)


def _written(part: Part) -> bool:
    found = getattr(part, "compressed", part)
    return found is not None and getattr(found, "path", None) is not None


def _result(made: ConversionResult, goal: Path, source: Any, parts: list[Part]) -> ConversionResult:
    """Return the conversion's result as that of the package that was made of it."""
    notes = made.notes
    if not all(_written(part) for part in parts):
        return replace(made, path=goal, parts=tuple(parts), notes=(*notes, f"{goal}: nothing is written"))
    info = replace(inspect(goal), path=str(goal))
    size = sum(file.stat().st_size for file in goal.rglob("*") if file.is_file())
    kept = next((len(getattr(part, "kept", ())) for part in parts if hasattr(part, "kept")), 0)
    precision = (
        f"f16 but for {kept} operations in f32"
        if kept
        else "f16"
        if any(hasattr(part, "kept") for part in parts)
        else made.precision
    )
    target = next((_target(part) for part in reversed(parts) if _target(part)), made.target)
    return replace(
        made, path=goal, info=info, size=size, parts=tuple(parts), precision=precision, target=target, notes=notes
    )


def _target(part: Part) -> str:
    found = getattr(part, "compressed", part)
    return str(getattr(found, "target", "")) if not hasattr(found, "kept") else ""
