"""Which files of a folder are the model: transformers' rule, and what is not whole is named.

Covers tlkit/formats/base/shard_names.py, tlkit/formats/torch/sharded.py and tlkit/formats/torch/describe.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.formats.generated import generated, needs_faults
from tlkit.core.weights.weights import convert_weights
from tlkit.errors import LoadError, TlkitError
from tlkit.formats.describe import open_tensors

A, B = {"a": np.arange(8, dtype=np.float32)}, {"b": np.ones((2, 3), np.float32)}


def fill(folder: Path, **files: Any) -> Path:
    """Write tensors by file name (dots as two underscores), or an index from a mapping of text."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("__", ".").replace("_of_", "-of-").replace("_0000", "-0000")
        if path.suffix == ".json":
            path.write_text(json.dumps({"weight_map": content} if content else {}))
        elif path.suffix == ".bin":
            torch.save({key: torch.from_numpy(value) for key, value in content.items()}, path)
        else:
            save_file(content, path)
    return folder


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = {"a": FIRST, "b": SECOND}


def shards(folder: Path, index: dict[str, str] | None = INDEX) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(A, folder / FIRST)
    save_file(B, folder / SECOND)
    if index is not None:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def names(path: Path) -> list[str]:
    return [entry.name for entry in open_tensors(path).entries()]


def lost(path: Path) -> list[str]:
    return [item.name for item in open_tensors(path).left_out if item.lost]


def test_a_whole_file_comes_before_an_index(tmp_path: Path) -> None:
    folder = shards(tmp_path / "f")
    save_file({**A, **B, "c": A["a"]}, folder / "model.safetensors")
    assert names(folder) == ["a", "b", "c"] and not lost(folder)
    assert FIRST in open_tensors(folder).notes[0]


def test_a_stale_index_beside_a_whole_file_changes_nothing(tmp_path: Path) -> None:
    """What converting again without shards leaves behind."""
    folder = fill(tmp_path / "f", model__safetensors={**A, **B})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": INDEX}))
    assert names(folder) == ["a", "b"] and not lost(folder)
    assert "out of date" in open_tensors(folder).notes[0]
    convert_weights(folder, tmp_path / "x.safetensors")


def test_a_whole_file_that_lacks_what_the_index_lists_is_not_converted(tmp_path: Path) -> None:
    folder = shards(tmp_path / "f")
    save_file(A, folder / "model.safetensors")
    assert names(folder) == ["a"] and lost(folder) == ["b"]
    with pytest.raises(LoadError, match="'b'"):
        convert_weights(folder, tmp_path / "x.safetensors")


def test_of_two_indexes_the_usual_name_decides(tmp_path: Path) -> None:
    folder = shards(tmp_path / "f")
    save_file({"c": A["a"]}, folder / "consolidated-00001-of-00001.safetensors")
    index = folder / "consolidated.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"c": "consolidated-00001-of-00001.safetensors"}}))
    assert names(folder) == ["a", "b"] and names(index) == ["c"]


@pytest.mark.parametrize("stem", ["model", "diffusion_pytorch_model"])
def test_variants_are_read_when_they_are_named(tmp_path: Path, stem: str) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    save_file(A, folder / f"{stem}.safetensors")
    save_file({key: value.astype(np.float16) for key, value in A.items()}, folder / f"{stem}.fp16.safetensors")
    for turn, part in enumerate((A, B), 1):
        save_file(part, folder / f"{stem}.fp32-{turn:05}-of-00002.safetensors")
    index = folder / f"{stem}.safetensors.index.fp32.json"
    index.write_text(json.dumps({"weight_map": {"a": f"{stem}.fp32-00001-of-00002.safetensors"}}))
    (entry,) = open_tensors(folder).entries()
    assert entry.dtype == "F32" and "fp16" in " ".join(open_tensors(folder).notes)
    assert open_tensors(folder / f"{stem}.fp16.safetensors").entries()[0].dtype == "F16"
    assert names(index) == ["a"]


