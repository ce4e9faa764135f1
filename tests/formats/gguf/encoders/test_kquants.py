"""Block types as llama.cpp's reference writes them, without and with an importance matrix.

The hashes are of what ``ggml_quantize_chunk`` of llama-cpp-python 0.3.36 (ggml 0.25.3) made of the same values and
weights, of 32 rows of 3,072 columns (of types with a grid, of the first 4). Hashes of IQ3_S are of values without
groups of zeros, after which ggml writes codes in the wrong places.

Covers tlkit/formats/gguf/encoders/fits.py, tlkit/formats/gguf/encoders/tables.py,
tlkit/formats/gguf/encoders/simple.py, tlkit/formats/gguf/encoders/fp4.py, tlkit/formats/gguf/encoders/lattices.py,
tlkit/formats/gguf/encoders/low_bits.py, tlkit/formats/gguf/encoders/ternary.py.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tlkit.formats.base.dtypes import BLOCKS
from tlkit.formats.gguf.encoders.fits import total
from tlkit.formats.gguf.quants import DEQUANTIZABLE, IMPORTANT, QUANTIZABLE, WEIGHABLE, dequantize, quantize

WIDTH = 3072
GRIDS = ("IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S")
PLAIN = {
    "Q8_0": "9bc5545373483642",
    "Q5_1": "86559e7f76c19583",
    "Q5_0": "a789b6525174f895",
    "Q4_1": "f173741117d81488",
    "Q4_0": "d3d2307afcaf0187",
    "MXFP4": "5408ffaec9b3425a",
    "TQ2_0": "b8337d05a63bac81",
    "TQ1_0": "ec8d2f974ef87158",
    "Q2_K": "a7581e260e46d7d9",
    "Q3_K": "22ad73694f7a2a46",
    "Q4_K": "5ccbfc0ebdd99afb",
    "Q5_K": "d439b9062df5e406",
    "Q6_K": "b7eb2393992fdca0",
    "IQ4_NL": "80cd9af507768418",
    "IQ4_XS": "6bf2d18220d211d7",
    "NVFP4": "a9313e0938417a4d",
    "IQ3_S": "dfbc3cf5af5ba2a7",
    "IQ3_XXS": "5b01fc533670d2a6",
    "IQ2_S": "50ddf0e105dedba7",
    "IQ1_M": "1c31694aaa4f6d8b",
}
WEIGHED = {
    "IQ4_NL": "30936069b5dc76ea",
    "IQ4_XS": "9f2cb5e68f5f17c2",
    "Q2_K": "c083a5957ab1273d",
    "Q3_K": "8b9447feae740787",
    "Q4_0": "5e314dac13602278",
    "Q4_1": "487c8785f88189ad",
    "Q4_K": "c303bdf0c03cc166",
    "Q5_0": "13d6cf1a600ae029",
    "Q5_1": "8f07eb0abcb1373f",
    "Q5_K": "502c9a5461592dbb",
    "Q6_K": "f1a0808e0a73482d",
    "IQ3_S": "06b150065e4eae0c",
    "IQ3_XXS": "8419f04956e0efcc",
    "IQ2_S": "e5e37b5033b5ff17",
    "IQ2_XS": "887ff73896d10fba",
    "IQ2_XXS": "caf733dd37a25db5",
    "IQ1_M": "74c66affecb5af4d",
    "IQ1_S": "e79cfffb123a66a5",
}
ERRORS = {"Q8_0": 0.005, "Q6_K": 0.03, "Q5_K": 0.06, "Q5_1": 0.04, "Q5_0": 0.07, "IQ4_NL": 0.12, "IQ4_XS": 0.13}
ERRORS |= {"Q4_K": 0.1, "Q4_1": 0.07, "Q4_0": 0.13, "Q3_K": 0.26, "Q2_K": 0.4, "MXFP4": 0.34}
ERRORS |= {"NVFP4": 0.17, "IQ3_S": 0.27, "IQ3_XXS": 0.32, "IQ2_S": 0.6}
"""Each block's largest error over its largest value."""


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
    groups[40:42] = -0.0
    return groups.reshape(-1, WIDTH)


def weights() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """A weight for each column, from 2^-8 to 2^8 by powers of two times 1 to 2; every seventh is 0."""
    bits = (np.arange(WIDTH, dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03)) >> np.uint64(40)
    found = np.ldexp(bits.astype(np.float32) / np.float32(1 << 24) + 1, np.arange(WIDTH) % 17 - 8).astype(np.float32)
    found[::7] = 0
    return found


def test_every_type_has_its_hash() -> None:
    assert set(PLAIN) == set(QUANTIZABLE) - IMPORTANT
    assert set(WEIGHED) == set(WEIGHABLE)


def values_for(kind: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    found = values()[:4] if kind in GRIDS else values()
    if kind == "IQ3_S":
        groups = found.reshape(-1, 8, 32)
        groups[~groups.any(axis=2) & groups.any(axis=(1, 2))[:, None]] = 0.25
    return found


@pytest.mark.parametrize("kind", PLAIN)
def test_blocks_are_those_of_the_reference(kind: str) -> None:
    given = values_for(kind)
    found = quantize(given, kind)
    assert found.shape == (given.size // BLOCKS[kind][0], BLOCKS[kind][1])
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == PLAIN[kind]


@pytest.mark.parametrize("kind", sorted(WEIGHABLE))
def test_weighed_blocks_are_those_of_the_reference(kind: str) -> None:
    found = quantize(values_for(kind), kind, weights())
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == WEIGHED[kind]


@pytest.mark.parametrize("kind", [kind for kind in QUANTIZABLE if kind not in WEIGHABLE])
def test_other_types_do_not_heed_weights(kind: str) -> None:
    assert np.array_equal(quantize(values(), kind, weights()), quantize(values(), kind))


@pytest.mark.parametrize("kind", ERRORS)
def test_decoded_blocks_are_near(kind: str) -> None:
    """Independent of the reference: each block's error beside its largest value, also where groups are zeros."""
    assert kind in DEQUANTIZABLE
    given = values()[: 4 if kind in GRIDS else None].reshape(-1, BLOCKS[kind][0])
    found = dequantize(quantize(given, kind), kind, given.shape)
    large = np.abs(given).max(1) > 2**-4  # below, f16 has fewer bits for scales
    assert (np.abs(found - given).max(1) <= ERRORS[kind] * np.abs(given).max(1))[large].all()


def test_weights_move_the_error_to_where_it_matters_less() -> None:
    rows = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
    matter = np.where(np.arange(512) % 4 == 0, 100.0, 1.0).astype(np.float32)
    for kind in sorted(WEIGHABLE):
        some = rows[:2] if kind in GRIDS else rows
        even = np.ones_like(matter) if kind in IMPORTANT else None
        plain, weighed = (
            float((matter * np.square(dequantize(quantize(some, kind, given), kind, some.shape) - some)).sum())
            for given in (even, matter)
        )
        assert weighed < 0.95 * plain, kind


@pytest.mark.parametrize("kind", sorted(IMPORTANT))
def test_types_that_need_an_importance_matrix_say_so(kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind} needs an importance matrix"):
        quantize(values()[:1], kind)


def test_a_single_group_is_summed_in_order() -> None:
    """numpy adds the terms of one column in pairs, and C one after another."""
    terms = np.random.default_rng(3).standard_normal((256, 1)).astype(np.float32)
    wanted = np.float32(0)
    for term in terms[:, 0]:
        wanted = np.float32(wanted + term)
    assert total(terms)[0] == wanted
