"""Find why a package differs from its source: module, captured graph, package without rounding and package are compared
in turn, and the first operation that departs is named. Importing this imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tlkit.core.compare.difference import difference
from tlkit.core.compare.models import Verification
from tlkit.core.convert.capture.cases import Case
from tlkit.core.convert.capture.examples import to_source
from tlkit.core.convert.capture.inside import constants_of, graph_outputs, output_names, values_inside, weights_used
from tlkit.core.convert.capture.preflight import find_op
from tlkit.core.convert.capture.trace import Traced
from tlkit.core.convert.tools.kit.reading import plain_name
from tlkit.core.convert.verify import Settings, given, run_source
from tlkit.core.model.load import load_model
from tlkit.errors import TlkitError, UsageError
from tlkit.host.quiet import quiet
from tlkit.mil.program import Operation, Ref

LARGEST = 65504.0
"""The largest f16 number."""
SMALLEST = 2.0**-24
"""The smallest f16 number above 0."""
_NORMAL = 2.0**-14
"""The smallest number that f16 holds with all its digits."""
_ROOM, _LOOKED_AT = 8, 3  # what else comes may be as much larger; cases that are looked at
_KEPT = 1 << 30  # bytes of values that are kept to be compared
_CLOSE = 0.02  # of the range: what weights in f16 alone may do

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a package differs: ``text``, and whether rounding to f16 is the reason, which f32 would avoid.

    ``frozen``: the captured graph is not the module's any more.
    """

    text: str
    rounding: bool = False
    frozen: bool = False


@dataclass(slots=True)
class _Step:
    """An operation as it ran: its name and type, what it was ``given`` (names), its values' largest magnitude, and the
    values if they were kept."""

    name: str
    type: str
    given: frozenset[str]
    largest: float
    finite: bool
    value: Array | None


def find_cause(
    package: Path, module: nn.Module, traced: Traced, cases: Sequence[Case], found: Verification, settings: Settings
) -> Cause | None:
    """Return why the package at ``package`` differs as described by ``found``; None where the cause is unknown."""
    try:
        return _found(package, module, traced, differing(cases, found), cases, settings)
    except (TlkitError, RuntimeError, ValueError, TypeError, KeyError, IndexError, NotImplementedError):
        return None  # the search must not cost the user the answer


def differing(cases: Sequence[Case], found: Verification) -> Case:
    """Return the first of ``cases`` that a reason of ``found`` names, or the first of all."""

    def named(name: str) -> bool:
        return any(f"({name})" in reason or f" {name}: " in reason for reason in found.reasons)

    return next((case for case in cases if named(case.name)), cases[0])


def _found(
    package: Path, module: nn.Module, traced: Traced, case: Case, cases: Sequence[Case], settings: Settings
) -> Cause | None:
    inputs = [to_source(port, value) for port, value in zip(case.ports, case.values, strict=True)]
    source = next(run_source(module, traced, [case]))
    if not traced.states:
        frozen = _frozen(traced, inputs, source, case)
        if frozen:
            return frozen
    exact = _watched(package, case, "f32", settings)
    rounded = _watched(package, case, "f16", settings)
    return _rounding(module, traced, exact, rounded, settings) or _translation(traced, inputs, exact)


def wide_choices(
    package: Path, half: Path, cases: Sequence[Case], found: Verification, settings: Settings
) -> Iterator[tuple[str, str, frozenset[str]]]:
    """Yield what of the f32 ``package`` to keep in f32 so that the rest may be f16, least first: why it differs then
    (empty: the cause that was found), a text that says which values are kept, and these by what ``wide`` takes.
    ``half`` is the same in f16, and differs as ``found`` says.

    First what f16 does not hold with some room; then what is before a choice that f16 makes otherwise (``topk`` among
    scores that it cannot tell apart, a ``floor`` of what is nearly whole); then either half, where roundings add up.
    """
    steps = _watched(package, cases[0], "f32", settings)
    others = [step for case in cases[1:_LOOKED_AT] for step in _watched(package, case, "f32", settings)]
    large = {plain_name(step.name) for step in (*steps, *others) if _unfit(step)}
    if large:
        yield "", "what gives or takes such values stays in f32", frozenset(large)
    exact, rounded = (_watched(half, differing(cases, found), precision, settings) for precision in ("f32", "f16"))
    chosen = [step for step, other in zip(exact, rounded, strict=False) if _chose_otherwise(step, other)]
    if chosen:
        last = next((step for step in reversed(chosen) if step.type != "cast"), chosen[-1]).type
        why, told = f"roundings decide what its '{last}' gives", f"what its last '{last}' chooses by stays in f32"
        yield why, told, frozenset(_leading_to(chosen, exact) | large)
        before = exact[: exact.index(chosen[-1]) + 1]
        yield why, told, frozenset({plain_name(step.name) for step in before} | large)
    names = [plain_name(step.name) for step in steps]
    middle = len(names) // 2
    yield "", "the first half of its operations stays in f32", frozenset([*names[:middle], *large])
    yield "", "the second half of its operations stays in f32", frozenset([*names[middle:], *large])


