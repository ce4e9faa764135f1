"""Accuracy of classifiers of several formats, on folders and tables, and what is refused.

Covers tlkit/core/accuracy/answers.py, tlkit/core/accuracy/labelled.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.core.judge.test_compare import SOURCE, twin
from tests.formats import packages
from tlkit.core.accuracy.accuracy import accuracy
from tlkit.core.accuracy.answers import Answers
from tlkit.core.accuracy.labelled import labelled_samples
from tlkit.core.judge.compare import compare
from tlkit.errors import LoadError, UsageError


def scores(pixels: np.ndarray) -> np.ndarray:
    """What the classifier of ``packages`` computes, by numpy."""
    return packages.MATRIX.astype(np.float64) @ (pixels.ravel() / 255) + packages.BIAS.astype(np.float64)


def pictures(folder: Path, count: int = 12) -> tuple[Path, list[str]]:
    """A folder of labelled pictures, every third labelled wrong, and what the classifier says of each."""
    rng, said = np.random.default_rng(0), []
    for index in range(count):
        pixels = rng.integers(0, 256, (2, 2), dtype=np.uint8) // (1 + 8 * (index % 2))
        answer = packages.LABELS[int(scores(pixels).argmax())]
        label = answer if index % 3 else packages.LABELS[(packages.LABELS.index(answer) + 1) % 3]
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / label / f"{index:02}.png")
        said.append(answer)
    return folder, said


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    return packages.classifier(tmp_path / "classifier.mlpackage")


def test_a_folder_of_pictures(classifier: Path, tmp_path: Path) -> None:
    folder, said = pictures(tmp_path / "samples")
    (folder / packages.LABELS[0] / "notes.txt").write_text("no sample")
    (folder / packages.LABELS[0] / ".hidden.png").write_text("no sample")
    notes: list[str] = []
    found = accuracy(classifier, folder, calibration=True, note=notes.append)
    assert (found.samples, found.right, found.top1) == (12, 8, pytest.approx(2 / 3)) and found.top5 is None
    assert notes == [f"1 files in {folder} are neither images nor arrays, and were passed over"]
    files = sorted(folder.rglob("[0-9]*.png"), key=lambda file: file.name)
    pairs = [(file.parent.name, answer) for file, answer in zip(files, said, strict=True)]
    counted = {(item.label, item.answer): item.samples for item in found.confusions}
    assert counted == {pair: pairs.count(pair) for pair in set(pairs)}
    assert len(found.worst) == 4
    leads = [item.score - item.label_score for item in found.worst]  # type: ignore[operator]
    assert leads == sorted(leads, reverse=True) and min(leads) > 0
    worst = found.worst[0]
    shares = np.exp(scores(np.asarray(Image.open(folder / worst.sample))))
    assert worst.score == pytest.approx(shares.max() / shares.sum(), abs=2e-3)
    assert found.calibration is not None and not found.calibration.softmax
    assert not accuracy(classifier, folder, min_top1=0.7).ok and accuracy(classifier, folder, min_top1=0.6).ok


def test_bf16_is_named_wherever_its_figures_are_shown(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr("tlkit.engines.openvino.runtime.has_bf16", lambda: True)
    monkeypatch.setenv("TLKIT_NO_CACHE", "1")
    folder, _ = pictures(tmp_path / "samples", 3)
    notes: list[str] = []
    accuracy(classifier, folder, precision="bf16", engine="openvino", cache=False, note=notes.append)
    assert notes == ["bf16 is fast, and not faithful to what the package declares"]
    told = compare(classifier, classifier, precision="f16,bf16", engine="openvino", rtol=0.1).told
    assert "f16 as declared" in told[0] and "bf16, not faithful to f16" in told[1]


def test_a_table_says_the_same_as_its_folder(classifier: Path, tmp_path: Path) -> None:
    folder, _ = pictures(tmp_path / "samples")
    rows = [f"{file.relative_to(tmp_path)};{file.parent.name}" for file in sorted(folder.rglob("*.png"))]
    (tmp_path / "a.csv").write_text("\ufefffile;Label\n" + "\n".join(rows) + "\n\n")
    (tmp_path / "b.tsv").write_text("\n".join(rows).replace(";", "\t"))
    for table in ("a.csv", "b.tsv"):
        found = accuracy(classifier, tmp_path / table)
        assert (found.samples, found.right) == (12, 8)


def test_parquet(classifier: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder, _ = pictures(tmp_path / "samples")
    files = sorted(folder.rglob("*.png"))
    table = {"path": [str(file.relative_to(tmp_path)) for file in files], "label": [file.parent.name for file in files]}
    parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    assert accuracy(classifier, tmp_path / "a.parquet").right == 8
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(LoadError, match="not a Parquet file"):
        accuracy(classifier, tmp_path / "b.parquet")


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """Rows of ``SOURCE`` and ``twin``, which give three scores, in folders named by number; 6 of 8 are right."""
    rng = np.random.default_rng(1)
    for index in range(8):
        x = rng.normal(size=(1, 4)).astype(np.float32) * 4
        answer = int((packages.MATRIX.astype(np.float32) @ x[0] + packages.BIAS).argmax())
        label = answer if index % 4 else (answer + 1) % 3
        (tmp_path / "arrays" / str(label)).mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "arrays" / str(label) / f"{index}.npy", x)
    return tmp_path / "arrays"


def test_packages_onnx_and_sources_are_right_alike(tmp_path: Path, arrays: Path) -> None:
    (tmp_path / "net.py").write_text(SOURCE)
    models = [packages.linear(tmp_path / "linear.mlpackage"), twin(tmp_path / "twin.onnx"), f"{tmp_path}/net.py:Net"]
    for model in models:
        ports = ["x=1x4"] if str(model).endswith(":Net") else []
        found = accuracy(model, arrays, ports=ports, calibration=True)
        assert (found.samples, found.right, found.classes) == (8, 6, 3), model
        assert found.calibration is not None and found.calibration.softmax
    named = tmp_path / "named.txt"
    named.write_text("0\n1\nother\n")
    with pytest.raises(UsageError, match=r"the label '2' is not among the model's classes") as error:
        accuracy(models[0], arrays, classes=named)
    assert "0, 1, other" in (error.value.hint or "")
    with pytest.raises(UsageError, match="2 names, and 'y' has 3 classes"):
        accuracy(models[0], arrays, classes=["a", "b"])


def test_a_label_that_is_not_in_the_model_is_an_error(classifier: Path, tmp_path: Path) -> None:
    folder, _ = pictures(tmp_path / "samples")
    (folder / "tow").mkdir()
    Image.new("L", (2, 2)).save(folder / "tow" / "x.png")
    with pytest.raises(UsageError, match="the label 'tow' is not among") as error:
        accuracy(classifier, folder)
    assert "it has 3, such as two" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("path,label\nmissing.png,one\n", LoadError, "row 2: no such file"),
        ("path,label\nhere.png,\n", UsageError, "row 2: no label"),
        ("path,label\nhere.png\n", UsageError, "row 2: 1 columns"),
        ("path,label\n", LoadError, "no samples in it"),
        ("", LoadError, "it is empty"),
        ("path,other,third\na,b,c\n", UsageError, "no column 'label'"),
        ("label,other,third\na,b,c\n", UsageError, "no column 'path, nor the inputs image'"),
        ('path,label\n"here.png,one\n', LoadError, "not CSV"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str, error: type[Exception], match: str) -> None:
    (tmp_path / "here.png").write_bytes(b"")
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(error, match=match):
        labelled_samples(tmp_path / "a.csv", ["image"])


def test_a_table_may_hold_the_inputs_themselves(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("age,size,y\n1,2.5,yes\n3,4,no\n")
    found = labelled_samples(tmp_path / "a.csv", ["age", "size"]).items
    assert [(item.values, item.label) for item in found] == [
        ({"age": "1", "size": "2.5"}, "yes"),
        ({"age": "3", "size": "4"}, "no"),
    ]


def test_answers_are_read_from_labels_indices_and_scores() -> None:
    said = Answers((), ())
    assert said.read({"label": "b"}).number == 0 and said.read({"label": "a"}).number == 1 and said.unknown
    index = Answers((), ("x", "y", "z"))
    assert index.read({"best": np.array([2])}).number == 2 and index.number("z") == 2
    several = Answers((), ())
    row = np.array([[0.5, 0.25, 0.25]], np.float32)
    answer = several.read({"features": np.ones((1, 8), np.float32), "p": row, "map": np.ones((1, 2, 4, 4))})
    assert (answer.number, several.output) == (0, "p") and "features, p" in several.notes[0]
    assert several.number("01") == several.number("1.0") == 1 and several.number("3") is None
    wild = several.read({"p": row * np.nan})
    assert wild.number == -1
    with pytest.raises(UsageError, match="no output has a class"):
        Answers((), ()).read({"map": np.ones((1, 2, 4, 4), np.float32)})
