"""A port says its shapes in one way, whether it was read, edited or made. Covers tlkit/types.py."""

from __future__ import annotations

import pytest

from tlkit.ports.parse import parse_image, parse_input
from tlkit.ports.port import checked_shapes, example, port_text, span_keys
from tlkit.types import LARGEST, ImageSpec, Intake, TensorSpec
from tlkit.words import jsonable

PHOTO = TensorSpec("photo", "float32", (1, 3, 4, 6), "image", image=ImageSpec("RGB", 6, 4))


def test_an_image_keeps_its_sizes_in_one_place() -> None:
    listed = PHOTO.taking((1, 3, 4, 6), enumerated=((1, 3, 4, 6), (1, 3, 8, 5)))
    assert listed.image == ImageSpec("RGB", 6, 4, sizes=((6, 4), (5, 8))) and not listed.enumerated
    assert listed.listed == ((1, 3, 4, 6), (1, 3, 8, 5))
    assert listed.spans == ((1, 1), (3, 3), (4, 8), (5, 6))
    ranged = PHOTO.taking((1, 3, 4, 6), ranges=((1, 1), (3, 3), (4, 9), (6, None)))
    assert ranged.image == ImageSpec("RGB", 6, 4, height_range=(4, 9), width_range=(6, None)) and not ranged.ranges
    assert ranged.spans == ((1, 1), (3, 3), (4, 9), (6, LARGEST))
    assert (PHOTO.flexible, listed.flexible, ranged.flexible) == (False, True, True)
    assert ranged.taking((1, 3, 5, 7)).spans == ((1, 1), (3, 3), (5, 5), (7, 7))
    assert parse_image("photo=1x3x4x6,1x3x8x5").listed == listed.listed


def test_an_array_keeps_its_shapes() -> None:
    spec = TensorSpec("x", "float32", (1, 4))
    assert spec.taking((2, 4), ranges=((1, 8), (4, 4))).spans == ((1, 8), (4, 4))
    assert spec.taking((2, 4), enumerated=((2, 4), (3, 5))).spans == ((2, 3), (4, 5))
    assert TensorSpec("x", "float32").spans == ()
    assert (spec.flexible, spec.listed) == (False, ())


@pytest.mark.parametrize(
    ("text", "at", "shapes"),
    [
        ("x=1x4", (1, 4), ((1, 4),)),
        ("x=1..64x4", (7, 4), ((1, 4), (7, 4), (64, 4))),
        ("x=1..64x1..64", (7, 8), ((1, 1), (7, 8), (64, 64))),
        ("x=1..3x9..20", (3, 9), ((1, 9), (3, 9), (3, 20))),
        ("x=1x4,2x8", (1, 4), ((1, 4), (2, 8))),
    ],
)
def test_shapes_to_capture_and_to_verify_at(
    text: str, at: tuple[int, ...], shapes: tuple[tuple[int, ...], ...]
) -> None:
    port = parse_input(text)
    assert (example(port).shape, example(port).flexible) == (at, False)
    assert checked_shapes(port) == shapes
    assert port_text(port) == text.replace("=", " ")


def test_equal_bounds_of_two_ports_are_one_length() -> None:
    tokens, other = span_keys(parse_input("ids=1x1..512:i32")), span_keys(parse_input("m=1..512x1..512"))
    assert tokens == (None, (1, 512, 0)) and other == ((1, 512, 0), (1, 512, 1))


def test_what_a_package_is_to_be_made_of_is_no_part_of_documents() -> None:
    port = parse_image("photo=1x3x4x6:scale=1/255")
    assert port.intake == Intake(1 / 255, (0.0, 0.0, 0.0))
    document = jsonable(port)
    assert "intake" not in document and document["image"]["layout"] == "RGB"
