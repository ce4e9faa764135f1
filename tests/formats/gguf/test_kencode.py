"""K-quants as llama.cpp's reference writes them.

The hashes are of what ``ggml_quantize_chunk`` of llama-cpp-python 0.3.36 made of the same values.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tlkit.formats.base.dtypes import BLOCKS
from tlkit.formats.gguf.quants import dequantize, quantize

HASHES = {
    "Q4_K": "9d8d3cf4878d9941890aed121e66c40cdf593ff4636ecf14c4457e294788eb73",
    "Q5_K": "83cc1b9c51bb558b3e24e665ff50d7943ceec8cf96d263cbdfd1719c838020c5",
    "Q6_K": "f16ea8fe6fe66ae3ca71f0385d7d6d9a4fc37822f77f804ad3637fe7303f95a5",
}
ERRORS = {"Q4_K": 0.1, "Q5_K": 0.06, "Q6_K": 0.03}


def values() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Groups of 32 between -1 and 1 at scales from 2^-20 to 2^11; some are flat, positive or negative, one block is 0.

    Made of integers, so that they are the same everywhere.
    """
    count = 384 * 256
    bits = (np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    groups = (bits.astype(np.float32) / np.float32(1 << 23) - 1).reshape(-1, 32)
    places = np.arange(len(groups))
    groups = np.ldexp(groups, ((places * 7) % 32 - 20)[:, None]).astype(np.float32)
    groups[::11] = np.abs(groups[::11])
    groups[3::13] = -np.abs(groups[3::13])
    groups[5::17] = groups[5::17, :1]
    groups[6::19] = 0
    groups[8:16] = 0
    return groups.reshape(-1, 256)


@pytest.mark.parametrize("kind", HASHES)
def test_blocks_are_those_of_the_reference(kind: str) -> None:
    found = quantize(values(), kind)
    assert found.shape == (384, BLOCKS[kind][1])
    assert hashlib.sha256(found.tobytes()).hexdigest() == HASHES[kind]


@pytest.mark.parametrize("kind", HASHES)
def test_decoded_blocks_are_near(kind: str) -> None:
    """Independent of the reference: each block's error beside its largest value."""
    given = values()
    found = dequantize(quantize(given, kind), kind, given.shape)
    assert (np.abs(found - given).max(1) <= ERRORS[kind] * np.abs(given).max(1)).all()
