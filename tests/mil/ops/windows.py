"""Sliding windows in plain numpy loops, for the tests of convolutions and pools: slow, and nobody's but the tests'."""

import itertools
import math

import numpy as np


def out_length(size, k, s, low, high, ceil_mode=False):
    """How many windows of ``k`` fit, by the op's text."""
    if not ceil_mode:
        return (size + low + high - k) // s + 1
    count = math.ceil((size + low + high - k) / s) + 1
    return count - 1 if (count - 1) * s >= size + low and low + high > 0 else count


def paddings(sizes, kernel, strides, pad_type, pad, dilations):
    """(before, after) of each axis."""
    if pad_type == "custom":
        return [(pad[2 * i], pad[2 * i + 1]) for i in range(len(sizes))]
    if pad_type == "valid":
        return [(0, 0)] * len(sizes)
    found = []
    for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        total = max(0, (math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size)
        half = (total // 2, total - total // 2)
        found.append(half if pad_type == "same" else half[::-1])
    return found


def windows(x, kernel, strides=None, pad_type="valid", pad=None, dilations=None, ceil_mode=False):
    """Yield (output position, [(input position or None outside, offset in the kernel, inside the padding)])."""
    rank = x.ndim - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    ends = paddings(x.shape[2:], kernel, strides, pad_type, pad, dilations)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    shape = [
        out_length(size, r, s, low, high, ceil_mode)
        for size, r, s, (low, high) in zip(x.shape[2:], reach, strides, ends, strict=True)
    ]
    found = []
    for place in itertools.product(*map(range, shape)):
        cells = []
        for offset in itertools.product(*map(range, kernel)):
            at = [
                p * s + o * d - low
                for p, s, o, d, (low, _) in zip(place, strides, offset, dilations, ends, strict=True)
            ]
            inside = all(0 <= a < size for a, size in zip(at, x.shape[2:], strict=True))
            padded = all(a < size + high for a, size, (_, high) in zip(at, x.shape[2:], ends, strict=True))
            cells.append((tuple(at) if inside else None, offset, padded))
        found.append((place, cells))
    return shape, found


def conv(x, weight, bias=None, strides=None, pad_type="valid", pad=None, dilations=None, groups=1):
    """A convolution."""
    shape, found = windows(x, weight.shape[2:], strides, pad_type, pad, dilations)
    out = np.zeros((x.shape[0], weight.shape[0], *shape))
    into, outof = x.shape[1] // groups, weight.shape[0] // groups
    for place, cells in found:
        for at, offset, _ in cells:
            if at is None:
                continue
            for g in range(groups):
                picked = x[(slice(None), slice(g * into, (g + 1) * into), *at)]
                kernel = weight[(slice(g * outof, (g + 1) * outof), slice(None), *offset)]
                out[(slice(None), slice(g * outof, (g + 1) * outof), *place)] += picked @ kernel.T
    return out if bias is None else out + bias.reshape(1, -1, *[1] * len(shape))


def conv_transpose(
    x, weight, bias=None, pad=None, output_shape=None, pad_type="valid", strides=None, dilations=None, groups=1
):
    """A transposed convolution, by scattering each input over the full result and then cutting that."""
    rank = x.ndim - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    into, outof = weight.shape[0] // groups, weight.shape[1]
    full = [
        (size - 1) * s + (k - 1) * d + 1
        for size, s, k, d in zip(x.shape[2:], strides, weight.shape[2:], dilations, strict=True)
    ]
    out = np.zeros((x.shape[0], outof * groups, *full))
    for at in itertools.product(*map(range, x.shape[2:])):
        for offset in itertools.product(*map(range, weight.shape[2:])):
            place = tuple(a * s + o * d for a, s, o, d in zip(at, strides, offset, dilations, strict=True))
            for g in range(groups):
                picked = x[(slice(None), slice(g * into, (g + 1) * into), *at)]
                kernel = weight[(slice(g * into, (g + 1) * into), slice(None), *offset)]
                out[(slice(None), slice(g * outof, (g + 1) * outof), *place)] += picked @ kernel
    for axis in range(rank):
        length = full[axis]
        before = pad[2 * axis] if pad_type == "custom" else 0
        wanted = length - before - (pad[2 * axis + 1] if pad_type == "custom" else 0)
        if pad_type == "same":
            wanted = x.shape[2 + axis] * strides[axis]
        if output_shape is not None:
            wanted = output_shape[2 + axis]
        if pad_type == "same":
            before = max(0, length - wanted) // 2
        longer = np.pad(out, [(0, wanted if a == axis + 2 else 0) for a in range(out.ndim)])
        out = np.take(longer, range(before, before + wanted), axis=axis + 2)
    return out if bias is None else out + bias.reshape(1, -1, *[1] * rank)


def pool(
    kind, x, kernel_sizes, strides=None, pad_type="valid", pad=None, exclude=False, ceil_mode=False, overhang=False
):
    """A pool: ``kind`` is max, avg or l2; ``overhang`` says whether an average divides by what hangs over, too."""
    shape, found = windows(x, kernel_sizes, strides, pad_type, pad, None, ceil_mode)
    out = np.zeros((*x.shape[:2], *shape))
    for place, cells in found:
        values = np.stack([x[(slice(None), slice(None), *at)] for at, _, _ in cells if at is not None], -1)
        if kind == "max":
            result = values.max(-1)
        elif kind == "l2":
            result = np.sqrt((values**2).sum(-1))
        else:
            count = values.shape[-1] if exclude else sum(padded or overhang for _, _, padded in cells)
            result = values.sum(-1) / count
        out[(slice(None), slice(None), *place)] = result
    return out
