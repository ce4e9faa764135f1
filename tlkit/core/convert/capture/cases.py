"""Inputs to verify a package on: seeded ones at several shapes, or the user's samples. Importing this imports torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tlkit.core.convert.capture.study import Study, study
from tlkit.core.convert.capture.ties import near_steps
from tlkit.core.model.arrays import read_array
from tlkit.core.model.inputs import to_port
from tlkit.errors import LoadError, UsageError
from tlkit.ports.images import SUFFIXES
from tlkit.ports.port import checked_shapes, port_text
from tlkit.types import TensorSpec

_SHAPES, _SAMPLES, _PLACES = 6, 64, 4
"""At most so many cases; samples are taken evenly from a larger folder. Places for a lowest, a highest and another
value."""


@dataclass(frozen=True, slots=True)
class Case:
    """One set of inputs: the ports at its shapes and a value for each, as ``examples.draw`` gives it: arrays, and what
    :mod:`tlkit.core.model.plain` has for ports of texts, dictionaries and sequences.

    ``study`` holds the findings of running the source on it, None for samples; ``steep``: it lies where the source
    jumps, so that a rounding may show as a whole step.
    """

    name: str
    ports: tuple[TensorSpec, ...]
    values: tuple[Any, ...]
    study: Study | None = None
    steep: bool = False


def seeded_cases(
    ports: tuple[TensorSpec, ...], module: nn.Module, seed: int, least: int = 1
) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """Return one case for each shape worth checking, and notes on shapes at which the source does not run.

    One where all are fixed, three where an integer has too few places for its lowest and its highest value, up to six
    where shapes flex, and two more, near the steps, where the source takes steps of what it computes place by place.
    Returns at least ``least`` cases, repeating the largest shape. Raises what ``study`` raises where the source runs at
    none.
    """
    choices = [checked_shapes(port) for port in ports]
    cases, refused = [], list[UsageError]()
    for index in range(max(least, _few(ports), min(max(map(len, choices), default=1), _SHAPES))):
        fixed = tuple(
            port.taking(shapes[min(index, len(shapes) - 1)]) for port, shapes in zip(ports, choices, strict=True)
        )
        name = f"seed {seed + index}" + (
            f", {', '.join(map(port_text, fixed))}" if any(port.flexible for port in ports) else ""
        )
        try:
            found = study(module, fixed, seed + index)
        except UsageError as error:
            refused.append(error)
        else:
            cases.append(Case(name, fixed, found.arrays, found))
    if refused and not cases:
        raise refused[0]
    cases += _steep(cases[-1], module, seed)
    # The message begins with the class's name, for which "the source itself" stands.
    notes = (f"the source itself {refused[0].message.partition(' ')[2]}: not checked there",) if refused else ()
    return tuple(cases), notes


def _steep(case: Case, module: nn.Module, seed: int) -> list[Case]:
    """Return cases at the shapes of ``case``, near the steps that its source takes."""
    if case.study is None:
        return []
    found = near_steps(module, case.study, seed + 1000)
    return [
        replace(case, name=f"{case.name}, {what}", values=arrays, steep=True, study=replace(case.study, arrays=arrays))
        for what, arrays in found.items()
    ]


def _few(ports: tuple[TensorSpec, ...]) -> int:
    small = any(port.dtype == "int32" and math.prod(high for _, high in port.spans) < _PLACES for port in ports)
    if small:
        return 3
    return 2 if any("mask" in port.name.lower() for port in ports) else 1


def example_case(file: Path, ports: tuple[TensorSpec, ...]) -> Case:
    """Return the sample in ``file``, of the kinds that :func:`sample_cases` reads."""
    if not file.is_file():
        raise LoadError(f"{file}: no such file", _ONE)
    if file.suffix.lower() not in SUFFIXES | {".npz"} or (file.suffix.lower() != ".npz" and len(ports) > 1):
        raise UsageError(f"--example {file}: not a .npz file", _ONE)
    return _case(file, ports)


_ONE = "give a .npz file with an array for each input (numpy.savez), or an image for a model of one image"


def sample_cases(folder: Path, ports: tuple[TensorSpec, ...]) -> tuple[Case, ...]:
    """Return the samples in ``folder``: images for a model of one image, ``.npz`` with an array for each input.

    Raises :class:`LoadError` where there are none, :class:`UsageError` where one does not fit.
    """
    if not folder.is_dir():
        raise LoadError(f"{folder}: no such folder", _FORMS)
    single = len(ports) == 1 and ports[0].image is not None
    kinds = SUFFIXES | {".npz"} if single else {".npz"}
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in kinds)
    if not found:
        raise LoadError(f"{folder}: no samples in it", _FORMS)
    step = max(1, -(-len(found) // _SAMPLES))
    return tuple(_case(path, ports) for path in found[::step])


_FORMS = "give a folder of images (for a model of one image) or of .npz files with an array for each input"


def _case(path: Path, ports: tuple[TensorSpec, ...]) -> Case:
    if path.suffix.lower() != ".npz":
        values = [_fit(path, ports[0], path)]
    else:
        values = [_fit(path, port, read_array(path, port.name)) for port in ports]
    fixed = (
        port.taking(value.shape if port.image is None else (1, *value.shape))
        for port, value in zip(ports, values, strict=True)
    )
    return Case(path.name, tuple(fixed), tuple(values))


def _fit(path: Path, port: TensorSpec, value: Any) -> NDArray[Any]:
    try:
        array: NDArray[Any] = to_port(port, value)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", error.hint) from error
    if port.image is None:
        return array
    pixels: NDArray[Any] = array[0].astype(np.uint8)
    return pixels
