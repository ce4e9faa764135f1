"""Activations as 8-bit integers: the ranges are those of PyTorch's own values over all samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tlkit
from tlkit.core.compress.activations import IOS17, check_activations
from tlkit.core.compress.compress import compress
from tlkit.errors import LoadError, UsageError
from tlkit.formats.coreml.open import open_package
from tlkit.mil.lower.constants import const_value
from tlkit.mil.program import Ref


class Two(nn.Module):
    """Two convolutions with a sum after them: x, conv, relu, conv, and the first again."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.one(x))
        return hidden + self.two(hidden)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("two") / "two.mlpackage"
    tlkit.convert(Two(), path, inputs=["x=1x3x8x8"], verify=False)
    return path


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    for place, scale in enumerate((5.0, 4.0, 2.0, 2.0)):  # the last ones are the smallest
        x = np.random.default_rng(place).standard_normal((1, 3, 8, 8)).astype(np.float32) * scale
        np.savez(folder / f"{place}.npz", x=x)
    return folder


def scales(path: Path) -> list[float]:
    """The scales of a package's quantize operations, in the program's order."""
    program = open_package(path).program
    assert program is not None
    makers = {item.name: operation for operation in program.function().block.operations for item in operation.outputs}
    found = []
    for operation in program.function().block.operations:
        if operation.type == "quantize":
            (given,) = operation.inputs["scale"]
            value = const_value(makers[given.name]) if isinstance(given, Ref) else given
            found.append(float(value.numpy().reshape(())))
    return found


def test_ranges_are_those_of_all_samples_measured_on(package: Path, samples: Path, tmp_path: Path) -> None:
    made = compress(package, tmp_path / "int8.mlpackage", activations="int8", calibrate=samples)
    assert made.ok and made.activations == 3 and made.target == "iOS17"
    assert made.check is not None and made.check.cases == ("1.npz", "3.npz")
    (figures,) = made.check.outputs.values()
    assert 22 < figures.snr_db < 60
    net = Two().eval()
    largest = [0.0, 0.0]
    with torch.no_grad():
        for place in (0, 2):  # every second sample is measured on
            x = torch.from_numpy(np.load(samples / f"{place}.npz")["x"])
            hidden = torch.relu(net.one(x))
            largest = [max(largest[0], float(x.abs().max())), max(largest[1], float(hidden.abs().max()))]
    found = scales(tmp_path / "int8.mlpackage")
    for wanted in largest:
        assert min(abs(scale * 127 / wanted - 1) for scale in found) < 2e-3, (wanted, found)


def test_what_is_skipped_stays_and_old_systems_are_refused(package: Path, samples: Path, tmp_path: Path) -> None:
    made = compress(
        package, tmp_path / "a.mlpackage", activations="int8", calibrate=samples, skip=["add"], quantize="int8",
        threshold=100,
    )  # fmt: skip
    assert made.activations == 2 and {item.choice for item in made.weights} == {"int8"}
    with pytest.raises(UsageError, match="--activations int8 needs iOS17"):
        compress(package, tmp_path / "b.mlpackage", activations="int8", calibrate=samples, target="iOS16")
    with pytest.raises(UsageError, match="'nothing' matches no"):
        compress(package, tmp_path / "b.mlpackage", activations="int8", calibrate=samples, skip=["nothing"])
    with pytest.raises(UsageError, match="no operation takes integers"):
        compress(package, tmp_path / "b.mlpackage", activations="int8", calibrate=samples, skip=["*"])
    with pytest.raises(LoadError, match="no such folder"):
        compress(package, tmp_path / "b.mlpackage", activations="int8", calibrate=tmp_path / "none")
    assert not (tmp_path / "b.mlpackage").exists()


def test_options_go_together() -> None:
    assert IOS17 == 8
    check_activations(None, None)
    for given, said in (
        (("int4", "x"), "int4: unknown"), (("int8", None), "which ranges"), ((None, "x"), "goes with --activations"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            check_activations(*given)
