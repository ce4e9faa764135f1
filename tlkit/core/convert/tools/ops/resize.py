"""Resizing of images and signals.

A resize of a known size is linear and separable: a matrix for each axis, which torch itself tells. MIL's own ops are
taken where they do the same. At sizes known only when the model runs MIL's ``resize`` computes the places itself.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from tlkit.core.convert.tools.kit.mends import REPLACED, mend
from tlkit.core.convert.tools.kit.reading import inputs_of, values_of

_AA = "coremltools leaves out the antialiasing"


@mend("_upsample_bilinear2d_aa", _AA, replaces=True)
@mend("_upsample_bilinear2d_aa.vec", f"{_AA}, as torch.export records it", replaces=True)
def _bilinear_aa(context: Any, node: Any) -> None:
    _by_matrices(context, node, 2, "bilinear", antialias=True)


@mend("_upsample_bicubic2d_aa", "torchvision's bicubic `Resize` ends in it")
def _bicubic_aa(context: Any, node: Any) -> None:
    _by_matrices(context, node, 2, "bicubic", antialias=True)


@mend("upsample_bicubic2d", "position embeddings of vision transformers are resized with it")
@mend("upsample_bicubic2d.vec", "the same, as torch.export records it")
def _bicubic(context: Any, node: Any) -> None:
    _by_matrices(context, node, 2, "bicubic")


@mend("upsample_trilinear3d", "coremltools resizes in 1-d and 2-d alone")
@mend("upsample_trilinear3d.vec", "the same, as torch.export records it")
def _trilinear(context: Any, node: Any) -> None:
    _by_matrices(context, node, 3, "trilinear")


_INEXACT = "coremltools refuses sizes known only when the model runs, and fractional factors"


@mend("upsample_bilinear2d", _INEXACT, replaces=True)
@mend("upsample_bilinear2d.vec", _INEXACT, replaces=True)
def _bilinear(context: Any, node: Any) -> None:
    _linear(context, node, 2, "bilinear")


@mend("upsample_linear1d", _INEXACT, replaces=True)
@mend("upsample_linear1d.vec", _INEXACT, replaces=True)
def _linear1d(context: Any, node: Any) -> None:
    _linear(context, node, 1, "linear")


def _linear(context: Any, node: Any, rank: int, mode: str) -> None:
    given = _given(context, node, rank, corners=True)
    if _sizes_are_known(given, rank):
        if _evenly(given, rank) or _are_new(given):
            REPLACED[node.kind.removesuffix("_")](context, node)
        else:
            _by_matrices(context, node, rank, mode)
        return
    if any(not float(scale).is_integer() for scale in given["scales"]) and not given["corners"]:
        _by_matrices_at_run_time(context, node, given, rank, mode, antialias=False)
        return
    # UNALIGN_CORNERS has torch's places for align_corners=False: (i + 0.5) * ratio - 0.5.
    sampling = "STRICT_ALIGN_CORNERS" if given["corners"] else "UNALIGN_CORNERS"
    _at_run_time(context, node, given, rank, "LINEAR", sampling)


@mend("upsample_nearest1d", _INEXACT, replaces=True)
@mend("upsample_nearest1d.vec", _INEXACT, replaces=True)
def _nearest1d(context: Any, node: Any) -> None:
    _nearest(context, node, 1)


@mend("upsample_nearest2d", _INEXACT, replaces=True)
@mend("upsample_nearest2d.vec", _INEXACT, replaces=True)
def _nearest2d(context: Any, node: Any) -> None:
    _nearest(context, node, 2)


@mend("upsample_nearest3d", "coremltools resizes in 1-d and 2-d alone")
@mend("upsample_nearest3d.vec", "the same, as torch.export records it")
def _nearest3d(context: Any, node: Any) -> None:
    _nearest(context, node, 3)


def _nearest(context: Any, node: Any, rank: int) -> None:
    given = _given(context, node, rank, corners=False)
    known = _sizes_are_known(given, rank)
    if known and rank < 3 and _evenly(given, rank):
        REPLACED[node.kind.removesuffix("_")](context, node)
    elif known:
        _by_places(context, node, given, rank, "nearest")
    elif given["scales"] and all(float(scale).is_integer() for scale in given["scales"]) and rank < 3:
        REPLACED[node.kind.removesuffix("_")](context, node)
    else:
        _by_quotients(context, node, given, rank)


@mend("_upsample_nearest_exact1d", "coremltools lacks it")
@mend("_upsample_nearest_exact1d.vec", "the same, as torch.export records it")
def _exact1d(context: Any, node: Any) -> None:
    _by_places(context, node, _given(context, node, 1, corners=False), 1, "nearest-exact")


@mend("_upsample_nearest_exact2d", "coremltools lacks it")
@mend("_upsample_nearest_exact2d.vec", "the same, as torch.export records it")
def _exact2d(context: Any, node: Any) -> None:
    _by_places(context, node, _given(context, node, 2, corners=False), 2, "nearest-exact")


def _given(context: Any, node: Any, rank: int, *, corners: bool) -> dict[str, Any]:
    """Return what is to be resized how: ``size`` an axis (numbers, values, or None) and ``scales`` (may be empty).

    The overload ``vec`` has a list of factors, the others a factor for each axis.
    """
    flags = "align_corners " if corners else ""
    # A trace has one name for both: of vec there is one operand for all factors, of the others one per axis.
    vec = node.kind.endswith(".vec") or (len(node.inputs) == 3 + corners and rank > 1)
    names = "scale_factors" if vec else " ".join(f"scales_{axis}" for axis in ("d", "h", "w")[3 - rank :])
    if rank == 1 and not vec:
        names = "scales"
    given = inputs_of(context, node, f"input output_size {flags}{names}")
    size = given["output_size"]
    if hasattr(size, "val") and size is not None and size.val is not None:
        size = [int(value) for value in size.val.reshape(-1)]
    elif hasattr(size, "val") and size is not None:
        size = _elements(size, rank)
    elif size is not None:
        size = [item if getattr(item, "val", item) is None else int(getattr(item, "val", item)) for item in size]
    scales = [value for name in names.split() for value in values_of(given[name])]
    return {
        "x": given["input"],
        "size": size,
        "scales": [float(value) for value in scales],
        "corners": corners and bool(values_of(given["align_corners"])[0]),
    }


def _elements(size: Any, rank: int) -> list[Any]:
    from coremltools.converters.mil import Builder as mb

    return [mb.gather(x=size, indices=axis, axis=0) for axis in range(rank)]


def _sizes_are_known(given: dict[str, Any], rank: int) -> bool:
    fixed = all(isinstance(size, int) or str(size).isdigit() for size in given["x"].shape[-rank:])
    return fixed and (bool(given["scales"]) or all(isinstance(size, int) for size in given["size"] or [None]))


def _lengths(given: dict[str, Any], rank: int) -> list[tuple[int, int]]:
    """Return each axis' length before and after."""
    before = [int(size) for size in given["x"].shape[-rank:]]
    if given["size"] and all(isinstance(size, int) for size in given["size"]):
        return list(zip(before, given["size"], strict=True))
    return [(size, int(size * scale)) for size, scale in zip(before, given["scales"], strict=True)]


