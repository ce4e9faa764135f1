"""A folder's files, one inference each: order, rows, what is saved, and errors that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.formats import packages
from tlkit.core.model.load import load_model
from tlkit.core.run.data.samples import FolderSet
from tlkit.core.run.folder import FolderRow, engine_for, run_samples
from tlkit.errors import LoadError, UsageError


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("b", "a", "c", "e", "d"):
        Image.fromarray(rng.integers(0, 256, (2, 2), np.uint8)).save(folder / f"{name}.png")
    (folder / ".hidden").write_text("not an image")
    (folder / "inner").mkdir()
    return folder


def test_one_engine_for_all_parts(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, data = packages.classifier(tmp_path / "net.mlpackage"), FolderSet(images, "image")
    # Few are run by PyTorch first; and who names an engine has chosen.
    assert engine_for(load_model(path, streams=0), data, {}) is None
    monkeypatch.setattr("tlkit.core.run.folder._MANY", 3)
    assert engine_for(load_model(path, engine="eager", streams=0), data, {}) is None
    chosen = engine_for(load_model(path, streams=0), data, {})
    assert chosen in ("eager", "openvino", "onnxruntime")
    part = run_samples(load_model(path, engine=chosen, streams=0), data, {}, part="2/2")
    assert (
        part.ran.partition(",")[0]
        == {"eager": "PyTorch", "openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}[chosen]
    )
    (images / "a.png").write_text("not an image")
    with pytest.raises(UsageError, match=r"^[^:]*a\.png: not an image"):
        engine_for(load_model(path, streams=0), data, {})


@pytest.mark.parametrize(("engine", "streams"), [("eager", 0), ("auto", 1), ("onnxruntime", 3)])
def test_each_file_is_a_row_and_outputs_are_joined(
    images: Path, tmp_path: Path, engine: str, streams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(packages.classifier(tmp_path / "net.mlpackage"), engine=engine, streams=streams)
    monkeypatch.setattr("tlkit.core.run.folder._MANY", 3)
    rows: list[FolderRow] = []
    moved: list[tuple[int, int]] = []
    goal = tmp_path / "out.npz"
    result = run_samples(
        model,
        FolderSet(images, "image"),
        {},
        save_outputs=str(goal),
        each=rows.append,
        progress=lambda *done: moved.append(done),
    )
    assert result.count == 5 and moved == [(n, 5) for n in range(1, 6)]
    assert [row.file for row in rows] == [f"{name}.png" for name in "abcde"]
    single = load_model(model.path, engine="eager")
    with np.load(goal) as saved:
        assert list(saved["files"]) == [row.file for row in rows]
        assert list(saved["label_probs.labels"]) == packages.LABELS
        for place, row in enumerate(rows):
            wanted = single.predict({"image": images / row.file})
            assert saved["label"][place] == wanted["label"] == row.outputs[0].label
            np.testing.assert_allclose(saved["label_probs"][place], list(wanted["label_probs"].values()), atol=2**-11)
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {"images", "net.mlpackage", "out.npz"}


def test_a_bad_file_is_named_and_nothing_is_written(images: Path, tmp_path: Path) -> None:
    (images / "bad.png").write_text("not an image")
    model = load_model(packages.classifier(tmp_path / "net.mlpackage"))
    goal = tmp_path / "out.npz"
    rows: list[FolderRow] = []
    with pytest.raises((LoadError, UsageError), match=r"^[^:]*images/bad\.png: not an image\n"):
        run_samples(model, FolderSet(images, "image"), {}, save_outputs=str(goal), each=rows.append)
    assert not goal.exists()
    assert [row.file for row in rows] == ["a.png", "b.png"]  # those before it, in order


def test_an_empty_folder_and_another_kind_of_file_are_refused(images: Path, tmp_path: Path) -> None:
    model = load_model(packages.classifier(tmp_path / "net.mlpackage"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no file in it"):
        FolderSet(tmp_path / "empty", "image")
    with pytest.raises(UsageError, match=r"\.npz, a \.parquet or a folder"):
        run_samples(model, FolderSet(images, "image"), {}, save_outputs=str(tmp_path / "out.safetensors"))
