"""Rows of Parquet become what pyarrow, numpy and PIL say they hold; what is no value is named by its row."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tlkit.core.model.inputs import to_port
from tlkit.core.run.data.sample import SampleSet
from tlkit.core.run.data.samples import samples_of
from tlkit.errors import LoadError, TlkitError, UnavailableError, UsageError
from tlkit.types import ImageSpec, TensorSpec

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

X = TensorSpec("x", "float32", (1, 2, 3))
PICTURE = TensorSpec("image", "float32", (1, 3, 2, 4), image=ImageSpec("RGB", 4, 2))


def opened(ports: Sequence[TensorSpec], *texts: str) -> SampleSet:
    found = samples_of(ports, texts)
    assert found is not None and found[1] == []
    return found[0]


def values(data: SampleSet, port: TensorSpec) -> list[Any]:
    return [to_port(port, sample.values[port.name]) for sample in data.samples(0, data.count)]


@pytest.mark.parametrize("group", [1, 3, 100])
def test_arrays_of_every_form_are_the_arrays_that_were_written(tmp_path: Path, group: int) -> None:
    wanted = np.random.default_rng(0).standard_normal((70, 1, 2, 3)).astype(np.float32)
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(wanted))
    flat = pa.FixedSizeListArray.from_arrays(pa.array(wanted.reshape(-1)), 6)
    columns = {
        "tensor": tensors,
        "flat": flat,
        "list": pa.array([list(map(float, row.reshape(-1))) for row in wanted], pa.list_(pa.float64())),
        "nested": pa.array(wanted.tolist()),
        "no_batch": pa.array(wanted[:, 0].tolist(), pa.large_list(pa.large_list(pa.float32()))),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=group)
    for name in columns:
        data = opened([X], f"x={tmp_path}/a.parquet:{name}")
        assert data.count == 70 and data.inputs == ("x",)
        np.testing.assert_array_equal(values(data, X), wanted, err_msg=name)
    part = [sample.name for sample in opened([X], f"{tmp_path}/a.parquet:flat").samples(33, 36)]
    assert part == ["a.parquet:33", "a.parquet:34", "a.parquet:35"]


def test_a_folder_of_shards_is_one_table(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for at, size in enumerate((3, 0, 5)):
        pq.write_table(
            pa.table({"x": pa.array([[float(at)] * 6] * size, pa.list_(pa.float32()))}), shards / f"{at}.parquet"
        )
    (shards / "_SUCCESS").write_text("")
    data = opened([X], str(shards))
    assert data.count == 8 and [value.flat[0] for value in values(data, X)] == [0.0] * 3 + [2.0] * 5
    assert [sample.name for sample in data.samples(2, 4)] == ["0.parquet:2", "2.parquet:0"]
    pq.write_table(pa.table({"y": [1.0]}), shards / "9.parquet")
    with pytest.raises(UsageError, match=r"9\.parquet: other columns"):
        opened([X], str(shards))


def test_pictures_as_bytes_structs_and_paths(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (3, 2, 4, 3), np.uint8)
    files = []
    for at, item in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(item).save(file, "PNG")
        (tmp_path / f"{at}.png").write_bytes(file.getvalue())
        files.append(file.getvalue())
    structs = [
        {"bytes": files[0], "path": None},
        {"bytes": files[1], "path": "no.png"},
        {"bytes": None, "path": "2.png"},
    ]
    table = {"raw": files, "image": structs, "path": [f"{at}.png" for at in range(3)], "bad": [b"no picture"] * 3}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    wanted = pixels.transpose(0, 3, 1, 2)[:, None].astype(np.float32)
    for text in (f"{tmp_path}/a.parquet", *(f"image={tmp_path}/a.parquet:{name}" for name in ("raw", "image", "path"))):
        np.testing.assert_array_equal(values(opened([PICTURE], text), PICTURE), wanted, err_msg=text)
    with pytest.raises(UsageError, match=r"a\.parquet:0: not an image"):
        values(opened([PICTURE], f"{tmp_path}/a.parquet:bad"), PICTURE)


def test_several_columns_are_several_inputs_and_scalars_are_numbers(tmp_path: Path) -> None:
    pq.write_table(pa.table({"b": [1, 2], "a": [0.5, 1.5], "other": ["p", "q"]}), tmp_path / "t.parquet")
    a, b = TensorSpec("a", "float32", (1,)), TensorSpec("b", "int32", (1,))
    data = opened([a, b], f"{tmp_path}/t.parquet")
    assert sorted(data.inputs) == ["a", "b"]
    assert [value.tolist() for value in values(data, a)] == [[0.5], [1.5]]
    assert [value.tolist() for value in values(data, b)] == [[1], [2]]
    text = TensorSpec("s", "", (), kind="string")
    assert values(opened([text], f"{tmp_path}/t.parquet:other"), text) == ["p", "q"]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ([[1.0] * 6, None], r"t\.parquet:1: column 'c': there is no value"),
        ([[1.0] * 6, [1.0, None, 1.0, 1.0, 1.0, 1.0]], r"t\.parquet:1: column 'c': there are empty values"),
        ([[[1.0], [1.0, 2.0]]] * 2, r"t\.parquet:0: column 'c': lists of different lengths"),
        ([["a"]] * 2, r"t\.parquet:0: column 'c': string is not numbers"),
        ([{"z": 1}] * 2, r"t\.parquet:0: column 'c': a struct of z"),
        ([[1.0] * 5] * 2, r"the shape 5 does not fit"),
    ],
)
def test_what_is_no_value_is_named(tmp_path: Path, column: list[Any], said: str) -> None:
    pq.write_table(pa.table({"c": column}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=said):
        values(opened([X], f"{tmp_path}/t.parquet"), X)


def test_columns_that_do_not_fit_the_inputs_and_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"c": [1.0], "d": [1.0]}), path)
    a, b = (TensorSpec(name, "float32", (1,)) for name in "ab")
    for ports, text, said in (
        ([a], f"{path}:e", "no column 'e'"),
        ([a], f"{path}", "which column is the input 'a'"),
        ([a, b], f"{path}", "which input is it for"),
    ):
        with pytest.raises(UsageError, match=said) as error:
            samples_of(ports, [text])
        assert "columns: c, d" in (error.value.hint or "")
    pq.write_table(pa.table({"c": pa.array([], pa.float32())}), tmp_path / "none.parquet")
    with pytest.raises(UsageError, match="no row"):
        samples_of([a], [f"{tmp_path}/none.parquet"])
    whole = path.read_bytes()
    for damaged in (b"", b"PAR1", whole[:-9], whole[: len(whole) // 2] + b"\xff" * 40 + whole[len(whole) // 2 + 40 :]):
        path.write_bytes(damaged)
        with pytest.raises((LoadError, UsageError)):
            list(opened([a], f"{path}:c").samples(0, 1))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "t.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UnavailableError) as error:
        samples_of([X], [f"{tmp_path}/t.parquet"])
    assert isinstance(error.value, TlkitError) and "tlkit[data]" in str(error.value.hint)
