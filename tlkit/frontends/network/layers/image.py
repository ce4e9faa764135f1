"""Layers that sample images: upsampling, resizing, boxes cut out."""

from __future__ import annotations

from typing import Any

from tlkit.errors import LoadError
from tlkit.frontends.network.kit.blob import Blob
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.registry import Layer, layer, lengths

# By the numbers of SamplingMode, and of BoxCoordinatesMode.
_SAMPLING = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS")
_BOXES = ("CORNERS_HEIGHT_FIRST", "CORNERS_WIDTH_FIRST", "CENTER_SIZE_HEIGHT_FIRST", "CENTER_SIZE_WIDTH_FIRST")


@layer("upsample")
def upsample(g: Graph, layer: Layer) -> Blob:
    """Images larger by whole or fractional factors; bilinear ones on one of three grids."""
    p, x = layer.params, g.images(layer.x)
    factors: list[float] = list(lengths(p.scalingFactor, 2, 1))
    if p.fractionalScalingFactor:
        factors = [float(value) for value in p.fractionalScalingFactor]
    if len(factors) != 2 or not all(0 < value < 1 << 16 for value in factors):
        raise LoadError(f"the factors {factors}", "the file is damaged")
    # Rounded as _scaled in mil/ops/image.py does.
    sides = [None if d is None else int(d * f * (1 + 2**-24)) for d, f in zip(x.shape[-2:], factors, strict=True)]
    shape = (*x.shape[:2], *sides)
    scales: dict[str, Any] = {"scale_factor_height": float(factors[0]), "scale_factor_width": float(factors[1])}
    if p.mode == 0:
        return g.restored(g.op("upsample_nearest_neighbor", shape, x=x, **scales), layer.x)
    # 1 is ALIGN_CORNERS_TRUE, 2 is FALSE; 0, the default, samples at i / factor, as only resize_bilinear can say.
    if p.linearUpsampleMode:
        align = p.linearUpsampleMode == 1
        return g.restored(g.op("upsample_bilinear", shape, x=x, **scales, align_corners=align), layer.x)
    if None in sides:
        raise LoadError("an upsampling of an open size", "give the model a fixed shape")
    target: dict[str, Any] = {"target_size_height": sides[0], "target_size_width": sides[1]}
    return g.restored(g.op("resize_bilinear", shape, x=x, **target, sampling_mode="DEFAULT"), layer.x)


def _mode(p: object) -> str:
    number: int = p.mode.samplingMethod  # type: ignore[attr-defined]
    if not 0 <= number < len(_SAMPLING):
        raise LoadError(f"the unknown sampling mode {number}", "the file is damaged")
    return _SAMPLING[number]


@layer("resizeBilinear")
def resize_bilinear(g: Graph, layer: Layer) -> Blob:
    """Images resized bilinearly."""
    x, (height, width) = g.images(layer.x), lengths(layer.params.targetSize, 2, 1)
    target: dict[str, Any] = {"target_size_height": height, "target_size_width": width}
    made = g.op("resize_bilinear", (*x.shape[:2], height, width), x=x, **target, sampling_mode=_mode(layer.params))
    return g.restored(made, layer.x)


@layer("cropResize", inputs=2)
def crop_resize(g: Graph, layer: Layer) -> Blob:
    """Boxes [N, 1, 4 or 5, 1, 1] cut out of images and resized: [N, images, C, h, w]."""
    p, x = layer.params, g.images(layer.x)
    boxes = g.lay(layer.inputs[1])
    height, width = lengths(p.targetSize, 2, 1)
    if len(boxes.shape) != 5 or boxes.shape[2] not in (4, 5):
        raise LoadError(f"boxes of {boxes.shape}", "the network is damaged")
    if not 0 <= p.boxIndicesMode.boxMode < len(_BOXES):
        raise LoadError(f"the unknown kind of boxes {p.boxIndicesMode.boxMode}", "the file is damaged")
    shape = (boxes.shape[0], 1 if boxes.shape[2] == 5 else x.shape[0], x.shape[1], height, width)
    return g.op(
        "crop_resize",
        shape,
        x=x,
        roi=boxes,
        target_height=height,
        target_width=width,
        normalized_coordinates=bool(p.normalizedCoordinates),
        spatial_scale=float(p.spatialScale or 1.0),
        box_coordinate_mode=_BOXES[p.boxIndicesMode.boxMode],
        sampling_mode=_mode(p),
    )
