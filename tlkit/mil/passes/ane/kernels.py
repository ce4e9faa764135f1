"""Convolutions and poolings whose windows are too large for the Neural Engine, as smaller ones that compute the same.

A patch embedding (a kernel as large as its stride) becomes a 1x1 convolution on the patches' pixels, with the same
weights. Another wide kernel is split: each part is a convolution of the input where that part lies, and the parts are
added. A wide maximum is the maximum of maxima.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from tlkit.mil.opsets import OPSETS
from tlkit.mil.passes.ane.draft import Draft, Shape, argument, each, rewritten
from tlkit.mil.passes.base import Outcome, Pass
from tlkit.mil.passes.rewrite import text
from tlkit.mil.program import Block, Deferred, Function, Operation, Program, TensorType, Value
from tlkit.mil.types import DType

WIDEST, HIGHEST, POOL = 15, 31, 8
"""The widest and highest kernel of a convolution and the widest window of max_pool on an M4's Neural Engine."""


@dataclass(frozen=True)
class Cut(Deferred):
    """A part of ``source``: from ``begin`` to ``end`` along each axis."""

    source: Value
    begin: tuple[int, ...]
    end: tuple[int, ...]

    def pieces(self) -> Iterator[bytes | memoryview]:
        """See :class:`~tlkit.mil.program.Deferred`."""
        array = self.source.numpy()
        yield array[tuple(slice(*pair) for pair in zip(self.begin, self.end, strict=True))].tobytes()


@dataclass(frozen=True)
class SmallKernels(Pass):
    """Replace windows that are too large for the Neural Engine in ``function``."""

    function: str

    def run(self, program: Program) -> Outcome:
        """See :class:`~tlkit.mil.passes.base.Pass`."""
        return rewritten(program, self.function, _changed, "{} windows that were too large as smaller ones")


def _changed(block: Block, function: Function, taken: set[str]) -> tuple[Block, int]:
    unshuffles = OPSETS[function.opset].number >= 16 if function.opset in OPSETS else _number(function.opset) >= 16
    return each(block, function, taken, {"conv": _Convolution(unshuffles).small, "max_pool": _pool})


def _number(opset: str) -> int:
    digits = opset.lower().removeprefix("ios")
    return int(digits) if digits.isdigit() else 15


@dataclass(frozen=True)
class _Window:
    """One axis of a window: the input's size, the kernel's, stride, dilation and padding before; the result's size."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    out: int

    def part(self, start: int, kernel: int) -> tuple[int, int, int, int]:
        """Where a part of the kernel reads: begin and end in the input, and what is padded before and after."""
        first = start * self.dilation - self.before
        last = first + (self.out - 1) * self.stride + (kernel - 1) * self.dilation + 1
        begin, end = max(first, 0), min(last, self.size)
        return begin, end, min(max(-first, 0), last - first), max(last - max(self.size, first), 0)


def _windows(draft: Draft, operation: Operation, x: Shape, kernel: Shape, out: Shape) -> list[_Window]:
    axes = range(len(kernel))
    strides = draft.flag(operation, "strides", [1] * len(kernel))
    dilations = draft.flag(operation, "dilations", [1] * len(kernel))
    kind = draft.flag(operation, "pad_type", "valid")
    given = draft.flag(operation, "pad", [0] * 2 * len(kernel)) if kind == "custom" else [0] * 2 * len(kernel)
    found = []
    for axis in axes:
        before = given[2 * axis]
        if kind in ("same", "same_lower"):
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            total = max((out[axis] - 1) * strides[axis] + reach - x[axis], 0)
            before = total // 2 if kind == "same" else total - total // 2
        found.append(_Window(x[axis], kernel[axis], strides[axis], dilations[axis], before, out[axis]))
    return found


def _parts(size: int, most: int) -> list[tuple[int, int]]:
    """Cut ``size`` into as few nearly equal parts of at most ``most`` as there are: starts and lengths."""
    count = -(-size // most)
    edges = [size * index // count for index in range(count + 1)]
    return [(low, high - low) for low, high in pairwise(edges)]


@dataclass(frozen=True)
class _Convolution:
    unshuffles: bool

    def small(self, draft: Draft, operation: Operation) -> bool:
        """Emit smaller convolutions; False where the kernel is not too large, or its weights or shapes are open."""
        x, weight = argument(operation, "x"), argument(operation, "weight")
        shape, kernel = draft.shape(x or ""), draft.shape(weight or "")
        out = draft_shape(operation)
        if x is None or weight not in draft.constants or shape is None or kernel is None or out is None:
            return False
        sizes = kernel[2:]
        if len(sizes) not in (1, 2) or not _large(sizes):
            return False
        windows = _windows(draft, operation, shape[2:], sizes, out[2:])
        if self.unshuffles and _patches(windows) and draft.flag(operation, "groups", 1) == 1:
            return _pixels(draft, operation, x, weight, windows)
        return _summed(draft, operation, x, weight, windows)


def draft_shape(operation: Operation) -> Shape | None:
    """Return the fixed shape of an operation's first result; None where it is open."""
    kind = operation.outputs[0].type
    if not isinstance(kind, TensorType) or kind.shape is None or None in kind.shape:
        return None
    return tuple(size or 0 for size in kind.shape)


