"""GGUF files: the gguf package writes the sound ones and says what is in them.

Covers tlkit/formats/gguf/describe.py, tlkit/formats/gguf/header.py.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.real_models import MODELS, needs_models
from tlkit.errors import LoadError
from tlkit.formats.gguf.describe import FILE_TYPES, describe_gguf, memory, quantization
from tlkit.formats.gguf.header import GGUFArray
from tlkit.formats.gguf.read import GGUFFile

Types = gguf.GGUFValueType
SCALARS: dict[Types, Any] = {
    Types.UINT8: st.integers(0, 255),
    Types.INT8: st.integers(-128, 127),
    Types.UINT16: st.integers(0, 2**16 - 1),
    Types.INT16: st.integers(-(2**15), 2**15 - 1),
    Types.UINT32: st.integers(0, 2**32 - 1),
    Types.INT32: st.integers(-(2**31), 2**31 - 1),
    Types.FLOAT32: st.floats(width=32, allow_nan=False),
    Types.BOOL: st.booleans(),
    Types.STRING: st.text(max_size=12),
    Types.UINT64: st.integers(0, 2**64 - 1),
    Types.INT64: st.integers(-(2**63), 2**63 - 1),
    Types.FLOAT64: st.floats(allow_nan=False),
}
values = st.one_of([strategy.map(lambda v, k=kind: (k, v)) for kind, strategy in SCALARS.items()])
arrays = st.one_of(
    st.lists(SCALARS[Types.STRING], min_size=1, max_size=5),
    st.lists(st.integers(-9, 9), min_size=1, max_size=5),
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=3),
)
NAMES = ["f32", "bool", "str", "u64"]


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    fields=st.dictionaries(st.text("abc.", min_size=1, max_size=9), st.one_of(values, arrays), max_size=6),
    shapes=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple), max_size=4),
    big=st.booleans(),
    alignment=st.sampled_from([32, 64, 8]),
)
def test_what_the_package_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any], shapes: list[Any], big: bool, alignment: int
) -> None:
    path = tmp_path_factory.mktemp("g") / "x.gguf"
    writer = gguf.GGUFWriter(path, "any", endianess=gguf.GGUFEndian.BIG if big else gguf.GGUFEndian.LITTLE)
    if alignment != 32:
        writer.add_custom_alignment(alignment)
    for key, value in fields.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value[1], value[0])
    tensors = {f"t{i}": np.random.default_rng(i).standard_normal(shape, np.float32) for i, shape in enumerate(shapes)}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.copy())  # which the package swaps in place
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = GGUFFile(path)
    assert (found.version, found.big_endian, found.alignment) == (3, big, alignment)
    for key, value in fields.items():
        if isinstance(value, list):
            held = found.metadata[key]
            assert isinstance(held, GGUFArray) and len(held) == len(value)
            assert [list(item) if isinstance(item, GGUFArray) else item for item in held] == value
        else:
            assert found.metadata[key] == value[1]
            names = {"FLOAT": "f", "UINT": "u", "INT": "i", "BOOL": "bool", "STRING": "str"}
            stem = value[0].name.rstrip("0123456789")
            assert found.types[key] == names[stem] + value[0].name.removeprefix(stem)
    assert [entry.name for entry in found.entries()] == list(tensors)
    for entry in found.entries():
        assert entry.offset is not None and entry.offset % alignment == 0
        if not big or tensors[entry.name].size:
            np.testing.assert_array_equal(found.array(entry), tensors[entry.name])


def head(version: int = 3, tensors: int = 0, pairs: int = 0, order: str = "<") -> bytes:
    size = "Q" if version > 1 else "I"
    return b"GGUF" + struct.pack(f"{order}I2{size}", version, tensors, pairs)


def text(value: bytes, order: str = "<", size: str = "Q") -> bytes:
    return struct.pack(f"{order}{size}", len(value)) + value


def record(name: bytes, dims: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def pair(key: bytes, kind: int, content: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + content


def opened(tmp_path: Path, data: bytes) -> GGUFFile:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    return GGUFFile(path)


@pytest.mark.parametrize("order", "<>")
def test_version_1_counts_in_32_bits(tmp_path: Path, order: str) -> None:
    body = text(b"key", order, "I") + struct.pack(f"{order}I", 8) + text(b"value", order, "I")
    words = struct.pack(f"{order}II", 8, 2) + text(b"a", order, "I") + text(b"bc", order, "I")
    body += text(b"words", order, "I") + struct.pack(f"{order}I", 9) + words
    body += text(b"t", order, "I") + struct.pack(f"{order}I2IIQ", 2, 3, 2, 0, 0)
    data = head(1, 1, 2, order) + body
    data += bytes(-len(data) % 32) + np.arange(6, dtype=f"{order}f4").tobytes()
    found = opened(tmp_path, data)
    assert found.version == 1 and found.metadata["key"] == "value" and list(found.metadata["words"]) == ["a", "bc"]
    (entry,) = found.entries()
    np.testing.assert_array_equal(found.array(entry), np.arange(6.0).reshape(2, 3))


def test_quantized_shapes_are_rows_first(tmp_path: Path) -> None:
    kind = gguf.GGMLQuantizationType.Q8_0
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    matrix = np.random.default_rng(0).standard_normal((3, 64), np.float32)
    stored = gguf.quants.quantize(matrix, kind)
    writer.add_tensor("q", stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = GGUFFile(path)
    (entry,) = found.entries()
    assert (entry.dtype, entry.shape, entry.nbytes) == ("Q8_0", (3, 64), stored.nbytes)
    assert bytes(found.raw(entry)) == stored.tobytes()
    np.testing.assert_array_equal(found.array(entry), gguf.quants.dequantize(stored, kind))


LAST = 1 << 62
HOSTILE = {
    "a billion tensors": (head(tensors=10**9), "claims 1,000,000,000 tensors"),
    "2^63 pairs": (head(pairs=2**63), "metadata entries"),
    "long key": (head(pairs=1) + struct.pack("<QI", LAST, 4) + bytes(8), "past the end"),
    "long string": (head(pairs=1) + pair(b"k", 8, struct.pack("<Q", LAST)), "past the end"),
    "long array": (head(pairs=1) + pair(b"k", 9, struct.pack("<IQ", 4, LAST)), "array elements"),
    "many strings": (head(pairs=1) + pair(b"k", 9, struct.pack("<IQ", 8, LAST)), "strings"),
    "string in array": (head(pairs=1) + pair(b"k", 9, struct.pack("<IQQ", 8, 1, LAST)), "past the end"),
    "wrapping string": (head(pairs=1) + pair(b"k", 9, struct.pack("<IQ2Q", 8, 2, 2**64 - 8, 0)), "past the end"),
    "deep arrays": (head(pairs=1) + pair(b"k", 9, struct.pack("<IQ", 9, 1) * 40), "nested too deeply"),
    "unknown type": (head(pairs=1) + pair(b"k", 99, bytes(64)), "unknown type 99"),
    "key twice": (head(pairs=2) + pair(b"k", 7, b"\1") * 2 + bytes(9), "'k' appears twice"),
    "alignment 0": (head(pairs=1) + pair(b"general.alignment", 4, bytes(4)), "not a power of two"),
    "alignment 3": (head(pairs=1) + pair(b"general.alignment", 4, struct.pack("<I", 3)), "not a power of two"),
    "rank": (head(tensors=1) + text(b"t") + struct.pack("<I", 2**31) + bytes(64), "dimensions"),
    "outside": (head(tensors=1) + record(b"t", (1000,), 0, 0) + bytes(64), "past the end"),
    "far outside": (head(tensors=1) + record(b"t", (4,), 0, LAST) + bytes(99), "past the end"),
    "enormous": (head(tensors=1) + record(b"t", (LAST, LAST), 0, 0) + bytes(99), "past the end"),
    "overlap": (head(tensors=2) + record(b"t", (8,), 0, 0) + record(b"u", (8,), 0, 16) + bytes(99), "overlap"),
    "name twice": (head(tensors=2) + record(b"t", (4,), 0, 0) + record(b"t", (4,), 0, 32) + bytes(99), "twice"),
    "half a block": (head(tensors=1) + record(b"t", (16,), 8, 0) + bytes(99), "not Q8_0 blocks"),
    "rows of half blocks": (head(tensors=1) + record(b"t", (16, 2), 8, 0) + bytes(99), "not Q8_0 blocks"),
    "version 4": (head(4) + bytes(99), "GGUF of version 4"),
    "cut in the header": (head(pairs=1)[:20], "shorter than GGUF's header"),
    "no tensors left": (head(tensors=1) + record(b"t", (1,), 0, 0), "past its end"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused_in_a_line(tmp_path: Path, case: str) -> None:
    data, says = HOSTILE[case]
    with pytest.raises(LoadError) as caught:
        opened(tmp_path, data)
    assert says in caught.value.message and "\n" not in caught.value.message


def test_windows_of_strings_join_up(tmp_path: Path) -> None:
    """Strings longer than a window and lengths across a window's edge, among 300,000 short ones."""
    words = [b"w" * (index % 7) for index in range(300_000)]
    words[1000] = b"x" * (3 << 20)
    content = struct.pack("<IQ", 8, len(words)) + b"".join(map(text, words))
    found = opened(tmp_path, head(pairs=2) + pair(b"k", 9, content) + pair(b"after", 4, struct.pack("<I", 7)))
    assert found.metadata["after"] == 7
    held = found.metadata["k"]
    assert len(held) == len(words) and [word.encode() for word in held] == words


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.lists(st.binary(max_size=9) | st.sampled_from([b"", b"\0", b"\1" + bytes(7), bytes(9), b"x" * 256]), max_size=5)
)
def test_strings_of_any_bytes_are_kept_apart(tmp_path_factory: pytest.TempPathFactory, words: list[bytes]) -> None:
    """Zeros and lengths of several bytes look like what lies between short strings."""
    content = struct.pack("<IQ", 8, len(words)) + b"".join(map(text, words))
    found = opened(tmp_path_factory.mktemp("g"), head(pairs=1) + pair(b"k", 9, content))
    assert [word.encode("utf-8", "surrogateescape") for word in found.metadata["k"]] == words


