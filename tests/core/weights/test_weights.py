"""Weights from format to format: what is kept, what changes, what is lost, and what is refused.

Covers tlkit/core/weights/data.py, tlkit/core/weights/files.py, tlkit/core/weights/metadata.py,
tlkit/core/weights/plan.py.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

import tlkit
from tests.formats import packages
from tlkit.core.weights.weights import convert_weights
from tlkit.errors import LoadError, TlkitError, UsageError

RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(6, 64)).astype(np.float32)
NORM = RNG.normal(size=64).astype(np.float32)
ODD = RNG.normal(size=(3, 5)).astype(np.float32)
TENSORS = {"w": MATRIX, "norm": NORM, "odd": ODD, "ids": np.arange(6, dtype=np.int64).reshape(2, 3)}


def safe(path: Path, tensors: dict[str, np.ndarray] = TENSORS, metadata: dict[str, str] | None = None) -> Path:
    save_file(tensors, path, metadata)
    return path


def write_gguf(path: Path, tensors: dict[str, tuple[np.ndarray, str]], **metadata: Any) -> Path:
    """Write with the gguf package; a tensor is an array and the name of its type."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in metadata.items():
        (writer.add_array if isinstance(value, list) else writer.add_uint32)(f"llama.{key}", value)
    for name, (array, kind) in tensors.items():
        writer.add_tensor(name, array, raw_dtype=GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def blocks(array: np.ndarray, kind: str) -> tuple[np.ndarray, str]:
    return quants.quantize(array, GGMLQuantizationType[kind]), kind


def read_gguf(path: Path) -> dict[str, tuple[str, bytes]]:
    return {found.name: (found.tensor_type.name, found.data.tobytes()) for found in gguf.GGUFReader(path).tensors}


def test_the_public_name() -> None:
    assert tlkit.convert_weights is convert_weights


@pytest.mark.parametrize("ending", ["safetensors", "gguf", "pth", "pt", "bin"])
def test_values_arrive_unchanged_in_every_format_and_back(tmp_path: Path, ending: str) -> None:
    result = convert_weights(safe(tmp_path / "a.safetensors"), tmp_path / f"b.{ending}")
    assert (result.tensors, result.parameters) == (4, MATRIX.size + NORM.size + ODD.size + 6)
    assert not result.changed and not result.lost and not result.renamed
    assert result.size == (tmp_path / f"b.{ending}").stat().st_size
    convert_weights(tmp_path / f"b.{ending}", tmp_path / "c.safetensors")
    found = load_file(tmp_path / "c.safetensors")
    assert set(found) == set(TENSORS)
    for name, array in TENSORS.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)


