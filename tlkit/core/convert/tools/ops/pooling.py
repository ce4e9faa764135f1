"""Pooling by windows and to a given size, where Core ML's rules are not torch's, and where it has none."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from itertools import product
from typing import TYPE_CHECKING, Any

from tlkit.core.convert.tools.kit.mends import composed
from tlkit.core.convert.tools.kit.reading import values_of

if TYPE_CHECKING:
    from torch import Tensor

Sizes = int | Sequence[int]


def _each(sizes: Sizes, rank: int) -> list[int]:
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    return sizes * rank if len(sizes) == 1 else sizes


_AVERAGE = "Core ML divides a window that hangs over the end by its whole size; it has no divisor of one's own"


def _average(rank: int, x: Tensor, kernel: Sizes, stride: Sizes, padding: Sizes, *how: Any) -> Any:
    """Sum windows of zeros around ``x``, and divide by the number of places in each that torch counts."""
    from torch.nn import functional

    ceil_mode, count_pad, divisor = how
    pool: Any = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[rank - 1]
    if x.dim() == rank + 1:
        # avg_pool1d has no divisor.
        return pool(x[None], kernel, stride or None, padding, *how[: 2 if rank == 1 else 3]).squeeze(0)
    if not ceil_mode and divisor is None:
        return NotImplemented
    kernel, padding = _each(kernel, rank), _each(padding, rank)
    # A stride that is left out is an empty list, and stands for the kernel's size.
    steps = _each(stride, rank) if stride or stride == 0 else kernel
    plan = [_windows(x.shape[2 + axis], kernel[axis], steps[axis], padding[axis], ceil_mode) for axis in range(rank)]
    around = [size for axis in reversed(range(rank)) for size in (padding[axis], plan[axis][1])]
    means = _cut(pool(functional.pad(x, around), kernel, steps), plan, kernel, steps, padding)
    for axis, (count, _) in enumerate(plan):
        if divisor is None:
            shares = _shares(count, x.shape[2 + axis], kernel[axis], steps[axis], padding[axis], count_pad)
            means = means * shares.reshape([-1 if at == axis else 1 for at in range(rank)])
    if divisor is not None:
        size = 1
        for length in kernel:
            size *= length
        means = means * (size / divisor)
    return means


def _windows(length: Any, kernel: int, step: int, pad: int, ceil_mode: bool) -> tuple[Any, Any]:
    """Return how many windows there are, and how many zeros after the end they need."""
    if not ceil_mode:
        return (length + 2 * pad - kernel) // step + 1, pad
    if not isinstance(length, int):
        return _unknown_windows(length, kernel, step, pad)
    count = -(-(length + 2 * pad - kernel) // step) + 1
    # torch leaves out a last window that would begin in the padding after the end.
    count -= (count - 1) * step >= length + pad
    return count, max((count - 1) * step + kernel - length - pad, 0)


def _unknown_windows(length: Any, kernel: int, step: int, pad: int) -> tuple[Any, Any]:
    """Return what :func:`_windows` does with ``ceil_mode``: more zeros than the windows need, a last one is cut off."""
    import torch

    count = (length + 2 * pad - kernel + step - 1) // step + 1
    if step > kernel - pad:  # it may begin beyond the end
        count = torch.sym_min(count, (length + pad + step - 1) // step)
    return count, pad + step - 1


def _cut(
    pooled: Tensor, plan: Sequence[tuple[Any, Any]], kernels: list[int], steps: list[int], pads: list[int]
) -> Tensor:
    """Leave out a last window that began beyond the end, where the length is known only when the model runs."""
    import torch

    for axis, (count, _) in enumerate(plan):
        if not isinstance(count, int) and steps[axis] > kernels[axis] - pads[axis]:
            pooled = pooled.index_select(2 + axis, torch.arange(count))
    return pooled


def _shares(count: Any, length: Any, kernel: int, step: int, pad: int, count_pad: bool) -> Tensor:
    """Return the size of the kernel over the number of places that torch counts, for each of ``count`` windows."""
    import torch

    start = torch.arange(count) * step - pad
    # torch counts padding, and nothing beyond it.
    end = (start + kernel).clamp(max=length + pad)
    places = end - start if count_pad else end.clamp(max=length) - start.clamp(min=0)
    return kernel / places.to(torch.float32)


def _unusual(given: Sequence[Any]) -> bool:
    # Operands 1, 4 and 6 are the kernel, ceil_mode and divisor_override.
    pooled = len(values_of(given[1]))
    return any(values_of(given[4])) or (len(given) == 7 and given[6] is not None) or given[0].rank == pooled + 1


@composed("avg_pool1d", _AVERAGE, replaces=True, applies=_unusual)
def _avg_pool1d(x: Tensor, kernel: Sizes, stride: Sizes = (), padding: Sizes = 0, *how: Any, **more: Any) -> Any:
    return _average(1, x, kernel, stride, padding, *_how(how, more))


@composed("avg_pool2d", _AVERAGE, replaces=True, applies=_unusual)
def _avg_pool2d(x: Tensor, kernel: Sizes, stride: Sizes = (), padding: Sizes = 0, *how: Any, **more: Any) -> Any:
    return _average(2, x, kernel, stride, padding, *_how(how, more))


@composed("avg_pool3d", _AVERAGE, replaces=True, applies=_unusual)
def _avg_pool3d(x: Tensor, kernel: Sizes, stride: Sizes = (), padding: Sizes = 0, *how: Any, **more: Any) -> Any:
    return _average(3, x, kernel, stride, padding, *_how(how, more))


def _how(how: Sequence[Any], more: dict[str, Any]) -> list[Any]:
    names, defaults = ("ceil_mode", "count_include_pad", "divisor_override"), (False, True, None)
    return [*how, *(more.get(name, value) for name, value in list(zip(names, defaults, strict=True))[len(how) :])]


_PLAIN: ContextVar[bool] = ContextVar("_PLAIN", default=False)
"""Whether a maximum's places, which torch finds with it, are not asked for."""
_MAXIMUM = "coremltools refuses dilated windows, images without a batch, and the places of the maxima"


