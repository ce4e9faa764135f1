"""Which ``--input`` texts name data sets, for which inputs, and that parts of a set have every sample once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlkit.core.run.data.samples import FolderSet, many, part_range, samples_of
from tlkit.errors import UsageError
from tlkit.types import TensorSpec

A, B = (TensorSpec(name, "float32", (1,)) for name in "ab")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "inner").mkdir(parents=True)
    for name in ("c.png", "a.png", "b.png", ".hidden"):
        (folder / name).write_text(name)
    return folder


def test_which_input_is_given_the_folder(images: Path) -> None:
    for ports, texts, name, left in (
        ([A], [str(images)], "a", []),
        ([A], [f"{images}/"], "a", []),
        ([A, B], ["a=1", f"b={images}/"], "b", ["a=1"]),
    ):
        assert [many(text) for text in texts] == [text not in left for text in texts]
        found = samples_of(ports, texts)
        assert found is not None
        assert (found[0].place, found[0].inputs, found[0].count, found[1]) == (images, (name,), 3, left)
    assert samples_of([A, B], ["a=1"]) is None and not many("a=1") and not many("x.npz:key")
    with pytest.raises(UsageError, match="which input"):
        samples_of([A, B], [str(images)])
    with pytest.raises(UsageError, match="two inputs"):
        samples_of([A, B], [f"a={images}", f"b={images}"])


def test_a_pattern_takes_what_the_shell_would(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (images / "inner" / "d.png").write_text("d")
    (images / "e.jpg").write_text("e")
    for pattern, files in (
        ("*.png", ["a.png", "b.png", "c.png"]),
        ("[ab].*", ["a.png", "b.png"]),
        ("**/*.png", ["a.png", "b.png", "c.png", "inner/d.png"]),
        ("in*/?.png", ["inner/d.png"]),
    ):
        assert many(f"b={images}/{pattern}")
        found = samples_of([A, B], ["a=1", f"b={images}/{pattern}"])
        assert found is not None and found[0].inputs == ("b",) and found[1] == ["a=1"]
        samples = list(found[0].samples(0, found[0].count))
        assert [sample.name for sample in samples] == files
        assert all(Path(sample.values["b"]).is_file() for sample in samples)
    monkeypatch.chdir(images)
    found = samples_of([A], ["*.jpg"])
    assert found is not None and found[0].count == 1
    with pytest.raises(UsageError, match="no file matches"):
        samples_of([A], [f"{images}/*.gif"])
    for text in ("a=[1,2,3]", "a=text:why?", "a=https://host/x?y=[1]", 'a={"k": 1}'):
        assert not many(text) and samples_of([A], [text]) is None
    (images / "what?.png").write_text("")
    assert not many(f"a={images}/what?.png"), "a file that has such a name is itself"


def test_files_come_by_name_and_ranges_are_ranges(images: Path) -> None:
    data = FolderSet(images, "x")
    assert [sample.name for sample in data.samples(0, 3)] == ["a.png", "b.png", "c.png"]
    assert [dict(sample.values) for sample in data.samples(1, 2)] == [{"x": images / "b.png"}]


@given(count=st.integers(0, 500), parts=st.integers(1, 40))
def test_parts_have_every_sample_once(count: int, parts: int) -> None:
    ranges = [part_range(f"{part}/{parts}", count) for part in range(1, parts + 1)]
    assert [at for start, stop in ranges for at in range(start, stop)] == list(range(count))
    sizes = [stop - start for start, stop in ranges]
    assert max(sizes) - min(sizes) <= 1 and part_range(None, count) == (0, count)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_no_part(text: str) -> None:
    with pytest.raises(UsageError, match="K/N"):
        part_range(text, 10)
