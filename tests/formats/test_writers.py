"""What tlkit writes, read by the packages that define the formats; and what they write, read by tlkit.

Covers tlkit/formats/base/planned.py, tlkit/formats/gguf/write.py, tlkit/formats/safetensors/write.py,
tlkit/formats/torch/write.py.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tlkit.errors import ConversionError, UsageError
from tlkit.formats.base.dtypes import BLOCKS, GGML, PLAIN
from tlkit.formats.base.planned import Planned
from tlkit.formats.describe import open_tensors
from tlkit.formats.gguf.write import Typed, write_gguf
from tlkit.formats.safetensors.write import TYPES as SAFE_TYPES
from tlkit.formats.safetensors.write import write_index, write_safetensors
from tlkit.formats.torch.write import TYPES as TORCH_TYPES
from tlkit.formats.torch.write import write_torch

PLAIN_GGUF = ("F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64")


def bytes_of(tensor: Planned) -> bytes:
    """Different bytes for each tensor, none of them a float's NaN."""
    seed = sum(tensor.name.encode()) + 7 * len(tensor.name)
    return np.random.default_rng(seed).integers(0, 2, tensor.nbytes, dtype=np.uint8).tobytes()


def in_pieces(tensor: Planned) -> Iterable[Any]:
    data = bytes_of(tensor)
    return (memoryview(data)[start : start + 1000] for start in range(0, len(data), 1000))


def planned(types: Iterable[str]) -> list[Planned]:
    shapes = [(), (3,), (0, 4), (2, 3, 4), (5, 96), (1, 1, 1)]
    return [
        Planned(f"layer.{index}.{dtype}", dtype, shapes[index % len(shapes)] if dtype not in ("F4",) else (2, 6))
        for index, dtype in enumerate(types)
        if BLOCKS[dtype][0] == 1
    ]


def test_safetensors_reads_what_is_written(tmp_path: Path) -> None:
    tensors = planned(sorted(SAFE_TYPES))
    write_safetensors(tmp_path / "a.safetensors", tensors, {"format": "pt", "note": "é\n"}, in_pieces)
    found = dict(safetensors.deserialize((tmp_path / "a.safetensors").read_bytes()))
    assert set(found) == {tensor.name for tensor in tensors}
    for tensor in tensors:
        assert tuple(found[tensor.name]["shape"]) == tensor.shape
        assert bytes(found[tensor.name]["data"]) == bytes_of(tensor)
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "note": "é\n"}
        assert file.get_tensor("layer.1.BF16" if "layer.1.BF16" in found else tensors[0].name) is not None


def test_every_safetensor_lies_at_a_multiple_of_its_element(tmp_path: Path) -> None:
    tensors = [
        Planned("a", "U8", (3,)),
        Planned("b", "F64", (2,)),
        Planned("c", "F16", (1,)),
        Planned("d", "F32", (1,)),
    ]
    write_safetensors(tmp_path / "a.safetensors", tensors, {}, in_pieces)
    for entry in open_tensors(tmp_path / "a.safetensors").entries():
        assert entry.offset is not None and entry.offset % PLAIN[entry.dtype] == 0
        assert bytes(open_tensors(tmp_path / "a.safetensors").raw(entry)) == bytes_of(
            Planned(entry.name, entry.dtype, entry.shape)
        )


def test_the_index_says_which_file_has_which_tensor(tmp_path: Path) -> None:
    first, second = [Planned("b", "F32", (2,))], [Planned("a", "F16", (3,))]
    write_index(tmp_path / "m.safetensors.index.json", {"m-1.safetensors": first, "m-2.safetensors": second})
    assert json.loads((tmp_path / "m.safetensors.index.json").read_text()) == {
        "metadata": {"total_size": 14},
        "weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors"},
    }


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_torch_loads_what_is_written(tmp_path: Path) -> None:
    tensors = planned(sorted(TORCH_TYPES))
    write_torch(tmp_path / "a.pth", tensors, in_pieces)
    assert zipfile.ZipFile(tmp_path / "a.pth").testzip() is None
    for mapped in (False, True):
        found = torch.load(tmp_path / "a.pth", weights_only=True, mmap=mapped)
        assert list(found) == [tensor.name for tensor in tensors]
        for tensor in tensors:
            made = found[tensor.name]
            assert tuple(made.shape) == tensor.shape
            assert made.reshape(-1).view(torch.uint8).numpy().tobytes() == bytes_of(tensor)