def _evenly(given: dict[str, Any], rank: int) -> bool:
    """Whether each axis becomes a whole number of times as long, with a factor that says just that."""
    lengths = _lengths(given, rank)
    scales = given["scales"] or [after / before for before, after in lengths]
    return all(
        after % before == 0 and scale == after // before for (before, after), scale in zip(lengths, scales, strict=True)
    )


def _are_new(given: dict[str, Any]) -> bool:
    """Whether the places follow from the sizes, and not from factors that the sizes only nearly have."""
    return not given["scales"] or given["corners"]


def _by_matrices(context: Any, node: Any, rank: int, mode: str, *, antialias: bool = False) -> None:
    """Multiply each axis by its matrix. Raises ValueError at sizes known only when the model runs."""
    from coremltools.converters.mil import Builder as mb

    given = _given(context, node, rank, corners=True)
    x = given["x"]
    if not _sizes_are_known(given, rank):
        _by_matrices_at_run_time(context, node, given, rank, mode, antialias=antialias)
        return
    for index, (before, after) in enumerate(_lengths(given, rank)):
        scale = given["scales"][index] if given["scales"] else None
        weight = _matrix(before, after, scale, mode, given["corners"], antialias)
        x = _times(x, weight, x.rank - rank + index)
    context.add(mb.identity(x=x, name=node.name))