def test_torch_reads_the_state_dict_and_a_module_loads_it(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    save_torch(module.state_dict(), tmp_path / "a.safetensors")
    convert_weights(tmp_path / "a.safetensors", tmp_path / "a.pth")
    other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    other.load_state_dict(torch.load(tmp_path / "a.pth", weights_only=True))
    assert all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_views_of_shared_and_transposed_storage_are_written_out(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    state = {"whole": base, "turned": base.T, "column": base[:, 2], "half": base.to(torch.bfloat16).T}
    torch.save(state, tmp_path / "a.pth")
    convert_weights(tmp_path / "a.pth", tmp_path / "a.safetensors")
    found = load_torch(tmp_path / "a.safetensors")
    assert {name: (tensor.dtype, tensor.tolist()) for name, tensor in found.items()} == {
        name: (tensor.dtype, tensor.tolist()) for name, tensor in state.items()
    }


def test_a_pickle_that_runs_code_is_read_without_running_it(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"w": torch.ones(2, 2), "bad": Bad()}, tmp_path / "a.pth")
    convert_weights(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors")["w"].tolist() == [[1, 1], [1, 1]]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("dtype", "made"), [("f16", torch.float16), ("bf16", torch.bfloat16), ("f32", torch.float32)])
def test_dtype_is_for_real_numbers_alone(tmp_path: Path, dtype: str, made: torch.dtype) -> None:
    result = convert_weights(safe(tmp_path / "a.safetensors"), tmp_path / "b.safetensors", dtype=dtype)
    found = load_torch(tmp_path / "b.safetensors")
    for name in ("w", "norm", "odd"):
        assert torch.equal(found[name], torch.from_numpy(TENSORS[name]).to(made))
    assert found["ids"].dtype == torch.int64
    assert result.changed == ({("F32", dtype.upper()): 3} if dtype != "f32" else {})


def test_overflow_and_underflow_are_counted(tmp_path: Path) -> None:
    values = np.array([1e6, -1e6, np.inf, 1e-9, 0.0, 1.0], np.float32)
    result = convert_weights(safe(tmp_path / "a.safetensors", {"x": values}), tmp_path / "b.pth", dtype="f16")
    assert result.lost == {"overflow": 2, "underflow": 1}


def test_large_tensors_are_converted_in_pieces_that_fit_together(tmp_path: Path) -> None:
    large = RNG.normal(size=(1100, 2048)).astype(np.float32)
    convert_weights(safe(tmp_path / "a.safetensors", {"x": large}), tmp_path / "b.gguf", quantize="q8_0")
    assert read_gguf(tmp_path / "b.gguf")["x"][1] == blocks(large, "Q8_0")[0].tobytes()
    convert_weights(tmp_path / "b.gguf", tmp_path / "c.safetensors", dtype="bf16")
    wide = quants.dequantize(blocks(large, "Q8_0")[0], GGMLQuantizationType.Q8_0)
    assert torch.equal(load_torch(tmp_path / "c.safetensors")["x"], torch.from_numpy(wide).to(torch.bfloat16))


@pytest.mark.parametrize("quantize", ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1"])
def test_matrices_of_whole_blocks_are_quantized(tmp_path: Path, quantize: str) -> None:
    result = convert_weights(safe(tmp_path / "a.safetensors"), tmp_path / "b.gguf", quantize=quantize)
    found = read_gguf(tmp_path / "b.gguf")
    assert found["w"] == (quantize.upper(), blocks(MATRIX, quantize.upper())[0].tobytes())
    assert found["norm"] == ("F32", NORM.tobytes())
    assert found["odd"] == ("F32", ODD.tobytes())
    assert found["ids"][0] == "I64"
    (note,) = (note for note in result.notes if "whole blocks" in note)
    assert note.startswith("'odd' is not quantized")
    again = convert_weights(tmp_path / "b.gguf", tmp_path / "c.gguf", quantize="q4_0")
    assert [note for note in again.notes if "whole blocks" in note] == [note.replace(quantize.upper(), "Q4_0")]


def test_vectors_stay_f32_beside_narrow_matrices_in_gguf(tmp_path: Path) -> None:
    halves = {name: array.astype(np.float16) for name, array in TENSORS.items() if name != "ids"}
    convert_weights(safe(tmp_path / "a.safetensors", halves), tmp_path / "b.gguf", dtype="bf16")
    assert {name: kind for name, (kind, _) in read_gguf(tmp_path / "b.gguf").items()} == {
        "w": "BF16",
        "norm": "F32",
        "odd": "BF16",
    }


def test_blocks_are_expanded_outside_gguf_and_kept_inside(tmp_path: Path) -> None:
    wide = RNG.normal(size=(4, 256)).astype(np.float32)
    stored = {"w": blocks(wide, "Q8_0"), "b": (NORM, "F32")}
    source = write_gguf(tmp_path / "a.gguf", stored)
    result = convert_weights(source, tmp_path / "a.safetensors", names="keep")
    assert result.changed == {("Q8_0", "F32"): 1}
    found = load_file(tmp_path / "a.safetensors")
    assert np.array_equal(found["w"], quants.dequantize(stored["w"][0], GGMLQuantizationType.Q8_0))
    assert np.array_equal(found["b"], NORM)
    assert not convert_weights(source, tmp_path / "b.gguf").changed
    assert read_gguf(tmp_path / "b.gguf") == read_gguf(source)


def test_types_that_gguf_lacks_become_wider_ones(tmp_path: Path) -> None:
    tensors = {
        "bool": torch.tensor([True, False]),
        "u8": torch.tensor([0, 255], dtype=torch.uint8),
        "u16": torch.tensor([0, 65535], dtype=torch.uint16),
        "f8": torch.tensor([0.5, 448.0, 2.0**-9]).to(torch.float8_e4m3fn),
    }
    save_torch(tensors, tmp_path / "a.safetensors")
    result = convert_weights(tmp_path / "a.safetensors", tmp_path / "b.gguf")
    assert not result.lost
    convert_weights(tmp_path / "b.gguf", tmp_path / "c.safetensors")
    found = load_torch(tmp_path / "c.safetensors")
    wanted = {"bool": torch.int8, "u8": torch.int16, "u16": torch.int32, "f8": torch.float16}
    assert {name: tensor.dtype for name, tensor in found.items()} == wanted
    assert all(torch.equal(found[name].to(torch.float64), tensors[name].to(torch.float64)) for name in tensors)


def test_names_are_mapped_where_the_architecture_is_known(tmp_path: Path) -> None:
    names = {"model.layers.0.mlp.up_proj.weight": MATRIX, "lm_head.weight": ODD, "extra": NORM}
    folder = tmp_path / "model"
    folder.mkdir()
    safe(folder / "model.safetensors", names)
    (folder / "config.json").write_text(json.dumps({"model_type": "mistral"}))
    result = convert_weights(folder, tmp_path / "b.gguf")
    assert set(read_gguf(tmp_path / "b.gguf")) == {"blk.0.ffn_up.weight", "output.weight", "extra"}
    assert result.renamed == 2
    assert any("no place for 1 of its tensors: extra" in note for note in result.notes)
    assert any("of its tensors are not there" in note for note in result.notes)
    reader = gguf.GGUFReader(tmp_path / "b.gguf")
    assert reader.fields["general.architecture"].contents() == "llama"
    convert_weights(tmp_path / "b.gguf", tmp_path / "c.safetensors")
    assert set(load_file(tmp_path / "c.safetensors")) == set(names)
    convert_weights(tmp_path / "b.gguf", tmp_path / "d.safetensors", names="keep")
    assert "blk.0.ffn_up.weight" in load_file(tmp_path / "d.safetensors")


def test_gguf_s_metadata_comes_back_through_safetensors_with_its_types(tmp_path: Path) -> None:
    words = ["a", "é", ""]
    source = write_gguf(tmp_path / "a.gguf", {"w": (MATRIX, "F32")}, block_count=3, words=words, numbers=[1, 2])
    convert_weights(source, tmp_path / "b.safetensors")
    with safe_open(tmp_path / "b.safetensors", "np") as file:
        assert file.metadata()["llama.block_count"] == "3"
    convert_weights(tmp_path / "b.safetensors", tmp_path / "c.gguf")
    first, second = gguf.GGUFReader(source), gguf.GGUFReader(tmp_path / "c.gguf")
    said = {name: (field.contents(), field.types) for name, field in first.fields.items() if "GGUF." not in name}
    assert said["llama.words"][0] == words
    assert {name: (f.contents(), f.types) for name, f in second.fields.items() if "GGUF." not in name} == said


def test_a_gguf_that_llama_cpp_will_not_load_is_called_weights_only(tmp_path: Path) -> None:
    words = "weights only: it lacks hyperparameters or a tokenizer, and will not load in llama.cpp"
    source = write_gguf(tmp_path / "a.gguf", {"w": (MATRIX, "F32")}, block_count=3)
    assert words in convert_weights(source, tmp_path / "b.gguf").notes
    tokenizer = {"tokenizer.ggml.model": "gpt2"}
    assert words not in convert_weights(source, tmp_path / "c.gguf", metadata=tokenizer).notes
    safe(tmp_path / "d.safetensors", {"w": MATRIX})
    assert words in convert_weights(tmp_path / "d.safetensors", tmp_path / "d.gguf", metadata=tokenizer).notes
    assert words not in convert_weights(source, tmp_path / "e.safetensors").notes


def test_metadata_is_edited(tmp_path: Path) -> None:
    source = safe(tmp_path / "a.safetensors", metadata={"old": "1", "gone": "2", "format": "pt"})
    edits = ["old=x=y", "gone=", "new=3", "a.count=3", "a.share=0.5", "a.flag=true", "a.name:str=7", "general.name=1"]
    convert_weights(source, tmp_path / "b.safetensors", metadata=edits)
    with safe_open(tmp_path / "b.safetensors", "np") as file:
        said = file.metadata()
    assert (said["old"], said["new"], said["format"]) == ("x=y", "3", "pt") and "gone" not in said
    convert_weights(source, tmp_path / "b.gguf", metadata=edits)
    fields = gguf.GGUFReader(tmp_path / "b.gguf").fields
    found = {name: (field.types[0].name, field.contents()) for name, field in fields.items() if "GGUF." not in name}
    assert found == {
        "old": ("STRING", "x=y"),
        "new": ("STRING", "3"),
        "a.count": ("UINT32", 3),
        "a.share": ("FLOAT32", 0.5),
        "a.flag": ("BOOL", True),
        "a.name": ("STRING", "7"),
        "general.name": ("STRING", "1"),
    }


def test_a_mapping_of_metadata_and_a_wrong_one(tmp_path: Path) -> None:
    source = safe(tmp_path / "a.safetensors")
    convert_weights(source, tmp_path / "b.safetensors", metadata={"k": "v"})
    with safe_open(tmp_path / "b.safetensors", "np") as file:
        assert file.metadata() == {"k": "v", "format": "pt"}
    for edit, reason in (
        ("k", "not metadata"),
        ("a.b:u32=x", "not a u32"),
        ("general.alignment=3", "not an alignment"),
    ):
        with pytest.raises(UsageError, match=reason):
            convert_weights(source, tmp_path / "c.gguf", metadata=[edit])


def test_the_file_type_follows_the_tensors(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "a.gguf", {"w": (MATRIX, "F32")})
    convert_weights(source, tmp_path / "b.gguf", metadata=["general.file_type=0"])
    convert_weights(tmp_path / "b.gguf", tmp_path / "c.gguf", quantize="q8_0")
    assert gguf.GGUFReader(tmp_path / "c.gguf").fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_Q8_0


def test_safetensors_are_split_with_an_index(tmp_path: Path) -> None:
    source = safe(tmp_path / "a.safetensors", metadata={"k": "v"})
    result = convert_weights(source, tmp_path / "b.safetensors", max_shard_size="1kB")
    shards = sorted(file.name for file in tmp_path.glob("b-*"))
    assert shards == [f"b-{index:05}-of-{len(shards):05}.safetensors" for index in range(1, len(shards) + 1)]
    assert len(shards) > 1 and not (tmp_path / "b.safetensors").exists()
    index = json.loads((tmp_path / "b.safetensors.index.json").read_text())["weight_map"]
    assert result.files[0].name == "b.safetensors.index.json"
    for name, array in TENSORS.items():
        assert np.array_equal(load_file(tmp_path / index[name])[name], array)
    convert_weights(tmp_path / "b.safetensors.index.json", tmp_path / "c.safetensors")
    assert set(load_file(tmp_path / "c.safetensors")) == set(TENSORS)
    with safe_open(tmp_path / "c.safetensors", "np") as file:
        assert file.metadata() == {"k": "v", "format": "pt"}


def test_gguf_is_split_as_llama_cpp_does(tmp_path: Path) -> None:
    convert_weights(safe(tmp_path / "a.safetensors"), tmp_path / "b.gguf", max_shard_size=1000)
    files = sorted(tmp_path.glob("b-*.gguf"))
    readers = [gguf.GGUFReader(file) for file in files]
    assert [reader.fields["split.no"].contents() for reader in readers] == list(range(len(files)))
    assert {reader.fields["split.count"].contents() for reader in readers} == {len(files)}
    assert {reader.fields["split.tensors.count"].contents() for reader in readers} == {4}
    convert_weights(files[0], tmp_path / "c.safetensors")
    assert set(load_file(tmp_path / "c.safetensors")) == set(TENSORS)


def test_what_fits_is_not_split(tmp_path: Path) -> None:
    result = convert_weights(safe(tmp_path / "a.safetensors"), tmp_path / "b.safetensors", max_shard_size="5GB")
    assert result.files == (tmp_path / "b.safetensors",)


def compressed(folder: Path) -> Path:
    """A package with an f16 weight named as coremltools does, and an int8 one with a scale for each row."""
    weights = packages.Weights()
    plain = weights.add("fp16", packages.MATRIX.tobytes())
    data = weights.add("int8", bytes(range(12)))
    body = packages.Body("CoreML8")
    body.input("x", packages.tensor_type("fp32", 1, 4))
    body.const("layer_weight_to_fp16", packages.stored("fp16", plain, 3, 4))
    parts = {
        "data": body.const("data", packages.stored("int8", data, 3, 4)),
        "scale": body.const("scale", packages.immediate("fp32", [[0.5], [2.0], [4.0]])),
    }
    body.op("constexpr_blockwise_shift_scale", {"packed": packages.tensor_type("fp32", 3, 4)}, parts)
    body.returns("x")
    model = packages.MODEL.Model(specificationVersion=9)
    packages.array_feature(model.description.input.add(), "x", packages.ARRAYS.FLOAT32, 1, 4)
    packages.array_feature(model.description.output.add(), "x", packages.ARRAYS.FLOAT32, 1, 4)
    model.description.metadata.author = "A. Author"
    model.mlProgram.CopyFrom(body.message)
    return packages.write(folder, model, weights.done())


def test_core_ml_weights_are_expanded_under_their_parameters_names(tmp_path: Path) -> None:
    source = compressed(tmp_path / "a.mlpackage")
    result = convert_weights(source, tmp_path / "a.safetensors")
    found = load_file(tmp_path / "a.safetensors")
    assert set(found) == {"layer_weight", "packed"}
    assert np.array_equal(found["layer_weight"], packages.MATRIX) and found["layer_weight"].dtype == np.float16
    data = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert np.array_equal(found["packed"], data * np.array([[0.5], [2], [4]], np.float32))
    assert result.changed == {("INT8", "F32"): 1}
    with safe_open(tmp_path / "a.safetensors", "np") as file:
        assert file.metadata() == {"author": "A. Author", "format": "pt"}


def test_core_ml_weights_raw_are_their_parts(tmp_path: Path) -> None:
    convert_weights(compressed(tmp_path / "a.mlpackage"), tmp_path / "a.safetensors", raw=True, names="keep")
    found = load_file(tmp_path / "a.safetensors")
    assert set(found) == {"layer_weight_to_fp16", "packed.data", "packed.scale"}
    assert found["packed.data"].dtype == np.int8 and found["packed.data"].ravel().tolist() == list(range(12))
    assert found["packed.scale"].tolist() == [[0.5], [2], [4]]


def test_a_file_is_not_replaced_by_itself_in_another_type(tmp_path: Path) -> None:
    path = safe(tmp_path / "a.safetensors")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is the input itself"):
        convert_weights(path, path, dtype="f16", force=True)
    assert path.read_bytes() == before


def test_a_shard_of_the_input_is_not_replaced(tmp_path: Path) -> None:
    convert_weights(safe(tmp_path / "a.safetensors"), tmp_path / "b.safetensors", max_shard_size=1000)
    (tmp_path / "c.safetensors.index.json").write_bytes((tmp_path / "b.safetensors.index.json").read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for source in ("c.safetensors.index.json", "b.safetensors.index.json"):
        with pytest.raises(UsageError, match="is the input itself"):
            convert_weights(tmp_path / source, tmp_path / "b.safetensors", max_shard_size=1000, force=True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("b.safetensors", {"dtype": "f64"}, "unknown type 'f64'"),
    ("b.safetensors", {"quantize": "q8_0"}, "only for GGUF"),
    ("b.gguf", {"quantize": "q7_k"}, "not a block type that can be written"),
    ("b.gguf", {"names": "mine"}, "unknown names"),
    ("b.pth", {"max_shard_size": "1GB"}, "one file"),
    ("b.safetensors", {"max_shard_size": "big"}, "not a size"),
    ("b.safetensors", {"max_shard_size": 0}, "not a size"),
    ("b.onnx", {}, "no format of weights"),
    ("gone/b.gguf", {}, "no folder"),
    ("a.safetensors", {}, "is the input itself"),
]


@pytest.mark.parametrize(("output", "options", "reason"), REFUSED)
def test_wrong_wishes_are_refused_before_anything_is_read(
    tmp_path: Path, output: str, options: dict[str, Any], reason: str
) -> None:
    source = safe(tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match=reason):
        convert_weights(source, tmp_path / output, **options)
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    safe(tmp_path / "a.safetensors", {"deep": np.zeros((1, 1, 1, 1, 1), np.float32)})
    with pytest.raises(UsageError, match="'deep' has more dimensions"):
        convert_weights(tmp_path / "a.safetensors", tmp_path / "b.gguf")
    save_torch({"z": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "c.safetensors")
    with pytest.raises(UsageError, match="'z' is C64, which GGUF cannot hold"):
        convert_weights(tmp_path / "c.safetensors", tmp_path / "b.gguf")
    assert not (tmp_path / "b.gguf").exists()


def header(content: dict[str, Any], size: int) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


HOSTILE = {
    "past_the_end.safetensors": header({"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}, 8),
    "long_header.safetensors": struct.pack("<Q", 1 << 63) + b"{}",
    "strange_type.safetensors": header({"x": {"dtype": "Q9", "shape": [2], "data_offsets": [0, 8]}}, 8),
    "many_tensors.gguf": b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0),
    "empty.gguf": b"GGUF" + struct.pack("<IQQ", 3, 0, 0),
    "no_model.pth": b"\x80\x02}q\x00.",
    "nothing.safetensors": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("ending", ["safetensors", "gguf", "pth"])
def test_hostile_files_leave_one_line_and_no_output(tmp_path: Path, name: str, ending: str) -> None:
    (tmp_path / name).write_bytes(HOSTILE[name])
    with pytest.raises(TlkitError) as caught:
        convert_weights(tmp_path / name, tmp_path / f"out.{ending}")
    assert "\n" not in caught.value.message and str(tmp_path / name) in caught.value.message
    assert os.listdir(tmp_path) == [name]


def test_a_shard_that_is_missing_is_no_reason_to_convert_the_rest(tmp_path: Path) -> None:
    convert_weights(safe(tmp_path / "a.safetensors"), tmp_path / "b.safetensors", max_shard_size=1000)
    next(tmp_path.glob("b-00002*")).unlink()
    with pytest.raises(LoadError, match="missing"):
        convert_weights(tmp_path / "b.safetensors.index.json", tmp_path / "c.safetensors")
    assert not (tmp_path / "c.safetensors").exists()


def test_an_interrupt_leaves_no_shard_behind(tmp_path: Path) -> None:
    def stop(what: str, share: float) -> None:
        if share > 0.9:
            raise KeyboardInterrupt

    source = safe(tmp_path / "a.safetensors")
    with pytest.raises(KeyboardInterrupt):
        convert_weights(source, tmp_path / "b.safetensors", max_shard_size=1000, report=stop)
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_tokens_that_are_not_text_and_nested_arrays_keep_their_bytes(tmp_path: Path) -> None:
    """From GGUF to GGUF, and through SafeTensors."""
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_array("tokenizer.ggml.tokens", [b"a", b"\xff\xfe", "é".encode()])
    writer.add_array("x.nested", [[1, 2], [3]])
    writer.add_tensor("w", MATRIX)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    convert_weights(tmp_path / "a.gguf", tmp_path / "b.gguf")
    convert_weights(tmp_path / "a.gguf", tmp_path / "c.safetensors")
    convert_weights(tmp_path / "c.safetensors", tmp_path / "d.gguf")
    wanted = [bytes(part) for part in gguf.GGUFReader(tmp_path / "a.gguf").fields["tokenizer.ggml.tokens"].parts]
    for name in ("b.gguf", "d.gguf"):
        found = gguf.GGUFReader(tmp_path / name).fields["tokenizer.ggml.tokens"]
        assert [bytes(part) for part in found.parts] == wanted
        opened = tlkit.load_model(tmp_path / name).tensors().source
        assert opened.types["x.nested"] == "arr[arr[i32]]"  # type: ignore[attr-defined]
        assert [list(part) for part in opened.metadata["x.nested"]] == [[1, 2], [3]]


def test_scales_that_f16_cannot_hold_are_counted(tmp_path: Path) -> None:
    values = np.ones((4, 32), np.float32)
    values[0] *= 1e8  # q8_0's scale is 1e8 / 127, past 65504
    values[1] *= 1e-7  # and here it is zero
    result = convert_weights(safe(tmp_path / "a.safetensors", {"w": values}), tmp_path / "b.gguf", quantize="q8_0")
    found = gguf.quants.dequantize(gguf.GGUFReader(tmp_path / "b.gguf").tensors[0].data, GGMLQuantizationType.Q8_0)
    assert not np.isfinite(found[0]).any() and not found[1].any() and np.isfinite(found[2:]).all()
    assert result.lost == {"overflow": 32, "underflow": 32}


def test_names_that_ggml_would_cut_are_refused(tmp_path: Path) -> None:
    safe(tmp_path / "a.safetensors", {"m." * 31 + "x": MATRIX})
    convert_weights(tmp_path / "a.safetensors", tmp_path / "a.gguf")
    safe(tmp_path / "b.safetensors", {"m." * 32: MATRIX})
    with pytest.raises(UsageError, match="more bytes than the 63"):
        convert_weights(tmp_path / "b.safetensors", tmp_path / "b.gguf")
