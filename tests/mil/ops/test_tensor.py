"""Ops that make, join, split and sort tensors, against numpy, coremltools' folding and plain loops.

Covers tlkit/mil/ops/kit/nms.py, tlkit/mil/ops/kit/pad.py.
"""

import itertools

import numpy as np
import torch

from tests.mil.ops.optable import VALUE, case, rows, table
from tlkit.mil.ops.tensor import topk as topk_op

R = np.random.default_rng(2)
X = R.normal(size=(2, 3, 4))
Y = R.normal(size=(2, 3, 4))


def i32(values):
    return np.array(values, dtype=np.int32)


def shuffled(*shape, kind="float64"):
    """Distinct values, so that no order is a matter of taste; f16 holds them exactly."""
    return R.permutation(int(np.prod(shape))).reshape(shape).astype(kind)


def interleaved(values, axis, interleave):
    axis %= values[0].ndim
    slices = [np.take(value, [i], axis) for i in range(values[0].shape[axis]) for value in values]
    return np.concatenate(slices, axis)


def one_hot(indices, one_hot_vector_size, axis=-1, on_value=1, off_value=0):
    out = np.full((*indices.shape, one_hot_vector_size), off_value)
    for place in np.ndindex(*indices.shape):
        if 0 <= indices[place] < one_hot_vector_size:
            out[(*place, indices[place])] = on_value
    return np.moveaxis(out, -1, axis)


def band(x, lower=-1, upper=-1):
    out = x.copy()
    for m, n in np.ndindex(*x.shape[-2:]):
        if not ((lower < 0 or m - n <= lower) and (upper < 0 or n - m <= upper)):
            out[..., m, n] = 0
    return out


def cumsum(x, axis=0, exclusive=False, reverse=False):
    x = np.moveaxis(x, axis, 0)[::-1] if reverse else np.moveaxis(x, axis, 0)
    out, total = np.empty_like(x), np.zeros_like(x[0])
    for i, item in enumerate(x):
        out[i] = total if exclusive else total + item
        total = total + item
    return np.moveaxis(out[::-1] if reverse else out, 0, axis)


def topk(x, k=1, axis=-1, ascending=False, **_):
    order = np.argsort(x if ascending else -x.astype(float), axis=axis, kind="stable")
    order = np.take(order, range(k if k >= 0 else x.shape[axis]), axis)
    return np.take_along_axis(x, order, axis), order


def overlap(a, b):
    """Intersection over union of two (centre, size) boxes, side by side."""
    sides = [
        min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2) - max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2) for i in (0, 1)
    ]
    common = max(sides[0], 0) * max(sides[1], 0)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def suppressed(boxes, scores, iou_threshold, max_boxes, score_threshold=-np.inf, per_class_suppression=False):
    """The definition: boxes from best to worst, each kept unless it overlaps a kept one too much."""
    n, _, k = scores.shape
    out = np.zeros((n, max_boxes, 4)), np.zeros((n, max_boxes, k)), np.full((n, max_boxes), -1), np.zeros(n, int)
    for i in range(n):
        best, label = scores[i].max(-1), scores[i].argmax(-1)
        kept = []
        for j in np.argsort(-best):
            rivals = [other for other in kept if not per_class_suppression or label[other] == label[j]]
            if best[j] >= score_threshold and all(overlap(boxes[i, j], boxes[i, o]) <= iou_threshold for o in rivals):
                kept.append(j)
        kept = (kept or [best.argmax()])[:max_boxes]
        out[0][i, : len(kept)], out[1][i, : len(kept)] = boxes[i, kept], scores[i, kept]
        out[2][i, : len(kept)], out[3][i] = kept, len(kept)
    return out


def suppressed_17(boxes, scores, **rest):
    first, second, index, _ = suppressed(boxes.mT, scores.mT, **rest)
    return first.mT, second.mT, index


BOXES = np.concatenate([R.integers(0, 40, size=(2, 12, 2)), R.integers(8, 30, size=(2, 12, 2))], -1).astype(float)
SCORES = shuffled(2, 12, 3)
WIDE = {"one_box": (0.0, 0.0), "some": (0.25, 20.0), "none_left": (0.5, 1000.0)}

NMS = rows(
    *(
        case(
            "non_maximum_suppression",
            {"boxes": BOXES, "scores": SCORES},
            parameters={
                "iou_threshold": iou,
                "score_threshold": score,
                "max_boxes": limit,
                "per_class_suppression": per_class,
            },
            expected=suppressed,
            label=f"{name} {limit} {per_class}",
        )
        for (name, (iou, score)), limit, per_class in itertools.product(WIDE.items(), (3, 12), (False, True))
    ),
    *(
        case(
            "non_maximum_suppression",
            {"boxes": BOXES.mT, "scores": SCORES.mT},
            parameters={"iou_threshold": 0.25, "max_boxes": 5, "per_class_suppression": per_class},
            since=17,
            expected=suppressed_17,
        )
        for per_class in (False, True)
    ),
)

