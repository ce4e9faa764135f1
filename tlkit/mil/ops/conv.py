"""MIL's convolutions in 1, 2 and 3 dimensions. iOS17 lets the weights be run-time values of another float type.

Padding is MIL's: ``pad`` is (before, after) of each spatial axis in turn; ``same`` puts an odd element at the end and
``same_lower`` (iOS16) at the start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F

from tlkit.errors import LoadError
from tlkit.mil.ops.kit.narrow import widened
from tlkit.mil.ops.kit.registry import Ints, Tensor, op
from tlkit.mil.ops.kit.window import Pads, each, pairs_for_torch, window_pads

_CONV: Mapping[int, Callable[..., Tensor]] = {3: torch.conv1d, 4: torch.conv2d, 5: torch.conv3d}
_TRANSPOSED: Mapping[int, Callable[..., Tensor]] = {
    3: torch.conv_transpose1d,
    4: torch.conv_transpose2d,
    5: torch.conv_transpose3d,
}


@op()
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """Convolve x [n, C_in, *D] with weight [C_out, C_in / groups, *K], and add bias [C_out]."""
    run, weight = _CONV[x.ndim], widened(weight)
    strides = strides or (1,) * (x.ndim - 2)
    dilations = dilations or (1,) * (x.ndim - 2)
    if pad_type == "valid":
        return run(x, weight, bias, strides, 0, dilations, groups)
    if pad_type == "custom" and pad is not None:  # the common case, without the call below
        before, after = pad[::2], pad[1::2]
    else:
        before, after = window_pads(x, weight.shape[2:], strides, pad_type, pad, dilations)
    # torch's own padding is the same at both ends.
    if before == after:
        return run(x, weight, bias, strides, before, dilations, groups)
    return run(F.pad(x, pairs_for_torch(before, after)), weight, bias, strides, 0, dilations, groups)


@op()
def conv_quantized(
    x: Tensor,
    weight: Tensor,
    quantization_type: str,
    quant_scale: Tensor,
    quant_bias: Tensor,
    bias: Tensor | None = None,
    nbits: int = 8,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """Convolve with weight * quant_scale + quant_bias; scale and bias are scalars or vectors [C_out]."""
    if quantization_type != "linear":
        raise LoadError(f"conv_quantized of type '{quantization_type}' has no table to look its weights up in")
    # [C_out, 1, ...], to broadcast against [C_out, C_in / groups, *K]
    column = (-1, *(1,) * (weight.ndim - 1))
    dense = weight.to(torch.float32) * quant_scale.reshape(column) + quant_bias.reshape(column)
    offset = None if bias is None else bias.to(torch.float32)
    return conv(x, dense, offset, strides, pad_type, pad, dilations, groups)


@op()
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Ints | None = None,
    output_shape: Ints | None = None,
    pad_type: str = "valid",
    strides: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """The transposed convolution of x [n, C_in, *D] with weight [C_in, C_out / groups, *K].

    ``pad`` is cut off the full result. ``output_shape`` [n, C_out, *D_out] chooses among the lengths that convolve to
    the same input; elements that it adds at the end are 0 plus the bias.
    """
    run, weight = _TRANSPOSED[x.ndim], widened(weight)
    strides = strides or (1,) * (x.ndim - 2)
    dilations = dilations or (1,) * (x.ndim - 2)
    full = [
        (d - 1) * s + (k - 1) * e + 1
        for d, s, k, e in zip(x.shape[2:], strides, weight.shape[2:], dilations, strict=True)
    ]
    before, after = transposed_cut(x, full, pad_type, pad, output_shape, strides)
    added = [b - a for b, a in zip(before, after, strict=True)]
    # torch takes an output_padding only below the stride or the dilation, and no negative padding.
    limits = [max(s, e) for s, e in zip(strides, dilations, strict=True)]
    if min(before) >= 0 and all(0 <= more < limit for more, limit in zip(added, limits, strict=True)):
        return run(x, weight, bias, strides, before, added, groups, dilations)
    whole = run(x, weight, None, strides, 0, 0, groups, dilations)
    cut = F.pad(whole, pairs_for_torch([-b for b in before], [-a for a in after]))
    return cut if bias is None else cut + bias.reshape(each(bias, x.ndim))


def transposed_cut(
    x: Tensor, full: Sequence[int], pad_type: str, pad: Ints | None, output_shape: Ints | None, strides: Ints
) -> Pads:
    """Return what to cut off the full result before and after; negative where the result is longer than the full
    one."""
    if pad_type == "same":
        lengths = [d * s for d, s in zip(x.shape[2:], strides, strict=True)]
        wanted = lengths if output_shape is None else output_shape[2:]
        total = [f - w for f, w in zip(full, wanted, strict=True)]
        # Of an odd total the larger part is cut off at the end.
        before = [max(t, 0) // 2 for t in total]
    else:
        custom = pad_type == "custom" and pad is not None
        before = list(pad[::2]) if custom and pad is not None else [0] * len(full)
        after = list(pad[1::2]) if custom and pad is not None else [0] * len(full)
        if output_shape is None:
            return before, after
        total = [f - w for f, w in zip(full, output_shape[2:], strict=True)]
    return before, [t - b for t, b in zip(total, before, strict=True)]
