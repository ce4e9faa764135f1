"""Jobs' files on a node that does not see them: what arrives is what was sent, once, known by hash."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tlkit.errors import LoadError
from tlkit.fleet.cluster import Slot
from tlkit.fleet.files import Parcel, Receiver, Sender, digest, named_files, packed, placed_words, unpacked
from tlkit.fleet.job import FleetJob
from tlkit.fleet.process import asked


class Store:
    """An object store: what is put is got by its number; each is counted."""

    def __init__(self) -> None:
        self.held: list[bytes] = []
        self.fetched = 0

    def put(self, content: bytes) -> int:
        self.held.append(content)
        return len(self.held) - 1

    def get(self, number: Any) -> bytes:
        self.fetched += 1
        return self.held[number]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tlkit.fleet.files._PIECE", 1000)
    folder = tmp_path / "zoo" / "net.mlpackage"
    (folder / "Data" / "weights").mkdir(parents=True)
    (folder / "Manifest.json").write_text("{}")
    (folder / "Data" / "weights" / "weight.bin").write_bytes(os.urandom(2500))
    (folder / "Data" / "empty").write_text("")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_arrives_once_and_as_it_was(model: Path, tmp_path: Path) -> None:
    store, cache = Store(), tmp_path / "cache"
    sender = Sender(store.put)
    parcel = sender.parcel(model)
    assert len(store.held) == 1 + 3 and sender.parcel(model) is parcel
    assert Receiver(store.get, cache).place(parcel) == model and store.fetched == 0  # a shared file system
    wanted = content(model)
    shutil.rmtree(model)
    there = Receiver(store.get, cache).place(parcel)
    assert there == cache / parcel.digest / "net.mlpackage" and content(there) == wanted
    assert Receiver(store.get, cache).place(parcel) == there and store.fetched == 4
    assert [item.name for item in cache.iterdir()] == [parcel.digest]


def test_another_content_under_the_same_path_is_not_used(model: Path, tmp_path: Path) -> None:
    store, file = Store(), model / "Manifest.json"
    parcel = Sender(store.put).parcel(file)
    file.write_text("[]")
    there = Receiver(store.get, tmp_path / "cache").place(parcel)
    assert there != file and there.read_text() == "{}"
    changed = Sender(store.put)
    first = changed.parcel(file)
    file.write_text("[1]")
    assert changed.parcel(file).digest == digest(file) != first.digest


@pytest.mark.parametrize("inside", ["../../escaped", "/tmp/escaped"])
def test_what_is_damaged_or_escapes_is_refused(model: Path, tmp_path: Path, inside: str) -> None:
    store, cache = Store(), tmp_path / "cache"
    parcel = Sender(store.put).parcel(model)
    shutil.rmtree(model)
    store.held[-1] += b"x"
    with pytest.raises(LoadError, match="another hash"):
        Receiver(store.get, cache).place(parcel)
    evil = Parcel(parcel.path, parcel.digest, ((inside, parcel.files[0][1]),))
    with pytest.raises(LoadError, match="not inside"):
        Receiver(store.get, cache).place(evil)
    assert list(cache.iterdir()) == []


def test_which_words_name_files(model: Path) -> None:
    (model.parent / "a.npz").write_text("")
    words = ("net.mlpackage", "--input", "x=a.npz:key", "--force", "-o", "out.mlpackage", "5", "no.mlpackage")
    job = FleetJob("k", "run", words, str(model.parent), output="out.mlpackage")
    found = named_files(job)
    assert found == {"net.mlpackage": model, "a.npz": model.parent / "a.npz"}
    made = placed_words(words, {"net.mlpackage": Path("/c/1/net.mlpackage"), "a.npz": Path("/c/2/a.npz")})
    assert made == ["/c/1/net.mlpackage", "--input", "x=/c/2/a.npz:key", *words[3:]]


def test_an_output_comes_back_whole(model: Path, tmp_path: Path) -> None:
    store = Store()
    parcel = packed(model, store.put)
    assert parcel is not None and packed(tmp_path / "none", store.put) is None
    goal = tmp_path / "out.mlpackage"
    for _ in range(2):  # the second takes the first one's place
        unpacked(parcel, goal, store.get)
        assert content(goal) == content(model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mlpackage", "zoo"]


def test_a_job_on_a_node_without_its_files(
    model: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store, source, goal = Store(), model / "Manifest.json", tmp_path / "copy.json"
    job = FleetJob("k", "copy", (str(source), str(goal)), str(model), output=str(goal))
    sent = {text: Sender(store.put).parcel(path) for text, path in named_files(job).items()}
    shutil.rmtree(model)
    slot = Slot("tests.fleet.entries:run", 1, store.put, store.get)
    try:
        answer = slot.run(asked(job), sent, job.output)
    finally:
        slot.close()
    assert answer is not None and answer["code"] == 0 and not goal.exists()
    assert json.loads(answer["out"]) == {"from": str(source), "to": str(goal)}
    unpacked(answer["output"], goal, store.get)
    assert goal.read_text() == "{}"
