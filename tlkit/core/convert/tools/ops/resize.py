"""Resizing of images."""

from __future__ import annotations

from typing import Any

from tlkit.core.convert.tools.mends import mend
from tlkit.core.convert.tools.reading import inputs_of, values_of


@mend("_upsample_bilinear2d_aa", "coremltools leaves out the antialiasing", replaces=True)
@mend("_upsample_bilinear2d_aa.vec", "the same, as torch.export records it", replaces=True)
def _bilinear(context: Any, node: Any) -> None:
    _antialiased(context, node, "bilinear")


@mend("_upsample_bicubic2d_aa", "torchvision's bicubic `Resize` ends in it")
def _bicubic(context: Any, node: Any) -> None:
    _antialiased(context, node, "bicubic")


def _antialiased(context: Any, node: Any, mode: str) -> None:
    """Resize as torch does: each axis by a matrix, which torch itself tells, since a resize is linear and separable."""
    from coremltools.converters.mil import Builder as mb

    given = inputs_of(context, node, "input output_size align_corners scales_h scales_w")
    x, sizes = given["input"], values_of(given["output_size"])
    if not all(isinstance(size, int) for size in x.shape[2:]):
        raise ValueError("an antialiased resize of a size that is known only when the model runs")
    scales = values_of(given["scales_h"]) + values_of(given["scales_w"])
    corners = bool(values_of(given["align_corners"])[0])
    for axis in (0, 1):
        target = (
            {"scale_factor": (float(scales[axis]), 1.0)} if len(scales) == 2 else {"size": (int(sizes[axis]), None)}
        )
        weight = _resize_matrix(int(x.shape[2 + axis]), target, mode, corners)
        if axis == 0:
            x = mb.matmul(x=weight[None, None], y=x)
        else:
            x = mb.matmul(x=x, y=weight[None, None], transpose_y=True, name=node.name)
    context.add(x)


def _resize_matrix(length: int, target: dict[str, Any], mode: str, corners: bool) -> Any:
    import torch
    from torch.nn import functional

    if "size" in target:
        target = {"size": (target["size"][0], length)}
    unit = torch.eye(length)[None, None]
    return functional.interpolate(unit, mode=mode, align_corners=corners, antialias=True, **target)[0, 0].numpy()
