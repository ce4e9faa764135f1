"""Gathers and scatters against numpy, loop by loop; indices out of range against what tlkit promises."""

import itertools

import numpy as np

from tests.mil.ops.optable import VALUE, case, rows, table

R = np.random.default_rng(1)
X = R.normal(size=(3, 4, 5))
MODES = ("update", "add", "sub", "mul", "div", "max", "min")


def i32(values):
    return np.array(values, dtype=np.int32)


def combine(mode, old, new):
    return {
        "update": lambda: new,
        "add": lambda: old + new,
        "sub": lambda: old - new,
        "mul": lambda: old * new,
        "div": lambda: old / new,
        "max": lambda: max(old, new),
        "min": lambda: min(old, new),
    }[mode]()


def scatter_along(data, indices, updates, axis=0, mode="add", validate_indices=False):
    out = data.copy()
    for place in np.ndindex(*indices.shape):
        target = list(place)
        target[axis] = indices[place]
        if -data.shape[axis] <= indices[place] < data.shape[axis]:
            out[tuple(target)] = combine(mode, out[tuple(target)], updates[place])
    return out


def scatter_slices(data, indices, updates, axis=0, mode="add", validate_indices=False):
    view = [1] * data.ndim
    view[axis] = -1
    return scatter_along(data, np.broadcast_to(indices.reshape(view), updates.shape), updates, axis, mode)


def scatter_nd(data, indices, updates, mode="add", validate_indices=False):
    out = data.copy()
    for place in np.ndindex(*indices.shape[:-1]):
        target = tuple(indices[place])
        for inner in np.ndindex(*data.shape[len(target) :]):
            out[target + inner] = combine(mode, out[target + inner], updates[place + inner])
    return out


def gather_batched(x, indices, axis=0, batch_dims=0, validate_indices=False):
    out_shape = x.shape[:axis] + indices.shape[batch_dims:] + x.shape[axis + 1 :]
    inner = indices.ndim - batch_dims
    out = np.empty(out_shape)
    for place in np.ndindex(*out_shape):
        chosen = indices[place[:batch_dims] + place[axis : axis + inner]]
        out[place] = x[(*place[:axis], chosen, *place[axis + inner :])]
    return out


def gather_nd(x, indices, batch_dims=0, validate_indices=False):
    depth = indices.shape[-1]
    out = np.empty(indices.shape[:-1] + x.shape[batch_dims + depth :])
    for place in np.ndindex(*indices.shape[:-1]):
        out[place] = x[place[:batch_dims] + tuple(indices[place])]
    return out


GATHERS = rows(
    case("gather", {"x": X, "indices": i32([2, 0, -1])}, since=(15, 16), expected=lambda x, indices: x[indices]),
    case(
        "gather",
        {"x": X, "indices": i32([[2, 0], [-4, 3]])},
        parameters={"axis": 1},
        expected=lambda x, indices, axis: x[:, indices],
    ),
    case("gather", {"x": X, "indices": i32([2, 0])}, parameters={"axis": -1}, since=(15, 17), expected=VALUE),
    case("gather", {"x": X, "indices": i32(1)}, since=(15, 17), expected=lambda x, indices: x[1], label="scalar index"),
    case("gather", {"x": i32([7, 8, 9]), "indices": i32(2)}, since=(15, 17), expected=i32(9), label="to a scalar"),
    case(
        "gather",
        {"x": X, "indices": R.integers(0, 4, size=(3, 2)).astype(np.int32)},
        parameters={"axis": 1, "batch_dims": 1},
        since=(16, 17),
        expected=gather_batched,
    ),
    case(
        "gather",
        {"x": X, "indices": R.integers(0, 5, size=(3, 2, 2)).astype(np.int32)},
        parameters={"axis": 2, "batch_dims": 1},
        since=(16, 17),
        expected=gather_batched,
    ),
    case(
        "gather",
        {"x": X, "indices": R.integers(0, 5, size=(3, 4)).astype(np.int32)},
        parameters={"axis": 2, "batch_dims": 2},
        since=(16, 17),
        expected=gather_batched,
    ),
    case(
        "gather",
        {"x": X, "indices": i32([5, -1])},
        since=17,
        expected=lambda x, indices: x[[2, 0]],
        label="out of range",
    ),
    case(
        "gather",
        {"x": X, "indices": i32([0, 3])},
        parameters={"validate_indices": True},
        since=17,
        fails="out of range",
    ),
    *(
        case(
            "gather",
            {"x": np.arange(5).astype(kind), "indices": np.array([4, 1]).astype(index)},
            since=17,
            expected=np.array([4, 1]),
            label=f"{kind} at {index}",
        )
        for kind, index in itertools.product(("int8", "uint8", "uint16"), ("int8", "uint8", "uint16"))
    ),
    case(
        "gather_along_axis",
        {"x": X, "indices": R.integers(-4, 4, size=(3, 2, 5)).astype(np.int32)},
        parameters={"axis": 1},
        since=(15, 16),
        expected=VALUE,
    ),
    case(
        "gather_along_axis",
        {"x": X, "indices": R.integers(0, 5, size=(3, 4, 7)).astype(np.int16)},
        parameters={"axis": -1},
        since=(16, 17),
        expected=VALUE,
    ),
    case(
        "gather_along_axis",
        {"x": X[:, 0, 0], "indices": i32([-1, 3])},
        parameters={"validate_indices": True},
        since=17,
        fails="out of range",
    ),
    case("gather_nd", {"x": X, "indices": i32([[0, 1], [2, -1]])}, since=(15, 16), expected=gather_nd, strict=True),
    case(  # Core ML does not count negative indices from the end; here they read the nearest element
        "gather_nd",
        {"x": X, "indices": i32([[0, 1], [2, -1]])},
        since=(15, 16),
        expected=np.stack([X[0, 1], X[2, 0]]),
    ),
    case(  # constant ones do count, as coremltools' own tests of iOS15 expect
        "gather_nd",
        {"x": X},
        parameters={"indices": i32([[0, 1], [2, -1]])},
        since=(15, 16),
        expected=np.stack([X[0, 1], X[2, -1]]),
    ),
    case("gather_nd", {"x": X, "indices": i32([[[0, 1, 4]], [[2, 3, 0]]])}, since=(15, 17), expected=gather_nd),
    case(
        "gather_nd",
        {"x": X, "indices": i32([[[3], [1]], [[0], [0]], [[2], [1]]])},
        parameters={"batch_dims": 1},
        since=(16, 17),
        expected=gather_nd,
    ),
    case(
        "gather_nd",
        {"x": X, "indices": i32([[[4], [0], [1], [1]], [[0], [0], [0], [0]], [[2], [1], [3], [3]]])},
        parameters={"batch_dims": 2},
        since=(16, 17),
        expected=gather_nd,
    ),
    case(
        "gather_nd",
        {"x": X, "indices": i32([[0, 4]])},
        parameters={"validate_indices": True},
        since=17,
        fails="out of range",
    ),
)

