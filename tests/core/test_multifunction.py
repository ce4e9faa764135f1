"""Packages combined into one: a function each, the weights they share stored once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tlkit.core.convert import convert
from tlkit.core.load import load_model
from tlkit.core.multifunction import combine
from tlkit.errors import LoadError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Net(nn.Module):
    def __init__(self, sign: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.sign = nn.Linear(64, 64), sign

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.sign


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("functions")
    for name, sign in (("plus", 1.0), ("minus", -1.0)):
        convert(Net(sign), folder / f"{name}.mlpackage", inputs=["x=1x64"], precision="f32", target="iOS18")
    return {path.stem: path for path in folder.iterdir()}


def test_each_function_computes_what_its_package_does(packages: dict[str, Path], tmp_path: Path) -> None:
    result = combine(packages["plus"], {"minus": packages["minus"]}, tmp_path / "both.mlpackage")
    assert result.passed is True
    assert set(result.info.functions) == {"main", "minus"}
    x = np.random.default_rng(0).standard_normal((1, 64), np.float32)
    for function, sign in ((None, 1.0), ("main", 1.0), ("minus", -1.0)):
        (found,) = load_model(result.path, function=function).predict({"x": x}).values()
        with torch.no_grad():
            np.testing.assert_allclose(found, Net(sign)(torch.from_numpy(x)).numpy(), atol=1e-5)


def test_weights_are_stored_once(packages: dict[str, Path], tmp_path: Path) -> None:
    result = combine(packages["plus"], [f"minus={packages['minus']}"], tmp_path / "both.mlpackage", verify=False)
    weights = [path.stat().st_size for path in result.path.rglob("weight.bin")]
    alone = [path.stat().st_size for path in packages["plus"].rglob("weight.bin")]
    assert weights == alone
    assert result.size < result.separate
    assert result.passed is None


@pytest.mark.parametrize(
    ("functions", "kind", "reason"),
    [
        (["minus"], UsageError, "not NAME=PACKAGE"),
        (["main={minus}"], UsageError, "name is taken"),
        (["a={minus}", "a={plus}"], UsageError, "name is taken"),
        (["1a={minus}"], UsageError, "cannot name"),
        (["a=nowhere.mlpackage"], LoadError, "no .mlpackage"),
    ],
)
def test_functions_that_are_none(
    packages: dict[str, Path], tmp_path: Path, functions: list[str], kind: type[Exception], reason: str
) -> None:
    filled = [text.format(**packages) for text in functions]
    with pytest.raises(kind, match=reason):
        combine(packages["plus"], filled, tmp_path / "both.mlpackage")
    assert list(tmp_path.iterdir()) == []