def _maximum(rank: int, places: bool, x: Tensor, kernel: Sizes, stride: Sizes, padding: Sizes, *how: Any) -> Any:
    defaults: list[Any] = [1, False]
    dilation, ceil_mode = [*how, *defaults[len(how) :]]
    if _PLAIN.get():
        return NotImplemented
    if x.dim() == rank + 1:
        found = _maximum(rank, places, x[None], kernel, stride, padding, dilation, ceil_mode)
        if found is NotImplemented:
            found = _plain(rank, x[None], kernel, stride, padding, ceil_mode)
        return tuple(part.squeeze(0) for part in found) if places else found.squeeze(0)
    dilations = _each(dilation, rank)
    kernels, padding = _each(kernel, rank), _each(padding, rank)
    steps = _each(stride, rank) if stride or stride == 0 else kernels
    if not places and all(size == 1 for size in dilations):
        return _undilated(rank, x, kernels, steps, padding, bool(ceil_mode), given=bool(stride))
    return _compared(x, kernels, steps, padding, dilations, bool(ceil_mode), places)


def _undilated(
    rank: int, x: Tensor, kernels: list[int], steps: list[int], pads: list[int], ceil_mode: bool, *, given: bool
) -> Any:
    """Leave it to Core ML, unless the stride is left out or a last window would begin beyond the end: it keeps that."""
    from torch.nn import functional

    sizes = list(zip(kernels, steps, pads, strict=True))
    if not ceil_mode or all(step <= kernel - pad for kernel, step, pad in sizes):
        return NotImplemented if given else _plain(rank, x, kernels, steps, pads, ceil_mode)
    plan = [_windows(x.shape[2 + axis], *size, ceil_mode) for axis, size in enumerate(sizes)]
    around = [size for axis in reversed(range(rank)) for size in (pads[axis], plan[axis][1])]
    pooled = _plain(rank, functional.pad(x, around, value=float("-inf")), kernels, steps, 0, False)
    return _cut(pooled, plan, kernels, steps, pads)


