"""The ports of a package to be made: shapes as ``--input`` writes them, and the shapes to capture and to check at."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from tlkit.types import Layout, Shape, TensorSpec

Ranges = tuple[tuple[int, int], ...]
_EXAMPLE = 7  # the least size to trace a flexible dimension with: 1 would be taken for broadcasting


@dataclass(frozen=True, slots=True)
class OutputPort:
    """An output of a package to be made: its name, element type (empty: f32 or int32) or image layout."""

    name: str
    dtype: str = ""
    layout: Layout | None = None


def span_keys(port: TensorSpec) -> tuple[tuple[int, int, int] | None, ...]:
    """Return a key per axis that equal lengths of several ports share; None for a fixed axis.

    Axes of two ports with equal bounds are taken to be the same length, as those of tokens and their mask are.
    """
    counted: Counter[tuple[int, int]] = Counter()
    keys: list[tuple[int, int, int] | None] = []
    for low, high in port.spans:
        keys.append(None if low == high else (low, high, counted[low, high]))
        counted[low, high] += 1
    return tuple(keys)


def example(port: TensorSpec) -> TensorSpec:
    """Return the port at the shape to capture a module with: flexible axes are not 1 and differ where bounds allow."""
    if port.listed or not port.flexible:
        return port.taking(port.shape)
    # Axes that merely happen to be equal would be captured as one length, so each gets a size of its own.
    sizes = (
        low if key is None else min(high, max(low, _EXAMPLE) + key[2])
        for key, (low, high) in zip(span_keys(port), port.spans, strict=True)
    )
    return port.taking(tuple(sizes))


def checked_shapes(port: TensorSpec) -> tuple[Shape, ...]:
    """Return the shapes to verify a port at: all that are listed, else the smallest, the example's and the largest."""
    if port.listed:
        return port.listed
    lowest, highest = (tuple(span[end] for span in port.spans) for end in (0, 1))
    return tuple(dict.fromkeys((lowest, example(port).shape, highest)))


def port_text(port: TensorSpec) -> str:
    """Write a port's name and its shapes as ``--input`` takes them: ``x 1x128``, ``x 1x1..512``, ``x 1x8,1x9``."""
    if port.listed:
        return f"{port.name} {','.join('x'.join(map(str, shape)) for shape in port.listed)}"
    dims = (str(low) if low == high else f"{low}..{high}" for low, high in port.spans)
    return f"{port.name} {'x'.join(dims) or 'scalar'}"


def flexible_port(name: str, ranges: Ranges, dtype: str = "float32") -> TensorSpec:
    """Return a port whose axes have ``ranges``; its default shape is the smallest, as in coremltools."""
    shape = tuple(low for low, _ in ranges)
    flexible = any(low != high for low, high in ranges)
    return TensorSpec(name, dtype, shape, ranges=ranges if flexible else ())


def parse_dims(text: str) -> tuple[Ranges, tuple[Shape, ...]] | None:
    """Return the ranges that ``1x3x32..512`` gives, or the shapes that ``1x8,1x16`` lists; None for anything else.

    Dimensions are separated by x or commas, several shapes by commas.
    """
    # Typeset sizes have × for x.
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
