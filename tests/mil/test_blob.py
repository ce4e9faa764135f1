"""Weight files, against coremltools' own writer and reader; damage is a LoadError, whatever it promises."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlkit.errors import LoadError
from tlkit.mil.blob import BlobFile
from tlkit.mil.program import BlobRef, TensorType, Value
from tlkit.mil.types import DType

STORED: dict[str, tuple[str, str]] = {
    "FP16": ("fp16", "float16"),
    "FP32": ("float", "float32"),
    "INT4": ("int4", "int8"),
    "INT8": ("int8", "int8"),
    "INT16": ("int16", "int16"),
    "INT32": ("int32", "int32"),
    "UINT1": ("uint1", "uint8"),
    "UINT2": ("uint2", "uint8"),
    "UINT3": ("uint3", "uint8"),
    "UINT4": ("uint4", "uint8"),
    "UINT6": ("uint6", "uint8"),
    "UINT8": ("uint8", "uint8"),
    "UINT16": ("uint16", "uint16"),
    "UINT32": ("uint32", "uint32"),
}
CODES = {"FP16": 1, "FP32": 2, "UINT8": 3, "INT8": 4, "BF16": 5, "INT4": 8, "UINT3": 12, "FP8E4M3FN": 16, "FP8E5M2": 17}


def sample(name: str, size: int) -> np.ndarray:
    dtype, rng = DType[name], np.random.default_rng(size)
    if dtype.is_float:
        return rng.normal(size=size).astype(STORED[name][1])
    low = -(1 << dtype.bits - 1) if name.startswith("INT") else 0
    return rng.integers(low, low + (1 << dtype.bits), size, dtype=np.int64).astype(STORED[name][1])


def written(path: Path, name: str, *arrays: np.ndarray) -> list[int]:
    """Offsets of the arrays, written by coremltools."""
    storage = pytest.importorskip("coremltools.libmilstoragepython")
    writer = storage._BlobStorageWriter(str(path))
    write = getattr(writer, f"write_{STORED[name][0]}_data")
    return [write(array.view(np.uint16) if name == "FP16" else array) for array in arrays]


def one_record(path: Path, name: str, data: bytes, **header: int) -> BlobFile:
    """A file with one record at 64, any field of which can be given."""
    fields = {"sentinel": 0xDEADBEEF, "code": CODES[name], "nbytes": len(data), "start": 128, "padding": 0} | header
    record = struct.pack("<IIQQQ32x", *fields.values())
    path.write_bytes(struct.pack("<II56x", 1, 2) + record + data)
    return BlobFile(path)


def value(file: BlobFile, name: str, *shape: int, offset: int = 64) -> Value:
    return Value(TensorType(DType[name], shape), BlobRef("@model_path/weights/weight.bin", offset, file))


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("size", [1, 7, 8, 65])
def test_every_type_is_read_as_coremltools_wrote_it(tmp_path: Path, name: str, size: int) -> None:
    path = tmp_path / "weight.bin"
    first, second = sample(name, size), sample(name, size + 1)
    offsets = written(path, name, first, second)
    file = BlobFile(path)
    for offset, array in zip(offsets, (first, second), strict=True):
        found = value(file, name, array.size, offset=offset).numpy()
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
        assert file.record(offset).count == array.size


@pytest.mark.parametrize(("name", "torch_name"), [("FP8E4M3FN", "float8_e4m3fn"), ("FP8E5M2", "float8_e5m2")])
def test_eight_bit_floats_are_what_torch_says(tmp_path: Path, name: str, torch_name: str) -> None:
    torch: Any = pytest.importorskip("torch")
    every = bytes(range(256))
    found = value(one_record(tmp_path / "w", name, every), name, 16, 16).numpy()
    expected = torch.frombuffer(bytearray(every), dtype=getattr(torch, torch_name)).float().numpy().reshape(16, 16)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found)[expected == 0], np.signbit(expected)[expected == 0])


def test_bfloat16_is_what_torch_says(tmp_path: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    every = np.arange(0, 65536, 17, dtype="<u2").tobytes()
    found = value(one_record(tmp_path / "w", "BF16", every), "BF16", len(every) // 2).numpy()
    np.testing.assert_array_equal(found, torch.frombuffer(bytearray(every), dtype=torch.bfloat16).float().numpy())


def test_garbage_in_the_padding_field_of_wide_types_is_ignored(tmp_path: Path) -> None:
    data = np.arange(4, dtype="<f4").tobytes()
    file = one_record(tmp_path / "w", "FP32", data, padding=0xDEADBEEFDEADBEEF)
    assert file.record(64).count == 4
    np.testing.assert_array_equal(value(file, "FP32", 4).numpy(), [0, 1, 2, 3])


BROKEN: dict[str, tuple[dict[str, int], str]] = {
    "wrong sentinel": ({"sentinel": 0xDEADBEEE}, "no weight record at offset 64"),
    "unknown type": ({"code": 99}, "unknown element type 99"),
    "data past the end": ({"start": 136}, "wants 16 bytes at 136, past the end"),
    "data far past the end": ({"start": 2**63}, "past the end"),
    "more bytes than there are": ({"nbytes": 2**64 - 1}, "past the end"),
    "start and length that wrap around": ({"start": 2**64 - 8, "nbytes": 24}, "past the end"),
    "another type": ({"code": CODES["FP16"]}, "is fp16, not fp32"),
    "too few elements": ({"nbytes": 12}, "declares 4 elements and holds 3"),
    "half an element": ({"nbytes": 15}, "declares 4 elements and holds 3"),
}


@pytest.mark.parametrize(("header", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_record_is_refused(tmp_path: Path, header: dict[str, int], message: str) -> None:
    file = one_record(tmp_path / "weight.bin", "FP32", bytes(16), **header)
    with pytest.raises(LoadError, match=message) as caught:
        value(file, "FP32", 4).numpy()
    assert "\n" not in caught.value.message


def test_too_few_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="9 elements of uint3 need more than the 3 bytes"):
        value(one_record(tmp_path / "w", "UINT3", bytes(3)), "UINT3", 9).numpy()


@pytest.mark.parametrize("offset", [-64, 0, 1, 63, 65, 96, 128, 2**40, 2**64])
def test_an_offset_with_no_record_is_refused(tmp_path: Path, offset: int) -> None:
    file = one_record(tmp_path / "w", "FP32", bytes(16))
    with pytest.raises(LoadError, match="weight record"):
        file.record(offset)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes long"),
        (bytes(63), "63 bytes long"),
        (struct.pack("<II56x", 1, 3), "not a version 2 weight file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git-lfs pointer"),
    ],
)
def test_what_is_no_weight_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "weight.bin"
    path.write_bytes(content)
    with pytest.raises(LoadError, match=message):
        BlobFile(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.bin", tmp_path):
        with pytest.raises(LoadError, match=str(path)):
            BlobFile(path)


def test_a_shape_larger_than_memory_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    file = one_record(tmp_path / "w", "FP32", bytes(16))
    for name in ("FP32", "UINT3"):
        with pytest.raises(LoadError):
            value(file, name, 2**62).numpy()


def test_a_file_of_eight_gigabytes_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "weight.bin"
    one_record(path, "FP32", b"")
    far = 8 << 30
    with path.open("r+b") as file:
        try:
            os.truncate(path, far)
        except OSError:
            pytest.skip("no sparse files here")
        file.seek(far - 128)
        file.write(struct.pack("<IIQQQ32x", 0xDEADBEEF, 2, 8, far - 64, 0) + struct.pack("<2f56x", 3, 4))
    found = value(BlobFile(path), "FP32", 2, offset=far - 128).numpy()
    np.testing.assert_array_equal(found, [3, 4])


def test_reading_does_not_write(tmp_path: Path) -> None:
    path = tmp_path / "weight.bin"
    file = one_record(path, "FP32", bytes(16))
    before = path.read_bytes(), path.stat().st_mtime_ns
    array = value(file, "FP32", 4).numpy()
    if array.flags.writeable:
        array[:] = 1
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
