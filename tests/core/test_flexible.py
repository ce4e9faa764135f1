"""Ranges and choices of shapes, f16 and image ports, and verification on several inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from tlkit.core.convert.convert import convert
from tlkit.core.model.load import inspect, load_model
from tlkit.errors import LoadError, UsageError
from tlkit.ports.parse import parse_input, parse_output
from tlkit.ports.port import flexible_port
from tlkit.types import TensorSpec

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
BOTH = pytest.mark.parametrize("export", [False, True], ids=["trace", "export"])


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.linear, self.norm = nn.Embedding(50, 8), nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.table(ids) * mask[..., None]
        return self.norm(hidden + F.scaled_dot_product_attention(hidden, self.linear(hidden), hidden))


class Picture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.same, self.down = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 4, 3, stride=2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.same(image)
        return hidden.sigmoid() * 255, self.down(hidden).mean((2, 3))


@BOTH
def test_a_range(tmp_path: Path, export: bool) -> None:
    inputs = ["ids=1x1..32:i32", "mask=1x1..32"]
    result = convert(Tokens(), tmp_path / "m.mlpackage", inputs=inputs, precision="f32", export=export)
    assert result.ok
    assert result.verification is not None
    assert [name.split(", ids ")[1] for name in result.verification.cases] == [
        "1x1, mask 1x1",
        "1x7, mask 1x7",
        "1x32, mask 1x32",
    ]
    ids = np.random.default_rng(1).integers(0, 50, (1, 19), dtype=np.int32)
    mask = np.ones((1, 19), np.float32)
    found = load_model(result.path).predict({"ids": ids, "mask": mask})["output"]
    with torch.no_grad():
        expected = Tokens()(torch.from_numpy(ids).long(), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(UsageError, match="does not fit"):
        load_model(result.path).predict({"ids": np.zeros((1, 33)), "mask": np.zeros((1, 33))})


def test_a_choice_of_shapes_for_each_input(tmp_path: Path) -> None:
    """Core ML takes that from iOS18 on, which is chosen where nobody chose an older one."""
    inputs = ["ids=1x8,1x16:i32", "mask=1x8,1x16"]
    with pytest.raises(UsageError, match="ids and mask have a choice of shapes each, which iOS17 does not have"):
        convert(Tokens(), tmp_path / "m.mlpackage", inputs=inputs, target="iOS17")
    result = convert(Tokens(), tmp_path / "m.mlpackage", inputs=inputs, precision="f32")
    assert result.ok
    assert result.target == "iOS18"
    assert result.verification is not None
    assert [name.split(", ids ")[1] for name in result.verification.cases] == ["1x8, mask 1x8", "1x16, mask 1x16"]


@pytest.mark.parametrize("export", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["trace", "export"])
def test_a_choice_of_image_shapes_and_outputs_of_other_kinds(tmp_path: Path, export: bool) -> None:
    result = convert(
        Picture(),
        tmp_path / "m.mlpackage",
        images=["image=1x3x16x16,1x3x24x32:scale=1/255"],
        output_names=["picture:BGR", "means:f16"],
        export=export,
    )
    assert result.ok
    (image,) = result.info.inputs
    picture, means = result.info.outputs
    assert image.image is not None and set(image.image.sizes) == {(16, 16), (32, 24)}
    assert picture.image is not None and picture.image.layout == "BGR"
    assert (means.name, means.dtype) == ("means", "float16")
    pixels = np.random.default_rng(2).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    found = load_model(result.path).predict({"image": Image.fromarray(pixels)})
    with torch.no_grad():
        expected = Picture()(torch.from_numpy(pixels.transpose(2, 0, 1)[None] / np.float32(255)))
    bgr = expected[0][0].numpy().transpose(1, 2, 0)
    assert np.abs(np.asarray(found["picture"])[..., ::-1].astype(np.float32) - bgr).max() <= 1.5
    np.testing.assert_allclose(found["means"], expected[1].numpy(), atol=2e-3)


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("x=1x1..512:i32", flexible_port("x", ((1, 1), (1, 512)), "int32")),
        ("x=1,8", TensorSpec("x", "float32", (1, 8))),
        ("x=1x8,1x16", TensorSpec("x", "float32", (1, 8), enumerated=((1, 8), (1, 16)))),
        ("x=4..4", TensorSpec("x", "float32", (4,))),
    ],
)
def test_shapes_as_they_are_written(text: str, port: TensorSpec) -> None:
    assert parse_input(text) == port


@pytest.mark.parametrize(
    "text", ["x=1x9..3", "x=1x1..", "x=1x8,1x2x3", "x=1x0..4", "x=1..2x3,1x3", "x=2x1..2147483647"]
)
def test_shapes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_input(text)


def test_outputs_that_are_none() -> None:
    for text in ("y:f8", "1y", ":f16"):
        with pytest.raises(UsageError):
            parse_output(text)


def sampled(tmp_path: Path, **options: Any) -> Any:
    goal = tmp_path / "m.mlpackage"
    return convert(Picture(), goal, images=["image=1x3x16x16:scale=1/255"], samples=tmp_path / "samples", **options)


def test_samples_are_what_it_is_verified_on(tmp_path: Path) -> None:
    stages: list[str] = []
    with pytest.raises(LoadError, match="no such folder"):
        sampled(tmp_path, report=lambda what, share: stages.append(what))
    assert "finding values to run it on" in stages and "converting" not in stages  # said before the long part
    (tmp_path / "samples").mkdir()
    with pytest.raises(LoadError, match="no samples"):
        sampled(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.png"):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "samples" / name)
    (tmp_path / "samples" / "notes.txt").write_text("no sample")
    result = sampled(tmp_path)
    assert result.ok
    assert result.verification.cases == ("a.png", "b.png")


def test_samples_of_arrays(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    np.savez(folder / "one.npz", ids=np.arange(5)[None], mask=np.ones((1, 5)))
    inputs = ["ids=1x1..32:i32", "mask=1x1..32"]
    result = convert(Tokens(), tmp_path / "m.mlpackage", inputs=inputs, samples=folder)
    assert result.ok
    assert result.verification is not None
    assert [found.elements for found in result.verification.outputs.values()] == [5 * 8]
    np.savez(folder / "two.npz", ids=np.arange(40)[None], mask=np.ones((1, 40)))
    with pytest.raises(UsageError, match=r"two\.npz.*does not fit"):
        convert(Tokens(), tmp_path / "n.mlpackage", inputs=inputs, samples=folder)


def test_the_package_says_how_it_was_verified(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    Image.new("RGB", (16, 16), (9, 90, 200)).save(tmp_path / "samples" / "a.png")
    user = inspect(sampled(tmp_path).path).metadata.user
    figures = json.loads(user["tlkit.verified"])
    assert figures["passed"] is True and figures["inputs"] == 1
    assert set(figures["outputs"]) == {"output_0", "output_1"}
    assert figures["outputs"]["output_1"]["cosine"] >= 0.999
    assert user["tlkit.source"] == "Picture"
