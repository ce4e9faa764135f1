"""``tlkit inspect --placement`` as people and programs see it.

Covers tlkit/core/inspect/placement.py, tlkit/cli/views/placement_page.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.commands import Shell
from tests.formats import packages
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.write import write_package
from tlkit.mil.text.api import parse_program

TEXT = """program(1.3) { func main<ios18>(tensor<fp16, [1, 512, 32, 32]> x) {
  tensor<fp16, [512, 512, 3, 3]> w = const()[val = tensor<fp16, [512, 512, 3, 3]>(0x1p+0)];
  tensor<fp16, [1, 512, 30, 30]> a = conv(x = x, weight = w);
  tensor<fp16, [1, 512, 30, 30]> y = sinh(x = a); } -> (y); }"""

MODELS = Path(__file__).resolve().parents[3].parent / "shared/models"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.mil"
    path.write_text(TEXT)
    return path


def test_text_says_that_it_is_predicted_and_what_keeps_operations_away(tlkit: Shell, model: Path) -> None:
    done = tlkit("inspect", model, "--placement")
    assert done.code == 0
    told = " ".join(done.out.split())
    assert "for M4, not measured" in told
    assert "1 of 2 operations" in told and "the Neural Engine; 1 change of unit" in told
    assert "ANE-op: the Neural Engine has no such operation" in told
    assert "guess:" in done.out and "tried:" not in done.out  # a text is not edited


def test_json_has_every_operation_with_its_prices(tlkit: Shell, model: Path) -> None:
    document = tlkit("inspect", model, "--placement", "--units", "ane,cpu", "--chip", "m1", "--json").json()
    ane, cpu = document["placement"]
    assert (ane["kind"], ane["setting"], ane["chip"], cpu["setting"]) == ("prediction", "ane", "M1", "cpu")
    assert [row["unit"] for row in ane["per_op"]] == ["ane", "cpu"]
    assert [row["unit"] for row in cpu["per_op"]] == ["cpu", "cpu"]
    assert ane["per_op"][0]["macs"] == 512 * 512 * 9 * 900
    assert ane["per_op"][0]["microseconds"]["ane"] < ane["per_op"][0]["microseconds"]["cpu"]
    assert sum(ane["cost_shares"].values()) == pytest.approx(1)
    assert "none are published for the M1" in ane["basis"]


def test_operations_are_led_back_to_modules_of_the_source(tlkit: Shell, model: Path, tmp_path: Path) -> None:
    """A weight's name tells the convolution's module; what has no weight is said to come after it."""
    model.write_text(
        TEXT.replace("> w =", "> blocks_3_conv_weight_to_fp16 =").replace("= w)", "= blocks_3_conv_weight_to_fp16)")
    )
    page = tmp_path / "report.html"
    (found,) = tlkit("inspect", model, "--placement", "--json").json()["placement"]
    assert [(row["module"], row["after"]) for row in found["per_op"]] == [("blocks.3.conv", ""), ("", "blocks.3.conv")]
    assert [reason["modules"] for reason in found["reasons"]] == [["after blocks.3.conv"]]
    told = tlkit("inspect", model, "--placement").out
    listed = tlkit("inspect", model, "--placement", "--per-op").out
    assert "from: after blocks.3.conv" in told and listed.count("blocks.3.conv") == told.count("blocks.3.conv") + 2
    assert tlkit("inspect", model, "--placement", "--html", page).code == 0
    assert page.read_text().count('<td class="text">after blocks.3.conv</td>') == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--chip", "m99"), "unknown chip 'm99'"), (("--units", "tpu"), "unknown unit 'tpu'")],
)
def test_wrong_words_are_told(tlkit: Shell, model: Path, words: tuple[str, ...], message: str) -> None:
    done = tlkit("inspect", model, "--placement", *words)
    assert done.code == 2
    assert message in done.err


@pytest.mark.skipif(not MODELS.exists(), reason="the published models are not in the repository")
def test_networks_of_before_programs_are_predicted_with_low_confidence(tlkit: Shell) -> None:
    (found,) = tlkit("inspect", MODELS / "mlmodel/waifu2x_anime_noise0_model.mlmodel", "--placement",
                     "--json").json()["placement"]  # fmt: skip
    assert found["counts"]["ane"] == found["operations"] == 16
    assert {row["confidence"] for row in found["per_op"]} == {"low"} and "not for neural networks" in found["basis"]
    (custom,) = tlkit("inspect", MODELS / "mlmodel/lstsq_custom_layer.mlmodel", "--placement",
                      "--json").json()["placement"]  # fmt: skip
    assert [row["reasons"] for row in custom["per_op"] if row["type"] == "custom_layer"] == [["custom-layer"]]
    done = tlkit("inspect", MODELS / "mlmodelc/waifu2x_anime_noise0_model.mlmodelc", "--placement")
    assert done.code == 2 and "the layers of a compiled neural network are not read" in done.err


def test_listed_shapes_are_the_neural_engines_and_ranges_are_not(tlkit: Shell, tmp_path: Path) -> None:
    """A program declares both as open: what is listed is planned at its default shape."""
    sizes = [(1, 512, 32, 32), (1, 512, 64, 64)]
    text = TEXT.replace("[1, 512, 32, 32]", "[1, 512, ?, ?]").replace("[1, 512, 30, 30]", "[1, 512, ?, ?]")
    text = text.replace("sinh", "relu").replace("[512, 512, 3, 3]>(0x1p+0)", "[512, 512, 3, 3]>(0x1p-12)")
    program = parse_program(text, lambda name: None)
    seed = packages.two_listed(tmp_path / "seed.mlpackage", sizes, sizes)
    model = open_package(seed).model
    del model.description.input[1:]
    model.description.input[0].name = "x"
    model.description.input[0].type.multiArrayType.dataType = packages.ARRAYS.FLOAT16
    listed = write_package(tmp_path / "listed.mlpackage", model, program).root
    (found,) = tlkit("inspect", listed, "--placement", "--json").json()["placement"]
    assert [(row["unit"], row["reasons"]) for row in found["per_op"]] == [("ane", []), ("ane", [])]
    assert found["basis"].endswith("at the listed shape x 1x512x32x32")
    assert found["per_op"][0]["macs"] == 512 * 512 * 9 * 900
    array = model.description.input[0].type.multiArrayType
    array.ClearField("enumeratedShapes")
    for size in sizes[0]:
        span = array.shapeRange.sizeRanges.add()
        span.lowerBound, span.upperBound = size, size * (1 if size in (1, 512) else 2)
    open_one = write_package(tmp_path / "range.mlpackage", model, program).root
    (found,) = tlkit("inspect", open_one, "--placement", "--json").json()["placement"]
    assert {tuple(row["reasons"]) for row in found["per_op"]} == {("ANE-range-shape",)}


def test_rules_are_listed_without_a_model(tlkit: Shell) -> None:
    done = tlkit("inspect", "--rules")
    assert done.code == 0
    assert "ANE-int-index" in done.out and "high" in done.out


def test_a_page_draws_the_regions(tlkit: Shell, model: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = tlkit("inspect", model, "--placement", "--html", page)
    assert done.code == 0, done.err
    text = page.read_text()
    assert "not measured" in text and "<script" not in text
    strips = re.findall(r'<i class="(ane|cpu)" style="width:([0-9.]+)%"', text)
    assert [unit for unit, _ in strips] == ["ane", "cpu"] * 2  # by operations and by cost
    assert [width for _, width in strips[:2]] == ["50.0000"] * 2  # one operation of two, on each unit
    assert sum(float(width) for _, width in strips[2:]) == pytest.approx(100, abs=1e-3)
    assert "ANE-op" in text
    again = tlkit("inspect", model, "--placement", "--html", page)
    assert again.code == 2 and "--force" in again.err
    assert tlkit("inspect", model, "--placement", "--html", page, "--force").code == 0
    assert tlkit("inspect", model, "--html", page).code == 2