def test_an_index_that_names_what_no_shard_has(tmp_path: Path) -> None:
    folder = shards(tmp_path / "f", {**INDEX, "gone": SECOND})
    assert names(folder) == ["a", "b"] and lost(folder) == ["gone"]
    with pytest.raises(LoadError, match="'gone'"):
        convert_weights(folder, tmp_path / "x.safetensors")
    assert convert_weights(folder, tmp_path / "x.safetensors", allow_missing=True).tensors == 2


def test_shards_in_a_folder_below(tmp_path: Path) -> None:
    shards(tmp_path / "f/part" if (tmp_path / "f").mkdir() is None else tmp_path, None)
    index = tmp_path / "f/model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": f"part/{FIRST}", "b": f"part/{SECOND}"}}))
    assert names(index) == ["a", "b"]
    (tmp_path / "f/out").symlink_to(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "out/x.safetensors"}}))
    with pytest.raises(LoadError, match="outside its folder"):
        open_tensors(index)


def test_shards_without_an_index(tmp_path: Path) -> None:
    folder = shards(tmp_path / "f", None)
    assert names(folder) == ["a", "b"] and not lost(folder) and "no index" in open_tensors(folder).notes[0]
    (folder / FIRST).unlink()
    assert names(folder) == ["b"] and lost(folder) == [FIRST]
    (folder / "config.json").write_text("{}")
    assert lost(folder) == [FIRST]
    with pytest.raises(LoadError, match="missing"):
        convert_weights(folder, tmp_path / "x.safetensors")


@pytest.mark.parametrize("listed", [None, INDEX])
def test_shards_that_are_links_out_of_the_folder(tmp_path: Path, listed: Any) -> None:
    folder = shards(tmp_path / "f", listed)
    (folder / SECOND).rename(folder / "kept")
    (folder / SECOND).symlink_to("kept")
    assert names(folder) == ["a", "b"]
    (folder / "kept").rename(tmp_path / "elsewhere")
    (folder / SECOND).unlink()
    (folder / SECOND).symlink_to("../elsewhere")
    with pytest.raises(LoadError, match=r"link to .*outside"):
        open_tensors(folder)
    assert names(folder / SECOND) == ["b"]  # named by the user, who knows where it leads


@pytest.mark.parametrize("listed", [None, INDEX])
def test_hugging_faces_cache_is_a_folder_of_links(tmp_path: Path, listed: Any) -> None:
    folder = tmp_path / "models--a--b/snapshots/0123"
    folder.parent.mkdir(parents=True)
    blobs = tmp_path / "models--a--b/blobs"
    blobs.mkdir()
    shards(folder, listed)
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / str(number))
        path.symlink_to(f"../../blobs/{number}")
    assert names(folder) == ["a", "b"]


def test_one_shard_of_several_is_not_converted_as_if_it_were_all(tmp_path: Path) -> None:
    folder = shards(tmp_path / "f")
    with pytest.raises(LoadError, match="other shards"):
        convert_weights(folder / FIRST, tmp_path / "x.safetensors")
    convert_weights(folder / FIRST, tmp_path / "x.safetensors", allow_missing=True)
    assert list(load_file(tmp_path / "x.safetensors")) == ["a"]


def torch_shards(folder: Path) -> Path:
    folder.mkdir()
    for turn, part in enumerate((A, B), 1):
        state = {key: torch.from_numpy(value) for key, value in part.items()}
        torch.save(state, folder / f"pytorch_model-{turn:05}-of-00002.bin")
    table = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table}))
    return folder


def test_pytorch_folders(tmp_path: Path) -> None:
    folder = torch_shards(tmp_path / "f")
    for path in (folder, folder / "pytorch_model.bin.index.json"):
        convert_weights(path, tmp_path / "x.safetensors", force=True)
        found = load_file(tmp_path / "x.safetensors")
        assert {key: value.tolist() for key, value in found.items()} == {k: v.tolist() for k, v in (A | B).items()}
    with pytest.raises(LoadError, match="other shards"):
        convert_weights(folder / "pytorch_model-00001-of-00002.bin", tmp_path / "y.safetensors")
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    assert names(folder) == ["a"] and lost(folder) == ["b"]