def _plain(rank: int, x: Tensor, kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool) -> Tensor:
    from torch.nn import functional

    pool: Any = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[rank - 1]
    token = _PLAIN.set(True)
    try:
        made: Tensor = pool(x, kernel, stride or None, padding, ceil_mode=bool(ceil_mode))
    finally:
        _PLAIN.reset(token)
    return made


def _compared(
    x: Tensor,
    kernels: list[int],
    steps: list[int],
    pads: list[int],
    dilations: list[int],
    ceil_mode: bool,
    places: bool,
) -> Any:
    """Take what each place of the window sees, a tensor each, and compare those."""
    import torch
    from torch.nn import functional

    rank = len(kernels)
    if places and rank == 3:
        raise ValueError("the places of the maxima in 3-d, which need tensors of rank 6")
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(kernels, dilations, strict=True)]
    plan = [_windows(x.shape[2 + axis], spans[axis], steps[axis], pads[axis], ceil_mode) for axis in range(rank)]
    around = [size for axis in reversed(range(rank)) for size in (pads[axis], plan[axis][1])]
    wide = functional.pad(x, around, value=float("-inf"))
    seen = []
    for place in product(*map(range, kernels)):
        part = wide
        for axis, index in enumerate(place):
            first = index * dilations[axis]
            # As far as the last window's element, that included.
            end = first + (plan[axis][0] - 1) * steps[axis] + 1
            part = torch.ops.aten.slice(part, 2 + axis, first, end, steps[axis])
        seen.append(part)
    if not places:
        best: Any = seen[0]
        for part in seen[1:]:
            best = torch.maximum(best, part)
        return best
    every = torch.stack(seen)  # places of a window x N x C x windows
    which = every.argmax(0)
    flat: Any = 0
    for axis in range(rank):  # row by row: the place in the image, flattened as torch does
        later: int = 1
        for size in kernels[axis + 1 :]:
            later *= size
        inside = (which // later) % kernels[axis] * dilations[axis]
        start: Tensor = torch.arange(plan[axis][0]) * steps[axis] - pads[axis]
        start = start.reshape([-1 if at == axis else 1 for at in range(rank)])
        flat = flat * x.shape[2 + axis] + inside + start
    return every.amax(0), flat


def _spread(rank: int, given: Sequence[Any]) -> bool:
    unusual = any(values_of(given[5])) or any(size != 1 for size in values_of(given[4]))
    return given[0].rank == rank + 1 or unusual


for _rank in (1, 2, 3):

    def _register(rank: int = _rank) -> None:
        @composed(f"max_pool{rank}d", _MAXIMUM, replaces=True, applies=lambda given: _spread(rank, given))
        def plain(x: Tensor, kernel: Sizes, stride: Sizes = (), padding: Sizes = 0, *how: Any) -> Any:
            return _maximum(rank, False, x, kernel, stride, padding, *how)

        @composed(f"max_pool{rank}d_with_indices", _MAXIMUM, replaces=True)
        def with_places(x: Tensor, kernel: Sizes, stride: Sizes = (), padding: Sizes = 0, *how: Any) -> Any:
            return _maximum(rank, True, x, kernel, stride, padding, *how)

    _register()


@composed("max_unpool2d", "each value at the place that pooling took it from")
def _max_unpool2d(x: Tensor, index: Tensor, size: Sequence[int]) -> Tensor:
    import torch

    flat = torch.zeros([*x.shape[:-2], size[0] * size[1]], dtype=x.dtype)  # N x C x (height * width)
    return flat.scatter(-1, index.flatten(-2), x.flatten(-2)).reshape([*x.shape[:-2], *size])


_ADAPTED = "coremltools has it in 1-d and 2-d, at fixed sizes"
_ADAPTED_MAXIMUM = "coremltools has it in 1-d and 2-d, at fixed sizes, and without the maxima's places"


def _flexes(given: Sequence[Any]) -> bool:
    sizes = given[0].shape
    return any(not isinstance(size, int) and not str(size).isdigit() for size in sizes)


def _adapted(x: Tensor, size: Sequence[Any]) -> Any:
    rank = len(size)
    if rank < 3 and all(isinstance(length, int) for length in (*x.shape, *size)):
        return NotImplemented
    for axis, target in zip(range(-rank, 0), size, strict=True):
        length = x.shape[axis]
        if isinstance(target, int) and target == 1:
            x = x.mean(axis, keepdim=True)
        elif axis == -1:
            x = x @ _means(length, target)  # ... x length times length x target
        elif not isinstance(length, int) or target != length:
            x = (x.movedim(axis, -1) @ _means(length, target)).movedim(-1, axis)
    return x


@composed("adaptive_avg_pool1d", _ADAPTED, replaces=True, applies=_flexes)
@composed("adaptive_avg_pool2d", _ADAPTED, replaces=True, applies=_flexes)
@composed("_adaptive_avg_pool2d", _ADAPTED, replaces=True, applies=_flexes)
@composed("adaptive_avg_pool3d", _ADAPTED)
@composed("_adaptive_avg_pool3d", _ADAPTED)
def _adaptive_average(x: Tensor, size: Sequence[Any]) -> Any:
    return _adapted(x, size)


def _ends(length: Any, target: Any) -> tuple[Tensor, Tensor]:
    """Return where each of ``target`` windows of ``length`` elements begins and ends."""
    import torch

    to = torch.arange(target)
    # torch's rule: from floor(i * length / target) to ceil((i + 1) * length / target).
    return to * length // target, ((to + 1) * length + target - 1) // target


def _means(length: Any, target: Any) -> Tensor:
    """Return a matrix (length, target) of the share of each element in each mean."""
    import torch

    start, end = _ends(length, target)
    place = torch.arange(length)[:, None]
    inside = ((place >= start) & (place < end)).to(torch.float32)
    return inside / (end - start).to(torch.float32)


def _table(length: Any, target: Any) -> Tensor:
    """Return the places (target, most) of each window's elements; a shorter one has its last place again."""
    import torch

    start, end = _ends(length, target)
    # Rounded at both ends, a window may have one element more, unless target divides length.
    most = (length + target - 1) // target + 1
    if isinstance(length, int) and length % target == 0:
        most -= 1
    return torch.minimum(start[:, None] + torch.arange(most), end[:, None] - 1)


@composed("adaptive_max_pool1d", _ADAPTED_MAXIMUM, replaces=True)
@composed("adaptive_max_pool2d", _ADAPTED_MAXIMUM, replaces=True)
@composed("adaptive_max_pool3d", _ADAPTED_MAXIMUM)
def _adaptive_maximum(x: Tensor, size: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Pool the axes one after another, the last first: of equal maxima that keeps the first in memory, as torch does.

    Elements are taken from the axis in the middle of three, so that no rank grows beyond Core ML's 5.
    """
    rank, places = len(size), None
    lengths: list[Any] = []
    for axis in range(x.dim() - 1, x.dim() - 1 - rank, -1):
        table = _table(x.shape[axis], size[axis - x.dim()])
        before, after = x.shape[:axis], x.shape[axis + 1 :]
        taken = _taken(x, axis, table)
        best, which = taken.max(2)
        at = _pick(table[None, :, :, None].expand(taken.shape), which)
        if places is not None:
            # The last axis came first: what `places` holds counts within one step of this axis.
            at = at * _product(lengths) + _pick(_taken(places, axis, table), which)
        lengths.append(x.shape[axis])
        x, places = (part.reshape([*before, size[axis - x.dim()], *after]) for part in (best, at))
    assert places is not None
    return x, places


def _taken(x: Tensor, axis: int, table: Tensor) -> Tensor:
    """Return what ``table`` (windows, most) names of ``x`` along ``axis``, as (before, windows, most, after)."""
    before = x.flatten(0, axis - 1) if axis > 0 else x[None]
    three = before.flatten(2) if before.dim() > 2 else before[..., None]
    many = three.index_select(1, table.reshape(-1))
    return many.reshape([many.shape[0], table.shape[0], table.shape[1], many.shape[2]])


def _pick(among: Tensor, which: Tensor) -> Tensor:
    return among.gather(2, which[:, :, None]).squeeze(2)


def _product(lengths: Sequence[Any]) -> Any:
    product: Any = 1
    for length in lengths:
        product = product * length
    return product
