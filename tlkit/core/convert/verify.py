"""Does the package compute what its source computes? Both run on inputs that the capture has not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tlkit.core.compare.difference import TOLERANCES, Difference, difference, worst
from tlkit.core.convert.capture.examples import to_source
from tlkit.core.convert.capture.states import zeroed
from tlkit.core.convert.capture.trace import Recorder, Traced
from tlkit.core.convert.cases import Case, sample_cases, seeded_cases
from tlkit.errors import TlkitError, UsageError, reason
from tlkit.host.quiet import quiet
from tlkit.ports.port import OutputPort, Port

Outputs = dict[str, NDArray[Any]]
_STEPS = 3
_CHANNELS = {"RGB": slice(None), "BGR": slice(None, None, -1)}


@dataclass(frozen=True, slots=True)
class Verification:
    """How the package compares with its source, output by output: the worst figures of all inputs tried.

    ``passed`` is None where the package could not be run here: ``reasons`` then says why, else which limits it broke.
    ``top1`` says whether a classifier's likeliest class is always the same (None for other models), ``agreement`` for
    which share of the inputs it is; ``cases`` names the inputs.
    """

    passed: bool | None
    outputs: Mapping[str, Difference]
    reasons: tuple[str, ...] = ()
    top1: bool | None = None
    agreement: float | None = None
    seed: int = 0
    cases: tuple[str, ...] = ()


def choose_cases(module: nn.Module, traced: Traced, *, seed: int = 0, samples: Path | None = None) -> tuple[Case, ...]:
    """Return what to verify on: the files in the folder ``samples``, else values drawn from ``seed``: one set, several
    where shapes flex or states go on."""
    steps = _STEPS if traced.states else 1
    return sample_cases(samples, traced.ports) if samples else seeded_cases(traced.ports, module, seed, steps)


def verify(
    package: Path,
    module: nn.Module,
    traced: Traced,
    *,
    precision: str,
    cases: Sequence[Case],
    labels: Sequence[str] = (),
    seed: int = 0,
    strict_mil: bool = False,
) -> Verification:
    """Run the package at ``package`` and ``module`` (prepared) on the same inputs and compare their outputs."""
    names = tuple(case.name for case in cases)
    limits = TOLERANCES["f16" if traced.states else precision]  # Core ML's states are f16
    found: dict[str, list[Difference]] = {}
    reasons: dict[str, None] = {}
    same: list[bool] = []
    try:
        predict = _package(package, bool(traced.states), strict_mil)
        references = _run_source(module, traced, cases)
        for case, reference in zip(cases, references, strict=True):
            actual = dict(predict(_given(case)))
            if labels:
                reference, actual = _scores(reference, actual, labels)
                (expected,), (got,) = reference.values(), actual.values()
                same.append(bool(np.argmax(expected) == np.argmax(got)))
            for name, value in reference.items():
                try:
                    item = difference(value, _array(actual[name], value))
                except UsageError as error:  # of another shape
                    reasons[f"{name}: {error.message}{_where(case, cases)}"] = None
                    continue
                found.setdefault(name, []).append(item)
                breaches = limits.breaches(item, integer=value.dtype.kind in "ib")
                reasons |= {f"{name}: {phrase}{_where(case, cases)}": None for phrase in breaches}
    except TlkitError as error:
        return Verification(None, {}, (error.message.replace(str(package), package.name),), seed=seed, cases=names)
    except Exception as error:  # a fault in tlkit's executor must not cost the user the conversion
        return Verification(None, {}, (reason(error, named=True),), seed=seed, cases=names)
    figures = {name: worst(items) for name, items in found.items()}
    share = float(np.mean(same)) if same else None
    return Verification(not reasons, figures, tuple(reasons), all(same) if same else None, share, seed, names)


def _run_source(module: nn.Module, traced: Traced, cases: Sequence[Case]) -> Iterator[Outputs]:
    """Yield the source's outputs for each case in turn; states begin as zeros and go on from case to case."""
    recorder = Recorder(module, traced.ports)
    with zeroed(recorder, traced.states):
        for case in cases:
            with quiet(), torch.no_grad():
                recorder(*(to_source(port, value) for port, value in zip(case.ports, case.values, strict=True)))
            yield {
                output.name: _as_port(output.port, value.numpy())
                for output, value in zip(traced.outputs, recorder.seen.values(), strict=True)
            }


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


def _given(case: Case) -> dict[str, Any]:
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


def _to_package(port: Port, value: NDArray[Any]) -> Any:
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
