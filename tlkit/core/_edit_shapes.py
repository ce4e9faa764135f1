"""``--input-shape NAME=SHAPES``: what it says."""

from __future__ import annotations

import re

from tlkit.errors import UsageError
from tlkit.formats.edit_shapes import MOST_SHAPES, Range, Shapes
from tlkit.types import TensorSpec


def parse_shapes(name: str, text: str, spec: TensorSpec) -> Shapes:
    """Return what ``text`` asks for: ``1x3x224x224``, ``1x1..512`` or ``1x8,4x8`` (the first is the default).

    A range keeps the port's default shape where it holds it. UsageError where the text is none of these.
    """
    flag = f"--input-shape {name}={text}"
    texts = text.split(",") if re.search("[x×]", text) else [text.replace(",", "x")]
    found = [_axes(flag, part) for part in texts]
    if len(found) == 1:
        ranges = found[0]
        default = tuple(low for low, _ in ranges)
        if all(low == high for low, high in ranges):
            return Shapes(default)
        kept = len(spec.shape) == len(ranges) and all(_within(n, r) for n, r in zip(spec.shape, ranges, strict=True))
        return Shapes(spec.shape if kept else default, ranges=ranges)
    if any(low != high for ranges in found for low, high in ranges):
        raise UsageError(f"{flag}: a list of shapes has no ranges in it", "write one shape with ranges, or fixed ones")
    shapes = tuple(dict.fromkeys(tuple(low for low, _ in ranges) for ranges in found))
    if len({len(shape) for shape in shapes}) > 1 or len(shapes) > MOST_SHAPES:
        raise UsageError(f"{flag}: not up to {MOST_SHAPES} shapes of one rank", "for example 1x128,1x256")
    return Shapes(shapes[0], enumerated=shapes)


def _axes(flag: str, text: str) -> tuple[Range, ...]:
    axes = [_axis(part) for part in re.split("[x×]", text.strip())]
    if any(axis is None for axis in axes):
        example = "write it as 1x3x224x224, 1x1..512 or 1x128,1x256"
        raise UsageError(f"{flag}: '{text}' is not a shape", example)
    return tuple(axis for axis in axes if axis is not None)


def _axis(text: str) -> Range | None:
    found = re.fullmatch(r"\s*(\d{1,9})(\.\.(\d{1,9})?)?\s*", text)
    if found is None:
        return None
    low = int(found[1])
    high = low if found[2] is None else int(found[3]) if found[3] else None
    return (low, high) if low >= 1 and (high is None or high >= low) else None


def _within(length: int, limits: Range) -> bool:
    return limits[0] <= length and (limits[1] is None or length <= limits[1])
