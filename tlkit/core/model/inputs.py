"""Values for a model's inputs: what users give, checked against the port and converted to its array."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tlkit.core.model import arrays, plain
from tlkit.core.model.known import draw_known
from tlkit.errors import LoadError, UsageError
from tlkit.host import budget
from tlkit.ports import images, sounds
from tlkit.ports.shapes import allows, shape_text, shapes_text
from tlkit.types import TensorSpec

Note = Callable[[str], None]
Array = np.ndarray[Any, Any]
# Ports of one number, for which a description has no shape.
_PLAIN_SHAPES = {"double": (1,), "int64": (1,)}
_LARGEST = 2**31  # elements: a damaged description must not ask for the machine's memory


@dataclass(frozen=True, slots=True)
class Drawn:
    """A value to be drawn once its port is known (see :func:`draw`)."""

    kind: Literal["random", "zeros"]


def to_port(spec: TensorSpec, value: Any, note: Note | None = None, stored: int = 0) -> Any:
    """Return ``value`` as the array that the port ``spec`` takes, in its dtype and a shape that it allows.

    An image port takes a PIL image, the path of an image file, an array of pixels (height, width[, 3 or 4], uint8), or
    the finished array (1, channels, height, width) of 0..255 in the port's own channel order; an image of another size
    is scaled until it covers the size wanted and cropped at the centre, which ``note`` is told. Any other port takes
    arrays, numbers and nested lists, cast to its dtype as Core ML casts them. Paths of array files (.npy, .npz,
    .safetensors) are read, sounds too (:func:`tlkit.ports.sounds.to_array`), :class:`Drawn` is drawn. A port for
    texts, dictionaries or sequences takes those (:mod:`plain`). UsageError says what is expected.
    """
    # The same as below, at a tenth of the cost: models of many numbers are asked row by row.
    if spec.kind == "double" and type(value) is float and spec.dtype == "float64":
        return np.array([value])
    if spec.kind in plain.KINDS and not isinstance(value, Drawn):
        return plain.to_plain(spec, value)
    if isinstance(value, Drawn):
        return draw(spec, value.kind, np.random.default_rng(0), stored=stored)
    if spec.image is not None and isinstance(value, str | Path):
        value = images.plain_picture(value) or value  # most are, and need no look at what else they could be
    if isinstance(value, str | Path) and arrays.holds_arrays(value):
        value = arrays.read_array(value, spec.name)
    if spec.image is not None and images.is_picture(value):
        return images.to_array(spec, value, note)
    if isinstance(value, str | Path) and not Path(value).is_file():
        raise LoadError(f"{value}: no such file", f"give the input '{spec.name}' an array")
    if isinstance(value, str | Path) and sounds.is_sound(Path(value)):
        value = sounds.read_sound(Path(value))
    if isinstance(value, sounds.Sound):
        return sounds.to_array(spec, value, note).astype(spec.dtype or "float32", copy=False)
    if isinstance(value, str | Path) or images.is_pil(value):
        raise UsageError(
            f"input '{spec.name}' takes an array ({_expected(spec)}); this is not one",
            f"give it --input {spec.name}=FILE.npy, or convert the model again with --image {spec.name}",
        )
    try:
        array = np.asarray(value)
    except ValueError:
        raise UsageError(f"input '{spec.name}': rows of different lengths", f"expected {_expected(spec)}") from None
    return _shaped(spec, _cast(spec, array))


def draw(
    spec: TensorSpec,
    kind: Literal["random", "zeros"],
    rng: np.random.Generator,
    shape: Sequence[int] | None = None,
    *,
    stored: int | None = 0,
    known: Sequence[Any] = (),
) -> Any:
    """Return an array for ``spec``: zeros, or random values drawn from ``rng``.

    A port of texts, dictionaries or sequences, or of one integer, gets some of the ``known`` values
    (:class:`tlkit.core.model.known.Known`).

    A file that stores ``stored`` bytes may not ask for a larger array than they warrant (``host.budget``); None means
    that the user chose the shape.

    Floats are standard normal, pixels whole numbers of 0..255, integers 0 or 1 (an index that is in range in any
    table of two rows). ``shape`` is the port's default where it is not given.
    """
    if spec.kind in plain.KINDS:
        return draw_known(spec, known, rng)
    dims = check_shape(spec, tuple(shape or spec.shape) or _PLAIN_SHAPES.get(spec.kind, ()))
    said = None if stored is None else budget.over(math.prod(dims), budget.warranted(stored))
    if said:
        raise UsageError(f"input '{spec.name}': its shape has {said[0]}", said[1])
    dtype = np.dtype(spec.dtype or "float32")
    if kind == "zeros":
        return np.zeros(dims, dtype)
    if spec.image is not None:
        return rng.integers(0, 256, dims).astype(dtype)
    if dtype.kind == "f":
        return rng.standard_normal(dims, np.float32).astype(dtype)
    if known and spec.kind == "int64":
        return np.full(dims, draw_known(spec, known, rng), dtype)
    return rng.integers(0, 2, dims).astype(dtype)


def port_named(ports: Iterable[TensorSpec], name: str, where: str = "") -> TensorSpec:
    """Return the port called ``name``; UsageError lists the ports and suggests a similar name."""
    known = {spec.name: spec for spec in ports}
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, 1)
    listed = f"inputs: {', '.join(known) or 'none'}"
    message = f"{where}: no input is named '{name}'" if where else f"no input is named '{name}'"
    raise UsageError(message, f"did you mean '{close[0]}'? {listed}" if close else listed)


def check_shape(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``shape`` if the port allows it, else raise UsageError with what it allows."""
    if not shape or min(shape) < 1 or math.prod(shape) >= _LARGEST:
        raise UsageError(
            f"input '{spec.name}': no usable shape ({shape_text(shape)})", f"give one: --shape {spec.name}=1,3,224,224"
        )
    if not allows(spec, shape):
        raise UsageError(
            f"input '{spec.name}': the shape {shape_text(shape)} does not fit", f"expected {_expected(spec)}"
        )
    return shape


def _expected(spec: TensorSpec) -> str:
    return (f"{spec.image.layout} image " if spec.image else "") + (shapes_text(spec) or "any shape")


def _cast(spec: TensorSpec, array: Array) -> Array:
    dtype = np.dtype(spec.dtype or "float32")
    if array.dtype.kind not in "biuf":
        raise UsageError(f"input '{spec.name}': {array.dtype} values are not numbers", f"expected {dtype}")
    if dtype.kind == "i" and array.size:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        if not (np.isfinite(array).all() and low <= array.min() and array.max() <= high):
            raise UsageError(f"input '{spec.name}': values that {dtype} cannot hold", f"they must lie in {low}..{high}")
    with np.errstate(over="ignore"):  # an f16 port overflows to infinity, as it does on the device
        return array.astype(dtype, copy=False)


def _shaped(spec: TensorSpec, array: Array) -> Array:
    # A number fits a port of one element, whatever its rank.
    if array.size == 1 and not array.shape:
        array = array.reshape((1,) * max(1, len(spec.shape)))
    return array.reshape(check_shape(spec, array.shape))