def test_a_type_that_came_later_is_listed(tmp_path: Path) -> None:
    data = head(tensors=2) + record(b"t", (8,), 77, 0) + record(b"u", (4,), 0, 32)
    found = opened(tmp_path, data + bytes(-len(data) % 32 + 48))
    assert [(entry.dtype, entry.nbytes) for entry in found.entries()] == [("GGML77", 32), ("F32", 16)]


def split(folder: Path, count: int = 2) -> list[Path]:
    paths = [folder / f"m-{part:05}-of-{count:05}.gguf" for part in range(1, count + 1)]
    for index, path in enumerate(paths):
        pairs = pair(b"only.first", 7, b"\1") if not index else pair(b"split.no", 4, struct.pack("<I", index))
        data = head(tensors=1, pairs=1) + pairs + record(b"t%d" % index, (4,), 0, 0)
        path.write_bytes(data + bytes(-len(data) % 32) + np.full(4, index, "<f4").tobytes())
    return paths


def test_a_part_that_is_a_link_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    first, second = split(tmp_path / "f")
    second.rename(tmp_path / "elsewhere")
    second.symlink_to("../elsewhere")
    with pytest.raises(LoadError, match=r"link to .*outside"):
        GGUFFile(first)
    first.rename(tmp_path / "first")
    first.symlink_to("../first")
    second.unlink()
    (tmp_path / "elsewhere").rename(second)
    assert len(GGUFFile(first).shards) == 2  # named by the user, who knows where it leads