def test_safetensors_come_before_pytorch_and_a_whole_file_before_shards(tmp_path: Path) -> None:
    folder = torch_shards(tmp_path / "f")
    torch.save({"whole": torch.ones(1)}, folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin.index.json").unlink()
    assert names(folder) == ["whole"]
    save_file({"safe": A["a"]}, folder / "model.safetensors")
    assert names(folder) == ["safe"]


@needs_faults
@pytest.mark.parametrize(
    ("folder", "wanted", "missing"),
    [
        ("whisper", ["a.weight", "b.weight"], []),
        ("unet", ["a.weight", "b.weight"], []),
        ("mistral", ["a.weight", "b.weight"], []),
        ("mistral2", ["a.weight", "b.weight"], []),
        ("stale", [], ["a.weight", "b.weight"]),
        ("stray", ["a.weight"], ["b.weight"]),
        ("sub", ["a.weight"], []),
        ("noidx", ["a.weight", "b.weight"], []),
        ("noidx_cfg", ["a.weight"], [SECOND]),
        ("withlora", ["a.weight", "b.weight"], []),
        ("hub/models--o--n/snapshots/abc", ["a.weight", "b.weight"], []),
        ("hub/models--o--broken/snapshots/abc", ["a.weight"], ["b.weight"]),
    ],
)
def test_generated_folders(tmp_path: Path, folder: str, wanted: list[str], missing: list[str]) -> None:
    path = generated("st") / folder
    assert names(path) == wanted and lost(path) == missing
    if missing:
        with pytest.raises(TlkitError):
            convert_weights(path, tmp_path / "x.safetensors")
        assert not (tmp_path / "x.safetensors").exists()
    else:
        convert_weights(path, tmp_path / "x.safetensors")
        assert sorted(load_file(tmp_path / "x.safetensors")) == wanted


@needs_faults
@pytest.mark.parametrize("name", ["renamed_first.gguf", "mix/sp-00001-of-00002.gguf", "lfs/sp-00001-of-00003.gguf"])
def test_a_part_of_a_split_model_is_not_converted_as_if_it_were_all(tmp_path: Path, name: str) -> None:
    with pytest.raises(LoadError, match="part of it is missing"):
        convert_weights(generated("gguf") / name, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


@needs_faults
def test_parts_joined_by_cat_are_told(tmp_path: Path) -> None:
    parts = [generated("gguf") / f"sp-0000{turn}-of-00003.gguf" for turn in (1, 2, 3)]
    (tmp_path / "joined.gguf").write_bytes(b"".join(part.read_bytes() for part in parts))
    left = open_tensors(tmp_path / "joined.gguf").left_out
    assert any("not by cat" in item.reason and item.lost for item in left)
    with pytest.raises(TlkitError):
        convert_weights(tmp_path / "joined.gguf", tmp_path / "x.safetensors")
    shutil.copy(parts[0], tmp_path / "alone.gguf")
    assert [item.name for item in open_tensors(tmp_path / "alone.gguf").left_out] == ["2 other parts"]


def test_shards_of_two_counts_are_not_one_whole_model(tmp_path: Path) -> None:
    for name, tensor in (("model-00001-of-00002", "a"), ("model-00002-of-00003", "b")):
        save_file({tensor: np.ones(2, np.float32)}, tmp_path / f"{name}.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert {item.name for item in open_tensors(tmp_path).left_out} == {
        "model-00002-of-00002.safetensors",
        "model-00001-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    }
    with pytest.raises(LoadError, match="part of it is missing"):
        convert_weights(tmp_path, tmp_path.with_suffix(".gguf"))


def test_several_files_without_an_index_are_said_to_be_read_as_one(tmp_path: Path) -> None:
    for name in "ab":
        save_file({name: np.ones(2, np.float32)}, tmp_path / f"{name}.safetensors")
    (tmp_path / "config.json").write_text("{}")
    found = open_tensors(tmp_path)
    assert len(found.entries()) == 2 and "2 files and no index: they are read as one model" in found.notes[0]