def _unfit(step: _Step) -> bool:
    """Whether f16 does not hold an operation's values with some room, or not with all their digits."""
    if step.value is not None and step.value.dtype.kind != "f":
        return False
    return not step.finite or step.largest > LARGEST / _ROOM or 0 < step.largest < _NORMAL


_CHOOSES = frozenset(
    {"topk", "argsort", "reduce_argmax", "reduce_argmin", "non_maximum_suppression", "cast"}
    | {"equal", "not_equal", "greater", "greater_equal", "less", "less_equal"}
)
_STEPS = frozenset({"floor", "ceil", "round", "sign", "floor_div", "mod"})
_STEP = 2.0**-8  # of the largest: less is a rounding, or a step too small to matter


def _chose_otherwise(exact: _Step, rounded: _Step) -> bool:
    """Whether an operation that makes integers or booleans of numbers, or takes steps, gave others in f16."""
    one, other = exact.value, rounded.value
    if one is None or other is None or exact.type not in _CHOOSES | _STEPS:
        return False
    if one.shape != other.shape:
        return True
    if exact.type in _STEPS:
        return one.dtype.kind == "f" and bool((np.abs(one - other) > _STEP * max(exact.largest, 1e-9)).any())
    return one.dtype.kind != "f" and bool((one != other).any())


def _leading_to(chosen: Sequence[_Step], steps: Sequence[_Step]) -> set[str]:
    """Return the plain names of the values of ``steps`` that ``chosen`` depend on, and of theirs."""
    needed = {step.name for step in chosen}
    for step in reversed(steps):
        if step.name in needed:
            needed |= step.given
    return {plain_name(step.name) for step in steps if step.name in needed}


def _frozen(traced: Traced, inputs: Sequence[torch.Tensor], source: Sequence[Array], case: Case) -> Cause | None:
    """Explain that the captured graph differs from the module: it contains a choice or a size of the example."""
    way = "tracing" if isinstance(traced.program, torch.jit.ScriptModule) else "torch.export"
    fixed = f"{way} fixed a size or a choice" + (f" at {', '.join(traced.frozen[:4])}" if traced.frozen else "")
    try:
        outputs = [value.numpy() for value in graph_outputs(traced, inputs)]
    except Exception:
        return Cause(f"{fixed}: the graph does not run on {case.name}", frozen=True)
    if all(_near(want, got) for want, got in zip(source, outputs, strict=True)):
        return None
    return Cause(f"{fixed}: run by torch, the graph differs from its source as well", frozen=True)


def _rounding(
    module: nn.Module, traced: Traced, exact: list[_Step], rounded: list[_Step], settings: Settings
) -> Cause | None:
    """Explain where f16 overflows or loses values that f32 can hold."""
    half = settings.precision == "f16"
    lost = next((step for step in exact if not step.finite), None)  # not by rounding: the numbers in the file are so
    heavy = _too_large(module, weights_used(traced)) if half and lost is not None else ""
    if heavy:
        return Cause(heavy, rounding=True)
    for step, other in zip(exact, rounded, strict=False):
        if step.finite and not other.finite and step.largest > LARGEST:
            where = _op(traced, step, exact)
            return Cause(f"{where} reaches {step.largest:.3g}, over f16's {LARGEST:.0f}", rounding=True)
    wild = next((step for step in rounded if not step.finite), None)
    numbers = constants_of(traced)
    low = [n for n in numbers if n < -LARGEST and np.isfinite(n)]
    tiny = [n for n in numbers if 0 < abs(n) < SMALLEST]
    if half and lost is not None and wild is not None and low:
        where = _op(traced, wild, rounded)
        said = f"a mask of {low[0]:.3g} is minus infinity in f16, and {where} makes NaN of it"
        return Cause(f"{said}; a mask of -1e4 hides as much", rounding=True)
    if half and tiny:
        where = _op(traced, wild, rounded) if wild is not None else ""
        at = f": {where} gives no finite number" if wild is not None else ""
        return Cause(f"an eps of {tiny[0]:.3g} is 0 in f16{at}; the smallest that it holds is 6e-8", rounding=True)
    strayed = next((step for step, other in zip(exact, rounded, strict=False) if _strayed(step, other)), None)
    if strayed is not None:
        return Cause(f"{_op(traced, strayed, exact)} loses its digits in f16", rounding=True)
    return None


