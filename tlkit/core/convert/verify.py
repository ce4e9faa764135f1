"""Check that a package computes what its source computes, on inputs that the capture has not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tlkit.core.compare.difference import TOLERANCES, Difference, Tolerance, difference, worst
from tlkit.core.convert.capture.examples import to_source
from tlkit.core.convert.capture.states import zeroed
from tlkit.core.convert.capture.trace import Recorder, Traced
from tlkit.core.convert.cases import Case
from tlkit.errors import TlkitError, UsageError, reason
from tlkit.host import budget
from tlkit.host.quiet import quiet
from tlkit.ports.port import OutputPort
from tlkit.types import TensorSpec

Outputs = dict[str, NDArray[Any]]
_CHANNELS = {"RGB": slice(None), "BGR": slice(None, None, -1)}


@dataclass(frozen=True, slots=True)
class Verification:
    """How the package compares with its source, output by output: the worst figures over all inputs tried.

    ``passed`` is None where nothing could be judged: ``reasons`` then says why, else which limits it broke. ``top1``
    says whether a classifier's likeliest class is always the same (None for other models), ``agreement`` for which
    share of the inputs it is; ``cases`` names the inputs, ``values`` what integers and masks were drawn from. ``notes``
    are further findings, ``cause`` is why it differs. ``random``: the source's results differ from run to run.
    """

    passed: bool | None
    outputs: Mapping[str, Difference]
    reasons: tuple[str, ...] = ()
    top1: bool | None = None
    agreement: float | None = None
    seed: int = 0
    cases: tuple[str, ...] = ()
    values: str = ""
    notes: tuple[str, ...] = ()
    random: bool = False
    cause: str = ""


@dataclass
class _Findings:
    """What the cases showed so far."""

    outputs: dict[str, list[Difference]] = field(default_factory=dict)
    reasons: dict[str, None] = field(default_factory=dict)
    same: list[bool] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    notes: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """How to judge: limits by ``precision``, a classifier's ``labels``, what to call the ``seed``.

    ``strict_mil``: run the package as MIL's specification says where Core ML was measured to depart from it.
    """

    precision: str
    labels: Sequence[str] = ()
    seed: int = 0
    strict_mil: bool = False


@budget.lifted()
def verify(package: Path, module: nn.Module, traced: Traced, cases: Sequence[Case], settings: Settings) -> Verification:
    """Run the package at ``package`` and ``module`` (prepared) on the same inputs and compare their outputs."""
    names = tuple(case.name for case in cases)
    values = next((case.study.told for case in cases if case.study is not None), "")
    judged = partial(Verification, seed=settings.seed, cases=names, values=values)
    strays = _random(module, traced, cases)
    if strays:
        return judged(None, {}, (strays,), random=True)
    limits = TOLERANCES["f16" if traced.states else settings.precision]  # Core ML's states are f16
    found = _Findings()
    try:
        predict = _package(package, bool(traced.states), settings.strict_mil)
        for case, raw in zip(cases, run_source(module, traced, cases), strict=True):
            reference = {o.name: _as_port(o.port, value) for o, value in zip(traced.outputs, raw, strict=True)}
            found.notes |= dict.fromkeys(_pictures(traced, raw))
            try:
                actual = dict(predict(given(case)))
            except Exception as error:  # a fault in tlkit's executor must not cost the user the conversion
                found.failed[case.name] = _reason(error, package)
                continue
            _compare(found, reference, actual, limits, settings.labels, _where(case, cases))
    except Exception as error:
        return judged(None, {}, (_reason(error, package),))
    if found.failed and not found.outputs:
        return judged(None, {}, tuple(dict.fromkeys(found.failed.values())))
    reasons = (*found.reasons, *(f"it does not run on {name}: {why}" for name, why in found.failed.items()))
    figures = {name: worst(items) for name, items in found.outputs.items()}
    idle = [name for name in figures if name not in found.told]
    if not reasons and len(idle) == len(figures):
        return judged(None, figures, (f"nothing was compared: {_IDLE} for every input tried; {_REAL}",))
    if idle:
        found.notes[f"output {', '.join(idle)} was not compared: {_IDLE} for every input tried; {_REAL}"] = None
    share = float(np.mean(found.same)) if found.same else None
    top1 = all(found.same) if found.same else None
    return judged(not reasons, figures, reasons, top1, share, notes=tuple(found.notes))


_IDLE = "its source gives only zeros or nothing finite"
_REAL = "give real inputs, --samples DIR or --example FILE"


def _reason(error: Exception, package: Path) -> str:
    return reason(error, named=not isinstance(error, TlkitError)).replace(str(package), package.name)


def _compare(
    found: _Findings,
    reference: Outputs,
    actual: Mapping[str, Any],
    limits: Tolerance,
    labels: Sequence[str],
    where: str,
) -> None:
    if labels:
        reference, actual = _scores(reference, actual, labels)
        (expected,), (got,) = reference.values(), actual.values()
        found.same.append(bool(np.argmax(expected) == np.argmax(got)))
    for name, value in reference.items():
        try:
            item = difference(value, _array(actual[name], value))
        except UsageError as error:  # of another shape
            found.reasons[f"{name}: {error.message}{where}"] = None
            continue
        found.outputs.setdefault(name, []).append(item)
        if _tells(value):
            found.told.add(name)
        breaches = limits.breaches(item, integer=value.dtype.kind in "ib")
        found.reasons |= {f"{name}: {phrase}{where}": None for phrase in breaches}


def _tells(reference: NDArray[Any]) -> bool:
    """Whether agreeing with ``reference`` means anything: it has a finite value other than 0, or is a few integers."""
    few = reference.dtype.kind in "iub" and reference.size < 8
    return few or not reference.size or bool((np.isfinite(reference) & (reference != 0)).any())


def _random(module: nn.Module, traced: Traced, cases: Sequence[Case]) -> str:
    """Return a text if the source gives different results for the same input, else empty."""
    drawn = [place for case in cases if case.study is not None for place in case.study.random]
    if not drawn or not cases:
        return ""
    runs = [next(run_source(module, traced, cases[:1])) for _ in range(2)]
    apart = max((float(np.abs(a - b).max(initial=0)) for a, b in zip(*runs, strict=True) if a.size), default=0.0)
    if not apart:
        return ""
    listed = ", ".join(dict.fromkeys(drawn))
    return f"its source is random by itself ({listed}): two runs on one input differ by {apart:.2g}; {_NOISE}"


_NOISE = "let forward take the random numbers as an input, or turn the drawing off in eval mode"


def run_source(module: nn.Module, traced: Traced, cases: Sequence[Case]) -> Iterator[list[NDArray[Any]]]:
    """Yield the source's outputs for each case in turn; states begin as zeros and go on from case to case."""
    recorder = Recorder(module, traced.ports)
    with zeroed(recorder, traced.states):
        for case in cases:
            with quiet(), torch.no_grad():
                recorder(*(to_source(port, value) for port, value in zip(case.ports, case.values, strict=True)))
            yield [value.detach().numpy().copy() for value in recorder.seen.values()]


