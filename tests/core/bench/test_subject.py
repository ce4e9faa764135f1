"""What a child measures: here, that it measures the program that was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.formats import packages
from tlkit.core.bench.subject import EngineSubject, Task, store_inputs


@pytest.mark.parametrize(("strict", "corner"), [(False, 12.0), (True, 48.0)])
def test_what_is_timed_is_core_mls_result_or_the_specifications(tmp_path: Path, strict: bool, corner: float) -> None:
    path = packages.ceil_pool(tmp_path / "pool.mlpackage")
    store_inputs({"x": np.arange(49, dtype=np.float32).reshape(1, 1, 7, 7)}, tmp_path / "x.npz")
    subject = EngineSubject(Task(str(path), "cpu", arrays=str(tmp_path / "x.npz"), strict_mil=strict))
    (output,) = subject.bind(subject.load())()  # type: ignore[misc]
    assert output[0, 0, 2, 2] == corner
