"""MIL's compressed weights and quantized activations, against numpy that follows the ops' texts, and their examples.

A program of compressed weights has no inputs: it returns what the op decompresses.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.mil.ops.optable import case, rows, table

RNG = np.random.default_rng(10)
IMAGE = RNG.normal(size=(2, 3, 4)) * 4
FLOATS = {"fp32": np.float32, "fp16": np.float16}


@dataclass
class Packed:
    """An array of a type that numpy has not: what ``kind`` (uint1 ... uint6, int4, uint4) would hold."""

    kind: str
    array: np.ndarray

    def build(self) -> np.ndarray:
        from coremltools.converters.mil.mil import types

        return self.array.astype(types.nptype_from_builtin(types.string_to_builtin(self.kind)))


def weight(op: str, oracle: Any, since: int, label: str, **parameters: Any) -> list:
    """Rows of a compressed constant, one for each float type its parameters may have."""
    found = []
    floats = any(isinstance(v, np.ndarray) and v.dtype == np.float64 for v in parameters.values())
    for dtype in FLOATS if floats else ("none",):
        typed = {
            name: v.astype(FLOATS[dtype]) if isinstance(v, np.ndarray) and v.dtype == np.float64 else v
            for name, v in parameters.items()
        }
        wide = {name: v.array if isinstance(v, Packed) else v for name, v in typed.items()}
        wide = {n: v.astype(np.float64) if getattr(v, "dtype", None) in FLOATS.values() else v for n, v in wide.items()}

        def program(mb: Any, given: dict[str, Any] = typed) -> Any:
            built = {name: v.build() if isinstance(v, Packed) else v for name, v in given.items()}
            made = getattr(mb, op)(**{name: mb.const(val=v) for name, v in built.items()})
            return list(made) if isinstance(made, tuple) else made

        found += case(op, program=program, expected=oracle(**wide), since=since, dtypes=(dtype,), label=label)
    return found


def bits(values: np.ndarray, count: int) -> np.ndarray:
    """Values of ``count`` bits in bytes, low bits first."""
    stream = [(int(v) >> i) & 1 for v in values.ravel() for i in range(count)]
    stream += [0] * (-len(stream) % 8)
    return np.array(
        [sum(b << i for i, b in enumerate(stream[at : at + 8])) for at in range(0, len(stream), 8)], np.uint8
    )


def along(vector, x, axis):
    vector = np.asarray(vector, dtype=np.float64)
    return (
        vector
        if vector.ndim == 0 or axis is None
        else vector.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])
    )


def affine(quantized_data, zero_point, scale, axis):
    return along(scale, quantized_data, axis) * (quantized_data - along(zero_point, quantized_data, axis))


def quantize(input, scale, output_dtype, zero_point=0, axis=None):
    steps = np.round(input / along(scale, input, axis)) + along(zero_point, input, axis)
    low, high = np.iinfo(output_dtype).min, np.iinfo(output_dtype).max
    return np.clip(steps, low, high).astype(output_dtype)


def dequantize(input, scale, zero_point=0, axis=None):
    return affine(input, zero_point, scale, axis)


def blockwise(data, scale, offset=None):
    out = np.empty(data.shape)
    for at in np.ndindex(data.shape):
        block = tuple(i // (n // b) for i, n, b in zip(at, data.shape, scale.shape, strict=True))
        out[at] = scale[block] * (data[at] - (0 if offset is None else offset[block]))
    return out


def lut_to_dense(indices, lut, vector_axis=None):
    length = lut.shape[-1]
    axis = 0 if vector_axis is None else int(vector_axis) % indices.ndim
    shape = [n * length if i == axis else n for i, n in enumerate(indices.shape)]
    out = np.empty(shape, lut.dtype)
    for at in np.ndindex(indices.shape):
        block = tuple(i // (n // b) for i, n, b in zip(at, indices.shape, lut.shape[:-2], strict=True))
        for v, value in enumerate(lut[(*block, indices[at])]):
            out[tuple(i * length + v if a == axis else i for a, i in enumerate(at))] = value
    return out


def scatter(nonzero_data, mask):
    out = np.zeros(mask.shape, np.asarray(nonzero_data).dtype)
    out[mask != 0] = nonzero_data
    return out


def lut_to_sparse(indices_mask, indices_nonzero_data, lut, vector_axis=None):
    dense = lut_to_dense(scatter(indices_nonzero_data, indices_mask), lut, vector_axis)
    mask = indices_mask if vector_axis is None else np.repeat(indices_mask, lut.shape[-1], int(vector_axis))
    return mask, dense[mask != 0]


def sparse_blockwise(data_mask, nonzero_data, scale, offset=None):
    return data_mask, blockwise(scatter(nonzero_data, data_mask), scale, offset)[data_mask != 0]


BYTES = RNG.integers(0, 256, size=(2, 3, 4))
INT8 = (BYTES - 128).astype(np.int8)
UINT8 = BYTES.astype(np.uint8)
SCALES, ZEROS = RNG.uniform(0.01, 0.1, 3), np.array([3, -7, 100])
MASK = (RNG.random((4, 6)) < 0.4).astype(np.uint8)
COUNT = int(MASK.sum())
NIBBLES = RNG.integers(0, 16, size=(4, 6)).astype(np.uint8)
SHAPE = np.array([3, 7], np.uint32)


def palette(count):
    """Indices of ``count`` bits for SHAPE, and a table."""
    return RNG.integers(0, 2**count, size=(3, 7)), RNG.normal(size=2**count)


IOS16 = [
    *[
        weight(
            "constexpr_affine_dequantize",
            affine,
            16,
            f"{data.dtype}-{'vector' if vector else 'scalar'}",
            quantized_data=data,
            zero_point=(zeros if vector else zeros[0]),
            scale=SCALES if vector else SCALES[:1].reshape(()),
            axis=np.int32(axis),
        )
        for data, zeros in ((INT8, ZEROS.astype(np.int8)), (UINT8, np.abs(ZEROS).astype(np.uint8)))
        for vector in (True, False)
        for axis in (1,)
    ],
    weight(
        "constexpr_affine_dequantize",
        affine,
        16,
        "negative-axis",
        quantized_data=INT8,
        zero_point=ZEROS.astype(np.int8),
        scale=SCALES,
        axis=np.int32(-2),
    ),
    weight(
        "constexpr_affine_dequantize",
        affine,
        16,
        "float-zero",
        quantized_data=INT8,
        zero_point=np.float32(1.5),
        scale=SCALES,
        axis=np.int32(1),
    ),
    weight(
        "constexpr_cast",
        lambda source_val, output_dtype: source_val,
        16,
        "",
        source_val=np.float16(IMAGE),
        output_dtype="fp32",
    ),
    *[
        weight(
            "constexpr_lut_to_dense",
            lambda indices, lut, shape, dense=dense: lut[dense],
            16,
            f"{count}-bits",
            indices=bits(dense, count),
            lut=lut,
            shape=SHAPE,
        )
        for count in (1, 2, 4, 6, 8)
        for dense, lut in (palette(count),)
    ],
    weight(
        "constexpr_lut_to_dense",
        lambda indices, lut, shape: np.array([5, -5, -5], np.int8),
        16,
        "int8",
        indices=bits(np.array([0, 1, 1]), 1),
        lut=np.array([5, -5], np.int8),
        shape=np.array([3], np.uint32),
    ),
    weight(
        "constexpr_sparse_to_dense",
        lambda nonzero_data, mask, shape: scatter(nonzero_data, MASK),
        16,
        "",
        nonzero_data=RNG.normal(size=COUNT),
        mask=bits(MASK, 1),
        shape=np.array(MASK.shape, np.uint32),
    ),
    weight(
        "constexpr_sparse_to_dense",
        lambda nonzero_data, mask, shape: scatter(nonzero_data, MASK),
        16,
        "int8",
        nonzero_data=np.arange(1, COUNT + 1).astype(np.int8),
        mask=bits(MASK, 1),
        shape=np.array(MASK.shape, np.uint32),
    ),
]

IOS18 = [
    *[
        weight(
            "constexpr_blockwise_shift_scale",
            blockwise,
            18,
            f"{kind}-{blocks}-{shifted}",
            data=data,
            scale=RNG.uniform(0.1, 1, blocks),
            **(
                {
                    "offset": Packed(kind, np.ones(blocks, int))
                    if isinstance(data, Packed)
                    else np.ones(blocks, data.dtype)
                }
                if shifted
                else {}
            ),
        )
        for kind, data in (
            ("int8", INT8.reshape(4, 6)),
            ("uint8", UINT8.reshape(4, 6)),
            ("int4", Packed("int4", NIBBLES.astype(np.int8) - 8)),
            ("uint4", Packed("uint4", NIBBLES)),
        )
        for blocks in ((1, 1), (4, 1), (4, 3), (2, 2))
        for shifted in (False, True)
    ],
    weight(
        "constexpr_blockwise_shift_scale",
        blockwise,
        18,
        "float-offset",
        data=INT8.reshape(4, 6),
        scale=RNG.uniform(0.1, 1, (4, 1)),
        offset=RNG.normal(size=(4, 1)),
    ),
    weight(
        "constexpr_blockwise_shift_scale",
        blockwise,
        18,
        "float-data",
        data=RNG.normal(size=(4, 6)),
        scale=RNG.uniform(0.1, 1, (4, 1)),
    ),
    weight(
        "constexpr_cast",
        lambda source_val, output_dtype: source_val,
        18,
        "",
        source_val=np.float16(IMAGE),
        output_dtype="fp32",
    ),
    *[
        weight(
            "constexpr_lut_to_dense",
            lut_to_dense,
            18,
            f"{count}-bits-{blocks}-{length}-{axis}",
            indices=Packed(f"uint{count}", RNG.integers(0, 2**count, size=(4, 6)))
            if count < 8
            else RNG.integers(0, 256, size=(4, 6)).astype(np.uint8),
            lut=RNG.normal(size=(*blocks, 2**count, length)),
            **({} if axis is None else {"vector_axis": np.int32(axis)}),
        )
        for count, blocks, length, axis in [
            *((count, (1, 1), 1, None) for count in (1, 2, 3, 4, 6, 8)),
            (4, (4, 1), 1, None),
            (2, (2, 3), 1, 0),
            (2, (1, 1), 3, 0),
            (3, (2, 1), 2, 1),
            (4, (1, 2), 2, -1),
        ]
    ],
    weight(  # the op's own example
        "constexpr_lut_to_dense",
        lambda indices, lut: np.array([[9.0, 13], [13, 1], [5, 1], [26, 2], [18, 10], [2, 26]]),
        18,
        "documented",
        indices=Packed("uint2", np.array([2, 3, 3, 0, 1, 0, 3, 0, 2, 1, 0, 3]).reshape(6, 2)),
        lut=np.array([1.0, 5, 9, 13, 2, 10, 18, 26]).reshape(2, 1, 4, 1),
    ),
    weight(
        "constexpr_lut_to_dense",
        lut_to_dense,
        18,
        "int8-table",
        indices=Packed("uint1", MASK),
        lut=np.array([-3, 100], np.int8).reshape(1, 1, 2, 1),
    ),
    weight(
        "constexpr_sparse_to_dense", scatter, 18, "", nonzero_data=RNG.normal(size=COUNT), mask=Packed("uint1", MASK)
    ),
    weight(
        "constexpr_sparse_to_dense",
        scatter,
        18,
        "int4",
        nonzero_data=Packed("int4", np.arange(COUNT) % 15 - 7),
        mask=Packed("uint1", MASK),
    ),
    *[
        weight(
            "constexpr_lut_to_sparse",
            lut_to_sparse,
            18,
            f"{length}-{axis}",
            indices_mask=Packed("uint1", MASK),
            indices_nonzero_data=Packed("uint2", RNG.integers(0, 4, COUNT)),
            lut=RNG.normal(size=(1, 1, 4, length)),
            **({} if axis is None else {"vector_axis": np.int32(axis)}),
        )
        for length, axis in ((1, None), (2, 0), (3, 1))
    ],
    *[
        weight(
            "constexpr_sparse_blockwise_shift_scale",
            sparse_blockwise,
            18,
            f"{blocks}-{shifted}",
            data_mask=Packed("uint1", MASK),
            nonzero_data=np.arange(COUNT).astype(np.int8),
            scale=RNG.uniform(0.1, 1, blocks),
            **({"offset": np.full(blocks, 2, np.int8)} if shifted else {}),
        )
        for blocks in ((1, 6), (4, 1), (2, 3))
        for shifted in (False, True)
    ],
]

ACTIVATIONS = [
    *[
        case(
            "quantize",
            {"input": IMAGE * 10},
            parameters={"scale": scale, "output_dtype": kind, **extra},
            expected=quantize,
            since=17,
            label=f"{kind}-{label}",
        )
        for kind in ("int8", "uint8")
        for label, scale, extra in (
            ("scalar", 0.25, {}),
            ("zero-point", 0.25, {"zero_point": np.dtype(kind).type(10)}),
            ("vector", np.array([0.25, 0.5, 2.0]), {"axis": 1}),
            ("all", np.array([0.25, 0.5, 2.0]), {"axis": -2, "zero_point": np.array([1, 2, 3], kind)}),
        )
    ],
    *[
        case(
            "dequantize",
            {"input": data},
            parameters={"scale": scale, **extra},
            expected=dequantize,
            since=17,
            label=f"{data.dtype}-{label}",
        )
        for data in (INT8, UINT8)
        for label, scale, extra in (
            ("scalar", 0.1, {}),
            ("zero-point", 0.1, {"zero_point": data.dtype.type(10)}),
            ("vector", SCALES, {"axis": 1}),
            ("all", SCALES, {"axis": -2, "zero_point": np.array([1, 2, 3], data.dtype)}),
        )
    ],
]


def joint(mb: Any) -> Any:
    """Sparse, palettized and scaled: what coremltools writes for joint compression."""
    mask, indices = Packed("uint1", MASK).build(), Packed("uint2", np.arange(COUNT) % 4).build()
    lut = np.array([-3, 1, 2, 7], np.int8).reshape(1, 1, 4, 1)
    mask, nonzero = mb.constexpr_lut_to_sparse(indices_mask=mask, indices_nonzero_data=indices, lut=lut)
    mask, nonzero = mb.constexpr_sparse_blockwise_shift_scale(
        data_mask=mask, nonzero_data=nonzero, scale=np.full((4, 1), 0.5, np.float16)
    )
    return mb.constexpr_sparse_to_dense(nonzero_data=nonzero, mask=mask)


def scaled_table(mb: Any) -> Any:
    """A palette of int8 with a scale for each row."""
    table = np.array([-3, 1, 2, 7], np.int8).reshape(1, 1, 4, 1)
    dense = mb.constexpr_lut_to_dense(indices=Packed("uint2", NIBBLES % 4).build(), lut=table)
    return mb.constexpr_blockwise_shift_scale(data=dense, scale=np.array([[0.5], [1], [2], [4]], np.float32))


TABLE = np.array([-3, 1, 2, 7])
CHAINS = [
    case(
        "constexpr_sparse_to_dense",
        program=joint,
        expected=scatter(TABLE[np.arange(COUNT) % 4] / 2, MASK),
        since=18,
        label="joint",
    ),
    case(
        "constexpr_blockwise_shift_scale",
        program=scaled_table,
        expected=TABLE[NIBBLES % 4] * np.array([[0.5], [1], [2], [4]]),
        since=18,
        label="of-table",
    ),
]

CASES = rows(*IOS16, *IOS18, *ACTIVATIONS, *CHAINS)

test_op = table(CASES)