def _times(x: Any, weight: Any, axis: int) -> Any:
    """Multiply ``axis`` by ``weight`` (after, before)."""
    from coremltools.converters.mil import Builder as mb

    if axis == x.rank - 1:
        return mb.matmul(x=x, y=weight, transpose_y=True)
    if axis == x.rank - 2 and not hasattr(weight, "sym_type"):
        return mb.matmul(x=weight[(None,) * (x.rank - 2)], y=x)
    if axis == x.rank - 2:
        return mb.matmul(x=mb.expand_dims(x=weight, axes=list(range(x.rank - 2))), y=x)
    order = [*range(axis), *range(axis + 1, x.rank), axis]
    turned = mb.matmul(x=mb.transpose(x=x, perm=order), y=weight, transpose_y=True)
    return mb.transpose(x=turned, perm=[order.index(place) for place in range(x.rank)])


def _by_matrices_at_run_time(
    context: Any, node: Any, given: dict[str, Any], rank: int, mode: str, *, antialias: bool
) -> None:
    """Multiply each axis by a matrix that the model computes, places in whole numbers: f16 holds no large fractions.

    A place of the result is at ``numerator / denominator`` of the source, as torch has it.
    """
    from coremltools.converters.mil import Builder as mb

    x = given["x"]
    shape = mb.shape(x=x)
    for index, after in enumerate(_targets(given, rank)):
        axis = x.rank - rank + index
        before = mb.squeeze(x=mb.slice_by_size(x=shape, begin=[axis], size=[1]), axes=[0])
        after = mb.squeeze(x=after, axes=[0]) if hasattr(after, "sym_type") else after
        ratio = (before, after)
        if given["corners"]:
            # One element is at place 0 whatever the ratio; the maximum keeps it from dividing by 0.
            ratio = (mb.sub(x=before, y=1), mb.maximum(x=mb.sub(x=after, y=1), y=1))
        elif given["scales"]:
            factor = _fraction(given["scales"][index])
            ratio = (factor.denominator, factor.numerator)
        weight = _antialiased if antialias else _interpolated
        x = _times(x, weight(before, after, ratio, mode, given["corners"]), axis)
    context.add(mb.identity(x=x, name=node.name))


def _fraction(scale: float) -> Fraction:
    return Fraction(scale).limit_denominator(1000)


def _interpolated(before: Any, after: Any, ratio: tuple[Any, Any], mode: str, corners: bool) -> Any:
    """Return each result's (row's) weights of the two or four elements around it."""
    from coremltools.converters.mil import Builder as mb

    step = mb.expand_dims(x=mb.range_1d(start=0, end=after, step=1), axes=[1])  # after x 1
    if corners:
        numerator, denominator = mb.mul(x=step, y=ratio[0]), ratio[1]
    else:
        # Place (i + 1/2) * ratio - 1/2, in whole numbers: (2i + 1) * top - bottom, over 2 * bottom.
        twice = mb.add(x=mb.mul(x=step, y=2), y=1)
        numerator, denominator = mb.sub(x=mb.mul(x=twice, y=ratio[0]), y=ratio[1]), mb.mul(x=ratio[1], y=2)
    # torch moves a linear place below 0 to 0; a cubic one repeats the edge's element instead.
    if mode != "bicubic":
        numerator = mb.maximum(x=numerator, y=0)
    low = mb.floor_div(x=numerator, y=denominator)
    rest = mb.sub(x=numerator, y=mb.mul(x=low, y=denominator))
    share = mb.real_div(x=mb.cast(x=rest, dtype="fp32"), y=mb.cast(x=denominator, dtype="fp32"))
    place = mb.expand_dims(x=mb.range_1d(start=0, end=before, step=1), axes=[0])  # 1 x before
    total: Any = None
    for offset in (-1, 0, 1, 2) if mode == "bicubic" else (0, 1):
        apart = mb.abs(x=mb.sub(x=share, y=float(offset)))
        # torch's bicubic kernel has a = -0.75, its antialiased one -0.5.
        weight = _cubic(apart, -0.75, inner=offset in (0, 1)) if mode == "bicubic" else mb.sub(x=1.0, y=apart)
        at = mb.minimum(x=mb.maximum(x=mb.add(x=low, y=offset), y=0), y=mb.sub(x=before, y=1))
        part = mb.mul(x=mb.cast(x=mb.equal(x=place, y=at), dtype="fp32"), y=weight)  # after x before
        total = part if total is None else mb.add(x=total, y=part)
    return total


