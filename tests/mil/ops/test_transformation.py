"""Ops that move elements: numpy's indexing and coremltools' folding are the oracles."""

import itertools

import numpy as np
import pytest
import torch

from tests.mil.ops.optable import VALUE, case, rows, table
from tlkit.errors import ExecutionError
from tlkit.mil.ops.transformation import reverse_sequence

R = np.random.default_rng(0)
X = R.normal(size=(2, 3, 4))
INTS = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
SMALL = {kind: np.arange(24).reshape(2, 3, 4).astype(kind) for kind in ("int8", "uint8", "int16", "uint16", "bool")}


def i32(*values):
    return np.array(values, dtype=np.int32)


def slicing(begin, end, stride=None, begin_mask=None, end_mask=None, squeeze_mask=None, label="", **rest):
    """A row of slice_by_index, whose oracle is numpy's own indexing."""
    given = {"stride": stride, "begin_mask": begin_mask, "end_mask": end_mask, "squeeze_mask": squeeze_mask}
    parameters = {"begin": list(begin), "end": list(end)} | {k: list(v) for k, v in given.items() if v is not None}
    index = index_of(**{"rank": len(begin), "begin": begin, "end": end} | given)
    return case(
        "slice_by_index", {"x": X}, parameters=parameters, expected=lambda x, **_: x[index], label=label, **rest
    )


def index_of(rank, begin, end, stride, begin_mask, end_mask, squeeze_mask):
    index = []
    for i in range(rank):
        first = None if begin_mask and begin_mask[i] else begin[i]
        last = None if end_mask and end_mask[i] else end[i]
        index.append(first if squeeze_mask and squeeze_mask[i] else slice(first, last, stride[i] if stride else None))
    return tuple(index)


T, N = True, False
SLICES = [
    slicing((1, 1, 1), (2, 2, 2)),
    slicing((1, 1, 1), (2, 3, 4), (1, 1, 2)),
    slicing((-2, -3, -3), (-1, -1, -1)),
    slicing((0, 0, -3), (-1, -2, -2)),
    slicing((-1, -1, -1), (0, 1, -3), (-2, -1, -3)),
    slicing((1, 1, 1), (2, 3, 4), (1, 1, 2), (T, N, T)),
    slicing((1, 1, 1), (2, 3, 4), (1, 1, 2), (T, N, T), (T, T, N)),
    slicing((1, 1, 1), (2, 3, 3), (1, 1, 2), (N, N, T), (T, N, N), (N, T, N)),
    slicing((0, 0, 0), (0, 0, 0), None, (T, T, T), (T, T, T)),
    slicing((1, 1, 1), (2, 2, 0), (1, 1, 1), None, None, (N, N, T)),
    slicing((0, 0, 0), (0, 0, 0), (1, 1, 1), (N, N, T), (N, N, T), (T, T, N)),
    slicing((0, 0, 0), (0, 0, 0), (1, 1, -1), (T, T, T), (T, T, T)),
    slicing((0, -1, 0), (0, 0, 0), (-1, 1, -2), (T, N, T), (T, T, T), (N, T, N)),
    slicing((0, 0, 0), (2, 3, 2147483647)),
    slicing((1, 2, 3), (0, 0, 0), None, None, None, (T, T, T), label="scalar"),
]


def reshape_rows():
    return rows(
        case("reshape", {"x": X}, parameters={"shape": [4, 6]}, expected=lambda x, shape: x.reshape(4, 6)),
        case("reshape", {"x": X}, parameters={"shape": [0, -1, 2]}, expected=lambda x, shape: x.reshape(2, 6, 2)),
        case("reshape", {"x": X}, parameters={"shape": [-1]}, expected=VALUE),
        case("reshape", {"x": np.array([3.0])}, parameters={"shape": [1, 1]}, expected=VALUE),
        case(
            "reshape",
            {"x": X[0]},
            parameters={"shape": [1, 0, -1, 0]},
            since=17,
            expected=lambda x, shape: x.reshape(1, 1, 3, 4),
        ),
        case(
            "reshape",
            {"x": X, "shape": i32(3, -1)},
            expected=lambda x, shape: x.reshape(3, 8),
            label="runtime shape",
        ),
        case(
            "reshape",
            {"x": X},
            dims={"x": (2, None, None)},
            program=flattened,
            expected=lambda x: x.reshape(2, 12),
            label="shape from shape",
        ),
        *(
            case("reshape", {"x": SMALL[kind]}, parameters={"shape": [6, 4]}, since=17, expected=VALUE, label=kind)
            for kind in SMALL
        ),
    )


def flattened(mb, x):
    """What a converter writes for x.view(x.size(0), -1) of an open shape."""
    first = mb.gather(x=mb.shape(x=x), indices=0, axis=0)
    return mb.reshape(x=x, shape=mb.concat(values=[first, -1], axis=0))