def _large(sizes: Shape) -> bool:
    return sizes[-1] > WIDEST or (len(sizes) == 2 and sizes[0] > HIGHEST)


def _patches(windows: list[_Window]) -> bool:
    """Whether the windows are the tiles of a picture."""
    kernel = windows[0].kernel
    tiles = all(w.kernel == w.stride == kernel and w.dilation == 1 and w.size == w.out * w.kernel for w in windows)
    return len(windows) == 2 and tiles and not any(window.before for window in windows)


def _pixels(draft: Draft, operation: Operation, x: str, weight: str, windows: list[_Window]) -> bool:
    item, size = operation.outputs[0], windows[0].kernel
    batch, channels = (draft.shape(x) or ())[:2]
    inner = channels * size * size
    shape = (batch, inner, windows[0].out, windows[1].out)
    factor = draft.constant(f"{item.name}_factor", Value(TensorType(DType.UINT32), (size,)))
    pixels = draft.name(f"{item.name}_pixels")
    draft.add("pixel_unshuffle", pixels, shape, x, x=x, downscale_factor=factor)
    outer = (draft.shape(weight) or (0,))[0]
    given = {"weight": draft.permuted(weight, (0, 1, 2, 3), (outer, inner, 1, 1))}
    _conv(draft, operation, item.name, pixels, given, [0, 0, 0, 0], [1, 1], bias=True)
    return True


def _conv(
    draft: Draft, operation: Operation, result: str, x: str, given: dict[str, str], pad: list[int], strides: list[int],
    *, bias: bool,
) -> None:  # fmt: skip
    name = argument(operation, "bias") if bias else None
    how: dict[str, Any] = given | ({"bias": name} if name is not None else {})
    how |= {"pad": pad, "strides": strides, "groups": draft.flag(operation, "groups", 1)}
    how["pad_type"] = draft.constant(f"{result}_pad_type", text("custom" if any(pad) else "valid"))
    how.setdefault("dilations", [1] * len(strides))
    draft.add("conv", result, draft_shape(operation) or (), x, x=x, **how)


def _summed(draft: Draft, operation: Operation, x: str, weight: str, windows: list[_Window]) -> bool:
    item, limits = operation.outputs[0], (HIGHEST, WIDEST)[-len(windows) :]
    choices = [_parts(window.kernel, most) for window, most in zip(windows, limits, strict=True)]
    places = [(a, b) for a in choices[0] for b in choices[1]] if len(choices) == 2 else [(a,) for a in choices[0]]
    total: str | None = None
    live = [place for place in places if _reads(windows, place)]
    for number, place in enumerate(live):
        whole = number == len(live) - 1
        name = item.name if whole and total is None else draft.name(f"{item.name}_part")
        _part(draft, operation, name, x, weight, windows, place, bias=number == 0)
        if total is not None:
            kept = item.name if whole else draft.name(f"{item.name}_sum")
            name = draft.add("add", kept, draft_shape(operation) or (), x, x=total, y=name)
        total = name
    return bool(live)


