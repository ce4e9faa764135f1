"""What is written of many outputs is what numpy and pyarrow read; memory does not grow with their number.

Covers tlkit/core/run/data/columns.py, tlkit/core/run/data/table.py, tlkit/core/run/data/sample.py.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlkit.core.run.data import outputs as data_outputs
from tlkit.core.run.data.outputs import output_writer, outputs_goal, read_manifest, saved_outputs
from tlkit.errors import LoadError, UsageError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
RNG = np.random.default_rng(0)
GIVEN = [
    (f"ä{at}\n.png" if at == 3 else f"{at}.png", array, f"class {'x' * at}", {"a": at / 8, "b": 1 - at / 8})
    for at, array in enumerate(RNG.standard_normal((7, 2, 3)).astype(np.float16))
]


def written(goal: Path, text: str | None = None) -> Path:
    wanted = outputs_goal(text or str(goal))
    writer = output_writer(wanted, goal, len(GIVEN))
    for name, array, label, probabilities in GIVEN:
        writer.add(name, {"y": array, "label": label, "p": probabilities, "n": np.float32(2.5)})
    writer.close()
    assert wanted.reads is not None
    wanted.reads(goal)
    return goal


def same(arrays: Any, given: list[Any]) -> None:
    assert list(arrays["files"]) == [name for name, *_ in given]
    assert list(arrays["label"]) == [label for _, _, label, _ in given]
    np.testing.assert_array_equal(arrays["y"], [array for _, array, _, _ in given])
    assert arrays["y"].dtype == np.float16 and np.ravel(arrays["n"]).tolist() == [2.5] * len(given)
    np.testing.assert_array_equal(arrays["p"], [list(found.values()) for *_, found in given])
    assert list(arrays["p.labels"]) == ["a", "b"]


def test_an_archive(tmp_path: Path) -> None:
    with np.load(written(tmp_path / "out.npz"), allow_pickle=False) as archive:
        same(archive, GIVEN)


def test_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlkit.core.run.data.table._MOST", 3)
    path = written(tmp_path / "out.parquet")
    assert pq.ParquetFile(path).metadata.num_row_groups == 3
    table = pq.read_table(path)
    assert json.loads(table.schema.metadata[b"p.labels"]) == ["a", "b"]
    tensors = {name: table[name].combine_chunks().to_numpy_ndarray() for name in ("y", "p")}
    texts = {
        "files": table["file"].to_pylist(),
        "label": table["label"].to_pylist(),
        "n": table["n"].combine_chunks().to_numpy_ndarray(),
    }
    same(tensors | texts | {"p.labels": ["a", "b"]}, GIVEN)


def test_shards_and_their_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_outputs, "_MOST", 3)
    folder = written(tmp_path / "out", f"{tmp_path}/out/")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [shard["count"] for shard in manifest["shards"]] == [3, 3, 1] and manifest["count"] == 7
    for at, shard in enumerate(manifest["shards"]):
        content = (folder / shard["file"]).read_bytes()
        assert (shard["sha256"], shard["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
        given = GIVEN[3 * at : 3 * at + 3]
        assert (shard["first"], shard["last"]) == (given[0][0], given[-1][0])
        with np.load(folder / shard["file"], allow_pickle=False) as archive:
            same(archive, given)
    again = [(name, found["y"], found["label"], found["p"]) for name, found in saved_outputs(folder)]
    assert [str(item) for item in again] == [str(item) for item in GIVEN]
    with (folder / "00001.npz").open("r+b") as file:
        file.seek(60)
        file.write(b"\xff\xff")
    with pytest.raises(LoadError, match=r"00001\.npz: not the shard"):
        read_manifest(folder)


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    kind = outputs_goal(f"{tmp_path}/out").kind
    folder = written(tmp_path / "out")
    assert kind.foreign is not None and kind.foreign(folder) is None
    (folder / "thesis.txt").write_text("")
    assert kind.foreign(folder) == folder / "thesis.txt"


@pytest.mark.parametrize("name", ["out.npz", "out.parquet", "out"])
def test_another_shape_is_refused(tmp_path: Path, name: str) -> None:
    writer = output_writer(outputs_goal(name), tmp_path / name, 2)

    def write() -> None:
        for size in (3, 4):
            writer.add("s", {"y": np.zeros(size, np.float32)})
        writer.close()

    with pytest.raises(UsageError, match=r"of shape \(4,\) for one sample and \(3,\)"):
        write()
    with pytest.raises(UsageError, match=r"a \.npz, a \.parquet or a folder"):
        outputs_goal("out.safetensors")


_FLAT = """
import resource, sys
from pathlib import Path
from tlkit.core.run.data import outputs, samples, table
from tlkit.types import TensorSpec

outputs._SHARD = table._GROUP = 2 << 20
folder, rows = Path(sys.argv[1]), int(sys.argv[2])
data, _ = samples.samples_of([TensorSpec("x", "float32", (1, 8192))], [str(folder / "in.parquet")])
names = ("out.npz", "out.parquet", "out")
writers = [outputs.output_writer(outputs.outputs_goal(name), folder / name, rows) for name in names]
for at, sample in enumerate(data.samples(0, rows)):
    for writer in writers:
        writer.add(sample.name, {"y": sample.values["x"]})
    if at == 256:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
for writer in writers:
    writer.close()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


def test_memory_is_that_of_a_few_samples(tmp_path: Path) -> None:
    """Ten times as many samples (32 KiB each, 80 MiB in all, three times written) need no more memory."""
    count, width, groups = 2560, 8192, 10
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(width * count // groups, np.float32)), width)
    with pq.ParquetWriter(tmp_path / "in.parquet", pa.schema([("x", column.type)])) as file:
        for _ in range(groups):
            file.write_table(pa.table({"x": column}))
    command = [sys.executable, "-c", _FLAT, str(tmp_path), str(count)]
    first, last = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert last - first < 24, (first, last)
    assert pq.read_metadata(tmp_path / "out.parquet").num_rows == count
