"""Archives: names that stay below a folder, members that are what they claim, one reading for every reader."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tlkit.errors import LoadError
from tlkit.formats.files.mapped import Mapped
from tlkit.formats.files.zip import Zip, leads_out, same_name


@given(st.text(alphabet="aé./\\:\0\n C", min_size=0, max_size=12))
def test_a_name_that_is_let_pass_lies_below(name: str) -> None:
    if not leads_out(name):
        assert os.path.normpath(name) == name and not os.path.isabs(name)
        assert os.path.normpath(f"/root/{name}") == f"/root/{name}"
        assert not set(name) & set("\\\0\n")
        assert name[1:2] != ":" or not name[0].isascii() or not name[0].isalpha()


@pytest.mark.parametrize("name", ["a", "a/b.c", "...", "a b/é", ".data/version", "a..b/c", "ab:c"])
def test_usual_names(name: str) -> None:
    assert not leads_out(name)


def test_names_that_some_systems_take_for_one() -> None:
    assert len({same_name(name) for name in ("Stra\u00dfe/\u00c9", "STRASSE/e\u0301", "strasse/\u00e9")}) == 1


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for name, data in members.items():
            out.writestr(name, data)
    return path


def test_what_torch_and_zipfile_write_has_one_reading(tmp_path: Path) -> None:
    Zip(Mapped(archive(tmp_path / "a.zip", a=b"1", b=b"22"))).require_one_reading()
    torch.save({"x": torch.ones(3)}, tmp_path / "x.pt")
    Zip(Mapped(tmp_path / "x.pt")).require_one_reading()


def comment(data: bytes) -> bytes:
    return data[:-2] + b"\5\0hello"


def second(data: bytes) -> bytes:
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as out:
        out.writestr("evil", b"x")
    return data + other.getvalue()


def between(data: bytes) -> bytes:
    place = data.rfind(b"PK\5\6")
    return data[:place] + b"hidden" + data[place:]


@pytest.mark.parametrize("change", [comment, second, between, lambda data: b"before" + data])
def test_what_readers_may_read_differently(tmp_path: Path, change: object) -> None:
    assert callable(change)
    path = archive(tmp_path / "a.zip", a=b"1")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(LoadError):
        Zip(Mapped(path)).require_one_reading()


def test_sixty_thousand_empty_members_are_listed_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out:
        for index in range(60_000):
            out.writestr(f"{index}", b"")
    assert len(Zip(Mapped(path)).names) == 60_000
