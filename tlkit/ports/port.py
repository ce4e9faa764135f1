"""An input of a package to be made: its name, element type and all shapes that it takes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

Layout = Literal["RGB", "BGR", "GRAYSCALE", "GRAYSCALE_FLOAT16"]
LARGEST = 2**31 - 1
"""The largest dimension that Core ML can represent."""

Ranges = tuple[tuple[int, int], ...]
Shape = tuple[int, ...]
_EXAMPLE = 7  # the least size to trace a flexible dimension with: 1 would be taken for broadcasting


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """How pixels become values: the layout, one scale, and one bias per channel (in the layout's order). ``ratios`` is
    each channel's scale divided by ``scale``, empty where all are equal. Core ML has one scale for all channels, so the
    model itself multiplies by the ratios.
    """

    layout: Layout
    scale: float = 1.0
    bias: tuple[float, ...] = (0.0,)
    ratios: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Port:
    """One input of the package, ``float32 | float16 | int32``; an image is (1, C, height, width).

    ``shape`` is the default. Where more shapes are taken, ``ranges`` holds the lowest and highest size of every axis,
    or ``enumerated`` all shapes, the default first. ``boolean``: the model takes booleans; Core ML has no boolean
    inputs, so the package converts the number (0 is False).
    """

    name: str
    shape: Shape
    dtype: str = "float32"
    image: ImageSettings | None = None
    ranges: Ranges = ()
    enumerated: tuple[Shape, ...] = ()
    boolean: bool = False

    @property
    def spans(self) -> Ranges:
        """The lowest and highest size of each axis."""
        if self.enumerated:
            return tuple((min(sizes), max(sizes)) for sizes in zip(*self.enumerated, strict=True))
        return self.ranges or tuple((size, size) for size in self.shape)

    @property
    def flexible(self) -> bool:
        """Whether it takes more than one shape."""
        return any(low != high for low, high in self.spans)

    def span_keys(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Return a key per axis that equal lengths of several ports share; None for a fixed axis. Axes of two ports
        with equal bounds are taken to be the same length, as those of tokens and their mask are.
        """
        counted: Counter[tuple[int, int]] = Counter()
        keys: list[tuple[int, int, int] | None] = []
        for low, high in self.ranges or tuple((size, size) for size in self.shape):
            keys.append(None if low == high else (low, high, counted[low, high]))
            counted[low, high] += 1
        return tuple(keys)

    def at(self, shape: Shape) -> Port:
        """Return the same port with only ``shape``."""
        return replace(self, shape=shape, ranges=(), enumerated=())

    def example(self) -> Port:
        """Return the port at the shape to capture a module with: flexible axes are not 1 and differ where bounds
        allow."""
        if not self.ranges:
            return self.at(self.shape)
        # Axes that merely happen to be equal would be captured as one length, so each gets a size of its own.
        sizes = (
            low if key is None else min(high, max(low, _EXAMPLE) + key[2])
            for key, (low, high) in zip(self.span_keys(), self.ranges, strict=True)
        )
        return self.at(tuple(sizes))

    def shapes(self) -> tuple[Shape, ...]:
        """Return the shapes to verify it at: all that are enumerated, else the smallest, the example's and the
        largest."""
        if self.enumerated:
            return self.enumerated
        lowest = tuple(low for low, _ in self.spans)
        return tuple(dict.fromkeys((lowest, self.example().shape, tuple(high for _, high in self.spans))))

    def __str__(self) -> str:
        return f"{self.name} {dims_text(self)}"


@dataclass(frozen=True, slots=True)
class OutputPort:
    """An output of a package to be made: its name, element type (empty: f32 or int32) or image layout."""

    name: str
    dtype: str = ""
    layout: Layout | None = None


def dims_text(port: Port) -> str:
    """Write a port's shapes as ``--input`` takes them: ``1x128``, ``1x1..512``, ``1x3x8x8,1x3x9x9``."""
    if port.enumerated:
        return ",".join("x".join(map(str, shape)) for shape in port.enumerated)
    dims = (str(low) if low == high else f"{low}..{high}" for low, high in port.spans)
    return "x".join(dims) or "scalar"


def flexible_port(name: str, ranges: Ranges, dtype: str = "float32", image: ImageSettings | None = None) -> Port:
    """Return a port whose axes have ``ranges``; its default shape is the smallest, as in coremltools."""
    shape = tuple(low for low, _ in ranges)
    flexible = any(low != high for low, high in ranges)
    return Port(name, shape, dtype, image, ranges if flexible else ())


def parse_dims(text: str) -> tuple[Ranges, tuple[Shape, ...]] | None:
    """Return the ranges that ``1x3x32..512`` gives, or the shapes that ``1x8,1x16`` lists; None for anything else.

    Dimensions are separated by x or commas, several shapes by commas.
    """
    text = re.sub(r"\s*([x×,])\s*", r"\1", text.strip()).replace("×", "x")
    if "x" in text and "," in text:
        shapes = [_ranges(part, "x") for part in text.split(",")]
        if any(shape is None or any(low != high for low, high in shape) for shape in shapes):
            return None
        listed = tuple(tuple(low for low, _ in shape) for shape in shapes if shape is not None)
        return ((), tuple(dict.fromkeys(listed))) if len({len(shape) for shape in listed}) == 1 else None
    ranges = _ranges(text, "," if "," in text else "x")
    return None if ranges is None else (ranges, ())


def _ranges(text: str, separator: str) -> Ranges | None:
    found = []
    for part in text.split(separator):
        match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", part)
        if match is None:
            return None
        low, high = int(match[1]), int(match[2] or match[1])
        if high < low:
            return None
        found.append((low, high))
    return tuple(found)


def safe_name(name: str, taken: set[str]) -> str:
    """Return ``name`` made into an identifier that a package can hold and that is not in ``taken``."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name)
    safe = safe if safe[:1].isalpha() or safe[:1] == "_" else f"_{safe}"
    return f"{safe}_out" if safe in taken else safe
