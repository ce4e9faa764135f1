"""Try one conversion and, if it fails or differs, the other way of capturing.

Importing this module imports torch.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from tlkit.core.compare.models import Verification
from tlkit.core.convert.capture.capture import adopt, capture
from tlkit.core.convert.capture.cases import seeded_cases
from tlkit.core.convert.capture.states import check_states
from tlkit.core.convert.capture.study import random_by_itself, varying
from tlkit.core.convert.capture.trace import Traced
from tlkit.core.convert.cause import Cause, find_cause, wide_choices
from tlkit.core.convert.order import OTHERWISE, Order
from tlkit.core.convert.tools.build import Recipe, check_classifier, write_package
from tlkit.core.convert.tools.targets import target_for_states
from tlkit.core.convert.verify import NOISE, verify
from tlkit.core.edit.ane import Rewrite, for_ane
from tlkit.errors import ConversionError, UsageError
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.write import write_package as package_written
from tlkit.host.allocator import give_back
from tlkit.ports.port import port_text


@dataclass(frozen=True, slots=True)
class Attempt:
    """A package made in one way: by ``torch.export`` or by tracing."""

    traced: Traced
    recipe: Recipe
    verification: Verification | None
    notes: tuple[str, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it agrees with its source, or was not checked (see :class:`Verification`)."""
        return self.verification is None or self.verification.ok


def convert_verified(order: Order, path: Path, *, export: bool, auto: bool) -> Attempt:
    """Write the package at ``path``, captured by ``torch.export`` or by tracing, and compare it with its source.

    With ``auto`` the other way is tried where the first fails or the package differs, and kept where it does better.
    Raises :class:`ConversionError`, with all findings, where neither way gives a package.
    """
    with order.clock.stage("trace", "finding values to run it on"):
        order.prepare()
    scripted = isinstance(order.module, torch.jit.ScriptModule)  # torch.export does not take it
    # An exported program is converted as it was captured: there is no module to capture in another way.
    other = auto and order.source.program is None and (export or not scripted)
    try:
        first = _first(order, path, export)
    except ConversionError as error:
        drawn = _drawn(order)
        error.notes = (*error.notes, *drawn)
        names = [place.partition(" ")[0] for place in order.study.random]
        if drawn and any(re.search(rf"(?<!\w){name}_?(?!\w)", error.message) for name in names):
            error.hint = NOISE  # other torch ops would differ as well
        if not other:
            raise
        made = _instead(order, path, error, export)
    else:
        made = first if first.ok or not other else _better(order, path, first, export)
    made = _explained(order, path, made, auto=auto)
    # torch.export stops at a choice that depends on values; a trace records the example's side in silence.
    if isinstance(made.traced.program, torch.jit.ScriptModule) and made.traced.frozen:
        order.notes += _fixed(order)
    return replace(made, notes=(*order.notes, *made.notes, *made.traced.notes))


def _first(order: Order, path: Path, export: bool) -> Attempt:
    """Capture in the way that was asked for; once more after a run where that fails on values that were assumed."""
    try:
        return attempt(order, path, order.recipe, export)
    except (ConversionError, UsageError):
        if not order.assumed:
            raise
    _clear(path)
    order.run()  # it says what is wrong with the values, or finds others
    return attempt(order, path, order.recipe, export)


def _drawn(order: Order) -> tuple[str, ...]:
    """Return a note where the source draws random numbers: no package would agree with it."""
    if not order.study.random or not random_by_itself(order.module, order.study):
        return ()
    return (f"its source is random by itself ({', '.join(order.study.random)}): two runs on one input differ; {NOISE}",)


def attempt(order: Order, path: Path, recipe: Recipe, export: bool) -> Attempt:
    """Capture, convert and verify in one way."""
    clock = order.clock
    with clock.stage("trace", "exporting" if export else "tracing"):
        traced = _captured(order, export)
        if recipe.labels:
            check_classifier(traced.outputs, len(recipe.labels))
        check_states(order.states, traced.states)
        # States exist from iOS18 on.
        if traced.states:
            recipe = replace(recipe, target=target_for_states(recipe.target, order.chosen))
        order.choose(bool(traced.states))  # samples are read before the long part
    with clock.stage("convert", "converting"):
        try:
            write_package(traced, recipe, path, clock.report)
        except ConversionError as error:
            error.notes = traced.notes
            raise
    if not order.checks.verify:
        return Attempt(traced, recipe, None)
    with clock.stage("verify", "verifying"):
        give_back()  # the program that coremltools built, before the package's weights are loaded beside the source's
        found = verify(path, order.module, traced, order.cases, order.settings(recipe))
    return Attempt(traced, recipe, found)


