"""Lengths by fractions in an exported graph, in integers: the same numbers as Python's, and packages that have them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlkit.core.convert.capture.lengths import in_integers
from tlkit.core.convert.convert import convert
from tlkit.core.model.load import load_model

Length = Callable[[int], int]
LENGTHS: dict[str, Length] = {
    "up": lambda n: math.ceil((n - 5) / 3),
    "down": lambda n: math.floor((n + 2) / 7),
    "to zero": lambda n: 12 + math.trunc((n - 40) / 4),
    "a share": lambda n: math.floor(n * 0.37),
    "two": lambda n: math.ceil(n / 2) + math.ceil(math.ceil(n / 3) / 2),
}


class _Counts(nn.Module):
    def __init__(self, length: Length) -> None:
        super().__init__()
        self.length = length

    def forward(self, x: Tensor) -> Tensor:
        return torch.arange(self.length(x.shape[0])) + 1


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_the_numbers_stay(length: Length) -> None:
    shapes = ({0: torch.export.Dim.AUTO(min=20, max=90)},)
    program = torch.export.export(_Counts(length), (torch.randn(41),), dynamic_shapes=shapes)
    in_integers(program.graph)
    program.graph.lint()
    program.graph_module.recompile()
    for size in (20, 40, 41, 42, 43, 89, 90):
        assert len(program.module()(torch.randn(size))) == length(size)


class _Framed(nn.Module):
    """Padded to whole strides, down and up again, and cut."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down, self.up = nn.Conv1d(2, 4, 5, stride=3), nn.ConvTranspose1d(4, 2, 5, stride=3)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[-1]
        whole = 5 + 3 * math.ceil((n - 5) / 3)
        result: Tensor = self.up(F.gelu(self.down(F.pad(x, (0, whole - n)))))[..., :n]
        return result


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_a_signal_padded_to_strides(tmp_path: Path) -> None:
    module = _Framed().eval()
    goal = tmp_path / "m.mlpackage"
    convert(module, goal, inputs=["x=1x2x30..90"], export=True, precision="f32", verify=False)
    model = load_model(goal)
    for size in (30, 31, 32, 90):
        x = torch.randn(1, 2, size, generator=torch.Generator().manual_seed(size))
        found = model.predict({"x": x.numpy()})["output"]
        np.testing.assert_allclose(found, module(x).detach(), rtol=1e-4, atol=1e-5)