PADS = rows(
    *(
        case("pad", {"x": x}, parameters={"pad": amounts, "mode": mode}, expected=VALUE, label=f"{mode} {amounts}")
        for mode in ("constant", "reflect", "replicate")
        for x, amounts in (
            (X, [1, 2]),
            (X, [1, 0, 2, 1]),
            (X, [1, 1, 0, 2, 1, 1]),
            (X[0, 0], [2, 1]),
            (R.normal(size=(2, 2, 3, 3)), [1, 0, 0, 1, 2, 1, 0, 2]),
        )
    ),
    case("pad", {"x": X}, parameters={"pad": [1, 1, 2, 0], "constant_val": -3.5}, expected=VALUE, label="value"),
    case(
        "pad",
        {"x": X, "pad": i32([0, 1, 0, 0, 2, 0])},
        parameters={"mode": "reflect"},
        expected=lambda x, pad, mode: np.pad(x, [(0, 1), (0, 0), (2, 0)], "reflect"),
        label="runtime",
    ),
)

MAKERS = rows(
    case("fill", parameters={"shape": [2, 3], "value": 1.5}, expected=lambda **_: np.full((2, 3), 1.5)),
    case("fill", {"shape": i32([3, 1])}, parameters={"value": 7}, expected=np.full((3, 1), 7, np.int32)),
    case("fill", {"shape": i32([2])}, parameters={"value": True}, expected=np.array([True, True])),
    case(
        "fill_like", {"ref_tensor": X}, parameters={"value": np.float32(2)}, since=16, expected=np.full((2, 3, 4), 2.0)
    ),
    case("fill_like", {"ref_tensor": i32([1, 2])}, parameters={"value": -2.5}, since=16, expected=np.full(2, -2.5)),
    case("range_1d", parameters={"start": 2, "end": 11, "step": 3}, expected=i32([2, 5, 8])),
    case("range_1d", parameters={"start": 2.0, "end": -1.0, "step": -0.5}, expected=VALUE),
    case(
        "range_1d",
        parameters={"start": 1.0, "end": 10.0, "step": 1e-5},
        expected=1 + np.arange(900000) * np.float64(np.float32(1e-5)),
        dtypes=("fp32",),
        label="length in f32",
    ),
    case(
        "range_1d",
        {"end": i32(4)},
        parameters={"start": 0, "step": 1},
        expected=i32([0, 1, 2, 3]),
        label="runtime",
    ),
    case(
        "range_1d",
        {"start": np.array(0.5)},
        parameters={"end": 3.0, "step": 1.0},
        expected=np.array([0.5, 1.5, 2.5]),
    ),
    case("one_hot", {"indices": i32([[1, 0], [2, 1]])}, parameters={"one_hot_vector_size": 3}, expected=one_hot),
    case(
        "one_hot",
        {"indices": i32([[1, 0], [2, 5]])},
        parameters={"one_hot_vector_size": 3, "axis": 1, "on_value": 0.5, "off_value": -1.0},
        expected=one_hot,
    ),
    case(
        "one_hot",
        {"indices": i32([1, -1, 2]), "one_hot_vector_size": i32(4)},
        parameters={"axis": 0, "on_value": True, "off_value": False},
        expected=lambda **given: one_hot(**given).astype(bool),
        label="bool",
    ),
    case("shape", {"x": X}, expected=i32([2, 3, 4]), label="static"),
    case("shape", {"x": i32([[1]])}, dims={"x": (None, None)}, expected=i32([1, 1]), label="open"),
    case("non_zero", {"x": i32([[0, 3], [4, 0]])}, expected=i32([[0, 1], [1, 0]])),
    case("non_zero", {"x": X * (X > 0)}, expected=VALUE),
    case("non_zero", {"x": X * 0}, expected=np.zeros((0, 3), np.int32), label="none"),
)

JOINS = rows(
    case("identity", {"x": X}, expected=lambda x: x),
    case(
        "concat",
        {"values": (X, Y[:, :1])},
        parameters={"axis": 1},
        expected=lambda values, axis: np.concatenate(values, 1),
    ),
    case("concat", {"values": (X, Y, X)}, parameters={"axis": -2, "interleave": True}, expected=interleaved),
    case("concat", {"values": (i32(3), i32(5))}, parameters={"axis": 0}, expected=i32([3, 5]), label="scalars"),
    case(
        "concat",
        {"values": (X > 0, Y > 0)},
        parameters={"axis": 0},
        expected=np.concatenate((X > 0, Y > 0)),
        label="bool",
    ),
    case("stack", {"values": (X, Y)}, parameters={"axis": 0}, expected=lambda values, axis: np.stack(values)),
    case("stack", {"values": (X, Y, X)}, parameters={"axis": -1}, expected=lambda values, axis: np.stack(values, -1)),
    case("stack", {"values": (i32(3), i32(5))}, parameters={"axis": 0}, expected=i32([3, 5]), label="scalars"),
    case(
        "split",
        {"x": X},
        parameters={"num_splits": 2, "axis": -1},
        expected=lambda x, **_: np.split(x, 2, -1),
    ),
    case("split", {"x": X}, parameters={"num_splits": 1, "axis": 0}, expected=lambda x, **_: x),
    case("split", {"x": X}, parameters={"split_sizes": [1, 2], "axis": 1}, expected=lambda x, **_: np.split(x, [1], 1)),
    case(
        "split",
        {"x": X},
        parameters={"num_splits": 2, "split_sizes": [3, 1], "axis": 2},
        expected=lambda x, **_: np.split(x, [3], 2),
        label="both",
    ),
    case("tile", {"x": X}, parameters={"reps": [1, 2, 3]}, expected=VALUE),
    case("tile", {"x": X, "reps": i32([2, 1, 1])}, expected=lambda x, reps: np.tile(x, reps), label="runtime"),
    *(
        case(
            "flatten2d",
            {"x": X},
            parameters={"axis": axis},
            expected=lambda x, axis: x.reshape(int(np.prod(x.shape[:axis])), -1),
        )
        for axis in (0, 1, -1, 2)
    ),
    case("flatten2d", {"x": X[0, 0]}, expected=lambda x: x.reshape(4, 1), label="vector"),
)

