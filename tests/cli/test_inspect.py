"""``tlkit inspect``: the text shows what the JSON holds, and the JSON what was written.

Covers tlkit/cli/views/inspect.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import Shell
from tests.formats import packages
from tests.real_models import MODELS, needs_models


def test_the_summary_names_what_matters(tlkit: Shell, tmp_path: Path) -> None:
    path = packages.classifier(tmp_path / "net.mlpackage")
    outcome = tlkit("inspect", path)
    assert (outcome.code, outcome.err) == (0, "")
    rows = {line.split()[0]: line for line in outcome.out.splitlines() if line.strip()}
    assert "CoreML · mlProgram · specification 8 (iOS17 and later) · iOS17 opset" in rows["format"]
    assert "F16 weights" in rows["precision"] and "F16 compute (F16 50.0 %, F32 50.0 %)" in rows["precision"]
    assert rows["parameters"].split() == ["parameters", "15"]
    assert rows["classes"].split(maxsplit=1)[1] == "zero, one, two"
    assert "coremltools 9.0, from torch==2.13.0" in rows["made"]
    assert rows["author"].endswith("A. Author") and rows["note"].endswith("kept")
    assert "image" in rows["input"] and "GRAYSCALE image" in rows["input"] and "2x2" in rows["input"]
    assert "7 operations: cast 2, classify 1" in outcome.out


def test_the_json_holds_all_of_it(tlkit: Shell, tmp_path: Path) -> None:
    path = packages.classifier(tmp_path / "net.mlpackage")
    document = tlkit("inspect", path, "--json").json()
    assert document["schema_version"] == 1 and document["path"] == str(path)
    assert document["labels"] == packages.LABELS and document["parameters"] == 15
    assert document["metadata"]["quantization"] == "F16"
    assert document["inputs"][0]["image"]["layout"] == "GRAYSCALE"
    assert sum(document["sizes"].values()) == sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    (matrix,) = (tensor for tensor in document["tensors"] if tensor["name"] == "matrix")
    assert (matrix["dtype"], matrix["shape"], matrix["bytes"], matrix["offset"]) == ("F16", [3, 4], 24, 64)
    (linear,) = (op for op in document["program"] if op["type"] == "linear")
    assert linear["inputs"] == {"x": ["x16"], "weight": ["matrix"], "bias": ["bias"]} and linear["outputs"] == ["z"]
    assert len(document["program"]) == sum(document["operations"].values())


def test_ops_are_mil_text(tlkit: Shell, tmp_path: Path) -> None:
    outcome = tlkit("inspect", packages.classifier(tmp_path / "net.mlpackage"), "--mil")
    assert outcome.code == 0 and outcome.out.startswith("program(")
    assert "tensor<fp16, [1, 3]> z = linear(" in outcome.out and "BLOBFILE" in outcome.out


def test_weights_are_a_row_each(tlkit: Shell, tmp_path: Path) -> None:
    outcome = tlkit("inspect", packages.classifier(tmp_path / "net.mlpackage"), "--weights")
    rows = [line.split() for line in outcome.out.splitlines() if line.startswith((" matrix", " bias"))]
    assert rows == [
        ["matrix", "F16", "3x4", "24", "64", "@model_path/weights/weight.bin"],
        ["bias", "F16", "3", "6"],
    ]


def test_a_hostile_description_cannot_drive_the_terminal(tlkit: Shell, tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    file = path / "Data/com.apple.CoreML/model.mlmodel"
    model = packages.MODEL.Model.FromString(file.read_bytes())
    model.description.metadata.shortDescription = "\x1b]0;owned\x07[bold]plain[/bold]"
    model.description.metadata.userDefined["key\x1b[2J"] = "x" * 5000
    file.write_bytes(model.SerializeToString())
    outcome = tlkit("inspect", path)
    assert "\x1b" not in outcome.out and "[bold]plain[/bold]" in outcome.out
    assert max(map(len, outcome.out.splitlines())) < 1000
    assert tlkit("inspect", path, "--json").json()["metadata"]["user"]["key\x1b[2J"] == "x" * 5000


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "No such file"), (b"", "empty"), (b"hello", "text, not a model"), (b"\x08\x01\x12\xff", "damaged")],
)
def test_bad_files_are_one_error_and_a_hint(
    tlkit: Shell,
    tmp_path: Path,
    content: bytes | None,
    says: str,
) -> None:
    path = tmp_path / ("m.mlmodel" if content != b"hello" else "m.txt")
    if content is not None:
        path.write_bytes(content)
    outcome = tlkit("inspect", path)
    assert (outcome.code, outcome.out) == (3, "")
    lines = outcome.err.splitlines()
    assert len(lines) == 2 and lines[0].startswith(f"tlkit: error: {path}: ") and says in lines[0]


@needs_models
@pytest.mark.parametrize("flags", [[], ["--json"], ["--ops"], ["--mil"], ["--weights"]])
def test_every_real_model_can_be_inspected_every_way(tlkit: Shell, flags: list[str]) -> None:
    for path in sorted([*(MODELS / "mlpackage").iterdir(), *(MODELS / "mlmodel").iterdir()]):
        outcome = tlkit("inspect", path, *flags)
        assert (outcome.code, outcome.err) == (0, ""), path.name
        if "--json" in flags:
            outcome.json()


@needs_models
def test_incomplete_packages_show_what_is_there_and_what_is_not(tlkit: Shell) -> None:
    outcome = tlkit("inspect", MODELS / "incomplete/HiFiGAN_int8_range1.mlpackage")
    assert outcome.code == 0
    assert "the weight file is missing" in outcome.err
    assert "INT8 >99.9 %" in outcome.out and "1x256x(1..1000)" in outcome.out
