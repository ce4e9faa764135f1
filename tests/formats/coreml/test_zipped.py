"""A Core ML package in a zip archive."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.formats import packages
from tlkit.core.model.load import load_model
from tlkit.errors import LoadError
from tlkit.formats.base import sniff
from tlkit.formats.coreml.describe import describe
from tlkit.formats.coreml.open import open_package
from tlkit.formats.describe import open_tensors


def archive(package: Path, path: Path, prefix: str = "net.mlpackage/", junk: bool = True) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for file in sorted(package.rglob("*")):
            if file.is_file():
                out.write(file, f"{prefix}{file.relative_to(package)}")
        if junk:
            out.writestr("__MACOSX/net.mlpackage/._Manifest.json", b"\0")
    return path


@pytest.mark.parametrize("prefix", ["", "net.mlpackage/", "some/folder/net.mlpackage/"])
def test_it_is_described_as_the_package_is(tmp_path: Path, prefix: str) -> None:
    package = packages.classifier(tmp_path / "net.mlpackage")
    path = archive(package, tmp_path / "net.zip", prefix)
    assert sniff.detect(path) is sniff.Format.ZIPPED_MLPACKAGE
    here, there = describe(path), describe(package)
    for field in ("metadata", "kind", "inputs", "outputs", "labels", "parameters", "weights", "compute", "operations"):
        assert getattr(here, field) == getattr(there, field), field
    assert not here.notes


def test_a_manifest_with_a_byte_order_mark_is_read_zipped_or_not(tmp_path: Path) -> None:
    package = packages.classifier(tmp_path / "net.mlpackage")
    said = describe(package)
    manifest = package / "Manifest.json"
    manifest.write_bytes(b"\xef\xbb\xbf" + manifest.read_bytes())
    assert describe(package).inputs == said.inputs
    assert describe(archive(package, tmp_path / "net.zip")).parameters == said.parameters > 0


def test_it_runs_as_the_package_does_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    package = packages.linear(tmp_path / "net.mlpackage")
    path = archive(package, tmp_path / "net.zip")
    model = load_model(path)
    whole = load_model(package)
    inputs = {spec.name: np.ones(spec.shape, spec.dtype) for spec in model.inputs}
    for name, value in whole.predict(inputs).items():
        np.testing.assert_array_equal(model.predict(inputs)[name], value)
    for name, tensor in whole.tensors().items():
        np.testing.assert_array_equal(model.tensors()[name].numpy(), tensor.numpy())
    assert os.listdir(tmp_path / "temporary")
    del model
    import gc

    gc.collect()
    assert not os.listdir(tmp_path / "temporary")


def test_missing_weights_are_a_note(tmp_path: Path) -> None:
    package = packages.linear(tmp_path / "net.mlpackage")
    for file in package.rglob("*.bin"):
        file.unlink()
    (note,) = describe(archive(package, tmp_path / "net.zip")).notes
    assert "lacks the weights" in note


MANIFEST = b'{"rootModelIdentifier": "m", "itemInfoEntries": {"m": {"path": "%s"}}}'


@pytest.mark.parametrize("target", [b"../../../x", b"/etc/passwd", b"../Manifest.json", b"nowhere"])
def test_a_manifest_may_not_lead_out(tmp_path: Path, target: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:
        out.writestr("Manifest.json", MANIFEST % target)
        out.writestr("Data/x", b"")
    with pytest.raises(LoadError, match="is not in it"):
        open_package(tmp_path / "x.zip")


def test_a_member_may_not_lead_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:
        out.writestr("Manifest.json", MANIFEST % b"x")
        out.writestr("../x", b"")
    with pytest.raises(LoadError, match="leads out of it"):
        open_package(tmp_path / "x.zip")


def test_two_packages_are_one_too_many(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:
        for name in "ab":
            out.writestr(f"{name}.mlpackage/Manifest.json", MANIFEST % b"x")
    with pytest.raises(LoadError, match="holds 2 Core ML packages"):
        open_package(tmp_path / "x.zip")


def test_a_bomb_in_place_of_the_model_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("Manifest.json", MANIFEST % b"m")
        with out.open("Data/m", "w") as member:
            for _ in range(300):
                member.write(bytes(1 << 20))
    with pytest.raises(LoadError, match="expands"):
        open_package(tmp_path / "x.zip")


def test_a_directory_of_millions_of_members_is_not_read(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("Manifest.json", b"{}")
    data = bytearray(out.getvalue())
    place = data.rfind(b"PK\x05\x06")
    data[place + 12 : place + 16] = struct.pack("<I", 1 << 30)
    (tmp_path / "x.zip").write_bytes(bytes(data))
    assert sniff.detect(tmp_path / "x.zip") is sniff.Format.ZIP
    with pytest.raises(LoadError, match="zip archive, which tlkit does not read"):
        open_tensors(tmp_path / "x.zip")
