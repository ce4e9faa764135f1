"""Parse ``--input`` and ``--image`` of ``convert`` into ports, checked before anything is loaded.

A tensor is ``NAME=1x3x224x224[:DTYPE]``, an image ``NAME=1x3x224x224[:LAYOUT][:scale=S[,S,S]][:bias=B[,B,B]]``;
dimensions are separated by ``x`` or commas, ``1..512`` is a range, ``1x8,1x16`` a choice of shapes. The model gets
``scale * pixel + bias`` for pixels of 0 to 255.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from tlkit.errors import UsageError
from tlkit.ports.port import OutputPort, flexible_port, parse_dims
from tlkit.types import LARGEST, ImageSpec, Intake, Layout, TensorSpec

_CHANNELS: dict[str, int] = {"RGB": 3, "BGR": 3, "GRAYSCALE": 1, "GRAYSCALE_FLOAT16": 1}
_DTYPES = {
    "float32": ("f32", "float32", "float", "fp32"),
    "float16": ("f16", "float16", "half", "fp16"),
    # Core ML's ports have no 64-bit integers: int64 means int32 there.
    "int32": ("i32", "int32", "int", "i64", "int64", "long"),
}
_DTYPE_OF = {spelling: dtype for dtype, spellings in _DTYPES.items() for spelling in spellings}

Ports = Iterable[str] | Mapping[str, str | Sequence[int]]
"""Ports as users give them: texts ``NAME=SPEC``, or a mapping from name to SPEC or to a shape."""


def parse_ports(inputs: Ports = (), images: Ports = ()) -> tuple[TensorSpec, ...]:
    """Return the ports of ``images``, then of ``inputs``, each in the order given; UsageError where a name is
    repeated."""
    ports = (*map(parse_image, _texts(images)), *map(parse_input, _texts(inputs)))
    names = [port.name for port in ports]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"input '{name}' is given twice", "each input has one name and one shape")
    return ports


def parse_input(text: str) -> TensorSpec:
    """Return the tensor port that ``NAME=1x128:i32`` describes; the type defaults to float32."""
    port, options = _split("--input", text)
    if len(options) > 1:
        raise UsageError(f"--input {text}: too many colons", "write it as NAME=1x3x224x224 or NAME=1x128:i32")
    return replace(port, dtype=element_type(options[0] if options else "f32", f"--input {text}"))


def parse_output(text: str) -> OutputPort:
    """Return the output that ``NAME``, ``NAME:f16`` or ``NAME:RGB`` describes: its name, type or image layout."""
    name, colon, kind = text.partition(":")
    name = check_name(name.strip())
    if kind.strip().upper() in _CHANNELS:
        return OutputPort(name, layout=cast(Layout, kind.strip().upper()))
    return OutputPort(name, element_type(kind, f"--output-name {text}") if colon else "")


def element_type(spelling: str, where: str) -> str:
    """Return ``float32``, ``float16`` or ``int32`` for ``f32``, ``half``, ``np.int32`` and the like."""
    dtype = _DTYPE_OF.get(spelling.strip().lower().removeprefix("torch.").removeprefix("np."))
    if dtype is None:
        raise UsageError(f"{where}: unknown type '{spelling}'", "types are f32, f16 and i32")
    return dtype


def parse_image(text: str) -> TensorSpec:
    """Return the image port that ``NAME=1x3x224x224:BGR:scale=1/255:bias=-1`` describes.

    The layout defaults to RGB for three channels and GRAYSCALE for one.
    """
    port, options = _split("--image", text)
    shape = port.shape
    # An image port may vary in height and width only.
    if len(shape) != 4 or shape[0] != 1 or shape[1] not in (1, 3) or any(low != high for low, high in port.spans[:2]):
        raise UsageError(
            f"--image {text}: an image is 1xCHANNELSxHEIGHTxWIDTH with 1 or 3 channels", "e.g. 1x3x224x224"
        )
    layout, scale, bias = "RGB" if shape[1] == 3 else "GRAYSCALE", 1.0, (0.0,) * shape[1]
    ratios: tuple[float, ...] = ()
    for option in options:
        key, _, value = option.partition("=")
        if key == "scale":
            scale, ratios = _scales(text, value, shape[1])
        elif key == "bias":
            bias = _each(text, value, shape[1], "biases")
        elif option.upper() in _CHANNELS:
            layout = option.upper()
        else:
            raise UsageError(f"--image {text}: unknown setting '{option}'", _IMAGE_HINT)
    if _CHANNELS[layout] != shape[1]:
        raise UsageError(
            f"--image {text}: {layout} has {_CHANNELS[layout]} channel(s), the shape {shape[1]}", _IMAGE_HINT
        )
    image = ImageSpec(cast(Layout, layout), shape[3], shape[2])
    found = replace(port, kind="image", image=image, intake=Intake(scale, bias, ratios))
    return found.taking(port.shape, port.ranges, port.enumerated)


_IMAGE_HINT = (
    "settings are RGB, BGR, GRAYSCALE, GRAYSCALE_FLOAT16, scale=1/255 or scale=S,S,S and bias=-1 or bias=B,B,B"
)


def _scales(text: str, value: str, channels: int) -> tuple[float, tuple[float, ...]]:
    """Return the first channel's scale and every channel's ratio to it; no ratios where all scales are equal."""
    scales = _each(text, value, channels, "scales")
    if len(set(scales)) == 1:
        return scales[0], ()
    if 0 in scales:
        raise UsageError(
            f"--image {text}: a channel's scale is 0", "the model would not see that channel: leave it out of the model"
        )
    return scales[0], tuple(scale / scales[0] for scale in scales)


def check_name(name: str) -> str:
    """Return ``name`` if it can name an input or output of a package, else raise :class:`UsageError`."""
    if not (name.isascii() and name.isidentifier()):
        raise UsageError(f"'{name}' cannot name an input or output", "use letters, digits and _, a letter or _ first")
    return name


def function_ports(given: Ports, function: str, functions: Collection[str]) -> tuple[str, ...]:
    """Return the texts of ``given`` meant for ``function``, without its name: those that name it (``decode:x=1x8``),
    or, if none does, those that name no function. UsageError where one names a function that is not in ``functions``.
    """
    named: dict[str, list[str]] = {}
    for text in _texts(given):
        name, equals, spec = text.partition("=")
        owner, _, port = name.rpartition(":")
        if owner and owner not in functions:
            raise UsageError(f"'{text}': no function '{owner}'", f"functions are {', '.join(functions)}")
        named.setdefault(owner, []).append(f"{port}{equals}{spec}")
    return tuple(named.get(function) or named.get("") or ())


def _texts(given: Ports) -> Iterable[str]:
    if isinstance(given, str):
        return (given,)
    if not isinstance(given, Mapping):
        return given
    return [f"{name}={spec if isinstance(spec, str) else 'x'.join(map(str, spec))}" for name, spec in given.items()]


def _split(flag: str, text: str) -> tuple[TensorSpec, list[str]]:
    name, equals, rest = text.partition("=")
    dims, *options = rest.split(":")
    parsed = parse_dims(dims) if equals else None
    if parsed is None:
        raise UsageError(f"{flag} {text}: not NAME=SHAPE", f"write it as {flag} NAME=1x3x224x224, or NAME=1x1..512")
    ranges, shapes = parsed
    name = check_name(name.strip())
    if shapes:
        port = TensorSpec(name, "float32", shapes[0], enumerated=shapes if len(shapes) > 1 else ())
    else:
        port = flexible_port(name, ranges)
    largest = math.prod(high for _, high in port.spans)
    if any(0 in span for span in port.spans) or largest > LARGEST:
        raise UsageError(f"{flag} {text}: a dimension of 0, or too large a shape", "dimensions start at 1")
    return port, [option.strip() for option in options]


def _each(text: str, value: str, channels: int, what: str) -> tuple[float, ...]:
    values = tuple(_number(text, part) for part in value.split(","))
    if len(values) == 1:
        return values * channels
    if len(values) != channels:
        raise UsageError(f"--image {text}: {len(values)} {what} for {channels} channel(s)", _IMAGE_HINT)
    return values


def _number(text: str, value: str) -> float:
    """Return a finite number, which may be written as a fraction: ``1/255``."""
    over, _, under = value.partition("/")
    try:
        number = float(over) / float(under or 1)
    except (ValueError, ZeroDivisionError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"--image {text}: '{value}' is not a number", "write 0.00392 or 1/255")
    return number