def neural(order: Order, path: Path, made: Attempt, chip: str | None) -> Attempt:
    """Rewrite the package at ``path`` for the Neural Engine of ``chip`` where that improves the prediction.

    What differs from the source where the package did not is not kept, and a note says so.
    """
    package = open_package(path)
    if package.program is None:
        return made
    program, rewrites = for_ane(package.program, chip)
    if program == package.program:
        return replace(made, rewrites=rewrites)
    beside = path.with_name(f"ane-{path.name}")
    with order.clock.stage("convert", "rewriting"):
        package_written(beside, package.model, program)
    found = None
    if order.checks.verify:
        with order.clock.stage("verify", "verifying"):
            found = verify(beside, order.module, made.traced, order.cases, order.settings(made.recipe))
        if made.ok and not found.ok:
            _clear(beside)
            undone = tuple(replace(item, made=False) for item in rewrites)
            note = "rewritten for the Neural Engine it differs: it is written as it was"
            return replace(made, rewrites=undone, notes=(*made.notes, note))
    _clear(path)
    beside.rename(path)
    return replace(made, verification=found, rewrites=rewrites)


def _captured(order: Order, export: bool) -> Traced:
    if order.source.program is not None:
        return adopt(order.source.program, order.module, order.ports, order.study.inputs, order.names)
    loading = partial(order.clock.stage, "convert", "loading coremltools")
    return capture(order.module, order.ports, order.study.inputs, order.names, export=export, loading=loading)


def _instead(order: Order, path: Path, error: ConversionError, export: bool) -> Attempt:
    """Convert in the other way, since this one ended with ``error``, which is raised if that fails as well."""
    _clear(path)
    this, that = _ways(export)
    try:
        made = attempt(order, path, order.recipe, not export)
    except ConversionError as second:
        same = second.message == error.message
        error.hint = f"{that}, it fails {'alike' if same else f'too: {second.message}'}; {error.hint}"
        error.notes = tuple(dict.fromkeys((*order.notes, *error.notes, *second.notes)))
        raise error from second
    return replace(made, notes=(f"{this}, it cannot be converted ({error.message}): {that} instead",))


def _better(order: Order, path: Path, first: Attempt, export: bool) -> Attempt:
    """Return ``first``, which differs, or the other way's package if that agrees; it then replaces the one at
    ``path``."""
    this, that = _ways(export)
    found = first.verification
    if found is not None and found.passed is None and (found.random or found.outputs):
        return first  # its source cannot be judged, however it is captured
    beside = path.with_name(f"other-{path.name}")
    try:
        made = attempt(order, beside, order.recipe, not export)
    except ConversionError as error:
        return replace(first, notes=(f"{that}, it cannot be converted: {error.message}",))
    if not made.ok:
        _clear(beside)
        same = made.verification is not None and made.verification.passed is False
        chosen = f": a choice at {', '.join(made.traced.frozen[:4])} is not that of every length"
        why = chosen if made.traced.frozen and not export else ""
        return replace(first, notes=(f"{that}, it {'differs' if same else 'cannot be run here'} as well{why}",))
    _clear(path)
    beside.rename(path)
    lost = first.traced.notes[:1]
    why = lost[0] if lost else "; ".join(first.verification.reasons[:1]) if first.verification else ""
    return replace(made, notes=(f"{this}, it differs ({why}): {that} instead, it agrees",))


def _fixed(order: Order) -> tuple[str, ...]:
    """Note where the example's values decided what was traced: the package takes the same branch for every input."""
    if order.assumed:
        order.run()
    places = varying(order.module, order.study, order.checks.seed + OTHERWISE)
    if not places:
        return ()
    lines = ", ".join(places[:4])
    return (f"tracing fixed a choice that depends on an input's values, at {lines}: torch.where chooses at run time",)


