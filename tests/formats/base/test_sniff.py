"""Formats are told from content: files as other tools write them, under names that lie."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.formats import packages
from tests.real_models import MODELS, needs_models
from tlkit.errors import LoadError
from tlkit.formats.base.sniff import Format, detect, expect_coreml

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 110281016\n" % (b"a" * 64)


def _torchscript(path: Path) -> None:
    import torch

    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(path)


def _checkpoint(path: Path) -> None:
    import torch

    torch.save({"w": torch.zeros(2)}, path)


def _safetensors(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3, np.float32)}, path)


def _npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


def _npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "x")


def _onnx(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [value])
    onnx.save(onnx.helper.make_model(graph), path)


def _mlmodel(path: Path) -> None:
    model = packages.MODEL.Model(specificationVersion=1)
    model.identity.SetInParent()
    packages.array_feature(model.description.input.add(), "x", packages.ARRAYS.DOUBLE, 1)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (_torchscript, Format.TORCHSCRIPT),
        (_checkpoint, Format.PYTORCH),
        (_safetensors, Format.SAFETENSORS),
        (_npz, Format.NUMPY),
        (_npy, Format.NUMPY),
        (_zip, Format.ZIP),
        (_onnx, Format.ONNX),
        (_mlmodel, Format.MLMODEL),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1})), Format.PICKLE),
        (lambda path: path.write_bytes(POINTER), Format.LFS_POINTER),
        (lambda path: path.write_bytes(b"GGUF\x03\0\0\0" + bytes(56)), Format.GGUF),
    ],
)
@pytest.mark.parametrize("name", ["model.bin", "model.onnx"])
def test_files_are_told_by_content(tmp_path: Path, make: Callable[[Path], None], expected: Format, name: str) -> None:
    make(tmp_path / name)
    assert detect(tmp_path / name) is expected


def test_packages_are_told_by_their_manifest(tmp_path: Path) -> None:
    assert detect(packages.linear(tmp_path / "anything")) is Format.MLPACKAGE


def test_a_damaged_mlmodel_goes_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "cut.mlmodel"
    path.write_bytes(b"\xff\xff\xff")
    assert detect(path) is Format.MLMODEL


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"just some text"), "not a model file"),
        (lambda path: path.mkdir(), "not a model package"),
        (lambda path: os.mkfifo(path), "neither a file nor a folder"),
    ],
)
def test_what_is_no_model_is_refused_in_words(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(LoadError, match=words) as caught:
        detect(path)
    assert str(path) in caught.value.message


def test_a_package_without_its_manifest_is_named_as_such(tmp_path: Path) -> None:
    package = packages.linear(tmp_path / "net.mlpackage")
    (package / "Manifest.json").unlink()
    with pytest.raises(LoadError, match="not a model package") as caught:
        detect(package)
    assert "Manifest.json" in caught.value.hint


def test_other_formats_are_named_where_core_ml_is_wanted(tmp_path: Path) -> None:
    _safetensors(tmp_path / "w")
    with pytest.raises(LoadError, match="SafeTensors"):
        expect_coreml(tmp_path / "w")


def test_a_pointer_is_named_with_the_size_it_stands_for(tmp_path: Path) -> None:
    (tmp_path / "m.mlmodel").write_bytes(POINTER)
    with pytest.raises(LoadError, match="git-lfs pointer in place of the 110,281,016 bytes") as caught:
        expect_coreml(tmp_path / "m.mlmodel")
    assert "git lfs pull" in caught.value.hint


@needs_models
@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("mlpackage", Format.MLPACKAGE),
        ("mlmodel", Format.MLMODEL),
        ("mlmodelc", Format.MLMODELC),
        ("gguf", Format.GGUF),
        ("mil", Format.MIL_TEXT),
        ("images", Format.IMAGE),
    ],
)
def test_real_files(folder: str, expected: Format) -> None:
    assert {detect(path) for path in (MODELS / folder).iterdir()} == {expected}


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580])
def test_a_header_length_that_begins_like_a_pickle(tmp_path: Path, length: int) -> None:
    header = b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(length)
    (tmp_path / "w.safetensors").write_bytes(length.to_bytes(8, "little") + header + b"x")
    assert detect(tmp_path / "w.safetensors") is Format.SAFETENSORS
