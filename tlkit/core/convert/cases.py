"""What to check a package on: seeded inputs at several shapes, or the user's samples. Importing this imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tlkit.core.convert.capture.examples import draw
from tlkit.errors import LoadError, UsageError
from tlkit.ports.port import Port
from tlkit.types import ImageSpec, Kind, TensorSpec

_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
_SHAPES, _SAMPLES = 6, 64
"""At most so many cases; samples are taken evenly from a larger folder."""


@dataclass(frozen=True, slots=True)
class Case:
    """One set of inputs: the ports at its shapes and a value for each, as ``examples.draw`` gives it."""

    name: str
    ports: tuple[Port, ...]
    values: tuple[NDArray[Any], ...]


def seeded_cases(ports: tuple[Port, ...], module: nn.Module, seed: int, least: int = 1) -> tuple[Case, ...]:
    """Return one case for each shape worth checking: one where all are fixed, up to six where they flex.

    ``least``: so many cases at any rate, the largest shape again and again.
    """
    choices = [port.shapes() for port in ports]
    cases = []
    for index in range(max(least, min(max(map(len, choices), default=1), _SHAPES))):
        fixed = tuple(port.at(shapes[min(index, len(shapes) - 1)]) for port, shapes in zip(ports, choices, strict=True))
        name = f"seed {seed + index}" + (
            f", {', '.join(map(str, fixed))}" if any(port.flexible for port in ports) else ""
        )
        cases.append(Case(name, fixed, tuple(draw(fixed, module, seed + index))))
    return tuple(cases)


def sample_cases(folder: Path, ports: tuple[Port, ...]) -> tuple[Case, ...]:
    """Return the samples in ``folder``: images for a model of one image, ``.npz`` with an array for each input.

    Raises :class:`LoadError` where there are none, :class:`UsageError` where one does not fit.
    """
    if not folder.is_dir():
        raise LoadError(f"{folder}: no such folder", _FORMS)
    single = len(ports) == 1 and ports[0].image is not None
    kinds = _IMAGES | {".npz"} if single else {".npz"}
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in kinds)
    if not found:
        raise LoadError(f"{folder}: no samples in it", _FORMS)
    step = max(1, -(-len(found) // _SAMPLES))
    return tuple(_case(path, ports) for path in found[::step])


_FORMS = "give a folder of images (for a model of one image) or of .npz files with an array for each input"


def _case(path: Path, ports: tuple[Port, ...]) -> Case:
    from tlkit.core.model.arrays import read_array

    if path.suffix.lower() != ".npz":
        values = [_fit(path, ports[0], path)]
    else:
        values = [_fit(path, port, read_array(path, port.name)) for port in ports]
    fixed = (
        port.at(value.shape if port.image is None else (1, *value.shape))
        for port, value in zip(ports, values, strict=True)
    )
    return Case(path.name, tuple(fixed), tuple(values))


def _fit(path: Path, port: Port, value: Any) -> NDArray[Any]:
    from tlkit.core.model.inputs import to_port

    try:
        array = to_port(_spec(port), value)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", error.hint) from error
    if port.image is None:
        return array
    pixels: NDArray[Any] = array[0].astype(np.uint8)
    return pixels


def _spec(port: Port) -> TensorSpec:
    image = None
    if port.image is not None:
        sizes = tuple((shape[3], shape[2]) for shape in port.enumerated)
        height, width = port.spans[2:]
        ranged = bool(port.ranges)
        image = ImageSpec(
            port.image.layout,
            port.shape[3],
            port.shape[2],
            sizes,
            width if ranged else None,
            height if ranged else None,
        )
    kind: Kind = "tensor" if image is None else "image"
    return TensorSpec(port.name, port.dtype, port.shape, kind, port.ranges, port.enumerated, image)
