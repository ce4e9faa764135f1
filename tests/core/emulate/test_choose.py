"""Whole models by the profile of a unit: what runs, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.formats import packages
from tlkit.core.emulate.choose import Emulated
from tlkit.core.model.load import load_model
from tlkit.errors import UsageError

MODELS = Path(__file__).resolve().parents[3].parent / "shared" / "models"


def emulated(path: Path, **how: Any) -> tuple[np.ndarray, Emulated | None]:
    model = load_model(path, **how)
    return model.predict({"x": np.array([[1.0, -2.0, 0.5, 3.0]], np.float32)})["y"], model.emulated


def test_an_answer_says_what_it_rests_on(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    plain, nothing = emulated(path)
    exact, said = emulated(path, emulate="ane")
    assert nothing is None and said is not None
    np.testing.assert_allclose(exact, plain, rtol=2e-3)
    assert said.profile == "ane-m4" and {"fixed-point", "ties-away", "no-nan"} == {item.rule for item in said.rules}
    assert said.sums == 3 and "not a measurement" in said.text and "P4 (H)" in said.text


def test_a_chip_that_was_not_measured_is_said_to_be_so(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    _, said = emulated(path, emulate="ane", chip="m1")
    assert said is not None and said.profile == "ane-m1" and "nothing is published" not in said.text
    _, said = emulated(path, emulate="ane", chip="m2")
    assert said is not None and "nothing is published of the M2's" in said.text


def test_auto_takes_the_unit_that_is_predicted(tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    # So small a program stays on the CPU, whatever is allowed.
    _, said = emulated(path, emulate="auto", unit="ane", chip="m4")
    assert said is not None and {item.profile for item in said.rules} == {"cpu"}
    assert (said.setting, said.chip) == ("ane", "M4")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"emulate": "tpu"}, "no such profile"),
        ({"emulate": "auto", "chip": "z80"}, "z80"),
        ({"emulate": "gpu", "chip": "m1"}, "--chip m1"),
        ({"chip": "m1"}, "--chip m1"),
    ],
)
def test_what_does_not_exist_is_refused(tmp_path: Path, how: dict[str, str], message: str) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    with pytest.raises(UsageError, match=message):
        load_model(path, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", [{"engine": "compile"}, {"precision": "f32"}, {"engine": "openvino"}])
def test_only_the_eager_engine_emulates(tmp_path: Path, how: dict[str, str]) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    with pytest.raises(UsageError):
        load_model(path, emulate="ane", **how).predict({"x": np.zeros((1, 4), np.float32)})  # type: ignore[arg-type]


def test_what_an_answer_rests_on_is_known_after_a_run(tmp_path: Path) -> None:
    model = load_model(packages.linear(tmp_path / "net.mlpackage"), emulate="ane")
    assert model.emulated is None  # nothing is loaded yet
    for count in (3, 6):
        model.predict({"x": np.zeros((1, 4), np.float32)})
        assert model.emulated is not None and model.emulated.sums == count


def test_an_old_network_says_that_nothing_was_emulated() -> None:
    path = MODELS / "mlmodel" / "MNIST_omaralbeik.mlmodel"
    if not path.exists():
        pytest.skip("the shared models are not here")
    model = load_model(path, emulate="ane")
    model.predict({spec.name: Image.new("L", (28, 28)) for spec in model.inputs})
    assert model.emulated is not None and "nothing was emulated" in model.emulated.text