def test_torch_s_own_types_are_those_that_were_planned(tmp_path: Path) -> None:
    pairs = {"F32": torch.float32, "BF16": torch.bfloat16, "I64": torch.int64, "BOOL": torch.bool, "U16": torch.uint16}
    pairs |= {"F8_E4M3": torch.float8_e4m3fn, "C64": torch.complex64, "U8": torch.uint8, "F16": torch.float16}
    write_torch(tmp_path / "a.pth", [Planned(name, name, (2, 2)) for name in pairs], in_pieces)
    found = torch.load(tmp_path / "a.pth", weights_only=True)
    assert {name: tensor.dtype for name, tensor in found.items()} == pairs


def test_the_same_tensors_make_the_same_file(tmp_path: Path) -> None:
    for name in ("a.pth", "b.pth"):
        write_torch(tmp_path / name, [Planned("x", "F32", (3, 4))], in_pieces)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


METADATA = {
    "general.architecture": Typed("str", "test"),
    "a.u8": Typed("u8", 255),
    "a.i8": Typed("i8", -128),
    "a.u16": Typed("u16", 65535),
    "a.i16": Typed("i16", -5),
    "a.u32": Typed("u32", 1 << 31),
    "a.i32": Typed("i32", -(1 << 31)),
    "a.u64": Typed("u64", 1 << 63),
    "a.i64": Typed("i64", -1),
    "a.f32": Typed("f32", 0.5),
    "a.f64": Typed("f64", 0.1),
    "a.bool": Typed("bool", True),
    "a.text": Typed("str", "é\n"),
    "a.words": Typed("arr[str]", ["", "x", "日本"]),
    "a.numbers": Typed("arr[i32]", [1, -2, 3]),
    "a.flags": Typed("arr[bool]", [True, False]),
}


def test_gguf_reads_what_is_written(tmp_path: Path) -> None:
    tensors = planned(PLAIN_GGUF)
    tensors += [Planned(name, name, (2, elements * 2)) for name, elements, _ in GGML.values() if elements > 1]
    write_gguf(tmp_path / "a.gguf", tensors, METADATA, in_pieces)
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    assert {name: reader.fields[name].contents() for name in METADATA} == {
        name: typed.value for name, typed in METADATA.items()
    }
    assert [found.name for found in reader.tensors] == [tensor.name for tensor in tensors]
    for found, tensor in zip(reader.tensors, tensors, strict=True):
        assert found.tensor_type.name == tensor.dtype
        assert tuple(int(size) for size in found.shape[::-1]) == tensor.shape
        assert found.data.tobytes() == bytes_of(tensor)
        assert found.data_offset % 32 == 0


def test_the_alignment_is_that_of_the_metadata(tmp_path: Path) -> None:
    said = {"general.alignment": Typed("u32", 256)}
    write_gguf(tmp_path / "a.gguf", planned(PLAIN_GGUF), said, in_pieces)
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    assert all(found.data_offset % 256 == 0 for found in reader.tensors)
    assert [found.data.tobytes() for found in reader.tensors] == [bytes_of(tensor) for tensor in planned(PLAIN_GGUF)]


def test_a_number_that_its_type_cannot_hold_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.b: 300 is not a u8"):
        write_gguf(tmp_path / "a.gguf", [], {"a.b": Typed("u8", 300)}, in_pieces)


@pytest.mark.parametrize("count", [11, 13])
def test_data_of_another_length_than_planned_is_an_error(tmp_path: Path, count: int) -> None:
    with pytest.raises(ConversionError, match=r"x: 1 bytes too (few|many)"):
        write_safetensors(tmp_path / "a", [Planned("x", "F32", (3,))], {}, lambda tensor: [bytes(count)])


def test_no_tensor_is_called_what_safetensors_calls_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(ConversionError, match="a tensor may not be called '__metadata__' in SafeTensors"):
        write_safetensors(path, [Planned("__metadata__", "F32", (2,))], {}, in_pieces)
    assert not path.exists()


names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
some_tensors = st.lists(
    st.builds(Planned, names, st.sampled_from(PLAIN_GGUF), shapes), max_size=6, unique_by=lambda tensor: tensor.name
)


@settings(max_examples=30, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some_tensors)
def test_any_tensors_come_back_through_every_format(tmp_path: Path, tensors: list[Planned]) -> None:
    tensors = [tensor for tensor in tensors if tensor.name != "__metadata__"]
    write_safetensors(tmp_path / "a.safetensors", tensors, {}, in_pieces)
    write_gguf(tmp_path / "a.gguf", tensors, {}, in_pieces)
    write_torch(tmp_path / "a.pth", tensors, in_pieces)
    for name in ("a.safetensors", "a.gguf", "a.pth"):
        source = open_tensors(tmp_path / name)
        found = {entry.name: (entry.dtype, entry.shape, bytes(source.raw(entry))) for entry in source.entries()}
        assert found == {tensor.name: (tensor.dtype, tensor.shape, bytes_of(tensor)) for tensor in tensors}
