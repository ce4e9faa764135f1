"""What is asked becomes rows: their names, and the inputs that each is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tlkit.core.bench.plan import Subject, Sweep, is_source, names, settings, source_ports
from tlkit.core.bench.rows import Setting
from tlkit.errors import UsageError
from tlkit.types import ImageSpec, TensorSpec, Unit

FLEXIBLE = TensorSpec("x", "float32", (1, 3), ranges=((1, 16), (3, 6)))
FIXED = TensorSpec("scale", "float16", (1,))
NET = Subject("net", "net.mlpackage", False, (FLEXIBLE, FIXED))


def plan(tmp_path: Path, sweep: Sweep, *subjects: Subject, given: dict[str, object] | None = None) -> list[Setting]:
    return settings(subjects or (NET,), sweep, given or {}, 0, {"precision": "f16", "engine": "eager"}, tmp_path)


def stored(setting: Setting) -> dict[str, np.ndarray]:
    with np.load(setting.arguments["arrays"]) as file:
        return {str(name): file[f"a{index}"] for index, name in enumerate(file["names"])}


def test_a_single_row_is_called_by_its_unit(tmp_path: Path) -> None:
    (only,) = plan(tmp_path, Sweep((Unit.CPU,)))
    assert (only.label, only.batch, only.threads) == ("cpu", 1, None)
    assert {name: array.shape for name, array in stored(only).items()} == {"x": (1, 3), "scale": (1,)}


def test_batches_go_to_the_inputs_that_take_them(tmp_path: Path) -> None:
    found = plan(tmp_path, Sweep((Unit.CPU, Unit.GPU), batches=(1, 4)))
    assert [setting.label for setting in found] == ["cpu/batch=1", "gpu/batch=1", "cpu/batch=4", "gpu/batch=4"]
    assert [setting.batch for setting in found] == [1, 1, 4, 4]
    assert {name: array.shape for name, array in stored(found[2]).items()} == {"x": (4, 3), "scale": (1,)}
    assert found[2].arguments["arrays"] == found[3].arguments["arrays"]  # both units see the same values


def test_a_batch_that_nothing_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no input takes a batch of 17"):
        plan(tmp_path, Sweep((Unit.CPU,), batches=(17,)))
    picture = TensorSpec("image", "float32", (1, 3, 8, 8), kind="image", image=ImageSpec("RGB", 8, 8))
    with pytest.raises(UsageError, match="no input takes a batch of 2"):
        plan(tmp_path, Sweep((Unit.CPU,), batches=(2,)), Subject("p", "p.mlpackage", False, (picture,)))


def test_shapes_are_steps(tmp_path: Path) -> None:
    found = plan(tmp_path, Sweep((Unit.CPU,), shapes={"x": [(1, 3), (2, 6)]}))
    assert [setting.label for setting in found] == ["cpu/x=1x3", "cpu/x=2x6"]
    assert [stored(setting)["x"].shape for setting in found] == [(1, 3), (2, 6)]
    with pytest.raises(UsageError, match="does not fit"):
        plan(tmp_path, Sweep((Unit.CPU,), shapes={"x": [(1, 7)]}))


def test_a_given_value_fills_the_batch_and_keeps_its_own_shape_without_one(tmp_path: Path) -> None:
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    (alone,) = plan(tmp_path, Sweep((Unit.CPU,)), given={"x": value})
    assert (stored(alone)["x"] == value).all()
    (filled,) = plan(tmp_path, Sweep((Unit.CPU,), batches=(5,)), given={"x": value})
    assert (stored(filled)["x"] == np.concatenate([value] * 3)[:5]).all()


def test_the_seed_decides(tmp_path: Path) -> None:
    first, again = (stored(plan(tmp_path, Sweep((Unit.CPU,)))[0])["x"] for _ in range(2))
    assert (first == again).all() and first.std() > 0


def test_a_source_takes_the_inputs_of_the_package_beside_it() -> None:
    picture = TensorSpec("image", "float32", (1, 3, 8, 8), kind="image", image=ImageSpec("RGB", 8, 8))
    package = Subject("p", "p.mlpackage", False, (picture, FIXED))
    assert source_ports("net.py:Net", [package], {}) == (
        TensorSpec("image", "float32", (1, 3, 8, 8)),
        TensorSpec("scale", "float32", (1,)),
    )
    with pytest.raises(UsageError, match="shapes of its inputs are not known"):
        source_ports("net.py:Net", [], {})


def test_names_are_short_and_never_alike(tmp_path: Path) -> None:
    assert names(["a/net.mlpackage", "b.mlpackage"]) == ["net", "b"]
    assert names(["a/net.mlpackage", "b/net.mlpackage"]) == ["a/net.mlpackage", "b/net.mlpackage"]
    assert is_source("net.py:Net") and is_source("pkg.mod:make") and not is_source(str(tmp_path))
