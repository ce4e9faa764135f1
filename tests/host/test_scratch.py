"""Temporary folders go with their owner, and with the next one where their process was killed."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from pathlib import Path

import pytest

from tlkit.host.scratch import scratch_folder, temporary_files


class Owner:
    pass


def test_it_goes_with_its_owner_and_spares_what_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    owner, abandoned, young = Owner(), tmp_path / "test-abandoned", tmp_path / "test-young"
    used = scratch_folder("test-", owner)
    for folder in (abandoned, young):
        folder.mkdir()
        (folder / ".lock").touch()
    (tmp_path / "test-link").symlink_to(abandoned)
    long_ago = time.time() - 3600
    for folder in (used, abandoned):
        os.utime(folder, (long_ago, long_ago))
    scratch_folder("test-", owner)
    assert used.is_dir() and young.is_dir() and not abandoned.exists()
    del owner
    gc.collect()
    assert not used.exists()


def test_what_libraries_make_lies_in_ours_and_goes_with_the_body(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def interrupted() -> None:
        with temporary_files("test-") as ours:
            left = Path(tempfile.mkdtemp(suffix=".mlpackage"))
            (left / "weight.bin").write_bytes(b"much")
            assert left.parent == ours and ours.parent == tmp_path and (ours / ".lock").exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir()) and tempfile.gettempdir() == str(tmp_path)
