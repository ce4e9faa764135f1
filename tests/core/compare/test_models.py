"""Two models over the same inputs: what passes, what differs, and what could not be judged.

Covers tlkit/core/compare/packages.py, tlkit/core/convert/exported/check.py, tlkit/core/convert/verify.py.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.formats import packages
from tlkit.core.compare.difference import EXACT, TOLERANCES
from tlkit.core.compare.models import Trial, Verification, compare
from tlkit.core.compare.packages import compare_packages
from tlkit.errors import ExecutionError

F32 = TOLERANCES["f32"]
ONES = np.array([[1.0, 2.0, 3.0]], np.float32)


def judged(*pairs: tuple[Any, Any], limits: Any = F32) -> Verification:
    """Compare (reference, actual) pairs, one a trial; an exception is raised, None for a reference there is none."""

    def give(value: Any) -> Mapping[str, Any]:
        if isinstance(value, Exception):
            raise value
        return {"y": value}

    def trial(index: int, reference: Any, actual: Any) -> Trial:
        return Trial(f"t{index}", None if reference is None else lambda: give(reference), lambda: give(actual))

    return compare([trial(index, *pair) for index, pair in enumerate(pairs)], limits, named=lambda text: f"<{text}>")


def test_what_agrees_passes_with_the_worst_figures() -> None:
    found = judged((ONES, ONES), (ONES, ONES + np.float32(2e-5)))
    assert (found.passed, found.ok, found.reasons, found.cases) == (True, True, (), ("t0", "t1"))
    assert found.max_abs == pytest.approx(2e-5, rel=0.1) and found.outputs["y"].elements == 6


def test_what_differs_says_on_which_input() -> None:
    found = judged((ONES, ONES), (ONES, -ONES))
    assert (found.passed, found.ok) == (False, False)
    assert found.reasons[0].startswith("y: cosine -1.000000") and found.reasons[0].endswith("(t1)")
    found = judged((ONES, ONES.T))
    assert found.passed is False and found.reasons == ("y: shapes differ: 1x3 and 3x1",)


FAILS = ExecutionError("no kernel for it")


@pytest.mark.parametrize(
    ("pairs", "passed", "ok", "reason"),
    [
        ([(FAILS, ONES)], None, False, "<no kernel for it>"),
        ([(ONES, FAILS)], None, False, "<no kernel for it>"),
        ([(ONES, ValueError("odd"))], None, False, "odd"),
        ([(ONES, ONES), (ONES, FAILS)], False, False, "it does not run on t1: <no kernel for it>"),
        ([(ONES, ONES), (None, FAILS)], False, False, "it does not run on t1: <no kernel for it>"),
        ([(None, ONES)], None, True, "no such shape to compare with"),
        ([(None, FAILS)], None, False, "<no kernel for it>"),
        ([(0 * ONES, 0 * ONES)], None, False, "nothing was compared"),
        ([(0 * ONES, 0 * ONES), (ONES, ONES)], True, True, ""),
    ],
)
def test_what_could_not_be_run_is_no_agreement(pairs: Any, passed: bool | None, ok: bool, reason: str) -> None:
    """One meaning for every command: not judged is not ok, unless the request left no input that both take."""
    found = judged(*pairs)
    assert (found.passed, found.ok) == (passed, ok)
    assert reason in " ".join(found.reasons)


def test_probabilities_belong_to_their_labels() -> None:
    found = judged(({"a": 0.9, "b": 0.1}, {"b": 0.1, "a": 0.9}))
    assert (found.passed, found.top1, found.agreement) == (True, True, 1.0)
    found = judged(({"a": 0.9, "b": 0.1}, {"a": 0.1, "b": 0.9}))
    assert (found.passed, found.top1) == (False, False)
    assert judged(({"a": 0.9, "b": 0.1}, {"x": 0.9, "y": 0.1})).passed  # renamed: they are in one order


def test_exact_is_exact() -> None:
    near = np.nextafter(ONES, np.float32(9))
    assert judged((ONES, ONES), limits=EXACT).passed and judged((ONES, near), limits=EXACT).passed is False
    holes = np.array([np.nan, 1.0, np.inf])
    assert judged((holes, holes), limits=EXACT).passed
    assert judged((holes, np.array([np.nan, 1.0, -np.inf])), limits=EXACT).passed is False
    integers = np.arange(1000)
    assert judged((integers, np.where(integers == 7, 8, integers)), limits=EXACT).passed is False
    assert judged((ONES, ONES), ("cat", "dog"), limits=EXACT).reasons == ("y: 'dog' instead of 'cat' (t1)",)


def test_pictures_are_compared_by_their_pixels() -> None:
    rgba = Image.fromarray(np.full((2, 3, 4), 200, np.uint8), "RGBA")
    assert judged((np.full((2, 3, 3), 200, np.float32), rgba)).max_abs == 0


def test_packages_are_compared_function_by_function(tmp_path: Path) -> None:
    one, other = packages.linear(tmp_path / "a.mlpackage"), packages.linear(tmp_path / "b.mlpackage")
    found = compare_packages(one, other, 3)
    assert (found.passed, found.max_abs, found.seed, found.cases) == (True, 0.0, 3, ("seed 3",))
    found = compare_packages(one, tmp_path / "gone.mlpackage", 3)
    assert (found.passed, found.ok) == (None, False) and "gone.mlpackage" in found.reasons[0]


def test_an_exported_file_that_cannot_be_run_is_not_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlkit.core.convert.exported.check import check_export
    from tlkit.core.model.load import load_model
    from tlkit.formats.coreml.open import open_package

    path = packages.linear(tmp_path / "a.mlpackage")
    package = open_package(path)
    assert package.program is not None
    function = package.program.function("main")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = check_export(tmp_path / "a.onnx", function, load_model(path).info, "f32", 0)
    assert (found.passed, found.ok) == (None, False) and "onnxruntime is not installed" in found.reasons[0]
