"""What is not a model file is called by its name."""

from __future__ import annotations

import io
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from tlkit.errors import LoadError
from tlkit.formats.describe import open_tensors


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("x.bin", b"tjgg" + bytes(500), "ggjt file, from before GGUF"),
        ("x.bin", b"lmgg" + bytes(500), "ggml file, from before GGUF"),
        ("x.pte", b"\x20\0\0\0ET12" + bytes(500), "an ExecuTorch program"),
        ("x.safetensors", b"<!DOCTYPE html>\n<html></html>" * 9, "a web page saved under a model's name"),
        ("x.gguf", b"\n <HTML><body>404</body>" * 9, "a web page saved under a model's name"),
        ("x.safetensors", b'{"error":"Repository not found"}', "a server's error message"),
        ("x.onnx", b"Entry not found", "a server's error message"),
        ("x.bin", b"Invalid username or password.", "a server's error message"),
        ("x.safetensors", struct.pack("<Q", 5000) + b'{"a":{"dtype":"F32"', "its header should have 5,000 bytes"),
        ("x.pt", b"\x1f\x8b\x08" + bytes(60), "a gzip archive"),
        ("x.bin", b"BZh9" + bytes(60), "a bzip2 archive"),
        ("net.xml", b'<?xml version="1.0"?>\n<net name="m" version="11">', "OpenVINO's network"),
        ("m.xml", b'<?xml version="1.0"?>\n<PMML version="4.3">', "a PMML document"),
        ("x.ort", struct.pack("<I", 32) + b"ORTM" + bytes(99), "an ONNX Runtime model"),
        ("x.engine", b"ftrt" + bytes(300), "a TensorRT engine"),
        ("x.so", b"\x7fELF\x02" + bytes(300), "a program or library"),
        ("x.gguf", bytes(4096), "a file of zeros"),
        ("x.safetensors", b"\x10\0\0", "cut short: it has 3 bytes"),
        ("x.onnx", b"<ir_version: 8>\nagraph (float[1] x) => (float[1] y) {}", "ONNX as text"),
        ("xgb.json", b'{"learner":{"attributes":{}}}', "an XGBoost model"),
        ("weight.bin", struct.pack("<II56x", 1, 2) + bytes(64), "the weights of a Core ML model"),
        ("coremldata.bin", b"\xf4\x01\0\0" + bytes(100), "a part of a compiled model"),
        ("config.json", b'{"model_type": "llama"}', "a model's configuration"),
        ("model.py", b"import torch\n", "Python source"),
        ("other.json", b'{"a": 1}', "JSON text, not a model"),
        ("m.onnx.data", b"\x7b" * 99, "the weights of an ONNX model"),
        ("xet.bin", b"# xet version 0\nfilesize = 12\n", "a pointer of Hugging Face's store"),
        ("x.what", b"nothing in particular" * 9, "not a model file that tlkit knows"),
    ],
)
def test_strangers_have_names(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(LoadError) as caught:
        open_tensors(tmp_path / name)
    assert said in caught.value.message and caught.value.hint


@pytest.mark.parametrize("ending", ["pt", "pth", "ckpt", "bin"])
def test_a_checkpoint_that_is_cut_short_says_so(tmp_path: Path, ending: str) -> None:
    torch.save({"w": torch.ones(1000)}, tmp_path / "whole.pt")
    data = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / f"x.{ending}").write_bytes(data[: len(data) // 2])
    with pytest.raises(LoadError, match="cut short"):
        open_tensors(tmp_path / f"x.{ending}")


def test_the_advice_for_an_unzipped_checkpoint_works(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "model.pt")
    zipfile.ZipFile(tmp_path / "model.pt").extractall(tmp_path / "out")
    with pytest.raises(LoadError, match="was unzipped in model") as caught:
        open_tensors(tmp_path / "out")
    command = caught.value.hint.partition(": ")[2]
    if subprocess.run(["which", "zip"], capture_output=True, check=False).returncode:
        pytest.skip("there is no zip here")
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert [entry.name for entry in open_tensors(tmp_path / "out/model.pt").entries()] == ["w"]


def test_tar_archives(tmp_path: Path) -> None:
    for inner, said in (
        ("weights/a.bin", "tar archive that begins with 'weights/a.bin'"),
        ("sys_info", "before 0.1.10"),
    ):
        with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            info = tarfile.TarInfo(inner)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"data"))
        with pytest.raises(LoadError, match=said):
            open_tensors(tmp_path / "x.tar")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (("m.mlmodelc/coremldata.bin", "m.mlmodelc/model.mil"), "a compiled Core ML model in a zip archive"),
        (("m.mlmodel",), "a Core ML model in a zip archive"),
        (("m/model.safetensors", "m/config.json"), "a zip archive with a model inside"),
        (("p/.data/extern_modules", "p/m/m.pkl"), "an archive of torch.package"),
        (("notes.doc",), "zip archive, which tlkit does not read"),
    ],
)
def test_archives_are_called_by_what_is_inside(tmp_path: Path, members: tuple[str, ...], said: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for member in members:
            archive.writestr(member, b"x")
    with pytest.raises(LoadError, match=said):
        open_tensors(tmp_path / "x.zip")