def _pictures(traced: Traced, raw: Sequence[NDArray[Any]]) -> Iterator[str]:
    """Note image outputs whose values are not those of pixels."""
    for output, value in zip(traced.outputs, raw, strict=True):
        if output.port.layout is None or not value.size or output.port.layout == "GRAYSCALE_FLOAT16":
            continue
        low, high = float(value.min()), float(value.max())
        spans = f"output '{output.name}' is an image; its source gives {low:.3g} to {high:.3g}, pixels are 0 to 255"
        if low >= -1.5 and high <= 1.5:
            yield f"{spans}: a black picture; {'multiply it by 255' if low >= 0 else 'scale it to that'} in the model"
        elif float(((value < -0.5) | (value > 255.5)).mean()) > 0.25:
            yield f"{spans}: more than a quarter of it is cut off; scale it to 0 to 255 in the model"


def _as_port(port: OutputPort, value: NDArray[Any]) -> NDArray[Any]:
    """Return ``value`` as an image output has it: whole pixels from 0 to 255, RGB, (height, width[, 3])."""
    if port.layout is None:
        return value
    pixels: NDArray[Any] = value[0]
    if port.layout != "GRAYSCALE_FLOAT16":
        pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return np.squeeze(pixels, 0) if len(pixels) == 1 else pixels[_CHANNELS[port.layout]].transpose(1, 2, 0)


def _package(package: Path, stateful: bool, strict_mil: bool) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    from tlkit.core.model.load import load_model

    with quiet():
        model = load_model(package, strict_mil=strict_mil)
        state = model.make_state() if stateful else None

    def predict(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        with quiet():
            return model.predict(inputs, state=state)

    return predict


def given(case: Case) -> dict[str, Any]:
    """Return the case's inputs as ``Model.predict`` takes them."""
    return {port.name: _to_package(port, value) for port, value in zip(case.ports, case.values, strict=True)}


def _scores(reference: Outputs, actual: Mapping[str, Any], labels: Sequence[str]) -> tuple[Outputs, Outputs]:
    """Return a classifier's scores in the labels' order, under the package's name for them."""
    (scores,) = reference.values()
    name = next(key for key, value in actual.items() if isinstance(value, Mapping))
    found = np.array([actual[name][label] for label in labels], np.float32).reshape(scores.shape)
    return {name: scores}, {name: found}


def _array(actual: Any, like: NDArray[Any]) -> NDArray[Any]:
    array = np.asarray(actual)
    return array[..., :3] if array.ndim == 3 and like.ndim == 3 and like.shape[2] == 3 else array


def _where(case: Case, cases: Sequence[Case]) -> str:
    return f" ({case.name})" if len(cases) > 1 else ""


def _to_package(port: TensorSpec, value: NDArray[Any]) -> Any:
    """Return what predict takes: images as PIL has them, whose colours are RGB whatever the model's layout is."""
    if port.image is None:
        return value
    from PIL import Image

    if len(value) == 1:
        grey = value[0].astype(np.float32) if port.image.layout == "GRAYSCALE_FLOAT16" else value[0]
        return Image.fromarray(grey)
    return Image.fromarray(
        np.ascontiguousarray((value[::-1] if port.image.layout == "BGR" else value).transpose(1, 2, 0))
    )
