"""Parse ``--input-shape NAME=SHAPES``, and find where the program fixes other shapes."""

from __future__ import annotations

import re

from tlkit.errors import UsageError
from tlkit.formats.coreml.features import MOST_SHAPES, Range, Shapes
from tlkit.mil.program import Function, TensorType
from tlkit.ports.port import LARGEST, parse_dims
from tlkit.types import TensorSpec


def parse_shapes(name: str, text: str, spec: TensorSpec) -> Shapes:
    """Return what ``text`` asks for: ``1x3x224x224``, ``1x1..512`` or ``1x8,4x8`` (the first is the default).

    ``1x1..`` has no highest length. A range keeps the port's default shape where it holds it. UsageError where the
    text is none of these.
    """
    flag = f"--input-shape {name}={text}"
    parsed = parse_dims(re.sub(r"\.\.(?=\s*([x×,]|$))", f"..{LARGEST}", text))
    lows = [low for low, _ in parsed[0]] + [size for shape in parsed[1] for size in shape] if parsed else [0]
    if parsed is None or not 1 <= min(lows) <= max(lows) <= LARGEST:
        raise UsageError(f"{flag}: not a shape", "write it as 1x3x224x224, 1x1..512 or 1x128,1x256")
    ranges, shapes = parsed
    if shapes:
        if len(shapes) > MOST_SHAPES:
            raise UsageError(f"{flag}: more than {MOST_SHAPES} shapes", "give a range")
        return Shapes(shapes[0], enumerated=shapes if len(shapes) > 1 else ())
    lowest = tuple(low for low, _ in ranges)
    if all(low == high for low, high in ranges):
        return Shapes(lowest)
    spans = tuple((low, None if high >= LARGEST else high) for low, high in ranges)
    kept = len(spec.shape) == len(spans) and all(_within(n, r) for n, r in zip(spec.shape, spans, strict=True))
    return Shapes(spec.shape if kept else lowest, ranges=spans)


def _within(length: int, limits: Range) -> bool:
    return limits[0] <= length and (limits[1] is None or length <= limits[1])


def program_shape(function: Function, name: str) -> tuple[int | None, ...]:
    """Return the shape that the program declares for its input ``name``, None where it leaves a length open."""
    for item in function.inputs:
        if item.name == name and isinstance(item.type, TensorType):
            return item.type.shape or ()
    raise UsageError(f"the program has no tensor input '{name}'", "shapes can be changed for arrays and images")


def fixed_elsewhere(function: Function, name: str, shapes: Shapes) -> int | None:
    """Return the first axis that the program fixes at another length than ``shapes`` wants, None if there is none."""
    declared = program_shape(function, name)
    if len(declared) != len(shapes.default):
        ranks = f"{len(declared)} axes, not {len(shapes.default)}"
        raise UsageError(f"the input '{name}' has {ranks}", "the number of axes stays as it is")
    wrong = (axis for axis, length in enumerate(declared) if length is not None and shapes.all(axis) != {length})
    return next(wrong, None)