DATA = R.uniform(0.5, 2, size=(3, 4, 2))
SCATTERS = rows(
    *(
        case(
            "scatter",
            {"data": DATA, "indices": i32([2, 0, 2]), "updates": R.uniform(0.5, 2, size=(3, 4, 2))},
            parameters={"axis": 0, "mode": mode},
            since=(15, 17),
            expected=scatter_slices,
        )
        for mode in MODES
    ),
    case(
        "scatter",
        {"data": DATA, "indices": i32([-1, 1]), "updates": R.normal(size=(3, 2, 2))},
        parameters={"axis": -2},
        since=15,
        expected=scatter_slices,
        label="negative indices",
    ),
    case(
        "scatter",
        {"data": DATA, "indices": i32([-1, 1, 9]), "updates": np.ones((3, 3, 2))},
        parameters={"axis": 1},
        since=17,
        expected=lambda data, **_: data + np.array([0, 1, 0, 0])[:, None],
        label="out of range",
    ),
    case(
        "scatter",
        {"data": i32([8, 7, 9]), "indices": i32([0, 2]), "updates": i32([3, -2])},
        parameters={"mode": "div"},
        expected=i32([2, 7, -4]),
        label="int32",
    ),
    case(
        "scatter",
        {"data": DATA, "indices": i32([0, 3]), "updates": np.ones((2, 4, 2))},
        parameters={"validate_indices": True},
        since=17,
        fails="out of range",
    ),
    *(
        case(
            "scatter_along_axis",
            {
                "data": DATA,
                "indices": np.stack([R.permutation(4)[:3] for _ in range(6)]).reshape(3, 2, 3).mT.astype(np.int32),
                "updates": R.uniform(0.5, 2, size=(3, 3, 2)),
            },
            parameters={"axis": 1, "mode": mode},
            since=(15, 17),
            expected=scatter_along,
        )
        for mode in MODES
    ),
    case(
        "scatter_along_axis",
        {"data": DATA[0], "indices": i32([[-1, -4], [1, 1]]), "updates": R.normal(size=(2, 2))},
        expected=scatter_along,
        label="negative indices",
    ),
    case(
        "scatter_along_axis",
        {"data": DATA[0], "indices": i32([[-1, 0], [1, 1]]), "updates": R.normal(size=(2, 2))},
        parameters={"validate_indices": True},
        since=17,
        fails="out of range",
    ),
    *(
        case(
            "scatter_nd",
            {"data": DATA, "indices": i32([[0, 1], [2, 3], [1, 0]]), "updates": R.uniform(0.5, 2, size=(3, 2))},
            parameters={"mode": mode},
            since=(15, 17),
            expected=scatter_nd,
        )
        for mode in MODES
    ),
    case(
        "scatter_nd",
        {"data": DATA, "indices": i32([[[-1, 0, 1]], [[0, 0, 0]]]), "updates": R.normal(size=(2, 1))},
        expected=scatter_nd,
        label="negative indices",
    ),
    case(
        "scatter_nd",
        {"data": DATA, "indices": i32([[0, -1], [0, 2], [3, 0]]), "updates": np.ones((3, 2))},
        since=17,
        expected=lambda data, **_: data + np.outer(np.arange(3) == 0, np.arange(4) == 2)[:, :, None],
        label="out of range",
    ),
    case(
        "scatter_nd",
        {"data": DATA, "indices": i32([[0, 4]]), "updates": np.ones((1, 2))},
        parameters={"validate_indices": True},
        since=17,
        fails="out of range",
    ),
)

CASES = rows(GATHERS, SCATTERS)

test_op = table(CASES)
