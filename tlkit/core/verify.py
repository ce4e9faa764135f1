"""Does the package compute what its source computes? Both run on one seeded input that the trace has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tlkit.core._quiet import quiet
from tlkit.core.compare import TOLERANCES, Difference, difference
from tlkit.core.examples import draw, to_source
from tlkit.core.ports import Port
from tlkit.core.trace import Recorder, Traced
from tlkit.errors import TlkitError


@dataclass(frozen=True, slots=True)
class Verification:
    """How the package compares with its source, output by output.

    ``passed`` is None where the package could not be run here: ``reasons`` then says why, else which limits it broke.
    ``top1`` says whether a classifier's likeliest class is the same (None for other models).
    """

    passed: bool | None
    outputs: Mapping[str, Difference]
    reasons: tuple[str, ...] = ()
    top1: bool | None = None
    seed: int = 0


def verify(
    package: Path, module: nn.Module, traced: Traced, *, precision: str, labels: Sequence[str] = (), seed: int = 0
) -> Verification:
    """Run the package at ``package`` and ``module`` (prepared) on the inputs of ``seed`` and compare their outputs."""
    values = draw(traced.ports, module, seed)
    reference = _run_source(module, traced, values)
    try:
        actual = _run_package(package, traced.ports, values)
    except TlkitError as error:
        return Verification(None, {}, (error.message.replace(str(package), package.name),), seed=seed)
    except Exception as error:  # a fault in tlkit's executor must not cost the user the conversion
        return Verification(None, {}, (f"{type(error).__name__}: {error}",), seed=seed)
    top1 = None
    if labels:
        (scores,) = reference.values()
        name = next(key for key, value in actual.items() if isinstance(value, Mapping))
        actual = {name: np.array([actual[name][label] for label in labels], np.float32).reshape(scores.shape)}
        reference = {name: scores}  # as the package calls them
        top1 = bool(np.argmax(reference[name]) == np.argmax(actual[name]))
    return _judge(reference, actual, precision, top1, seed)


def _run_source(module: nn.Module, traced: Traced, values: list[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    recorder = Recorder(module, traced.ports).eval()
    with quiet(), torch.no_grad():
        recorder(*(to_source(port, value) for port, value in zip(traced.ports, values, strict=True)))
    return {output.name: value.numpy() for output, value in zip(traced.outputs, recorder.seen.values(), strict=True)}


def _run_package(package: Path, ports: tuple[Port, ...], values: list[NDArray[Any]]) -> dict[str, Any]:
    from tlkit.core.load import load_model

    inputs = {port.name: _to_package(port, value) for port, value in zip(ports, values, strict=True)}
    with quiet():
        return dict(load_model(package).predict(inputs))


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


def _judge(
    reference: Mapping[str, NDArray[Any]], actual: Mapping[str, Any], precision: str, top1: bool | None, seed: int
) -> Verification:
    found = {name: difference(value, actual[name]) for name, value in reference.items()}
    reasons = tuple(
        f"{name}: {phrase}"
        for name, value in reference.items()
        for phrase in TOLERANCES[precision].breaches(found[name], integer=value.dtype.kind in "iub")
    )
    return Verification(not reasons, found, reasons, top1, seed)