def _too_large(module: nn.Module, used: set[str]) -> str:
    """Say which of the weights ``used`` f16 cannot hold; empty where it can hold all."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        values = tensor.detach()
        if name.rpartition(".")[2] not in used:
            continue
        if values.numel() and values.is_floating_point() and bool(values.isfinite().all()):
            size = float(values.abs().max())
            if size > LARGEST:
                return f"'{name}' holds {size:.3g}, over f16's largest number, {LARGEST:.0f}"
    return ""


def _strayed(step: _Step, other: _Step) -> bool:
    if (
        step.value is None
        or other.value is None
        or step.value.dtype.kind != "f"
        or step.value.shape != other.value.shape
    ):
        return False
    return not _near(step.value, other.value, 0.25)


def _translation(traced: Traced, inputs: Sequence[torch.Tensor], exact: list[_Step]) -> Cause | None:
    """Name the first operation whose result differs from torch's value of the same name."""
    inside = values_inside(traced, inputs)
    # The package's outputs have the user's names, the graph's values coremltools'.
    last = dict(zip((output.name for output in traced.outputs), output_names(traced), strict=False))
    for step in exact:
        name = last.get(step.name, plain_name(step.name))
        want = inside.get(name)
        if want is None or step.value is None or want.is_complex():
            continue
        wanted, got = want.detach().numpy(), step.value
        if wanted.shape == got.shape and not _near(wanted, got):
            op = _op(traced, replace(step, name=name), exact)
            return Cause(f"coremltools translates {op} into something else than torch computes")
    return None


def _near(want: Array, got: Array, share: float = _CLOSE) -> bool:
    try:
        found = difference(np.asarray(want), np.asarray(got))
    except UsageError:
        return False
    if want.dtype.kind in "iub":
        return found.equal >= 0.99
    return not found.not_finite and found.relative <= share


def _op(traced: Traced, at: _Step, steps: Sequence[_Step]) -> str:
    """Return the torch op that gives the value of ``at``, with module and line; where it is one of an op's parts, the
    next value that torch has too tells which."""
    start = next((index for index, step in enumerate(steps) if step is at or step.name == at.name), len(steps))
    before = steps[max(start - 1, 0) : start] if at.type == "cast" else []  # a cast is made for the one before it
    for step in (at, *before, *steps[start:]):
        found = find_op(traced.program, plain_name(step.name))
        if found is not None:
            told = ", ".join(filter(None, (found[1].module, found[1].line)))
            return f"'{found[0]}'" + (f" ({told})" if told else "")
    return f"'{at.type}'"


def _watched(package: Path, case: Case, precision: str, settings: Settings) -> list[_Step]:
    """Run the package operation by operation, rounded to f16 or not at all."""
    steps: list[_Step] = []
    room = _KEPT

    def seen(operation: Operation, values: Callable[[], Mapping[str, Any]]) -> bool:
        nonlocal room
        needs = frozenset(item.name for items in operation.inputs.values() for item in items if isinstance(item, Ref))
        for name, array in values().items():
            floating = array.dtype.kind == "f"
            finite = not floating or bool(np.isfinite(array).all())
            largest = float(np.abs(array[np.isfinite(array)]).max(initial=0)) if floating else 0.0
            room -= array.nbytes
            # Without its value a step still shows an overflow.
            steps.append(_Step(name, operation.type, needs, largest, finite, array if room > 0 else None))
        return False

    with quiet():
        emulate = settings.emulate if precision == "f16" else None
        model = load_model(package, precision=precision, strict_mil=settings.strict_mil, emulate=emulate)
        model.watch(given(case), seen)
    return steps
