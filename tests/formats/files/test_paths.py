"""Paths that files name: below where they are looked for, after links are followed, and regular files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tlkit.errors import LoadError
from tlkit.formats.base.checkpoint_folder import below
from tlkit.formats.files.mapped import Mapped, read_json
from tlkit.formats.files.paths import inside, regular_size
from tlkit.mil.blob import BlobFile


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "package"
    (root / "kept").mkdir(parents=True)
    (root / "kept/file").write_bytes(b"12345")
    (tmp_path / "secret").write_bytes(b"secret")
    return root


@pytest.mark.parametrize("name", ["kept/file", "./kept/file", "kept/../kept/file", "link", "missing"])
def test_what_lies_inside(package: Path, name: str) -> None:
    (package / "link").symlink_to("kept/file")
    assert inside(package, package, name) == package / name


OUT = ["", "../secret", "/etc/passwd", "kept/../../secret", "out", "folder/secret", "loop", "\ud800"]


@pytest.mark.parametrize("name", OUT)
def test_what_leads_out_or_nowhere(package: Path, name: str) -> None:
    (package / "out").symlink_to("../secret")
    (package / "folder").symlink_to("..")
    (package / "loop").symlink_to("loop")
    with pytest.raises(LoadError):
        inside(package, package, name)


def test_hugging_faces_cache_links_into_its_blobs(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots/1/net.mlpackage"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "abc").write_bytes(b"x")
    (snapshot / "file").symlink_to("../../../blobs/abc")
    assert inside(snapshot, snapshot, "file").read_bytes() == b"x"
    (tmp_path / "secret").write_bytes(b"x")
    (blobs / "evil").symlink_to(tmp_path / "secret")
    (snapshot / "other").symlink_to("../../../blobs/evil")
    with pytest.raises(LoadError, match="outside"):
        inside(snapshot, snapshot, "other")


@pytest.mark.parametrize("name", ["", ".", "..", "a/../b", "/a", "a\0b", "a\\b"])
def test_a_shard_lies_in_its_folder(package: Path, name: str) -> None:
    with pytest.raises(LoadError, match="outside its folder"):
        below(package, name)


def test_a_shard_that_is_a_link_out(package: Path) -> None:
    (package / "shard").symlink_to("../secret")
    with pytest.raises(LoadError, match="is a link to"):
        below(package, "shard")


def test_pipes_and_devices_are_not_opened(package: Path) -> None:
    os.mkfifo(package / "pipe")
    for path in (package / "pipe", Path("/dev/zero"), package):
        for opener in (regular_size, Mapped, read_json, BlobFile):
            with pytest.raises(LoadError, match=r"not a|not the"):
                opener(path)
    assert regular_size(package / "kept/file") == 5
