"""GGUF's block types against the gguf package, bit for bit.

Covers tlkit/formats/gguf/bits.py, tlkit/formats/gguf/grids.py, tlkit/formats/gguf/kquants.py,
tlkit/formats/gguf/legacy.py, tlkit/formats/gguf/memory.py.
"""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from tlkit.formats.base.dtypes import BLOCKS
from tlkit.formats.gguf.quants import DEQUANTIZABLE, QUANTIZABLE, dequantize, quantize

PLAIN = {"BF16"}  # not blocks: read by tlkit.formats.base.arrays
TYPES = sorted(kind.name for kind in quants._type_traits if kind.name not in PLAIN)
OURS = {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "NVFP4"}
OURS |= {"IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"}
"""Not written by the package; tests/formats/gguf/encoders has these."""
HALVES = (0x0000, 0x8000, 0x0001, 0x83FF, 0x3C00, 0x7BFF, 0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFFFF)
"""Bits of float16: zeros, denormals, one, the largest, infinities, NaNs (quiet and signalling)."""


def blocks_of(dtype: str, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, BLOCKS[dtype][1]), dtype=np.uint8)


def by_gguf(blocks: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        return quants.dequantize(blocks, GGMLQuantizationType[dtype])


def same_bits(found: np.ndarray, wanted: np.ndarray) -> bool:
    return found.dtype == wanted.dtype == np.float32 and np.array_equal(found.view("u4"), wanted.view("u4"))


def test_every_type_that_gguf_reads_is_read() -> None:
    assert sorted(DEQUANTIZABLE) == TYPES


@pytest.mark.parametrize("dtype", TYPES)
def test_random_blocks_have_the_bits_that_gguf_gives_them(dtype: str) -> None:
    blocks = blocks_of(dtype, 500)
    wanted = by_gguf(blocks, dtype)
    assert same_bits(dequantize(blocks.tobytes(), dtype, wanted.shape), wanted)


@pytest.mark.parametrize("dtype", TYPES)
def test_scales_that_are_no_usual_numbers(dtype: str) -> None:
    """Each pair of bytes of a block in turn holds each odd half: wherever a type keeps its scale, it is met."""
    size = BLOCKS[dtype][1]
    blocks = blocks_of(dtype, len(HALVES) * (size - 1), seed=1)
    for index, bits in enumerate(HALVES):
        for place in range(size - 1):
            blocks[index * (size - 1) + place, place : place + 2] = np.frombuffer(np.uint16(bits).tobytes(), np.uint8)
    wanted = by_gguf(blocks, dtype)
    assert same_bits(dequantize(blocks, dtype, wanted.shape), wanted)


@pytest.mark.parametrize("dtype", ["Q8_0", "Q4_K", "IQ2_XS"])
def test_many_blocks_are_decoded_in_pieces_into_the_array_that_is_given(dtype: str) -> None:
    blocks = blocks_of(dtype, 600_000 // BLOCKS[dtype][0] + 1, seed=2)
    wanted = by_gguf(blocks, dtype)
    out = np.full(wanted.size, 7, np.float32)
    found = dequantize(memoryview(blocks).cast("B"), dtype, wanted.shape, out)
    assert same_bits(found, wanted)
    assert np.shares_memory(found, out)


def test_memory_is_used_again_when_nothing_looks_at_it_any_more() -> None:
    blocks = blocks_of("Q8_0", (1 << 22) // 32, seed=3)
    shape = (1024, 4096)
    first = dequantize(blocks, "Q8_0", shape)
    seen = first[7:9].T
    kept, place = seen.copy(), first.ctypes.data
    del first
    second = dequantize(blocks[::-1].copy(), "Q8_0", shape)
    assert same_bits(seen.ravel(), kept.ravel())
    assert not np.shares_memory(seen, second)
    del seen
    third = dequantize(blocks, "Q8_0", shape)
    assert third.ctypes.data == place
    assert same_bits(third[7:9].T.ravel(), kept.ravel())


def test_no_blocks_give_an_empty_array() -> None:
    assert dequantize(b"", "Q6_K", (0, 256)).shape == (0, 256)


def test_a_type_without_values_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        dequantize(bytes(40), "Q8_1", (32,))


def test_all_that_is_read_is_written() -> None:
    assert set(QUANTIZABLE) == DEQUANTIZABLE


def test_what_can_be_written_is_what_gguf_can_write() -> None:
    values = np.ones((1, 256), np.float32)
    able = set()
    for dtype in TYPES:
        try:
            quants.quantize(values, GGMLQuantizationType[dtype])
            able.add(dtype)
        except NotImplementedError:
            pass
    assert able == set(QUANTIZABLE) - OURS


@pytest.mark.parametrize("dtype", [dtype for dtype in QUANTIZABLE if dtype not in OURS])
def test_quantized_bytes_are_those_of_gguf(dtype: str) -> None:
    values = np.random.default_rng(3).normal(size=(64, 512)).astype(np.float32)
    values[3] = 0
    values[5] *= 1e-30
    values[6] *= 1e30
    with np.errstate(all="ignore"):
        wanted = gguf.quants.quantize(values, GGMLQuantizationType[dtype])
    assert quantize(values, dtype).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtype", ["Q8_0", "Q4_0"])
def test_many_values_are_quantized_in_pieces(dtype: str) -> None:
    values = np.random.default_rng(4).normal(size=(200, 4096)).astype(np.float32)
    wanted = gguf.quants.quantize(values, GGMLQuantizationType[dtype])
    assert quantize(values, dtype).tobytes() == wanted.tobytes()
