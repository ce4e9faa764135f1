"""Arrays to pictures and back, in one place for every engine and check."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from tlkit.ports.images import to_array, to_picture, to_pixels
from tlkit.types import ImageSpec, TensorSpec

COLOURS = np.array([[[10.0, 20.0]], [[30.0, 40.0]], [[50.0, 60.0]]], np.float32)  # planes of a 1x2 picture


def test_pixels_are_rounded_and_clipped_to_bytes() -> None:
    values = np.array([[[-3.0, 0.5, 1.5, 254.6, 300.0]]], np.float32)
    assert to_pixels("GRAYSCALE", values).tolist() == [[0, 0, 2, 255, 255]]
    assert to_pixels("GRAYSCALE", values).dtype == np.uint8


def test_float_greys_stay_as_they_are() -> None:
    values = np.array([[[[-3.0, 0.5], [1000.0, 2.0]]]], np.float16)
    pixels = to_pixels("GRAYSCALE_FLOAT16", values)
    assert pixels.tolist() == [[-3.0, 0.5], [1000.0, 2.0]] and pixels.dtype == np.float32
    assert to_picture("GRAYSCALE_FLOAT16", values).mode == "F"


@pytest.mark.parametrize(("layout", "first"), [("RGB", (10, 30, 50)), ("BGR", (50, 30, 10))])
def test_colours_of_both_orders_are_rgb_pictures(layout: Any, first: tuple[int, ...]) -> None:
    picture = to_picture(layout, COLOURS[None])
    assert (picture.mode, picture.size) == ("RGB", (2, 1))
    assert picture.getpixel((0, 0)) == first


@pytest.mark.parametrize("layout", ["RGB", "BGR", "GRAYSCALE"])
def test_a_picture_of_an_array_is_that_array_again(layout: Any) -> None:
    channels = 1 if layout == "GRAYSCALE" else 3
    values = np.random.default_rng(0).integers(0, 256, (1, channels, 4, 6)).astype(np.float32)
    spec = TensorSpec("x", "float32", values.shape, "image", image=ImageSpec(layout, 6, 4))
    np.testing.assert_array_equal(to_array(spec, to_picture(layout, values)), values)
    assert isinstance(to_picture(layout, values), Image.Image)
