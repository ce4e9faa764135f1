"""`tlkit run` on data sets: parts side by side give what one process gives; Parquet in and out.

Covers tlkit/cli/many/side_by_side.py, tlkit/cli/many/words.py, tlkit/cli/options/many.py.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.commands import Shell
from tests.formats import packages
from tlkit.cli.many.run import _parts
from tlkit.cli.many.side_by_side import show_tally
from tlkit.cli.many.words import words_of
from tlkit.cli.sink.stream import Progress
from tlkit.core.model.load import load_model
from tlkit.fleet.run import FleetTally

pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    packages.linear(tmp_path / "net.mlpackage")
    return tmp_path


def test_what_a_fleet_s_bar_says() -> None:
    said: list[object] = []

    class Bar(Progress):
        def describe(self, description: str) -> None:
            said.append(description)

        def update(self, completed: float, total: float | None = None) -> None:
            said.append((completed, total))

    show_tally(Bar(), FleetTally(10, before=3, running=2))
    tally = FleetTally(10, before=3, done=2, failed=1, aside=1, running=2, begun=time.monotonic() - 8)
    show_tally(Bar(), tally)
    assert said[:2] == ["3 of 10 ended, 2 running", (3, 10)]
    assert said[2:] == ["7 of 10 ended, 2 running, 2 failed, 0.5/s, 6 s left", (7, 10)]


def rows_of(text: str) -> list[object]:
    return [json.loads(line) for line in text.splitlines()]


def test_parquet_in_and_out(tlkit: Shell, place: Path) -> None:
    model = load_model(place / "net.mlpackage")
    (port,) = model.inputs
    wide = int(np.prod(port.shape))
    given = np.random.default_rng(0).standard_normal((5, *port.shape)).astype(np.float32)
    table = pa.table({"k": range(5), "v": pa.FixedSizeListArray.from_arrays(pa.array(given.reshape(-1)), wide)})
    pq.write_table(table, place / "in.parquet", row_group_size=2)
    words = ("run", place / "net.mlpackage", "--input", f"{port.name}=in.parquet:v", "--engine", "eager")
    ran = tlkit(*words, "--save-outputs", "out.parquet", "--json")
    assert ran.code == 0, ran.err
    assert [row["file"] for row in rows_of(ran.out)] == [f"in.parquet:{at}" for at in range(5)]  # type: ignore[index]
    saved = pq.read_table(place / "out.parquet")
    name = model.outputs[0].name
    wanted = [model.predict({port.name: row})[name] for row in given]
    np.testing.assert_allclose(saved[name].combine_chunks().to_numpy_ndarray(), wanted, atol=2**-9)
    part = tlkit(*words, "--part", "2/3", "--rows", "rows.jsonl", "--json")
    assert part.code == 0 and part.json()["count"] == 2
    assert (
        [row["outputs"] for row in rows_of((place / "rows.jsonl").read_text())]
        == [  # type: ignore[index]
            row["outputs"]
            for row in rows_of(ran.out)[1:3]  # type: ignore[index]
        ]
    )
    for more, said in (
        (("--part", "4/3"), "K/N"),
        (("--jobs", "2", "--part", "1/3"), "--part names one part"),
        (("--check-nan",), "--check-nan looks into one inference"),
    ):
        refused = tlkit(*words, *more)
        assert refused.code == 2 and said in refused.err
    assert "--jobs goes with many inputs" in tlkit("run", place / "net.mlpackage", "--jobs", "2").err
    assert sorted(path.name for path in place.iterdir() if path.name[0] == ".") == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_parts_side_by_side_are_the_whole(tlkit: Shell, place: Path) -> None:
    net = packages.classifier(place / "pictures.mlpackage")
    (place / "images").mkdir()
    for at, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (7, 2, 2), np.uint8)):
        Image.fromarray(pixels).save(place / "images" / f"{at}.png")
    words = ("run", net, "--input", "images/", "--engine", "eager")
    one = tlkit(*words, "--json", "--save-outputs", "one.npz")
    assert one.code == 0, one.err
    two = tlkit(*words, "--json", "--jobs", "2", "--save-outputs", "two.npz")
    assert (two.code, two.out) == (0, one.out), two.err
    with np.load("one.npz") as first, np.load("two.npz") as second:
        assert sorted(first) == sorted(second)
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])
    (place / "images" / "9.png").write_text("no image")
    bad = tlkit(*words, "--jobs", "2", "--save-outputs", "bad")
    assert bad.code == 4 and "9.png: not an image" in bad.err and not (place / "bad").exists()
    assert [path for path in place.iterdir() if path.name[0] == "."] == []


def test_how_many_parts() -> None:
    assert [_parts(count, 4) for count in (1, 3, 100, 512, 100_000)] == [1, 3, 4, 8, 32]


def test_words() -> None:
    given = {"inputs": ["a=1", "b=2"], "stats": True, "cache": False, "seed": 3, "from_": "1", "json": True}
    found = list(words_of(given, ("inputs", "stats", "cache", "seed", "from_", "depth")))
    assert found == ["--input", "a=1", "--input", "b=2", "--stats", "--no-cache", "--seed", "3", "--from", "1"]