def _cubic(x: Any, a: float, *, inner: bool) -> Any:
    """Return Keys' kernel of a distance below 1 (``inner``) or from 1 to 2."""
    from coremltools.converters.mil import Builder as mb

    # By Horner: (a + 2)x^3 - (a + 3)x^2 + 1 within 1, and ax^3 - 5ax^2 + 8ax - 4a beyond.
    factors = (a + 2, -(a + 3), 0.0, 1.0) if inner else (a, -5 * a, 8 * a, -4 * a)
    total: Any = factors[0]
    for factor in factors[1:]:
        total = mb.add(x=mb.mul(x=x, y=total), y=factor)
    return total


def _antialiased(before: Any, after: Any, ratio: tuple[Any, Any], mode: str, corners: bool) -> Any:
    """Return each result's (row's) weights of all elements within reach, which is wider where the result is smaller."""
    from coremltools.converters.mil import Builder as mb

    def odd(end: Any, axis: int, times: Any) -> Any:
        # Elements have their centres at i + 1/2; twice that is whole: 1, 3, 5 and so on.
        steps = mb.add(x=mb.mul(x=mb.range_1d(start=0, end=end, step=1), y=2), y=1)
        return mb.mul(x=mb.expand_dims(x=steps, axes=[axis]), y=times)

    apart = mb.abs(x=mb.sub(x=odd(before, 0, ratio[1]), y=odd(after, 1, ratio[0])))
    reach = mb.mul(x=mb.maximum(x=ratio[0], y=ratio[1]), y=2)
    apart = mb.minimum(x=apart, y=mb.mul(x=reach, y=2))  # all weights are 0 there, and f16 holds it
    distance = mb.real_div(x=mb.cast(x=apart, dtype="fp32"), y=mb.cast(x=reach, dtype="fp32"))
    if mode == "bicubic":
        near = mb.cast(x=mb.less(x=distance, y=1.0), dtype="fp32")
        inner, outer = (_cubic(distance, -0.5, inner=flag) for flag in (True, False))
        weight = mb.add(x=mb.mul(x=near, y=inner), y=mb.mul(x=mb.sub(x=1.0, y=near), y=outer))
    else:
        weight = mb.maximum(x=mb.sub(x=1.0, y=distance), y=0.0)
    return mb.real_div(x=weight, y=mb.reduce_sum(x=weight, axes=[1], keep_dims=True))


def _matrix(before: int, after: int, scale: float | None, mode: str, corners: bool, antialias: bool) -> Any:
    """Return the resize of one axis as a matrix (after, before): torch's own answer to each unit vector."""
    import torch
    from torch.nn import functional

    unit = torch.eye(before)[None, None]  # 1 x 1 x before x before
    mode = "bicubic" if mode == "bicubic" else "bilinear"
    how: dict[str, Any] = {"mode": mode, "align_corners": corners, "antialias": antialias}
    if scale is None:
        return functional.interpolate(unit, size=(after, before), **how)[0, 0].numpy()
    return functional.interpolate(unit, scale_factor=(scale, 1.0), **how)[0, 0].numpy()