def _reads(windows: list[_Window], place: tuple[tuple[int, int], ...]) -> bool:
    """Whether a part reads the input at all, not only what pads it."""
    spans = [window.part(start, size)[:2] for window, (start, size) in zip(windows, place, strict=True)]
    return all(begin < end for begin, end in spans)


def _part(
    draft: Draft, operation: Operation, result: str, x: str, weight: str, windows: list[_Window],
    place: tuple[tuple[int, int], ...], *, bias: bool,
) -> None:  # fmt: skip
    kernel, shape = draft.shape(weight) or (), draft.shape(x) or ()
    begin = (0, 0, *(start for start, _ in place))
    end = (*kernel[:2], *(start + size for start, size in place))
    value = draft.constants[weight]
    assert isinstance(value.type, TensorType)
    cut = tuple(high - low for low, high in zip(begin, end, strict=True))
    part = draft.constant(f"{weight}_part", Value(replace(value.type, shape=cut), Cut(value, begin, end)))
    reads = [window.part(start, size) for window, (start, size) in zip(windows, place, strict=True)]
    starts = [0, 0, *(read[0] for read in reads)]
    stops = [*shape[:2], *(read[1] for read in reads)]
    source = x
    if tuple(stops) != shape or any(starts):
        sizes = tuple(high - low for low, high in zip(starts, stops, strict=True))
        source = draft.add("slice_by_index", draft.name(f"{x}_seen"), sizes, x, x=x, begin=starts, end=stops)
    pad = [amount for read in reads for amount in read[2:]]
    given: dict[str, Any] = {"weight": part, "dilations": [window.dilation for window in windows]}
    _conv(draft, operation, result, source, given, pad, [window.stride for window in windows], bias=bias)


def _pool(draft: Draft, operation: Operation) -> bool:
    """A max_pool as several, each at most 8 wide: all but the last with stride 1 along the width."""
    x, out = argument(operation, "x"), draft_shape(operation)
    shape, kernel = draft.shape(x or ""), tuple(draft.flag(operation, "kernel_sizes") or ())
    if x is None or shape is None or out is None or not kernel or kernel[-1] <= POOL:
        return False
    if len(kernel) not in (1, 2) or draft.flag(operation, "ceil_mode", False):
        return False
    windows = _windows(draft, operation, shape[2:], kernel, out[2:])
    steps = -(-(kernel[-1] - 1) // (POOL - 1))
    edges = [(kernel[-1] - 1) * index // steps for index in range(steps + 1)]
    width = windows[-1]
    after = max((width.out - 1) * width.stride + width.kernel - width.before - width.size, 0)
    reach, source = width.size + width.before + after, x
    for index in range(steps):
        first, last = index == 0, index == steps - 1
        span = edges[index + 1] - edges[index] + 1
        reach = width.out if last else reach - span + 1
        name = operation.outputs[0].name if last else draft.name(f"{operation.outputs[0].name}_part")
        pads = [[w.before, max((w.out - 1) * w.stride + w.kernel - w.before - w.size, 0)] for w in windows]
        pad = [amount for pair in pads for amount in pair] if first else [0] * 2 * len(windows)
        upper = windows[:-1] if first else []
        given: dict[str, Any] = {
            "kernel_sizes": [*(w.kernel for w in upper), span] if first else [1] * (len(windows) - 1) + [span],
            "strides": [*(w.stride for w in upper), 1] if first else [1] * len(windows),
        }
        if last:
            given["strides"][-1] = width.stride
        word = draft.constant(f"{name}_pad_type", text("custom" if any(pad) else "valid"))
        draft.add("max_pool", name, (*out[:-1], reach), x, x=source, pad_type=word, pad=pad, ceil_mode=False, **given)
        source = name
    return math.prod(out) > 0
