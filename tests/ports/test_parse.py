"""What `--input` and `--image` texts mean.

Covers tlkit/ports/port.py, tlkit/ports/shapes.py.
"""

from __future__ import annotations

import pytest

from tlkit.core.convert.tools.targets import choose_target
from tlkit.errors import UsageError
from tlkit.ports.parse import parse_image, parse_input, parse_ports
from tlkit.types import Intake, TensorSpec


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("x=1x3x224x224", TensorSpec("x", "float32", (1, 3, 224, 224))),
        ("x=1,3,224", TensorSpec("x", "float32", (1, 3, 224))),
        ("ids=1x128:i32", TensorSpec("ids", "int32", (1, 128))),
        ("ids=7:int64", TensorSpec("ids", "int32", (7,))),
        ("h=2x2:torch.float16", TensorSpec("h", "float16", (2, 2))),
    ],
)
def test_input(text: str, port: TensorSpec) -> None:
    assert parse_input(text) == port


@pytest.mark.parametrize(
    ("text", "layout", "intake"),
    [
        ("i=1x3x4x5", "RGB", Intake(1.0, (0.0, 0.0, 0.0))),
        ("i=1x1x4x5", "GRAYSCALE", Intake(1.0, (0.0,))),
        ("i=1x3x4x5:bgr:scale=1/4:bias=-1", "BGR", Intake(0.25, (-1.0, -1.0, -1.0))),
        ("i=1x3x4x5:bias=-1,0.5,1/2", "RGB", Intake(1.0, (-1.0, 0.5, 0.5))),
        ("i=1x1x4x5:GRAYSCALE_FLOAT16", "GRAYSCALE_FLOAT16", Intake(1.0, (0.0,))),
    ],
)
def test_image(text: str, layout: str, intake: Intake) -> None:
    port = parse_image(text)
    assert port.image is not None and (port.image.layout, port.intake) == (layout, intake)


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "x=",
        "=1x2",
        "x=1x",
        "x=ax2",
        "x=-1x2",
        "x=0x2",
        "x=1x2:f8",
        "x=1:i32:i32",
        "1x=1",
        "a.b=1",
        "x=99999x99999",
    ],
)
def test_bad_input(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_input(text)
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["i=3x4x5", "i=2x3x4x5", "i=1x2x4x5", "i=1x3x4x5:GRAYSCALE", "i=1x3x4x5:bias=1,2", "i=1x3x4x5:scale=1/0",
     "i=1x3x4x5:scale=nan", "i=1x3x4x5:CMYK", "i=1x3x4x5:gamma=2"],
)  # fmt: skip
def test_bad_image(text: str) -> None:
    with pytest.raises(UsageError, match="--image"):
        parse_image(text)


def test_mappings_are_texts_too() -> None:
    assert parse_ports({"x": (1, 2), "y": "3:i32"}) == (
        TensorSpec("x", "float32", (1, 2)),
        TensorSpec("y", "int32", (3,)),
    )


def test_a_name_is_given_once() -> None:
    with pytest.raises(UsageError, match="'x' is given twice"):
        parse_ports(["x=1"], ["x=1x1x2x2"])


@pytest.mark.parametrize(
    ("name", "version"), [(None, 8), ("ios15", 6), ("macOS13", 7), ("iOS 18", 9), ("watchos26", 10)]
)
def test_target(name: str | None, version: int) -> None:
    assert choose_target(name).version == version


def test_bad_targets() -> None:
    with pytest.raises(UsageError, match="iOS14"):
        choose_target("iOS14")  # knows neural networks, no mlprograms
    with pytest.raises(UsageError, match="'x' is f16"):
        choose_target("iOS15", (TensorSpec("x", "float16", (1,)),))
