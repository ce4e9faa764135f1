"""Check that a package computes what its source computes, on inputs that the capture has not seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tlkit.core.compare.difference import TOLERANCES
from tlkit.core.compare.models import Trial, Verification, compare
from tlkit.core.convert.capture.cases import Case
from tlkit.core.convert.capture.examples import to_source
from tlkit.core.convert.capture.states import zeroed
from tlkit.core.convert.capture.study import Study
from tlkit.core.convert.capture.trace import Recorder, Traced
from tlkit.core.model.load import load_model
from tlkit.errors import TlkitError, reason
from tlkit.host import budget
from tlkit.host.quiet import quiet
from tlkit.ports.images import to_picture, to_pixels
from tlkit.ports.port import OutputPort
from tlkit.types import TensorSpec


@dataclass(frozen=True, slots=True)
class Settings:
    """How to judge: limits by ``precision``, a classifier's ``labels``, what to call the ``seed``.

    ``strict_mil``: run the package as MIL's specification says where Core ML was measured to depart from it.
    ``emulate``: run it by what was published of a unit's arithmetic (:func:`load_model`).
    """

    precision: str
    labels: Sequence[str] = ()
    seed: int = 0
    strict_mil: bool = False
    emulate: str | None = None


@budget.lifted()
def verify(package: Path, module: nn.Module, traced: Traced, cases: Sequence[Case], settings: Settings) -> Verification:
    """Run the package at ``package`` and ``module`` (prepared) on the same inputs and compare their outputs."""
    names = tuple(case.name for case in cases)
    values = next((_drawn(case, case.study) for case in cases if case.study is not None), "")
    judged = partial(replace, seed=settings.seed, cases=names, values=values)
    strays = _random(module, traced, cases)
    if strays:
        return judged(Verification(None, {}, (strays,), random=True))
    limits = TOLERANCES["f16" if traced.states else settings.precision]  # Core ML's states are f16
    try:
        model = _Package(package, bool(traced.states), settings)
    except Exception as error:  # a fault in tlkit's executor must not cost the user the conversion
        return judged(Verification(None, {}, (_reason(error, package),)))
    notes: dict[str, None] = {}
    runs = run_source(module, traced, cases)

    def reference() -> Mapping[str, Any]:
        raw = next(runs)
        notes.update(dict.fromkeys(_pictures(traced, raw)))
        return _named(traced, raw, model.classes(settings.labels))

    steep = replace(limits, relative=limits.relative or _STEP)
    trials = [
        Trial(case.name, reference, partial(model.predict, case), steep if case.steep else None) for case in cases
    ]
    found = compare(trials, limits, named=partial(_shortened, package=package), retry=_REAL)
    emulated = (model.emulated,) if model.emulated else ()
    return judged(found, notes=(*emulated, *notes, *found.notes))


def _drawn(case: Case, study: Study) -> str:
    """Return the ranges of what was drawn, port by port: of standard normals what came of them; pixels go unsaid.

    What f16 does with inputs far larger than these, verification has not seen.
    """
    texts = []
    for port, value in zip(case.ports, case.values, strict=True):
        kind = study.values.get(port.name)
        normal = kind is not None and kind.kind == "normal" and value.size
        text = f"{value.min():.2g} to {value.max():.2g}" if normal else str(kind or "")
        texts.append(f"{port.name} {text}" if text else "")
    return ", ".join(filter(None, texts))


_STEP = 0.01
"""Of the range: more is a step taken otherwise, which a cosine over many values does not show."""
_REAL = "give real inputs, --samples DIR or --example FILE"


def _reason(error: Exception, package: Path) -> str:
    return _shortened(reason(error, named=not isinstance(error, TlkitError)), package)


def _shortened(text: str, package: Path) -> str:
    return text.replace(str(package), package.name)


def _named(traced: Traced, raw: Sequence[NDArray[Any]], classes: Mapping[str, Sequence[str]]) -> Mapping[str, Any]:
    """Return the source's outputs as the package gives them: images as pixels, a classifier's scores by label."""
    for name, labels in classes.items():
        (scores,) = raw
        return {name: dict(zip(labels, scores.ravel().tolist(), strict=True))}
    return {output.name: _as_port(output.port, value) for output, value in zip(traced.outputs, raw, strict=True)}


def _random(module: nn.Module, traced: Traced, cases: Sequence[Case]) -> str:
    """Return a text if the source gives different results for the same input, else empty."""
    drawn = [place for case in cases if case.study is not None for place in case.study.random]
    if not drawn or not cases:
        return ""
    runs = [next(run_source(module, traced, cases[:1])) for _ in range(2)]
    apart = max(map(_apart, *runs), default=0.0)
    if not apart:
        return ""
    listed = ", ".join(dict.fromkeys(drawn))
    return f"its source is random by itself ({listed}): two runs on one input differ by {apart:.2g}; {NOISE}"


def _apart(one: NDArray[Any], other: NDArray[Any]) -> float:
    # What is the same infinity, or NaN, in both is not apart.
    differs = (one != other) & ~(np.isnan(one) & np.isnan(other)) if one.dtype.kind == "f" else one != other
    return float(np.abs(one[differs].astype(np.float64) - other[differs]).max(initial=0))


NOISE = "let forward take the random numbers as an input, or turn the drawing off in eval mode"
"""What to do about a source that draws random numbers."""


def run_source(module: nn.Module, traced: Traced, cases: Sequence[Case]) -> Iterator[list[NDArray[Any]]]:
    """Yield the source's outputs for each case in turn; states begin as zeros and go on from case to case."""
    recorder = Recorder(module, traced.ports)
    with zeroed(recorder, traced.states):
        for case in cases:
            with quiet(), torch.no_grad():
                recorder(*(to_source(port, value) for port, value in zip(case.ports, case.values, strict=True)))
            # A copy: an output may lie in a buffer that the next case changes.
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
    """Return ``value`` as an image output has it."""
    return value if port.layout is None else to_pixels(port.layout, value).astype(np.float32)


class _Package:
    """The package that was made, to be run case by case; its states begin as zeros and go on from case to case."""

    def __init__(self, package: Path, stateful: bool, settings: Settings) -> None:
        with quiet():
            how: dict[str, Any] = {"strict_mil": settings.strict_mil, "emulate": settings.emulate}
            self._model = load_model(package, engine="eager", **how)
            self._state = self._model.make_state() if stateful else None

    @property
    def emulated(self) -> str:
        """What the outputs rest on, where a unit's arithmetic is emulated; else empty."""
        found = self._model.emulated
        return "" if found is None else f"verified by {found.text}"

    def predict(self, case: Case) -> Mapping[str, Any]:
        """Return the outputs by name."""
        with quiet():
            return self._model.predict(given(case), state=self._state)

    def classes(self, labels: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return ``labels`` under the name of the output that holds a classifier's probabilities; empty for others."""
        names = [spec.name for spec in self._model.outputs if spec.kind == "dictionary"]
        return {names[0]: labels} if labels else {}


def given(case: Case) -> dict[str, Any]:
    """Return the case's inputs as ``Model.predict`` takes them."""
    return {port.name: _to_package(port, value) for port, value in zip(case.ports, case.values, strict=True)}


def _to_package(port: TensorSpec, value: NDArray[Any]) -> Any:
    """Return what predict takes: images as PIL has them, whose colours are RGB whatever the model's layout is."""
    return value if port.image is None else to_picture(port.image.layout, value)
