"""Parse ``--input-shape NAME=SHAPES``, and find where the program fixes other shapes."""

from __future__ import annotations

import re

from tlkit.errors import UsageError
from tlkit.formats.coreml.features import MOST_SHAPES
from tlkit.mil.program import Function, TensorType
from tlkit.ports.port import parse_dims
from tlkit.types import LARGEST, Range, Shape, TensorSpec


def parse_shapes(name: str, text: str, spec: TensorSpec) -> TensorSpec:
    """Return the port with the shapes that ``text`` asks for.

    ``1x3x224x224``, ``1x1..512`` or ``1x8,4x8`` (the first is the default). ``1x1..`` has no highest length. A range
    keeps the port's default shape where it holds it. UsageError where the text is none of these.
    """
    flag = f"--input-shape {name}={text}"
    # parse_dims wants both ends: an open one gets the largest length.
    parsed = parse_dims(re.sub(r"\.\.(?=\s*([x×,]|$))", f"..{LARGEST}", text))
    lows = [low for low, _ in parsed[0]] + [size for shape in parsed[1] for size in shape] if parsed else [0]
    if parsed is None or not 1 <= min(lows) <= max(lows) <= LARGEST:
        raise UsageError(f"{flag}: not a shape", "write it as 1x3x224x224, 1x1..512 or 1x128,1x256")
    ranges, shapes = parsed
    if shapes:
        if len(shapes) > MOST_SHAPES:
            raise UsageError(f"{flag}: more than {MOST_SHAPES} shapes", "give a range")
        return _taking(flag, spec, shapes[0], enumerated=shapes if len(shapes) > 1 else ())
    lowest = tuple(low for low, _ in ranges)
    if all(low == high for low, high in ranges):
        return _taking(flag, spec, lowest)
    spans = tuple((low, None if high >= LARGEST else high) for low, high in ranges)
    kept = len(spec.shape) == len(spans) and all(_within(n, r) for n, r in zip(spec.shape, spans, strict=True))
    return _taking(flag, spec, spec.shape if kept else lowest, ranges=spans)


def _taking(
    flag: str, spec: TensorSpec, shape: Shape, ranges: tuple[Range, ...] = (), enumerated: tuple[Shape, ...] = ()
) -> TensorSpec:
    """Return ``spec`` with these shapes; UsageError for an image that would no longer be one."""
    lows, highs = (tuple(span[end] for span in ranges) or shape for end in (0, 1))
    if spec.image is not None and len(shape) != 4:
        raise UsageError(f"the input '{spec.name}' has 4 axes, not {len(shape)}", "the number of axes stays as it is")
    if spec.image is not None and any(one[:2] != spec.shape[:2] for one in (shape, lows, highs, *enumerated)):
        layout = f"{spec.image.layout} image is 1x{spec.shape[1]}xHEIGHTxWIDTH"
        raise UsageError(f"{flag}: a {layout}", "only its height and width can be others")
    return spec.taking(shape, ranges, enumerated)


def _within(length: int, limits: Range) -> bool:
    return limits[0] <= length and (limits[1] is None or length <= limits[1])


def program_shape(function: Function, name: str) -> tuple[int | None, ...]:
    """Return the shape that the program declares for its input ``name``, None where it leaves a length open."""
    for item in function.inputs:
        if item.name == name and isinstance(item.type, TensorType):
            return item.type.shape or ()
    raise UsageError(f"the program has no tensor input '{name}'", "shapes can be changed for arrays and images")


def fixed_elsewhere(function: Function, name: str, spec: TensorSpec) -> int | None:
    """Return the first axis that the program fixes at another length than ``spec`` takes, None if there is none."""
    declared = program_shape(function, name)
    if len(declared) != len(spec.shape):
        ranks = f"{len(declared)} axes, not {len(spec.shape)}"
        raise UsageError(f"the input '{name}' has {ranks}", "the number of axes stays as it is")
    pairs = enumerate(zip(declared, spec.spans, strict=True))
    wrong = (axis for axis, (length, span) in pairs if length is not None and span != (length, length))
    return next(wrong, None)
