"""``tlkit run``: outputs on the screen, in JSON, in files; what is wrong is said in a line.

Covers tlkit/core/model/load.py and tlkit/core/model/opened.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.commands import Shell
from tests.formats import packages
from tests.frontends.network import nets


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return packages.linear(tmp_path / "linear.mlpackage")


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    return packages.classifier(tmp_path / "classifier.mlpackage")


def test_text_shows_the_figures(tlkit: Shell, linear: Path) -> None:
    outcome = tlkit("run", linear, "--input", "x=[[1,0,0,0]]")
    assert (outcome.code, outcome.err) == (0, "")
    row = next(line.split() for line in outcome.out.splitlines() if line.strip().startswith("y"))
    y = (packages.MATRIX[:, 0] + packages.BIAS).astype(np.float64)
    assert row[:3] == ["y", "float32", "1x3"]
    assert [float(word) for word in row[3:]] == pytest.approx([y.min(), y.max(), y.mean(), *y], rel=1e-4)


def test_strict_mil_follows_the_specification(tlkit: Shell, tmp_path: Path) -> None:
    pool = packages.ceil_pool(tmp_path / "pool.mlpackage")
    np.save(tmp_path / "x.npy", np.arange(49, dtype=np.float32).reshape(1, 1, 7, 7))
    shown = [
        tlkit("run", pool, "--input", tmp_path / "x.npy", "--json", *more).json() for more in ((), ("--strict-mil",))
    ]
    assert [document["outputs"][0]["maximum"] for document in shown] == [28, 48]


def test_json_holds_every_value_unrounded(tlkit: Shell, linear: Path) -> None:
    document = tlkit("run", linear, "--input", "x=[[1,0,0,0]]", "--json").json()
    assert document["outputs"][0]["values"] == [(packages.MATRIX[:, 0] + packages.BIAS).tolist()]
    assert document["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 4]}]


def test_classes_come_with_bars_and_top_limits_them(tlkit: Shell, classifier: Path) -> None:
    outcome = tlkit("run", classifier, "--input", "image=zeros", "--top", 2)
    lines = [line.split() for line in outcome.out.splitlines()]
    ranked = [words for words in lines if words and words[0] in packages.LABELS]
    order = [packages.LABELS[index] for index in np.argsort(-packages.BIAS.astype(np.float64))]
    assert [words[0] for words in ranked] == order[:2] and "█" in ranked[0][2]
    assert ["label:", order[0]] in lines


def test_a_resized_image_is_said(tlkit: Shell, classifier: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 4), 9).save(tmp_path / "p.png")
    outcome = tlkit("run", classifier, "--input", f"image={tmp_path}/p.png", "--json")
    (note,) = outcome.json()["notes"]
    assert "8x4 scaled to 4x2 and cropped to 2x2" in note and note in outcome.err
    assert tlkit("run", classifier, "--input", f"image={tmp_path}/p.png", "-q").err == ""


def test_what_a_device_refuses_is_told_once_and_with_the_answer(tlkit: Shell, tmp_path: Path) -> None:
    model = packages.relu(tmp_path / "o.mlpackage", (1, None), (1, 4))
    outcome = tlkit("run", model, "--input", "x=zeros", "--json")
    (note,) = [text for text in outcome.json()["notes"] if "C17" in text]
    assert outcome.err.count(note) == 1 and "open dimensions" in note


def test_check_nan_names_the_output_and_exits_with_1(tlkit: Shell, linear: Path) -> None:
    big = ("run", linear, "--input", "x=[[6e4,6e4,6e4,6e4]]")
    assert tlkit(*big).code == 0
    outcome = tlkit(*big, "--check-nan")
    assert outcome.code == 1 and "not finite: y" in outcome.out and "output 'y' is not finite" in outcome.err
    document = tlkit(*big, "--check-nan", "--json")
    assert document.code == 1 and document.json()["not_finite"] == ["y"]
    assert "Infinity" in document.json()["outputs"][0]["values"][0]
    assert tlkit(*big, "--check-nan", "--precision", "f32").code == 0


def test_outputs_are_saved(tlkit: Shell, linear: Path, tmp_path: Path) -> None:
    goal = tmp_path / "out.npz"
    words = ("run", linear, "--input", "x=[[0,0,0,0]]", "--save-outputs", goal)
    assert tlkit(*words).code == 0
    np.testing.assert_array_equal(np.load(goal)["y"][0], packages.BIAS)
    assert tlkit(*words).code == 2 and tlkit(*words, "--force").code == 0


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--input", "imag=x.png"], 2, "no input is named 'imag'"),
        (["--input", "image=[[1,2]]"], 2, "expected GRAYSCALE image 2x2"),
        (["--input", "image={folder}/text.png"], 2, "not an image"),
        (["--input", "image=none.png"], 3, "none.png: no such file"),
        (["--input", "image=zeros", "--input", "image=zeros"], 2, "twice"),
        (["--shape", "image=1,1,9,9"], 2, "expected GRAYSCALE image 2x2"),
        (["--shape", "image"], 2, "not NAME=DIMS"),
        (["--precision", "f8"], 2, "f16 or f32"),
        (["--engine", "warp"], 2, "eager or compile"),
        (["--units", "tpu"], 2, "unknown unit 'tpu'"),
        (["--units", "cpu,gpu"], 2, "unknown unit"),
        (["--save-outputs", "{folder}/text.png"], 2, ".npz or .safetensors"),
        (["--save-outputs", "{folder}/no/out.npz"], 2, "no folder"),
    ],
)
def test_mistakes_are_one_line_and_a_hint(
    tlkit: Shell,
    classifier: Path,
    tmp_path: Path,
    words: list[str],
    code: int,
    says: str,
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    before = sorted(file.name for file in tmp_path.iterdir())
    outcome = tlkit("run", classifier, *(word.format(folder=tmp_path) for word in words))
    assert (outcome.code, outcome.out) == (code, "")
    errors = outcome.err[outcome.err.index("tlkit: error: ") :]
    assert says in errors and errors.count("\n") == 2 and "Traceback" not in errors
    assert sorted(file.name for file in tmp_path.iterdir()) == before


def test_a_model_that_is_no_mlprogram_says_so(tlkit: Shell, tmp_path: Path) -> None:
    model = packages.MODEL.Model(specificationVersion=1)
    packages.array_feature(model.description.input.add(), "x", packages.ARRAYS.DOUBLE, 3)
    model.wordTagger.SetInParent()
    (tmp_path / "old.mlmodel").write_bytes(model.SerializeToString())
    outcome = tlkit("run", tmp_path / "old.mlmodel")
    assert outcome.code == 3 and "a wordTagger cannot be run here" in outcome.err


def test_until_and_dump(tlkit: Shell, tmp_path: Path) -> None:
    path, folder = packages.linear(tmp_path / "net.mlpackage"), tmp_path / "values"
    outcome = tlkit("run", path, "--input", "x=[[60000,60000,60000,60000]]", "--until", "z", "--dump", folder, "--json")
    assert outcome.code == 0
    assert "2 values written" in outcome.err and "the first value kept that is not finite: 'z' (linear)" in outcome.err
    document = outcome.json()
    assert document["until"] == "z" and [item["value"] for item in document["dumped"]] == ["x16", "z"]
    assert tlkit("run", path, "--until", "nothing").code == 2


def test_a_function_of_several(tlkit: Shell, tmp_path: Path) -> None:
    path = packages.accumulator(tmp_path / "net.mlpackage")
    outcome = tlkit("run", path, "--function", "second", "--input", "x=[5]", "--json")
    assert outcome.json()["outputs"][0]["values"] == [5.0] and "states begin at zero: sum" in outcome.err
    assert tlkit("run", path, "--function", "third").code == 3
    inspected = tlkit("inspect", path, "--function", "second", "--mil")
    assert "func second" in inspected.out and "func first" not in inspected.out
    program = tlkit("inspect", path, "--function", "second", "--json").json()["program"]
    assert {operation["function"] for operation in program} == {"second"}


def test_a_folder_is_a_line_a_file(tlkit: Shell, tmp_path: Path) -> None:
    path = packages.classifier(tmp_path / "net.mlpackage")
    (tmp_path / "images").mkdir()
    for place, name in enumerate("ba"):
        Image.fromarray(np.full((2, 2), 200 * place, np.uint8)).save(tmp_path / "images" / f"{name}.png")
    outcome = tlkit("run", path, "--input", f"image={tmp_path / 'images'}", "--json")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert outcome.code == 0 and [row["file"] for row in rows] == ["a.png", "b.png"]
    assert all(row["outputs"][0]["label"] in packages.LABELS for row in rows)
    assert "2 samples in" in outcome.err
    assert tlkit("run", path, "--input", f"image={tmp_path / 'images'}", "--check-nan").code == 2


def test_a_custom_layer_runs_by_the_function_that_is_named(tlkit: Shell, tmp_path: Path) -> None:
    made = nets.model([nets.layer("custom", className="Norm")], {"x": [2]})
    (tmp_path / "old.mlmodel").write_bytes(made.SerializeToString())
    words = ("run", tmp_path / "old.mlmodel", "--input", "x=[3,-4]", "--json")
    refused = tlkit(*words)
    assert refused.code == 3 and "custom layer Norm" in refused.err and "--custom" in refused.err
    assert tlkit(*words, "--custom", "Norm").code == 2
    assert tlkit(*words, "--custom", "Norm=no.such:place").code == 2
    found = tlkit(*words, "--custom", "Norm=tests.frontends.network.nets:sizes")
    assert found.json()["outputs"][0]["values"] == [3, 4]


def test_verbose_says_what_ran_the_model(tlkit: Shell, linear: Path) -> None:
    said = tlkit("run", linear, "-v").err
    assert "ran by PyTorch, eager" in said
    named = tlkit("run", linear, "-v", "--engine", "onnxruntime").err
    assert "ran by ONNX Runtime" in named


def test_an_unwritable_cache_is_one_note(
    tlkit: Shell, linear: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    outcome = tlkit("run", linear, "--engine", "onnxruntime")
    assert outcome.code == 0
    assert outcome.err.count("compiled models are not kept") == 1


@pytest.mark.slow
def test_a_full_gpu_is_one_line_and_exit_4(tlkit: Shell, linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def full(*_: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore of it.")

    monkeypatch.setattr("tlkit.engines.torch.engine.waiting_call", full)
    outcome = tlkit("run", linear, "--engine", "compile")
    assert outcome.code == 4
    assert "no room for this model: not enough memory" in outcome.err and "--units cpu" in outcome.err
    assert len(outcome.err.splitlines()) == 2


def test_a_terminal_hears_that_a_model_is_compiled(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import contextmanager

    from tlkit.cli.run import run
    from tlkit.cli.sink.output import Sink
    from tlkit.cli.sink.stream import Progress

    told: list[str] = []

    class Bar(Progress):
        def describe(self, description: str) -> None:
            told.append(description)

    monkeypatch.setattr(Sink, "progress", contextmanager(lambda *_: iter([Bar()])))
    run(str(linear), engine="onnxruntime", cache=False)
    assert told == ["compiling for ONNX Runtime", f"running {linear}"]
