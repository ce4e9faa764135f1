"""Sums, variances, running maxima, counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tlkit.core.convert.tools.kit.mends import composed, mend
from tlkit.core.convert.tools.kit.reading import dtype_name, inputs_of, is_float, values_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Axes = int | Sequence[int] | None


@composed("var", "coremltools takes `correction` for a yes or no", replaces=True)
def _var(x: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None) -> Any:
    if isinstance(dim, bool):  # var(x, unbiased)
        dim, unbiased = None, dim
    return _variance(x, dim, float(unbiased) if correction is None else float(correction), keepdim)[0]


@composed("std", "coremltools takes `correction` for a yes or no", replaces=True)
def _std(x: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None) -> Any:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return _variance(x, dim, float(unbiased) if correction is None else float(correction), keepdim)[0].sqrt()


@composed("var_mean", "the variance with the mean")
def _var_mean(
    x: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None
) -> Any:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return _variance(x, dim, float(unbiased) if correction is None else float(correction), keepdim)


@composed("std_mean", "the standard deviation with the mean")
def _std_mean(
    x: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None
) -> Any:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    var, mean = _variance(x, dim, float(unbiased) if correction is None else float(correction), keepdim)
    return var.sqrt(), mean


def _variance(x: Tensor, dim: Axes, correction: float, keepdim: bool) -> tuple[Tensor, Tensor]:
    """Return the variance over ``dim`` (all where empty) divided by n - ``correction`` (at least 0), and the mean."""
    axes = [dim] if isinstance(dim, int) else list(dim or range(x.dim()))
    count: Any = 1
    for axis in axes:
        count = count * x.shape[axis]
    mean = x.mean(axes, keepdim=True)
    square = (x - mean).square()
    if isinstance(count, int):
        left = max(count - correction, 0.0)
        var = square.mean(axes, keepdim=True) * (count / left if left else float("inf"))
    elif correction:
        less = int(correction) if correction.is_integer() else correction
        var = square.sum(axes, keepdim=True) / (count - less)
    else:
        var = square.mean(axes, keepdim=True)
    if not keepdim:
        # The last one first: squeezing moves the axes after it.
        for axis in sorted((axis % max(x.dim(), 1) for axis in axes), reverse=True):
            var, mean = var.squeeze(axis), mean.squeeze(axis)
    return var, mean


def _typed(given: Sequence[Any]) -> bool:
    # The last operand is `dtype`.
    return not is_float(given[0]) or given[-1] is not None


@composed("mean", "coremltools leaves out `dtype`", replaces=True, applies=_typed)
def _mean(x: Tensor, dim: Axes = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    if dtype is None or dtype == x.dtype:
        return NotImplemented if dtype is None else _again("mean", x, dim, keepdim)
    return _again("mean", x.to(dtype), dim, keepdim)


@composed("sum", "coremltools leaves out `dtype`, and counts booleans in floating point", replaces=True, applies=_typed)
def _sum(x: Tensor, dim: Axes = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    import torch

    kind = dtype or (x.dtype if x.is_floating_point() else torch.int64)
    if dtype is None and kind == x.dtype:
        return NotImplemented
    return _again("sum", x.to(kind), dim, keepdim)


def _again(name: str, x: Tensor, dim: Axes, keepdim: bool) -> Any:
    axes = list(range(x.dim())) if dim is None or dim == [] else dim
    return getattr(x, name)(axes, keepdim=keepdim)


@mend("prod", "a product of all elements, or along an axis")
@mend("prod.dim_int", "the same, as torch.export records it")
def _prod(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    # A trace calls both overloads prod; two operands are (self, dtype).
    whole = len(node.inputs) == 2 if node.kind == "prod" and len(node.inputs) != 1 else node.kind == "prod"
    given = inputs_of(context, node, "self dtype" if whole else "self dim keepdim dtype")
    x = given["self"]
    if types.is_bool(x.dtype):
        x = mb.cast(x=x, dtype="int32")
    axes = list(range(x.rank)) if whole else [int(value) for value in values_of(given["dim"])]
    keep = not whole and bool(values_of(given["keepdim"]) and values_of(given["keepdim"])[0])
    context.add(mb.reduce_prod(x=x, axes=axes or None, keep_dims=keep, name=node.name))


@composed("cummax", "the largest so far and where it is, the last of equals")
def _cummax(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return _running(x, dim, 1)


@composed("cummin", "the smallest so far and where it is, the last of equals")
def _cummin(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return _running(x, dim, -1)


def _running(x: Tensor, dim: int, sign: int) -> tuple[Tensor, Tensor]:
    """Compare each element with all before it, in a table of the axis' length squared."""
    import torch

    along = x.movedim(dim, -1)
    length = along.shape[-1]
    place = torch.arange(length)
    before = place[None, :] <= place[:, None]  # length x length
    # Where nothing is to count the first element stands, which counts in any case.
    seen = torch.where(before, along[..., None, :], along[..., :1, None])
    best = seen.amax(-1) if sign > 0 else seen.amin(-1)
    equal = (along[..., None, :] == best[..., None]) & before
    index = torch.where(equal, place, -1).amax(-1)
    return best.movedim(-1, dim), index.movedim(-1, dim)


