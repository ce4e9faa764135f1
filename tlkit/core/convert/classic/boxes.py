"""A nonMaximumSuppression model in MIL; see :mod:`tlkit.engines.classic.nms`, whose numbers these are.

MIL's operation always keeps one box, and its outputs have a fixed number of rows: what it keeps below the confidence
threshold is taken away behind it, which also lets that threshold be an input. No box that is taken away has suppressed
one that stays, since the boxes that suppress are the better ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlkit.core.convert.classic.features import Values, found
from tlkit.engines.classic.values import DAMAGED
from tlkit.errors import ConversionError, LoadError
from tlkit.formats.coreml.ports import read_ports
from tlkit.frontends.network.kit.blob import Blob
from tlkit.frontends.network.kit.graph import Graph, scalar
from tlkit.mil.opsets import version_of
from tlkit.mil.types import DType
from tlkit.types import TensorSpec

KIND = "nonMaximumSuppression"
_OPERATION = "non_maximum_suppression"
_LOWEST = float(np.finfo(np.float32).min)


def suppression(g: Graph, values: Values, model: Any, opset: str) -> dict[str, Blob]:
    """The confidences and coordinates of the boxes that are kept, best first: as many rows as the output has, the rest
    of them 0, or as many as boxes where its rows vary."""
    message, last = model.nonMaximumSuppression, boxes_last(opset)
    boxes, scores = _rows(g, values, message)
    specs = {spec.name: spec for spec in read_ports(model.description.output)}
    names = {message.confidenceOutputFeatureName: 1, message.coordinatesOutputFeatureName: 0}
    low, most = _sizes([specs[name] for name in names if name in specs], boxes.shape[1] or 0)
    if not most:
        raise LoadError("a nonMaximumSuppression without rows", DAMAGED)
    taken = values.get(message.confidenceThresholdInputFeatureName)
    least: Any = float(np.float32(message.confidenceThreshold)) if taken is None else _single(g, taken)
    kept, index = _suppressed(g, boxes, scores, message, most, None if last else least if taken is None else _LOWEST)
    best = g.op("reduce_max", (1, most), x=kept[1], axes=[2], keep_dims=False)
    passing = g.op("greater_equal", (1, most), out=DType.BOOL, x=best, y=least)
    real = g.op("greater_equal", (1, most), out=DType.BOOL, x=index, y=0)
    both = g.op("logical_and", (1, most), out=DType.BOOL, x=passing, y=real)
    marks = g.cast(both, DType.FP32, DType.BOOL)
    column = g.op("expand_dims", (1, most, 1), x=marks, axes=[2])
    # What is dropped is multiplied by 0: it stands behind what stays.
    zeroed = [g.op("mul", part.shape, x=part, y=column) for part in kept]
    flat = [g.op("squeeze", part.shape[1:], x=part, axes=[0]) for part in zeroed]
    if low == most:
        return {name: flat[place] for name, place in names.items()}
    count = _counted(g, both, low)
    return {name: _cut(g, flat[place], count) for name, place in names.items()}


def boxes_last(opset: str) -> bool:
    """Whether the operation takes boxes in columns, and no threshold of scores: from iOS17 on."""
    return version_of(opset) >= version_of("CoreML7")


def labels_of(stages: Sequence[Any]) -> tuple[str, ...]:
    """Return the labels of the classes that the last suppression names, in the order of its confidences."""
    named: tuple[str, ...] = ()
    for stage in stages:
        message = stage.nonMaximumSuppression
        which = message.WhichOneof("ClassLabels") if stage.WhichOneof("Type") == KIND else None
        named = tuple(str(label) for label in getattr(message, which).vector) if which else named
    return named


def constant_inputs(stages: Sequence[Any]) -> dict[str, Any]:
    """Return the inputs that only set the IoU threshold of suppressions, each with the stage: MIL's operation takes
    that as a constant. ConversionError where such an input is more than that."""
    named = {
        stage.nonMaximumSuppression.iouThresholdInputFeatureName: stage
        for stage in stages
        if stage.WhichOneof("Type") == KIND and stage.nonMaximumSuppression.iouThresholdInputFeatureName
    }
    for number, stage in enumerate(stages):
        message = stage.nonMaximumSuppression if stage.WhichOneof("Type") == KIND else None
        own = message.iouThresholdInputFeatureName if message is not None else None
        used = {port.name for port in stage.description.input if port.name != own}
        both = sorted(used & named.keys() | {port.name for port in stage.description.output} & named.keys())
        if both:
            said = f"stage {number} computes with '{both[0]}', the IoU threshold of a suppression"
            raise ConversionError(f"{said}, which MIL takes as a constant", "it runs with `tlkit run`")
    return named


def defaults(stages: Sequence[Any]) -> Mapping[str, float]:
    """Return what the inputs for confidence thresholds are where they are left out, by name; ConversionError for one
    name with two."""
    made: dict[str, float] = {}
    for stage in stages:
        if stage.WhichOneof("Type") != KIND or not stage.nonMaximumSuppression.confidenceThresholdInputFeatureName:
            continue
        message = stage.nonMaximumSuppression
        name, value = message.confidenceThresholdInputFeatureName, float(message.confidenceThreshold)
        if made.setdefault(name, value) != value:
            said = f"'{name}' is {made[name]:g} in one stage and {value:g} in another where it is left out"
            raise ConversionError(said, "an mlprogram's input has one default; it runs with `tlkit run`")
    return made


def _single(g: Graph, value: Blob) -> Blob:
    """Return a value of one number as a scalar."""
    if value.shape != (1,):
        raise LoadError(f"a threshold of {value.shape} numbers", DAMAGED)
    return g.op("squeeze", (), x=value, axes=[0])


def _rows(g: Graph, values: Values, message: Any) -> tuple[Blob, Blob]:
    """Return boxes [1, N, 4] and scores [1, N, K]."""
    boxes = found(g, values, message.coordinatesInputFeatureName)
    scores = found(g, values, message.confidenceInputFeatureName)
    count = (boxes.shape[0] or 0) // 4
    if not count or (boxes.shape[0] or 0) % 4 or not scores.shape[0] or scores.shape[0] % count:
        raise LoadError(f"{scores.shape[0]} confidences for {boxes.shape[0]} coordinates of boxes", DAMAGED)
    return g.reshape(boxes, (1, count, 4)), g.reshape(scores, (1, count, scores.shape[0] // count))


def _sizes(specs: Sequence[TensorSpec], boxes: int) -> tuple[int, int]:
    """Return how many rows both outputs have at least, and at most."""
    sizes = set()
    for spec in specs:
        if len(spec.shape) != 2:
            sizes.add((0, boxes))
            continue
        low, high = spec.ranges[0] if spec.ranges else (spec.shape[0], spec.shape[0])
        sizes.add((low, max(low, boxes if high is None else min(high, boxes) if low != high else high)))
    if len(sizes) > 1:
        raise ConversionError(
            "a suppression whose outputs have different numbers of rows", "MIL gives both the same; see `tlkit run`"
        )
    return sizes.pop() if sizes else (0, boxes)


def _suppressed(
    g: Graph, boxes: Blob, scores: Blob, message: Any, most: int, least: float | None
) -> tuple[tuple[Blob, Blob], Blob]:
    """Return the boxes [1, R, 4] and scores [1, R, K] that are kept, and their places [1, R], -1 where there are none;
    without ``least`` by the operation that has the boxes in columns."""
    sides = [4, scores.shape[2] or 0]
    given: dict[str, Any] = {"boxes": boxes, "scores": scores}
    shapes: list[tuple[int, ...]] = [(1, most, side) for side in sides]
    if least is None:
        given = {key: _turned(g, blob) for key, blob in given.items()}
        shapes = [(1, side, most) for side in sides]
    outputs = [(shapes[0], DType.FP32), (shapes[1], DType.FP32), ((1, most), DType.INT32)]
    names = g.emit(
        _OPERATION,
        [*outputs, *([((1,), DType.INT32)] if least is not None else [])],
        **given,
        iou_threshold=float(np.float32(message.iouThreshold)),
        score_threshold=least,
        max_boxes=most,
        per_class_suppression=bool(message.pickTop.perClass),
    )
    made = [Blob(name, shape) for name, (shape, _) in zip(names, outputs, strict=False)]
    kept = [_turned(g, blob) for blob in made[:2]] if least is None else made[:2]
    return (kept[0], kept[1]), made[2]


def _turned(g: Graph, x: Blob) -> Blob:
    one, rows, columns = x.shape
    return g.op("transpose", (one, columns, rows), x=x, perm=[0, 2, 1])


def _counted(g: Graph, flags: Blob, low: int) -> Blob:
    """Return how many of ``flags`` [1, R] are set, ``low`` at least, as [1]."""
    count = g.op("reduce_sum", (1,), out=DType.INT32, x=g.cast(flags, DType.INT32, DType.BOOL), axes=[1])
    return g.op("maximum", (1,), out=DType.INT32, x=count, y=low) if low else count


def _cut(g: Graph, x: Blob, count: Blob) -> Blob:
    """Return the first ``count`` rows."""
    width = g.tensor(scalar([x.shape[1] or 0]), "width")
    size = g.op("concat", (2,), out=DType.INT32, values=[count, width], axis=0, interleave=False)
    return g.op("slice_by_size", (None, x.shape[1]), x=x, begin=[0, 0], size=size)
