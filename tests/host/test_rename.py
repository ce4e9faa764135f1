from __future__ import annotations

from pathlib import Path

import pytest

from tlkit.host import rename
from tlkit.host.rename import exchange, rename_new


@pytest.fixture(params=["the system's", "none"])
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "none":
        monkeypatch.setattr(rename, "_call", lambda: None)
    return str(request.param)


@pytest.mark.parametrize("folder", [False, True])
def test_a_new_name(tmp_path: Path, calls: str, folder: bool) -> None:
    (tmp_path / "a").mkdir() if folder else (tmp_path / "a").write_text("a")
    rename_new(tmp_path / "a", tmp_path / "b")
    assert [item.name for item in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("taken", ["file", "folder", "link"])
def test_a_taken_name(tmp_path: Path, calls: str, folder: bool, taken: str) -> None:
    (tmp_path / "a").mkdir() if folder else (tmp_path / "a").write_text("a")
    other = tmp_path / "b"
    {"file": other.touch, "folder": other.mkdir, "link": lambda: other.symlink_to("nowhere")}[taken]()
    before = other.lstat().st_ino
    with pytest.raises(FileExistsError):
        rename_new(tmp_path / "a", other)
    assert other.lstat().st_ino == before
    assert (tmp_path / "a").exists()


def test_an_exchange(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if exchange(tmp_path / "a", tmp_path / "b"):
        assert (tmp_path / "a" / "b").exists() and (tmp_path / "b" / "a").exists()
        with pytest.raises(FileNotFoundError):
            exchange(tmp_path / "a", tmp_path / "gone")
    else:
        assert (tmp_path / "a" / "a").exists() and (tmp_path / "b" / "b").exists()