@composed("isin", "whether elements are among others, by comparing each with each")
def _isin(x: Any, among: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    if hasattr(x, "dim") and hasattr(among, "dim"):
        found: Tensor = (x[..., None] == among.reshape(-1)).any(-1)
    else:
        found = x == among if hasattr(x, "dim") else (among == x).any()
    return ~found if invert else found


@composed("bucketize", "which interval a value falls into, by counting the bounds below it")
def _bucketize(x: Any, bounds: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    import torch

    x = x[..., None] if hasattr(x, "dim") else x
    below: Tensor = bounds <= x if right else bounds < x
    return below.to(torch.int32 if out_int32 else torch.int64).sum(-1)


@composed("histc", "how many values fall into each of equal intervals; the last one has both its ends")
def _histc(x: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:  # torch's own names
    import torch

    if min == max:
        raise ValueError("histc between the smallest and the largest value: give min and max")
    flat = x.reshape(-1).to(torch.float32)
    place = torch.floor((flat - min) * (bins / (max - min)))
    place = torch.where(flat == max, float(bins - 1), place)
    inside = (flat >= min) & (flat <= max)
    hits = (place[:, None] == torch.arange(bins).to(torch.float32)) & inside[:, None]  # values x bins
    return hits.to(torch.float32).sum(0).to(x.dtype)


@composed("_grouped_mm", "mixtures of experts multiply each group of rows by its own matrix")
def _grouped_mm(x: Tensor, y: Tensor, offs: Tensor | None = None, bias: Any = None, out_dtype: Any = None) -> Tensor:
    """``x`` rows x in, ``y`` groups x in x out, ``offs`` where each group of rows ends: all products, one kept."""
    import torch

    if x.dim() == 3 and y.dim() == 3:
        return x @ y
    if x.dim() != 2 or y.dim() != 3 or offs is None:
        raise ValueError("_grouped_mm of such shapes")
    place = torch.arange(x.shape[0])[None]
    ends = offs[:, None].to(torch.int64)
    starts = torch.cat([torch.zeros_like(ends[:1]), ends[:-1]])
    member = ((place >= starts) & (place < ends)).to(x.dtype)
    return ((x[None] @ y) * member[..., None]).sum(0)  # groups x rows x out -> rows x out


@composed("median", "the middle of what is sorted, the lower of two")
def _median(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    if dim is None:
        return x.reshape(-1).sort()[0][(x.numel() - 1) // 2]
    return _kthvalue(x, (x.shape[dim] + 1) // 2, dim, keepdim)


@composed("kthvalue", "the k-th of what is sorted, and where it was")
def _kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    values, places = x.sort(dim)
    found = values.narrow(dim, k - 1, 1), places.narrow(dim, k - 1, 1)
    return found if keepdim else (found[0].squeeze(dim), found[1].squeeze(dim))


@composed("_cdist_forward", "distances of each to each")
@composed("cdist", "distances of each to each")
def _cdist(x: Tensor, y: Tensor, p: float = 2.0, compute_mode: int | None = None) -> Tensor:
    apart = (x[..., :, None, :] - y[..., None, :, :]).abs()  # ... x rows of x x rows of y x features
    if p == 2:
        return apart.square().sum(-1).sqrt()
    if p == 1:
        return apart.sum(-1)
    if p == float("inf"):
        return apart.amax(-1)
    return (apart != 0).to(x.dtype).sum(-1) if p == 0 else apart.pow(p).sum(-1).pow(1 / p)


@composed("cosine_similarity", "coremltools only reads a trace's", replaces=True, traced=False)
def _cosine_similarity(x: Tensor, y: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    lengths = [part.square().sum(dim, keepdim=True).sqrt().clamp(min=eps) for part in (x, y)]
    return (x / lengths[0] * (y / lengths[1])).sum(dim)


@composed("linalg_det", "coremltools has no determinant: written out, of 3 x 3 at most")
def _det(x: Tensor) -> Tensor:
    size = x.shape[-1]
    if size > 3:
        raise ValueError(f"the determinant of a matrix of {size} x {size}: Core ML has none")
    if size == 1:
        return x[..., 0, 0]
    if size == 2:
        return x[..., 0, 0] * x[..., 1, 1] - x[..., 0, 1] * x[..., 1, 0]
    minors = [x[..., 1, a] * x[..., 2, b] - x[..., 1, b] * x[..., 2, a] for a, b in ((1, 2), (0, 2), (0, 1))]
    return x[..., 0, 0] * minors[0] - x[..., 0, 1] * minors[1] + x[..., 0, 2] * minors[2]


def _from_the_end(given: Sequence[Any]) -> bool:
    return bool(values_of(given[1]) and values_of(given[1])[0] < 0)


@mend("cumsum", "coremltools takes no axis counted from the end but the last", replaces=True, applies=_from_the_end)
def _cumsum(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    given = inputs_of(context, node, "self dim dtype")
    x = given["self"]
    if given["dtype"] is not None:
        x = mb.cast(x=x, dtype=dtype_name(given["dtype"]))
    elif types.is_bool(x.dtype):
        x = mb.cast(x=x, dtype="int32")
    axis = int(values_of(given["dim"])[0]) % x.rank
    context.add(mb.cumsum(x=x, axis=axis, name=node.name))


@composed("rms_norm", "coremltools multiplies `eps` by the largest square, and divides 0 by 0", replaces=True)
def _rms_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None) -> Any:
    """Divide by the largest element first, as coremltools does: a square of more than 256 is too large for f16.

    ``eps`` is divided by that one's square, or by itself where it is larger, so that neither leaves f16's range.
    """
    import torch

    axes = list(range(-len(shape), 0))
    root = (torch.finfo(torch.float32).eps if eps is None else eps) ** 0.5
    largest = x.abs().amax(axes, keepdim=True).clamp(min=root) if root else x.abs().amax(axes, keepdim=True)
    scaled = x / largest
    normed = scaled / (scaled.square().mean(axes, keepdim=True) + (root / largest).square()).sqrt()
    return normed if weight is None else normed * weight


@composed("cov", "products of what is left of the mean")
def _cov(x: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None) -> Tensor:
    if fweights is not None or aweights is not None:
        raise ValueError("a covariance with weights")
    rows = x[None] if x.dim() < 2 else x
    apart = rows - rows.mean(1, keepdim=True)
    made: Tensor = (apart @ apart.T) / (rows.shape[1] - correction)
    return made.squeeze() if x.dim() < 2 else made


@composed("corrcoef", "the covariance over both standard deviations")
def _corrcoef(x: Tensor) -> Tensor:
    rows = x[None] if x.dim() < 2 else x
    apart = rows - rows.mean(1, keepdim=True)
    unit = apart / apart.square().sum(1, keepdim=True).sqrt()
    # Rounding may lead beyond 1, and torch cuts that too.
    made = (unit @ unit.T).clamp(-1, 1)
    return made.squeeze() if x.dim() < 2 else made
