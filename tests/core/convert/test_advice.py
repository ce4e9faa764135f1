from __future__ import annotations

from dataclasses import replace

import pytest

from tlkit.core.convert.advice import advise
from tlkit.types import ImageSpec, Metadata, ModelInfo, TensorSpec

GOOD = ModelInfo(
    path="m.mlpackage",
    metadata=Metadata("CoreML", "F16"),
    kind="mlProgram",
    inputs=(TensorSpec("x", "float32", (1, 3, 8, 8)),),
    compute={"F16": 9, "F32": 1, "INT32": 3},
)
RANGE = TensorSpec("x", "float32", (1, 8), ranges=((1, 1), (1, 64)))
LISTED = TensorSpec("x", "float32", (1, 8), enumerated=((1, 8), (1, 16)))
SIZED = TensorSpec("x", "float32", kind="image", image=ImageSpec("RGB", 8, 8, width_range=(8, 64)))


def test_a_model_with_the_four_habits_needs_no_advice() -> None:
    assert advise(GOOD) == ()
    assert advise(replace(GOOD, inputs=(LISTED,))) == ()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"compute": {"F32": 9}}, "f32"),
        ({"kind": "neuralNetwork"}, "mlprogram"),
        ({"inputs": (TensorSpec("x", "float32", (4, 3, 8, 8)),)}, "batch"),
        ({"inputs": (RANGE,)}, "range"),
        ({"inputs": (SIZED,)}, "range"),
    ],
)
def test_each_habit_that_is_missing_gets_one_sentence(change: dict[str, object], word: str) -> None:
    (sentence,) = advise(replace(GOOD, **change))  # type: ignore[arg-type]
    assert word in sentence
