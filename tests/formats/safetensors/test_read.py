"""SafeTensors files: the safetensors package is the judge of what is in a sound one."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tlkit.errors import LoadError
from tlkit.formats.safetensors.read import HEADER_LIMIT, SafeTensorsFile

TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int64, torch.bool, torch.uint8]
TYPES += [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.uint16, torch.int32]
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
files = st.dictionaries(st.text(max_size=20), st.tuples(st.sampled_from(TYPES), shapes), max_size=6)


def write(path: Path, header: Any, size: int = 0, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(size))
    return path


def tensor(begin: int, end: int, *shape: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@settings(max_examples=40, derandomize=True, deadline=None)
@given(wanted=files, metadata=st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3))
def test_what_the_package_writes_is_read_as_it_reads_it(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, Any], metadata: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("s") / "x.safetensors"
    wanted.pop("__metadata__", None)
    made = {
        name: torch.randint(0, 2, shape).to(dtype) if dtype is torch.bool else torch.randn(shape).to(dtype)
        for name, (dtype, shape) in wanted.items()
    }
    save_file(made, path, metadata or None)  # for {} and no tensors the package writes what it cannot read
    found = SafeTensorsFile(path)
    assert found.metadata == metadata and not found.notes
    assert {entry.name for entry in found.entries()} == made.keys()
    with safe_open(path, "pt") as theirs:
        for entry in found.entries():
            assert entry.dtype == theirs.get_slice(entry.name).get_dtype() and entry.shape == made[entry.name].shape
            flat = made[entry.name].contiguous().flatten()
            assert bytes(found.raw(entry)) == (flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
            dtype = made[entry.name].dtype
            known = (
                dtype.is_complex
                or not dtype.is_floating_point
                or dtype in (torch.float32, torch.float64, torch.float16)
            )
            expected = made[entry.name] if known else made[entry.name].to(torch.float32)
            np.testing.assert_array_equal(found.array(entry), expected.numpy())


GOOD = {"a": tensor(0, 8, 2), "b": tensor(8, 12, 1)}
HOSTILE: dict[str, tuple[Any, int, str]] = {
    "overlap": ({"a": tensor(0, 8, 2), "b": tensor(4, 12, 2)}, 12, "overlap"),
    "past the end": ({"a": tensor(0, 8, 2), "b": tensor(8, 16, 2)}, 12, "past the end"),
    "backwards": ({"a": tensor(8, 0, 2)}, 12, "past the end"),
    "negative": ({"a": tensor(-8, 0, 2)}, 12, "not a size"),
    "huge": ({"a": tensor(0, 1 << 70, 2)}, 12, "not a size"),
    "true": ({"a": tensor(0, True, 1, dtype="U8")}, 12, "not a size"),
    "wrong size": ({"a": tensor(0, 8, 3)}, 8, "not those of F32"),
    "product overflow": ({"a": tensor(0, 8, 1 << 62, 1 << 62)}, 8, "not those of F32"),
    "half a block": ({"a": tensor(0, 1, 3, dtype="F4")}, 1, "not those of F4"),
    "rank": ({"a": tensor(0, 4, *[1] * 65)}, 4, "no readable dtype or shape"),
    "no dtype": ({"a": {"shape": [], "data_offsets": [0, 4]}}, 4, "lacks"),
    "list": ([1], 0, "not a JSON object"),
    "metadata": ({"__metadata__": {"a": 1}}, 0, "not text by key"),
    "twice": (b'{"a": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}, "a": {}}', 1, "'a' appears twice"),
    "twice inside": (b'{"a": {"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', 1, "appears twice"),
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 0, "nested too deeply"),
    "rather deep": (b'{"a":' + b"[" * 80 + b"]" * 80 + b"}", 0, "nested too deeply"),
    "no json": (b'{"a"', 0, "not readable as JSON"),
    "no text": (b'{"\xff"}', 0, "not readable as JSON"),
    "digits": (b'{"a":' + b"9" * 10_000 + b"}", 0, "not readable as JSON"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused_in_a_line(tmp_path: Path, case: str) -> None:
    header, size, says = HOSTILE[case]
    path = write(tmp_path / "x.safetensors", header, size)
    with pytest.raises(LoadError) as caught:
        SafeTensorsFile(path)
    assert says in caught.value.message and str(path) in caught.value.message and "\n" not in caught.value.message
    if case != "rank":  # no PyTorch tensor has 65 dimensions, but the package does not mind
        with pytest.raises((SafetensorError, UnicodeDecodeError)):
            safe_open(path, "pt")


def test_metadata_of_null_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"__metadata__": None, **GOOD}, 12)
    found = SafeTensorsFile(path)
    assert [entry.name for entry in found.entries()] == ["a", "b"] and not found.metadata
    with safe_open(path, "pt") as file:
        assert sorted(file.keys()) == ["a", "b"]


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**9, 200])
def test_a_header_longer_than_the_file_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(LoadError, match=f"should have {length:,} bytes"):
        SafeTensorsFile(write(tmp_path / "x.safetensors", GOOD, 12, length))


def test_a_header_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", GOOD, length=HEADER_LIMIT + 1)
    with path.open("r+b") as file:
        file.truncate(200_000_000)
    with pytest.raises(LoadError, match=f"at most {HEADER_LIMIT:,} are read"):
        SafeTensorsFile(path)


def test_bytes_of_no_tensor_are_named(tmp_path: Path) -> None:
    found = SafeTensorsFile(write(tmp_path / "x.safetensors", {"a": tensor(4, 8, 1)}, 12))
    (rest,) = found.left_out
    assert (rest.bytes, rest.kind, rest.lost) == (8, "unnamed", False) and "belong to no tensor" in rest.reason


def test_a_type_that_came_later_is_listed_and_has_no_values(tmp_path: Path) -> None:
    found = SafeTensorsFile(write(tmp_path / "x.safetensors", {"a": tensor(0, 3, 2, dtype="F12")}, 3))
    (entry,) = found.entries()
    assert (entry.dtype, entry.nbytes) == ("F12", 3)
    with pytest.raises(LoadError, match="no values can be read from F12"):
        found.array(entry)


def sharded(folder: Path) -> Path:
    save_file({"a": torch.ones(2)}, folder / "model-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(3)}, folder / "model-00002-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return index


@pytest.mark.parametrize("whole", [True, False])
def test_shards_are_one_model(tmp_path: Path, whole: bool) -> None:
    index = sharded(tmp_path)
    found = SafeTensorsFile(tmp_path if whole else index)
    assert [entry.name for entry in found.entries()] == ["a", "b"] and not found.notes
    np.testing.assert_array_equal(found.array(found.entries()[1]), np.zeros(3))


def test_missing_shards_and_pointers_are_notes(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123456\n"
    (tmp_path / "model-00002-of-00002.safetensors").write_text(pointer)
    found = SafeTensorsFile(tmp_path)
    assert not found.entries()
    assert "missing, and 1 tensors" in found.notes[0] and "123,456 bytes" in found.notes[1]


def test_one_shard_alone_says_what_it_is(tmp_path: Path) -> None:
    sharded(tmp_path)
    found = SafeTensorsFile(tmp_path / "model-00002-of-00002.safetensors")
    assert [entry.name for entry in found.entries()] == ["b"] and "one of 2 shards" in found.notes[0]


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/../../x", "..", ""])
def test_an_index_may_not_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(LoadError, match="outside its folder"):
        SafeTensorsFile(index)


def test_one_name_in_two_shards_is_refused(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(LoadError, match="'a' is in"):
        SafeTensorsFile(index)
