"""The cache folder's entries: whole or missing, within the limit, written beside and renamed."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.frontends.gguf.kit.test_source import resident
from tlkit.engines.onnx.keep import Keep
from tlkit.engines.onnx.store import Checksum, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "compiled", limit=1000)


def keep(store: Store, key: str, contents: bytes) -> None:
    store.store(key, [contents[:50], contents[50:]], len(contents))


def test_what_is_stored_comes_back_under_its_key_only(store: Store) -> None:
    keep(store, "a", b"first")
    assert store.load("a") == b"first" and store.has("a")
    assert store.load("b") is None and not store.has("b")
    keep(store, "a", b"second")
    assert store.load("a") == b"second"


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1], lambda d: d + b"x", lambda d: b"", lambda d: d[:60] + b"?" + d[61:]]
)
def test_a_damaged_entry_is_missing_and_removed(store: Store, damage: object) -> None:
    keep(store, "a", bytes(range(100)))
    (entry,) = store.folder.iterdir()
    assert callable(damage)
    entry.write_bytes(damage(entry.read_bytes()))
    assert store.load("a") is None
    assert not store.has("a")


@given(st.lists(st.integers(0, 3 << 20), min_size=1, max_size=4), st.integers(1, 255), st.data())
@settings(max_examples=20, deadline=None)
def test_a_checksum_is_of_the_bytes_and_not_of_the_parts(sizes: list[int], change: int, data: st.DataObject) -> None:
    whole = np.random.default_rng(sum(sizes)).bytes(sum(sizes) or 1)
    ends = [0, *itertools.accumulate(sizes), len(whole)]
    parts, one, other = Checksum(), Checksum(), Checksum()
    for start, end in itertools.pairwise(ends):
        parts.add(whole[start:end])
    one.add(whole)
    place = data.draw(st.integers(0, len(whole) - 1))
    other.add(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
    assert parts.digest() == one.digest() != other.digest()
    if len(whole) >= 2 << 20:  # whole pieces that have changed places
        swapped = Checksum()
        swapped.add(whole[1 << 20 : 2 << 20] + whole[: 1 << 20] + whole[2 << 20 :])
        assert swapped.digest() != one.digest()


def test_an_entry_of_another_key_is_not_believed(store: Store) -> None:
    keep(store, "a", b"of a")
    (entry,) = store.folder.iterdir()
    keep(store, "b", b"of b")
    (other,) = set(store.folder.iterdir()) - {entry}
    other.write_bytes(entry.read_bytes())
    assert store.load("b") is None and store.load("a") == b"of a"


def test_the_entry_used_longest_ago_goes_first(store: Store) -> None:
    for place, key in enumerate("abc"):
        keep(store, key, bytes(250))
        os.utime(next(path for path in store.folder.iterdir() if path == store._place(key)), (place, place))
    assert store.load("a") is not None  # used now
    keep(store, "d", bytes(250))
    assert [key for key in "abcd" if store.has(key)] == ["a", "c", "d"]
    assert store.contents().size <= 1000 and store.contents().entries == 3


def test_what_exceeds_the_limit_by_itself_is_not_kept(store: Store) -> None:
    keep(store, "a", bytes(1001))
    assert not store.has("a")


def test_nothing_is_left_where_writing_fails(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        keep(store, "a", b"first")
    assert list(store.folder.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/smaps")
def test_what_is_looked_at_in_a_mapped_entry_is_not_all_of_it(tmp_path: Path) -> None:
    made, size = tmp_path / "made", 8 << 20
    made.write_bytes(bytes(range(256)) * (size // 256))
    keep = Keep("model", Store(tmp_path / "store"))
    keep.store_file("graph", made, 0)
    entry = keep.mapped("graph")
    assert entry is not None
    assert [entry.memory[place] for place in range(7, size, 1 << 20)] == [7] * 8
    # A file written by megabytes is mapped by megabytes.
    assert resident(entry.place) <= 1 << 20