ORDERS = rows(
    *(
        case("band_part", {"x": X}, parameters={"lower": lower, "upper": upper}, expected=band)
        for lower, upper in ((0, -1), (-1, 0), (0, 0), (1, 1), (-1, -1))
    ),
    case("band_part", {"x": X > 0}, parameters={"upper": 1}, expected=band, label="bool"),
    *(
        case("cumsum", {"x": X}, parameters={"axis": axis, "exclusive": exclusive, "reverse": reverse}, expected=cumsum)
        for axis, exclusive, reverse in itertools.product((-1, 1), (False, True), (False, True))
    ),
    case("cumsum", {"x": i32([[1, 2], [3, 4]])}, expected=i32([[1, 2], [4, 6]]), label="int32"),
    *(
        case("argsort", {"x": shuffled(3, 4)}, parameters={"axis": axis, "ascending": ascending}, expected=VALUE)
        for axis, ascending in itertools.product((0, -1), (False, True))
    ),
    case("argsort", {"x": i32([1, 0, 1, 0])}, expected=i32([0, 2, 1, 3]), label="ties"),
    *(
        case(
            "topk",
            {"x": shuffled(3, 4)},
            parameters={"k": 2, "axis": axis, "ascending": ascending},
            since=(15, 16, 17),
            expected=topk,
        )
        for axis, ascending in itertools.product((0, -1), (False, True))
    ),
    case("topk", {"x": np.array([[1.0, 1, 0, 2, 1]])}, parameters={"k": 3}, expected=topk, label="ties"),
    case(
        "topk",
        {"x": shuffled(3, 4)},
        parameters={"k": 3, "return_indices": False},
        since=(16, 17),
        expected=lambda **given: topk(**given)[0],
    ),
    case(
        "topk",
        {"x": shuffled(5, kind="int8")},
        parameters={"k": 2, "sort": False, "output_indices_dtype": "uint16"},
        since=17,
        expected=topk,
    ),
    case("topk", {"x": shuffled(2000)}, parameters={"k": 5}, expected=topk, label="a long axis"),
)

# Two boxes that overlap by 1/5, best first: the corner case of coremltools' test_nms_corner_case_iou_equal_threshold.
PAIR = np.array([[[1.5, 2, 1, 2], [1, 1, 2, 2]]])
PAIR_SCORES = np.array([[[4.0], [2.0]]])


def tie(since, strict, kept, threshold=0.2, boxes=PAIR, dtypes=("fp32",)):
    both = since < 17
    parameters = {"iou_threshold": threshold, "max_boxes": 2} | ({"score_threshold": 0.0} if both else {})
    first, second = (boxes, PAIR_SCORES) if both else (boxes.mT, PAIR_SCORES.mT)
    index = i32([[0, 1 if kept == 2 else -1]])
    mask = (index >= 0)[..., None] if both else (index >= 0)[:, None]
    expected = (first * mask, second * mask, index, *((i32([kept]),) if both else ()))
    return case(
        "non_maximum_suppression",
        {"boxes": first, "scores": second},
        parameters=parameters,
        since=since,
        strict=strict,
        expected=expected,
        dtypes=dtypes,
        label=f"a share of {threshold}, {kept} kept",
    )


APART = np.array([[[1.5, 2, 1, 2], [9, 9, 2, 2]]])
TIES = rows(
    tie(15, False, 2),
    tie(17, False, 1),
    tie(17, True, 2),
    # In f16 the threshold is 0.19995 and below 1/5 everywhere.
    *(tie(since, strict, 1, dtypes=("fp16",)) for since in (15, 17) for strict in (False, True)),
    tie(17, False, 2, threshold=0.0, boxes=APART),
    tie(17, False, 1, threshold=0.0),
)

CASES = rows(MAKERS, JOINS, ORDERS, PADS, NMS, TIES)

test_op = table(CASES)


def test_topk_of_minus_one_takes_all():
    """coremltools' type inference cannot write such a program, whatever iOS17's text says."""
    values, indices = topk_op(torch.tensor([3.0, 1.0, 2.0]), k=-1)
    assert values.tolist() == [3, 2, 1]
    assert indices.tolist() == [0, 2, 1]