def _explained(order: Order, path: Path, made: Attempt, *, auto: bool) -> Attempt:
    """Add why it differs, and whether f32 would not: that is tried where rounding is the cause.

    With ``auto`` what f16 cannot hold is computed in f32, and the rest in f16, where that agrees.
    """
    found = made.verification
    if found is None or found.passed is not False or not found.outputs:
        return made
    cause = find_cause(path, order.module, made.traced, order.cases, found, order.settings(made.recipe))
    if made.recipe.precision == "f16" and (cause is None or not cause.frozen):
        return _wider(order, path, made, cause, auto=auto)
    if cause is None:
        return made
    text = f"{cause.text}; {_fixed_shape(order, path, made)}" if cause.frozen and auto else cause.text
    return replace(made, verification=replace(found, cause=text.removesuffix("; ")))


_ADDED_UP = "the roundings of f16 add up, weights included"


def _wider(order: Order, path: Path, made: Attempt, cause: Cause | None, *, auto: bool) -> Attempt:
    """Convert the same graph in f32, away from ``path``, and say what comes of it, or take what is f32 only in part.

    Whatever ``cause`` was found, roundings are it where f32 agrees.
    """
    beside = path.with_name(f"f32-{path.name}")
    found = _tried(order, beside, made.traced, replace(made.recipe, precision="f32"))
    agrees = found is not None and bool(found.passed)
    why = cause.text if cause is not None and (cause.rounding or not agrees) else _ADDED_UP if agrees else ""
    mixed = _in_part(order, path, made, why) if agrees and auto else None
    _clear(beside)
    if mixed is not None:
        _clear(path)
        _mixed(path).rename(path)
        return mixed
    tried = (
        "was tried, and does not convert"
        if found is None
        else f"was tried: it {'agrees' if agrees else 'differs as well'}"
    )
    assert made.verification is not None
    told = "; ".join(filter(None, (why, f"--precision f32 {tried}")))
    return replace(made, verification=replace(made.verification, cause=told))


def _mixed(path: Path) -> Path:
    return path.with_name(f"mixed-{path.name}")


def _in_part(order: Order, path: Path, made: Attempt, why: str) -> Attempt | None:
    """Return a package beside the one at ``path`` and its f32 twin that is f16 where that agrees; None if none does."""
    goal, exact = _mixed(path), path.with_name(f"f32-{path.name}")
    assert made.verification is not None
    settings = order.settings(made.recipe)
    for decides, told, wide in wide_choices(exact, path, order.cases, made.verification, settings):
        recipe = replace(made.recipe, wide=wide)
        mixed = _tried(order, goal, made.traced, recipe)
        if mixed is not None and mixed.passed:
            return Attempt(
                made.traced,
                recipe,
                mixed,
                (f"in f16 it differs ({decides or why}): {told}, the rest is f16; it agrees",),
            )
        _clear(goal)
    return None


def _tried(order: Order, path: Path, traced: Traced, recipe: Recipe) -> Verification | None:
    """Write the package at ``path`` and verify it; None where it does not convert."""
    try:
        write_package(traced, recipe, path, order.clock.report)
    except ConversionError:
        _clear(path)
        return None
    return verify(path, order.module, traced, order.cases, order.settings(recipe))


def _fixed_shape(order: Order, path: Path, made: Attempt) -> str:
    """Say whether the graph, captured at one shape, is right at that one; empty where shapes do not flex."""
    if not any(port.flexible for port in order.ports):
        return ""
    sizes = [tuple(tensor.shape) for tensor in order.study.inputs]
    at = tuple(port.taking(size) for port, size in zip(order.ports, sizes, strict=True))
    cases, _ = seeded_cases(at, order.module, order.checks.seed + 1)
    beside = path.with_name(f"fixed-{path.name}")
    traced = replace(made.traced, ports=at)
    try:
        write_package(traced, made.recipe, beside, order.clock.report)
    except ConversionError:
        return ""
    found = verify(beside, order.module, traced, cases, order.settings(made.recipe))
    _clear(beside)
    return f"one fixed shape was tried, {', '.join(map(port_text, at))}: it agrees" if found.passed else ""


def _ways(export: bool) -> tuple[str, str]:
    ways = ("traced", "captured by torch.export")
    return (ways[1], ways[0]) if export else ways


def _clear(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