@pytest.mark.parametrize("named", [0, 1])
def test_split_files_are_one_model(tmp_path: Path, named: int) -> None:
    found = GGUFFile(split(tmp_path)[named])
    assert [entry.name for entry in found.entries()] == ["t0", "t1"] and not found.notes
    assert found.metadata["only.first"] is True
    np.testing.assert_array_equal(found.array(found.entries()[1]), np.ones(4))


def test_missing_parts_are_a_note(tmp_path: Path) -> None:
    paths = split(tmp_path, 3)
    paths[0].unlink()
    found = GGUFFile(paths[2])
    assert "1 of the model's 3 files are missing" in found.notes[0] and len(found.entries()) == 2


def test_file_types_are_the_gguf_packages() -> None:
    theirs = {kind.value: kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in gguf.LlamaFileType}
    del theirs[gguf.LlamaFileType.GUESSED]
    expected = {number: name.removesuffix("_MOE") for number, name in theirs.items()}
    assert expected.items() <= FILE_TYPES.items()


def test_memory_is_weights_and_a_cache_of_f16() -> None:
    own = {"block_count": 4, "attention.head_count": 8, "attention.head_count_kv": 2, "embedding_length": 64}
    # 4 layers, 2 heads, 8 + 8 elements of 2 bytes: 256 bytes a token
    assert memory(own | {"context_length": 4096}, 1000) == {"2048": 1000 + 256 * 2048, "4096": 1000 + 256 * 4096}
    assert memory(own | {"attention.key_length": 16, "context_length": 16}, 0) == {"16": 4 * 2 * (16 + 8) * 2 * 16}
    assert memory(own | {"attention.head_count_kv": [1, 1, 1, 3], "context_length": 1}, 0) == {"1": 6 * 16 * 2}
    assert memory({}, 1000) == {}


def test_a_recipe_that_the_tensors_belie_is_not_believed(tmp_path: Path) -> None:
    data = head(tensors=1, pairs=1) + pair(b"general.file_type", 4, struct.pack("<I", 15)) + record(b"t", (4,), 0, 0)
    assert quantization(opened(tmp_path, data + bytes(-len(data) % 32 + 16))) == "F32"


@needs_models
@pytest.mark.parametrize("name", ["ggml-vocab-llama-spm", pytest.param("ggml-vocab-bert-bge", marks=pytest.mark.slow)])
def test_real_vocabularies_read_as_the_package_reads_them(name: str) -> None:
    path = MODELS / f"gguf/{name}.gguf"
    found, theirs = GGUFFile(path), gguf.GGUFReader(path)
    for key, field in theirs.fields.items():
        if key.startswith("GGUF."):
            continue
        held = found.metadata[key]
        assert (list(held) if isinstance(held, GGUFArray) else held) == field.contents()
    tokenizer = describe_gguf(found)["tokenizer"]
    assert tokenizer["tokens"] == len(theirs.fields["tokenizer.ggml.tokens"].data)
