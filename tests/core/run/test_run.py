"""One inference: what comes out is what numpy computes; what is said of it is true."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.formats import packages
from tlkit.core.run.run import WHOLE, run, summarize
from tlkit.errors import LoadError, UsageError
from tlkit.types import TensorSpec


def _expected(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) @ packages.MATRIX.T.astype(np.float64) + packages.BIAS


def test_a_linear_map_is_what_numpy_computes(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    x = np.array([[1.0, -2.0, 0.5, 3.0]], np.float32)
    np.save(tmp_path / "x.npy", x)
    result = run(path, [f"x={tmp_path}/x.npy"])
    np.testing.assert_allclose(result.outputs["y"], _expected(x), rtol=1e-3)
    (summary,) = result.summaries
    assert (summary.shape, summary.dtype) == ((1, 3), "float32")
    y = result.outputs["y"]
    assert (summary.minimum, summary.maximum) == (float(y.min()), float(y.max()))
    assert summary.mean == pytest.approx(float(y.mean())) and summary.first == tuple(y.ravel().tolist())


def test_a_picture_gets_its_class_and_probabilities(tmp_path: Path) -> None:
    path = packages.classifier(tmp_path / "net.mlpackage")
    pixels = np.array([[10, 20], [30, 250]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    result = run(path, [f"image={tmp_path}/p.png"])
    z = _expected(pixels.reshape(1, 4) / 255)[0]
    shares = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    best = packages.LABELS[int(shares.argmax())]
    assert result.outputs["label"] == best
    classes = next(summary.classes for summary in result.summaries if summary.classes)
    assert [label for label, _ in classes] == [packages.LABELS[index] for index in np.argsort(-shares)]
    np.testing.assert_allclose([share for _, share in classes], sorted(shares, reverse=True), atol=2e-3)


@pytest.mark.parametrize(("strict", "edge", "corner"), [(False, 4.75, 12.0), (True, 9.5, 48.0)])
def test_core_mls_own_result_is_the_default_and_the_specifications_is_to_be_had(
    tmp_path: Path, strict: bool, edge: float, corner: float
) -> None:
    path = packages.ceil_pool(tmp_path / "pool.mlpackage")
    np.save(tmp_path / "x.npy", np.arange(49, dtype=np.float32).reshape(1, 1, 7, 7))
    y = run(path, [f"x={tmp_path}/x.npy"], strict_mil=strict).outputs["y"]
    assert (y[0, 0, 0, 0], y[0, 0, 0, 2], y[0, 0, 2, 2]) == (4, edge, corner)


def test_random_inputs_depend_on_the_seed_alone(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    said: list[str] = []
    one, two, other = (run(path, seed=seed, note=said.append).outputs["y"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other) and "seed 1" in said[0]


def test_an_overflow_of_f16_is_found_and_f32_does_not_have_it(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    big = ["x=[[60000, 60000, 60000, 60000]]"]
    faithful = run(path, big)
    assert faithful.not_finite == ("y",) and faithful.summaries[0].inf > 0
    assert run(path, big, precision="f32").not_finite == ()


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_an_overflow_is_found_where_an_engine_that_shows_no_values_gives_infinities(
    tmp_path: Path, engine: str
) -> None:
    pytest.importorskip(engine)
    path = packages.linear(tmp_path / "net.mlpackage")
    found = run(path, ["x=[[6e4,6e4,6e4,6e4]]"], engine=engine, cache=False)
    assert np.isinf(found.outputs["y"]).any()
    assert found.stray is not None and found.stray.overflow
    sound = run(path, ["x=[[1,2,3,4]]"], engine=engine, cache=False, check_nan=True)
    assert sound.stray is None


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_outputs_are_saved_whole_or_not_at_all(tmp_path: Path, suffix: str) -> None:
    path = packages.classifier(tmp_path / "net.mlpackage")
    goal = tmp_path / f"out{suffix}"
    result = run(path, ["image=zeros"], save_outputs=str(goal))
    shares = list(result.outputs["label_probs"].values())
    if suffix == ".npz":
        with np.load(goal, allow_pickle=False) as found:
            assert found["label"] == result.outputs["label"] and list(found["label_probs"]) == shares
            assert list(found["label_probs.labels"]) == packages.LABELS
    else:
        from safetensors import safe_open

        with safe_open(goal, "np") as found:
            assert list(found.get_tensor("label_probs")) == shares
            assert json.loads(found.metadata()["label_probs.labels"]) == packages.LABELS
            assert json.loads(found.metadata()["label"]) == result.outputs["label"]
    before = goal.read_bytes()
    with pytest.raises(UsageError, match="exists"):
        run(path, ["image=zeros"], save_outputs=str(goal))
    assert goal.read_bytes() == before
    run(path, ["image=zeros"], save_outputs=str(goal), force=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.mlpackage", goal.name]


def test_an_unknown_kind_of_file_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.txt"):
        run(tmp_path / "nothing", save_outputs=str(tmp_path / "out.txt"))


def test_missing_weights_are_told_before_running(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    (path / "Data/com.apple.CoreML/weights/weight.bin").unlink()
    with pytest.raises(LoadError, match="weight file is missing"):
        run(path)


def test_a_summary_counts_what_is_not_finite_and_measures_the_rest() -> None:
    array = np.array([[1.0, np.nan, 3.0], [np.inf, -np.inf, 8.0]], np.float32)
    summary = summarize(TensorSpec("y", "float32"), array)
    assert (summary.minimum, summary.maximum, summary.mean, summary.nan, summary.inf) == (1.0, 8.0, 4.0, 1, 2)
    nothing = summarize(TensorSpec("y", "float32"), np.full(3, np.nan, np.float32))
    assert (nothing.minimum, nothing.mean, nothing.nan) == (None, None, 3)


def test_values_are_left_out_of_the_summary_of_a_large_output() -> None:
    assert summarize(TensorSpec("y", "float32"), np.zeros(WHOLE)).values is not None
    assert summarize(TensorSpec("y", "float32"), np.zeros(WHOLE + 1)).values is None