def _by_places(context: Any, node: Any, given: dict[str, Any], rank: int, mode: str) -> None:
    """Take from each axis the elements that torch's ``mode`` takes."""
    import torch
    from coremltools.converters.mil import Builder as mb
    from torch.nn import functional

    if not _sizes_are_known(given, rank):
        raise ValueError(f"a {mode} resize of a size known only when the model runs")
    x = given["x"]
    for index, (before, after) in enumerate(_lengths(given, rank)):
        row = torch.arange(float(before))[None, None]
        target: dict[str, Any] = {"scale_factor": given["scales"][index]} if given["scales"] else {"size": after}
        places = functional.interpolate(row, mode=mode, **target)[0, 0].to(torch.int32).numpy()
        name = {"name": node.name} if index == rank - 1 else {}
        x = mb.gather(x=x, indices=places, axis=x.rank - rank + index, **name)
    context.add(x)


def _targets(given: dict[str, Any], rank: int) -> list[Any]:
    """Return each axis' new length: a number, or a value of coremltools' (shape (1,), int32)."""
    from coremltools.converters.mil import Builder as mb

    shape = mb.shape(x=given["x"])
    made = []
    for index in range(rank):
        size = given["size"][index] if given["size"] else None
        if size is None:
            axis = given["x"].rank - rank + index
            factor = _fraction(given["scales"][index])  # in whole numbers: f16 holds no large fractions
            length = mb.slice_by_size(x=shape, begin=[axis], size=[1])
            size = mb.floor_div(x=mb.mul(x=length, y=factor.numerator), y=factor.denominator)
        if not isinstance(size, int):
            size = mb.cast(x=size, dtype="int32")
            size = mb.reshape(x=size, shape=[1]) if size.rank != 1 else size
        made.append(size)
    return made


def _at_run_time(context: Any, node: Any, given: dict[str, Any], rank: int, mode: str, sampling: str) -> None:
    """Have MIL's ``resize`` (from iOS17 on) find the places; factors of one's own are the sizes' quotients there."""
    import numpy as np
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil._deployment_compatibility import AvailableTarget
    from coremltools.converters.mil.mil.block import is_current_opset_version_compatible_with

    if not is_current_opset_version_compatible_with(AvailableTarget.iOS17):
        raise ValueError("a resize to a size that is known only when the model runs: that needs --target iOS17")
    x, sizes = given["x"], _targets(given, rank)
    x = mb.expand_dims(x=x, axes=[3]) if rank == 1 else x
    sizes = [*sizes, 1] if rank == 1 else sizes
    shape = mb.concat(values=[np.array([size], np.int32) if isinstance(size, int) else size for size in sizes], axis=0)
    made = mb.resize(
        x=x,
        shape=shape,
        resized_dims=np.uint32(2),
        interpolation_mode=mode,
        sampling_mode=sampling,
        **({} if rank == 1 else {"name": node.name}),
    )
    context.add(mb.squeeze(x=made, axes=[3], name=node.name) if rank == 1 else made)


def _by_quotients(context: Any, node: Any, given: dict[str, Any], rank: int) -> None:
    """Take element i * before // after of each axis, or i by the factor: lengths known only when the model runs."""
    from coremltools.converters.mil import Builder as mb

    x = given["x"]
    shape = mb.shape(x=x)
    for index, size in enumerate(_targets(given, rank)):
        axis = x.rank - rank + index
        before = mb.slice_by_size(x=shape, begin=[axis], size=[1])
        after = size if isinstance(size, int) else mb.squeeze(x=size, axes=[0])
        steps = mb.range_1d(start=0, end=after, step=1)
        top, bottom = before, size
        if given["scales"] and not float(given["scales"][index]).is_integer():
            factor = _fraction(given["scales"][index])
            top, bottom = factor.denominator, factor.numerator
        places = mb.floor_div(x=mb.mul(x=steps, y=top), y=bottom)
        name = {"name": node.name} if index == rank - 1 else {}
        x = mb.gather(x=x, indices=places, axis=axis, **name)
    context.add(x)
