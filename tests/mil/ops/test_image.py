"""MIL's image operations, against loops in numpy that follow the ops' texts, and coremltools' recorded examples.

Covers tlkit/mil/ops/kit/boxes.py, tlkit/mil/ops/kit/sampling.py.
"""

import numpy as np

from tests.mil.ops.optable import case, rows, table

RNG = np.random.default_rng(8)
X = RNG.normal(size=(2, 3, 4, 5))
RAMP = np.arange(1.0, 17).reshape(1, 1, 4, 4)
MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")


def points(size, count, mode):
    """The grid of ``resize_bilinear``'s text; ``size`` is a length, so last pixel less first one plus 1."""
    i = np.arange(count)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if count == 1:
            return np.array([(size - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0])
        return i * (size - 1) / (count - 1)
    if mode == "DEFAULT":
        at = i * size / count
    elif mode == "OFFSET_CORNERS":
        at = (i + 0.5) * max(1, size - 1) / count
    else:
        at = (i + 0.5) * size / count - 0.5
    return np.clip(at, 0, size - 1)


def interpolate(x, axis, at):
    """Linear interpolation at ``at`` of ``axis``."""
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    weight = (at - low).reshape(-1, *[1] * (x.ndim - 1 - axis % x.ndim))
    return np.take(x, low, axis) * (1 - weight) + np.take(x, high, axis) * weight


def bilinear(x, target_size_height=1, target_size_width=1, sampling_mode="DEFAULT"):
    x = interpolate(x, -2, points(x.shape[-2], target_size_height, sampling_mode))
    return interpolate(x, -1, points(x.shape[-1], target_size_width, sampling_mode))


def upsample(x, scale_factor_height=1, scale_factor_width=1, align_corners=True, half_pixel_centers=None):
    half = not align_corners if half_pixel_centers is None else half_pixel_centers
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if half else "DEFAULT"
    height, width = int(x.shape[-2] * scale_factor_height + 1e-6), int(x.shape[-1] * scale_factor_width + 1e-6)
    return bilinear(x, height, width, mode)


def middles(size, count):
    """The elements that the middles of the outputs' pixels fall in: TensorFlow's half-pixel centres."""
    return [int(np.floor((i + 0.5) * size / count + 1e-9)) for i in range(count)]


def nearest(x, target_size_height, target_size_width):
    rows, columns = middles(x.shape[-2], target_size_height), middles(x.shape[-1], target_size_width)
    return x[..., rows, :][..., columns]


def upsample_nearest(x, scale_factor_height=1, scale_factor_width=1):
    height, width = int(x.shape[-2] * scale_factor_height + 1e-6), int(x.shape[-1] * scale_factor_width + 1e-6)
    rows, columns = ([i * n // m for i in range(m)] for n, m in ((x.shape[-2], height), (x.shape[-1], width)))
    return x[..., rows, :][..., columns]


def resize(x, shape, resized_dims, interpolation_mode="LINEAR", sampling_mode="DEFAULT"):
    for axis in range(-int(resized_dims), 0):
        count = shape[axis] or x.shape[axis]
        if interpolation_mode == "LINEAR":
            x = interpolate(x, axis, points(x.shape[axis], count, sampling_mode))
        elif sampling_mode in ("DEFAULT", "UNALIGN_CORNERS"):
            x = np.take(x, middles(x.shape[axis], count), axis)
        else:
            at = np.floor(points(x.shape[axis], count, sampling_mode) + 0.5).astype(int)
            x = np.take(x, np.minimum(at, x.shape[axis] - 1), axis)
    return x


def crops(x, boxes, image, height, width, normalized, scale, box_mode, mode, pad_value):
    """Each box of each image, point by point."""
    out = np.full((len(boxes), x.shape[1], height, width), pad_value)
    for n, box in enumerate(boxes):
        a, b, c, d = box
        if box_mode.startswith("CENTER"):
            a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
        if box_mode.endswith("WIDTH_FIRST"):
            a, b, c, d = b, a, d, c
        spans = []
        for low, high, size, count in ((a, c, x.shape[2], height), (b, d, x.shape[3], width)):
            factor = scale * (size - 1 if normalized else 1)
            low, high = low * factor, high * factor
            spans.append(low + np.sign(high - low) * points(abs(high - low) + 1, count, mode))
        for i, row in enumerate(spans[0]):
            for j, column in enumerate(spans[1]):
                if 0 <= row <= x.shape[2] - 1 and 0 <= column <= x.shape[3] - 1:
                    line = interpolate(x[image[n]], 1, np.array([row]))
                    out[n, :, i, j] = interpolate(line, 2, np.array([column]))[:, 0, 0]
    return out


def crop_resize(
    x,
    boxes,
    box_indices=None,
    target_height=1,
    target_width=1,
    normalized_coordinates=False,
    spatial_scale=1.0,
    box_coordinate_mode="CORNERS_HEIGHT_FIRST",
    sampling_mode="DEFAULT",
    pad_value=0.0,
):
    image = range(len(boxes)) if box_indices is None else box_indices
    rest = (normalized_coordinates, spatial_scale, box_coordinate_mode, sampling_mode, pad_value)
    return crops(x, boxes, image, target_height, target_width, *rest)


def crop_resize_roi(x, roi, **rest):
    flat = roi.reshape(len(roi), -1)
    if flat.shape[1] == 5:
        return crop_resize(x, flat[:, 1:], flat[:, 0].astype(int), **rest)[:, None]
    every = [crop_resize(x, flat, [b] * len(flat), **rest) for b in range(len(x))]
    return np.stack(every, 1)


def reflect(at, size, edge):
    """Walk back and forth between the image's ends until inside."""
    low, high = -edge, size - 1 + edge
    if low == high:
        return 0.0
    while not low <= at <= high:
        at = 2 * low - at if at < low else 2 * high - at
    return float(np.clip(at, 0, size - 1))


def resample(x, coordinates, sampling_mode, padding_mode, padding_value, coordinates_mode, align_corners):
    batch, height, width, _ = coordinates.shape
    out = np.zeros((batch, x.shape[1], height, width))

    def pixel(at, size):
        if coordinates_mode != "unnormalized":
            part = (at + 1) / 2 if "minus" in coordinates_mode else at
            at = part * (size - 1) if align_corners else part * size - 0.5
        if padding_mode in ("reflection", "symmetric"):
            at = reflect(at, size, 0.5 if padding_mode == "symmetric" else 0.0)
        return at

    def value(b, row, column):
        inside = 0 <= row < x.shape[2] and 0 <= column < x.shape[3]
        if padding_mode == "constant" and not inside:
            return np.full(x.shape[1], padding_value)
        return x[b, :, min(max(row, 0), x.shape[2] - 1), min(max(column, 0), x.shape[3] - 1)]

    for b, i, j in np.ndindex(batch, height, width):
        column, row = (
            pixel(float(coordinates[b, i, j, 0]), x.shape[3]),
            pixel(float(coordinates[b, i, j, 1]), x.shape[2]),
        )
        if sampling_mode == "nearest":
            out[b, :, i, j] = value(b, round(row), round(column))
            continue
        top, left = int(np.floor(row)), int(np.floor(column))
        for r, c in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            out[b, :, i, j] += value(b, r, c) * (1 - abs(row - r)) * (1 - abs(column - c))
    return out


RESIZED = [
    case(
        "resize_bilinear",
        {"x": x},
        parameters={"target_size_height": h, "target_size_width": w, "sampling_mode": mode},
        expected=bilinear,
        label=f"{mode}-{x.ndim}d-{h}x{w}",
    )
    for mode in MODES
    for x, h, w in ((X, 7, 9), (X, 3, 2), (X[0], 8, 3), (X, 1, 1), (X, 1, 6), (X[..., None, :, :], 4, 5))
]
BOXES = np.array([[0.5, 0.25, 2.5, 3.75], [3.0, 4.0, 1.0, 0.0], [-1.0, 1.0, 2.0, 5.0]])
UNIT_BOXES = np.array([[0.1, 0.3, 1.3, 1.0], [0.5, 1.8, 1.0, 0.3], [0.0, 0.4, 0.6, 0.7]])
WHICH = np.array([1, 0, 1], np.int32)
TARGET = {"target_height": 3, "target_width": 2}
COORDINATES = RNG.uniform(-1.6, 1.6, size=(2, 3, 4, 2))
RECORDED = np.array([-1.0, -2.0, -3.7, -1.0, 0.0, 0.0, 3.5, 1.2]).reshape(1, 2, 2, 2)
FOUR = np.array([11.0, 22.0, 33.0, 44.0]).reshape(1, 1, 2, 2)


def sampling(mode="bilinear", padding="constant", value=0.0, at="normalized_minus_one_to_one", align=True):
    return {
        "sampling_mode": mode,
        "padding_mode": padding,
        "padding_value": value,
        "coordinates_mode": at,
        "align_corners": align,
    }


AFFINE = {"output_height": 3, "output_width": 4, **sampling()}
RECORDED_AFFINE = {"output_height": 3, "output_width": 3, **sampling()}


def affine(x, transform_matrix, output_height, output_width, **rest):
    theta = np.broadcast_to(transform_matrix, (len(x), 6)).reshape(-1, 2, 3)
    at = np.ones((output_height, output_width, 3))
    at[..., 0] = np.linspace(-1, 1, output_width)
    at[..., 1] = np.linspace(-1, 1, output_height)[:, None]
    return resample(x, np.einsum("hwk,bck->bhwc", at, theta), **rest)


CASES = rows(
    *RESIZED,
    case(
        "resize_nearest_neighbor",
        {"x": X},
        parameters={"target_size_height": 7, "target_size_width": 3},
        expected=nearest,
    ),
    case(
        "resize_nearest_neighbor",
        {"x": X[0]},
        parameters={"target_size_height": 82, "target_size_width": 205},
        expected=nearest,
        label="much",
    ),
    *[
        case(
            "upsample_bilinear",
            {"x": X},
            parameters={"scale_factor_height": h, "scale_factor_width": w, "align_corners": align},
            expected=upsample,
            since=(15, 16),
            label=f"{h}x{w}-{align}",
        )
        for h, w in ((2, 3), (np.float32(2.5), np.float32(1.7)), (np.float32(0.7), np.float32(0.5)))
        for align in (True, False)
    ],
    case("upsample_bilinear", {"x": X}, expected=upsample),
    *[
        case(
            "upsample_bilinear",
            {"x": X},
            parameters={
                "scale_factor_height": 2,
                "scale_factor_width": 3,
                "align_corners": align,
                "half_pixel_centers": half,
            },
            expected=upsample,
            since=16,
        )
        for align, half in ((True, False), (False, True), (False, False))
    ],
    *[
        case(
            "upsample_nearest_neighbor",
            {"x": x},
            parameters={"scale_factor_height": h, "scale_factor_width": w},
            expected=upsample_nearest,
            label=f"{x.ndim}d-{h}x{w}",
        )
        for x in (X, X[0])
        for h, w in ((2, 3), (np.float32(2.5), np.float32(0.7)))
    ],
    *[
        case(
            "resize",
            {"x": X},
            parameters={
                "shape": shape,
                "resized_dims": np.uint32(dims),
                "interpolation_mode": kind,
                "sampling_mode": mode,
            },
            expected=resize,
            since=17,
            label=f"{kind}-{mode}-{dims}",
        )
        for kind in ("LINEAR", "NEAREST_NEIGHBOR")
        for mode in MODES
        for shape, dims in (([7, 3], 2), ([1, 2, 0, 9], 3))
    ],
    case(
        "resize",
        {"x": np.array([-6.174, 9.371]).reshape(1, 1, 2, 1)},
        parameters={"shape": [1, 1, 3, 2], "resized_dims": np.uint32(2), "interpolation_mode": "NEAREST_NEIGHBOR"},
        expected=np.array([-6.174, -6.174, 9.371, 9.371, 9.371, 9.371]).reshape(1, 1, 3, 2),
        since=17,
        label="recorded",
    ),
    case(
        "upsample_nearest_neighbor",
        {"x": np.array([1.5, -2.5, 3.5]).reshape(1, 1, 1, 3)},
        parameters={"scale_factor_height": np.float32(3.17), "scale_factor_width": np.float32(0.67)},
        expected=np.array([1.5, -2.5, 1.5, -2.5, 1.5, -2.5]).reshape(1, 1, 3, 2),
        label="recorded",
    ),
    case(
        "resize",
        {"x": X, "shape": np.array([1, 6, 0], np.int32)},
        parameters={"resized_dims": np.uint32(2)},
        expected=resize,
        since=17,
        label="run-time-shape",
    ),
    case(
        "resize",
        {"x": np.arange(6, dtype=np.int32).reshape(1, 2, 3)},
        parameters={"shape": [4, 6], "resized_dims": np.uint32(2), "interpolation_mode": "NEAREST_NEIGHBOR"},
        expected=resize,
        since=17,
    ),
    case(
        "crop",
        {"x": X},
        parameters={"crop_height": [1, 0], "crop_width": [1, 2]},
        expected=lambda x, crop_height, crop_width: x[..., 1:, 1:3],
    ),
    *[
        case(
            "crop_resize",
            {"x": X},
            parameters={"boxes": BOXES, "box_indices": WHICH, "sampling_mode": mode, **TARGET, **extra},
            expected=crop_resize,
            since=17,
            label=f"{mode}-{'-'.join(map(str, extra.values()))}",
        )
        for mode in MODES
        for extra in ({}, {"pad_value": 7.0}, {"target_height": 1, "target_width": 1})
    ],
    *[
        case(
            "crop_resize",
            {"x": X},
            parameters={
                "boxes": UNIT_BOXES,
                "box_indices": WHICH,
                "normalized_coordinates": True,
                "box_coordinate_mode": box,
                **TARGET,
            },
            expected=crop_resize,
            since=17,
        )
        for box in (
            "CORNERS_HEIGHT_FIRST",
            "CORNERS_WIDTH_FIRST",
            "CENTER_SIZE_HEIGHT_FIRST",
            "CENTER_SIZE_WIDTH_FIRST",
        )
    ],
    case(
        "crop_resize",
        {"x": X},
        parameters={"boxes": BOXES[:2], "spatial_scale": np.float32(0.5), **TARGET},
        expected=crop_resize,
        since=17,
        label="scale-and-all-images",
    ),
    *[
        case(
            "crop_resize",
            {"x": X},
            parameters={"roi": roi, "sampling_mode": "ALIGN_CORNERS", **TARGET},
            expected=crop_resize_roi,
            since=(15, 16),
            program=program,
            label=label,
        )
        for label, roi, program in (
            ("every-image", BOXES[:2].reshape(2, 1, 4, 1, 1), None),
            # coremltools declares [N, B, ...] for this one too; Core ML gives [N, 1, ...], as the op's text says
            ("one-image", np.concatenate([WHICH[:, None], BOXES], 1).reshape(3, 1, 5, 1, 1), None),
        )
    ],
    case(
        "crop_resize",
        {"x": RAMP},
        parameters={
            "roi": np.array([2.0, 2, 1, 1]).reshape(1, 1, 4, 1, 1),
            "target_height": 2,
            "target_width": 2,
            "normalized_coordinates": True,
            "sampling_mode": "UNALIGN_CORNERS",
        },
        expected=np.array([3.5, 5.5, 11.5, 13.5]).reshape(1, 1, 1, 2, 2),
        since=(15, 16),
        label="recorded-unalign",
    ),
    case(
        "crop_resize",
        {"x": RAMP},
        parameters={
            "roi": np.concatenate([np.zeros((3, 1)), UNIT_BOXES], 1).reshape(3, 1, 5, 1, 1),
            "target_height": 2,
            "target_width": 2,
            "normalized_coordinates": True,
            "sampling_mode": "ALIGN_CORNERS",
            "pad_value": 10.0,
        },
        expected=np.array([3.1, 5.2, 10, 10, 10, 7.9, 10, 13.9, 2.2, 3.1, 9.4, 10.3]).reshape(3, 1, 1, 2, 2),
        since=16,
        label="recorded",
    ),
    *[
        case(
            "resample",
            {"x": X, "coordinates": COORDINATES * (3 if at == "unnormalized" else 1)},
            parameters=sampling(mode, padding, 1.5, at, align),
            expected=resample,
            since=16,
            label=f"{mode}-{padding}-{at}-{align}",
        )
        for mode in ("bilinear", "nearest")
        for padding in ("constant", "border", "reflection", "symmetric")
        for at in ("unnormalized", "normalized_minus_one_to_one", "normalized_zero_to_one")
        for align in (True, False)
    ],
    *[
        case(
            "resample",
            {"x": X, "coordinates": COORDINATES.astype(np.float32)},
            parameters=sampling(padding=padding, align=align),
            expected=resample,
            since=15,
            label=f"zeros-{padding}-{align}",
        )
        for padding in ("constant", "border")
        for align in (True, False)
    ],
    *[
        case(
            "resample",
            {"x": FOUR, "coordinates": RECORDED},
            parameters=sampling(*mode),
            expected=np.array(wanted).reshape(1, 1, 2, 2),
            since=16,
            label=f"recorded-{i}",
        )
        for i, (mode, wanted) in enumerate(
            (
                (("bilinear", "constant", 6.17), [8.585, 6.17, 27.5, 6.17]),
                (("nearest", "border", -1.0, "unnormalized", False), [11, 11, 11, 44]),
                (("bilinear", "reflection", -1.0, "normalized_zero_to_one"), [22, 36.3, 11, 34.1]),
                (("nearest", "symmetric", -1.0, "normalized_zero_to_one", False), [22, 33, 11, 33]),
            )
        )
    ],
    *[
        case(
            "resample",
            {"x": X, "coordinates": np.array([[[[0, 1], [2, 3]]], [[[1, 1], [4, 0]]]], kind)},
            parameters=sampling(at="unnormalized"),
            expected=resample,
            since=since,
            label=np.dtype(kind).name,
        )
        for since, kinds in ((15, (np.int32,)), (17, (np.int8, np.uint8, np.int16, np.uint16)))
        for kind in kinds
    ],
    case(
        "affine",
        {"x": X, "transform_matrix": np.array([[0.8, 0.3, 0.1, -0.2, 1.1, -0.3]])},
        parameters=AFFINE,
        expected=affine,
    ),
    case(
        "affine",
        {"x": X, "transform_matrix": RNG.normal(size=(2, 6))},
        parameters=AFFINE,
        expected=affine,
        label="one-each",
    ),
    case(
        "affine",
        {"x": FOUR, "transform_matrix": np.array([[-1.0, -2.0, -3.7, -1.0, 3.5, 1.2]])},
        parameters=RECORDED_AFFINE,
        expected=np.array([10.752501, 2.5025, 0, 1.9799997, 0, 0, 0, 0, 0]).reshape(1, 1, 3, 3),
        rtol=2e-3,
        atol=2e-2,
        label="recorded",
    ),
)

test_op = table(CASES)
