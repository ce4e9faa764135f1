"""Places in lists of shapes. What else Core ML refuses, tests/anywhere/cases.py shows as users meet it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.formats import packages
from tlkit.core.model.features import check_choice, check_features
from tlkit.core.model.load import load_model
from tlkit.errors import UsageError
from tlkit.types import ImageSpec, TensorSpec

IDS = TensorSpec("ids", "float32", (1, 4), enumerated=((1, 4), (1, 8), (1, 8)))
MASK = TensorSpec("mask", "float32", (1, 1), enumerated=((1, 1), (1, 2), (1, 3)))
PICTURE = TensorSpec(
    "p", "float32", (1, 3, 4, 6), "image", image=ImageSpec("RGB", 6, 4, sizes=((6, 4), (9, 9), (5, 5)))
)
FREE = TensorSpec("free", "float32", (1, 2))


@pytest.mark.parametrize(
    ("shapes", "fits"),
    [
        ({"ids": (1, 4), "mask": (1, 1)}, True),
        ({"ids": (1, 4), "mask": (1, 2)}, False),
        ({"ids": (1, 8), "mask": (1, 2)}, True),
        ({"ids": (1, 8), "mask": (1, 3)}, True),  # listed twice
        ({"ids": (1, 8), "mask": (1, 3), "p": (1, 3, 5, 5)}, True),
        ({"ids": (1, 8), "mask": (1, 3), "p": (1, 3, 9, 9)}, False),
        ({"ids": (1, 4), "p": (4, 6)}, True),
        ({"ids": (1, 4), "p": (6, 4)}, False),  # (height, width)
        ({"ids": (1, 8), "free": (1, 2)}, True),
        ({"mask": (1, 2)}, True),
    ],
)
def test_listed_shapes_go_together_by_their_place(shapes: dict[str, tuple[int, ...]], fits: bool) -> None:
    ports = (IDS, MASK, PICTURE, FREE)
    if fits:
        check_choice(ports, shapes)
    else:
        with pytest.raises(UsageError, match="not at one place") as caught:
            check_choice(ports, shapes)
        assert "ids" in caught.value.message and "first shapes together" in caught.value.hint


def test_defaults_that_are_not_listed_go_together() -> None:
    one, two = (TensorSpec(name, "float32", (1, 5), enumerated=((1, 4), (1, 8))) for name in "ab")
    check_choice((one, two), {"a": (1, 5), "b": (1, 5)})
    with pytest.raises(UsageError, match="a 1x5, b 1x4"):
        check_choice((one, two), {"a": (1, 5), "b": (1, 4)})


def test_a_model_refuses_what_core_ml_refuses_unless_the_specification_is_asked_for(tmp_path: Path) -> None:
    path = packages.two_listed(tmp_path / "m.mlpackage", [(1, 2), (1, 3)], [(1, 2), (3, 1)])
    mixed = {"a": np.ones((1, 2), np.float32), "b": np.ones((3, 1), np.float32)}
    with pytest.raises(UsageError, match="not at one place"):
        load_model(path).predict(mixed)
    assert load_model(path, strict_mil=True).predict(mixed)["y"].shape == (3, 2)
    together = {"a": np.ones((1, 3), np.float32), "b": np.ones((3, 1), np.float32)}
    assert load_model(path).predict(together)["y"].shape == (3, 3)


def test_a_state_that_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match="The input feature for cache must be an MLState, but it was not"):
        check_features((FREE,), {"free": np.ones((1, 2), np.float32)}, ["cache"])
