"""Transposed convolutions with output padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tlkit.core.convert.tools.kit.mends import composed
from tlkit.core.convert.tools.kit.reading import values_of

if TYPE_CHECKING:
    from torch import Tensor

_WHY = "coremltools refuses `output_padding` without padding and in 3-d, and makes it too long in 1-d"
Sizes = int | Sequence[int]


def _lengthened(given: Sequence[Any]) -> bool:
    # The operands `transposed` and `output_padding`.
    return any(values_of(given[6])) and any(values_of(given[7]))


@composed("_convolution", _WHY, replaces=True, applies=_lengthened)
@composed("convolution", _WHY, replaces=True, applies=_lengthened)
def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
    *_: Any,
) -> Any:
    if not transposed:
        return NotImplemented
    return _transposed(x, weight, bias, stride, padding, output_padding, groups, dilation)


@composed("conv_transpose1d", _WHY, replaces=True)
@composed("conv_transpose2d", _WHY, replaces=True)
@composed("conv_transpose3d", _WHY, replaces=True)
def _transposed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Any:
    """Convolve without padding, which gives all sums; then crop and extend. Extended elements are the bias."""
    import torch
    from torch.nn import functional

    rank = weight.dim() - 2
    stride, padding, longer, dilation = (_each(sizes, rank) for sizes in (stride, padding, output_padding, dilation))
    if not any(longer):
        return NotImplemented
    call = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)[rank - 1]
    # Output padding gives back what padding has cropped; only what exceeds that is new.
    beyond = [max(more - cut, 0) for more, cut in zip(longer, padding, strict=True)]
    # What is new is the bias and nothing else, so the bias is added when it is there.
    inside = bias if not any(beyond) else None
    full = call(x, weight, inside, stride, [0] * rank, [0] * rank, groups, dilation)
    for axis in range(rank):
        end = full.shape[2 + axis] - padding[axis] + min(longer[axis], padding[axis])
        full = full.narrow(2 + axis, padding[axis], end - padding[axis])
    if any(beyond):
        full = functional.pad(full, [size for more in reversed(beyond) for size in (0, more)])
        full = full if bias is None else full + bias.reshape(-1, *[1] * rank)
    return full


def _each(sizes: Sizes, rank: int) -> list[int]:
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    return sizes * rank if len(sizes) == 1 else sizes
