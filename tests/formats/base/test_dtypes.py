"""The table of stored types held against the libraries whose types they are.

Covers tlkit/formats/base/arrays.py, tlkit/formats/base/tensors.py, tlkit/formats/base/mapped_tensors.py.
"""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from tlkit.formats.base import arrays
from tlkit.formats.base.dtypes import BLOCKS, GGML, stored_bytes
from tlkit.formats.base.tensors import TensorEntry
from tlkit.formats.torch.export import _TYPES
from tlkit.formats.torch.objects import DTYPES

SMALL = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
}


def test_ggml_types_are_the_gguf_packages() -> None:
    theirs = {kind.value: (kind.name, *sizes) for kind, sizes in gguf.constants.GGML_QUANT_SIZES.items()}
    assert theirs.items() <= GGML.items()


def test_torch_types_have_torchs_sizes() -> None:
    for name, stored in DTYPES.items():
        assert BLOCKS[stored] == (1, getattr(torch, name).itemsize)


def test_exported_types_are_torchs_numbers() -> None:
    from torch._export.serde.schema import ScalarType
    from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE

    theirs = {
        int(kind): DTYPES.get(str(dtype).removeprefix("torch.")) for kind, dtype in _SERIALIZE_TO_TORCH_DTYPE.items()
    }
    assert {number: name for number, name in theirs.items() if name} == _TYPES
    assert max(_TYPES) <= max(ScalarType)


def test_partial_blocks_have_no_size() -> None:
    assert stored_bytes("Q4_K", 512) == 288
    assert stored_bytes("Q4_K", 500) is None
    assert stored_bytes("F4", 3) is None


@pytest.mark.parametrize("name", SMALL)
def test_every_code_of_an_8_bit_float_is_what_torch_says(name: str) -> None:
    codes = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(codes).view(SMALL[name]).to(torch.float32).numpy()
    np.testing.assert_array_equal(arrays.widen(name, codes), expected)


def test_bf16_is_what_torch_says() -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 16, 5000, np.uint16)
    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(arrays.widen("BF16", bits.view(np.uint8)), expected)


def test_six_and_four_bit_floats_follow_ocp_mx() -> None:
    """The largest values and the packing: OCP Microscaling Formats 1.0, tables 3 to 5."""
    four = arrays.widen("F4", np.array([0x21, 0x7F], np.uint8))
    np.testing.assert_array_equal(four, [0.5, 1.0, -6.0, 6.0])
    word = 1 | 31 << 6 | 32 << 12 | 63 << 18
    packed = np.array([word & 255, word >> 8 & 255, word >> 16], np.uint8)
    np.testing.assert_array_equal(arrays.widen("F6_E2M3", packed), [0.125, 7.5, -0.0, -7.5])
    np.testing.assert_array_equal(arrays.widen("F6_E3M2", packed), [0.0625, 28.0, -0.0, -28.0])


@pytest.mark.parametrize(("dtype", "kind"), [("F32", ">f4"), ("I16", ">i2"), ("BF16", ">u2"), ("F64", ">f8")])
def test_big_endian_values_are_swapped(dtype: str, kind: str) -> None:
    values = np.array([0x3F80, 0x4000], np.uint16) if dtype == "BF16" else np.array([1.0, 2.0])
    entry = TensorEntry("x", dtype, (2,), 0, big_endian=True)
    found = arrays.decode(entry, memoryview(values.astype(kind).tobytes()))
    np.testing.assert_array_equal(found, [1.0, 2.0])
    assert found.dtype.isnative