def reversed_sequences(x, lengths, seq_axis=0, batch_axis=0):
    out = x.copy()
    for i, length in enumerate(lengths):
        part = np.moveaxis(np.take(x, i, batch_axis), seq_axis - (seq_axis > batch_axis), 0).copy()
        part[:length] = part[:length][::-1]
        index = [slice(None)] * x.ndim
        index[batch_axis] = i
        out[tuple(index)] = np.moveaxis(part, 0, seq_axis - (seq_axis > batch_axis))
    return out


def windows(x, axis, size, stride=1):
    axis %= x.ndim
    parts = [np.take(x, range(i, i + size), axis) for i in range(0, x.shape[axis] - size + 1, stride)]
    return np.stack(parts, axis)


def depth_to_space(x, block_size):
    n, c, h, w = x.shape
    out = np.empty((n, c // block_size**2, h * block_size, w * block_size))
    for i, j, k in itertools.product(range(block_size), range(block_size), range(out.shape[1])):
        out[:, k, i::block_size, j::block_size] = x[:, (i * block_size + j) * out.shape[1] + k]
    return out


def space_to_depth(x, block_size):
    places = itertools.product(range(block_size), range(block_size))
    return np.concatenate([x[:, :, i::block_size, j::block_size] for i, j in places], 1)


def space_to_batch(x, block_shape, paddings):
    x = np.pad(x, [(0, 0), (0, 0), *paddings])
    places = itertools.product(range(block_shape[0]), range(block_shape[1]))
    return np.concatenate([x[:, :, i :: block_shape[0], j :: block_shape[1]] for i, j in places], 0)


def batch_to_space(x, block_shape, crops):
    a, b = block_shape
    n = x.shape[0] // (a * b)
    out = np.empty((n, x.shape[1], x.shape[2] * a, x.shape[3] * b))
    for k, (i, j) in enumerate(itertools.product(range(a), range(b))):
        out[:, :, i::a, j::b] = x[k * n : (k + 1) * n]
    return out[:, :, crops[0][0] : out.shape[2] - crops[0][1], crops[1][0] : out.shape[3] - crops[1][1]]


def updated(x, update, begin, end, stride=None, begin_mask=None, end_mask=None, squeeze_mask=None):
    out = x.copy()
    index = index_of(len(begin), begin, end, stride, begin_mask, end_mask, squeeze_mask)
    out[index] = update.reshape(out[index].shape)
    return out


CASES = rows(
    reshape_rows(),
    *SLICES,
    case(
        "slice_by_index",
        {"x": INTS, "begin": i32(1, 1, 1), "end": i32(2, 3, 3)},
        expected=INTS[1:2, 1:3, 1:3],
        label="runtime",
    ),
    case(
        "slice_by_index",
        {"x": SMALL["int8"], "begin": np.array([1, 1, 1], np.int8), "end": np.array([2, 3, 3], np.int8)},
        expected=SMALL["int8"][1:2, 1:3, 1:3],
        since=17,
        label="int8",
    ),
    case(
        "reshape_like",
        {"x": R.normal(size=(4, 3)), "ref_tensors": (np.zeros((2, 2, 3)), np.zeros((1, 3)))},
        program=lambda mb, x, a, b: mb.reshape_like(
            x=x, ref_tensors=(a, b), begins=(0, 1), ends=(2, 2), end_masks=(False, False)
        ),
        expected=lambda x, ref_tensors: x.reshape(2, 2, 3),
        since=(16, 17),
    ),
    case(
        "reshape_like",
        {"x": R.normal(size=(72, 1)), "ref_tensors": (np.zeros((1, 2, 3, 4, 1)), i32(1, 2, 3))},
        program=lambda mb, x, a, b: mb.reshape_like(
            x=x, ref_tensors=(a, b), begins=(1, 0), ends=(0, 1), end_masks=(True, False)
        ),
        expected=lambda x, ref_tensors: x.reshape(2, 3, 4, 1, 3),
        since=(16, 17),
    ),
    case(
        "reshape_like",
        {"x": R.normal(size=(6,)), "ref_tensors": (np.zeros((1, 2, 3)),)},
        program=lambda mb, x, a: mb.reshape_like(x=x, ref_tensors=(a,), begins=(1,), ends=(0,), end_masks=(True,)),
        expected=lambda x, ref_tensors: x.reshape(2, 3),
        since=16,
        label="one reference",
    ),
    case("expand_dims", {"x": X}, parameters={"axes": [0]}, expected=VALUE),
    case("expand_dims", {"x": X}, parameters={"axes": [-1]}, expected=VALUE),
    case("expand_dims", {"x": X}, parameters={"axes": [-2, 0, 3]}, expected=VALUE),
    case("expand_dims", {"x": np.array(2.0)}, parameters={"axes": [0]}, expected=lambda x, axes: x.reshape(1)),
    case("expand_dims", {"x": SMALL["uint16"]}, parameters={"axes": [1]}, since=17, expected=VALUE),
    case("squeeze", {"x": X[None, :, None]}, parameters={"axes": [0, 2]}, expected=VALUE),
    case("squeeze", {"x": X[None, :, None]}, parameters={"axes": [-3]}, expected=VALUE),
    case("squeeze", {"x": X[None, :, None]}, expected=VALUE, label="all"),
    case("squeeze", {"x": X[None]}, parameters={"axes": [0, 1]}, expected=lambda x, axes: x[0], label="not of 1"),
    case("squeeze", {"x": np.array([[7.0]])}, expected=lambda x: x.reshape(()), label="to a scalar"),
    case("transpose", {"x": X}, parameters={"perm": [2, 0, 1]}, expected=VALUE),
    case("transpose", {"x": X}, parameters={"perm": [-1, -3, -2]}, expected=VALUE),
    case("transpose", {"x": SMALL["uint8"]}, parameters={"perm": [1, 0, 2]}, since=17, expected=VALUE),
    case("slice_by_size", {"x": X}, parameters={"begin": [1, 0, -3], "size": [1, -1, 2]}, expected=VALUE),
    case(
        "slice_by_size",
        {"x": X, "begin": i32(0, 1, 1), "size": i32(1, -1, 2)},
        expected=lambda x, begin, size: x[:1, 1:, 1:3],
        label="runtime",
    ),
    case(
        "slice_update",
        {"x": X, "update": R.normal(size=(1, 2, 3))},
        parameters={"begin": [1, 0, 1], "end": [2, 2, 4]},
        since=18,
        expected=updated,
    ),
    case(
        "slice_update",
        {"x": X, "update": R.normal(size=(2, 2))},
        parameters={
            "begin": [0, -1, 3],
            "end": [0, 0, 0],
            "stride": [1, 1, -2],
            "begin_mask": [T, N, N],
            "end_mask": [T, N, T],
            "squeeze_mask": [N, T, N],
        },
        since=18,
        expected=updated,
        label="masks, a stride of -2",
    ),
    case(
        "slice_update",
        {"x": X, "update": R.normal(size=(2, 1, 4)), "begin": i32(0, 2, 0), "end": i32(2, 3, 4)},
        since=18,
        expected=updated,
        label="runtime",
    ),
    case("reverse", {"x": X}, expected=VALUE, label="all"),
    case("reverse", {"x": X}, parameters={"axes": [-1, 0]}, expected=VALUE),
    case("reverse", {"x": SMALL["bool"]}, parameters={"axes": [1]}, since=17, expected=VALUE),
    case(
        "reverse_sequence",
        {"x": X, "lengths": i32(2, 3)},
        parameters={"seq_axis": 1, "batch_axis": 0},
        expected=reversed_sequences,
    ),
    case(
        "reverse_sequence",
        {"x": X, "lengths": i32(0, 2, 1)},
        parameters={"seq_axis": 0, "batch_axis": 1},
        expected=reversed_sequences,
    ),
    case("sliding_windows", {"x": X}, parameters={"axis": 1, "size": 2}, expected=windows),
    case("sliding_windows", {"x": X}, parameters={"axis": -1, "size": 2, "stride": 2}, expected=windows),
    case(
        "sliding_windows", {"x": R.normal(size=(9,))}, parameters={"axis": 0, "size": 4, "stride": 3}, expected=windows
    ),
    case("depth_to_space", {"x": R.normal(size=(2, 12, 2, 3))}, parameters={"block_size": 2}, expected=depth_to_space),
    case("space_to_depth", {"x": R.normal(size=(2, 3, 4, 6))}, parameters={"block_size": 2}, expected=space_to_depth),
    case(
        "pixel_shuffle",
        {"x": R.normal(size=(2, 18, 2, 3))},
        parameters={"upscale_factor": 3},
        expected=lambda x, upscale_factor: torch.nn.PixelShuffle(3)(torch.from_numpy(x)).numpy(),
    ),
    case(
        "pixel_unshuffle",
        {"x": R.normal(size=(2, 3, 4, 6))},
        parameters={"downscale_factor": np.uint32(2)},
        since=16,
        expected=lambda x, downscale_factor: torch.nn.PixelUnshuffle(2)(torch.from_numpy(x)).numpy(),
    ),
    case(
        "space_to_batch",
        {"x": R.normal(size=(2, 3, 4, 5))},
        parameters={"block_shape": i32(2, 3), "paddings": np.array([[1, 1], [0, 1]], np.int32)},
        expected=space_to_batch,
    ),
    case(
        "batch_to_space",
        {"x": R.normal(size=(12, 2, 2, 3))},
        parameters={"block_shape": i32(2, 3), "crops": np.array([[1, 0], [2, 1]], np.int32)},
        expected=batch_to_space,
    ),
)

test_op = table(CASES)


def test_reverse_sequence_refuses_one_axis_for_both():
    with pytest.raises(ExecutionError, match="same"):
        reverse_sequence(torch.zeros(2, 2), torch.tensor([1, 1]))
