"""The passes for f16: integers keep their values, and masks theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tlkit
from tlkit.core.convert.convert import convert


class Narrow(nn.Module):
    """What coremltools would narrow or make infinite: data past 16 bits, negative indices, ``finfo.min`` in a mask."""

    def forward(self, x: Tensor, places: Tensor, h: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        lowest = torch.finfo(torch.float32).min
        hidden = (1 - mask.float()) * lowest
        causal = torch.full((4, 4), lowest).triu(1)
        weights = (h @ h.T).masked_fill(mask == 0, lowest).softmax(-1)
        return x[places] + 1, torch.gather(x, 0, places % 4), (h @ h.T + hidden).softmax(-1), weights, h + causal.exp()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_nothing_leaves_its_range(tmp_path: Path) -> None:
    ports = ["x=4:i32", "places=3:i32", "h=4x4", "mask=4:i32"]
    module = Narrow()
    convert(module, tmp_path / "m.mlpackage", inputs=ports, verify=False)
    x, places = torch.tensor([100000, -70000, 65536, 40000]), torch.tensor([0, -1, -3])
    h, mask = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 1, 0, 0])
    given = {"x": np.int32(x), "places": np.int32(places), "h": h.numpy(), "mask": np.int32(mask)}
    found = tlkit.load_model(tmp_path / "m.mlpackage").predict(given)
    for (name, mine), right in zip(found.items(), module(x, places, h, mask), strict=True):
        np.testing.assert_allclose(mine, right, rtol=0 if right.dtype == torch.int64 else 5e-3, atol=5e-3, err_msg=name)
    nothing = tlkit.load_model(tmp_path / "m.mlpackage").predict({**given, "mask": np.zeros(4, np.int32)})
    for mine, right in zip(nothing.values(), module(x, places, h, mask * 0), strict=True):
        assert np.isfinite(mine).all()
        np.testing.assert_allclose(mine, right, atol=5e-3)


class Steps(nn.Module):
    """Quotients of which a step is taken: coremltools drops a division by 1 and multiplies by 1 / y otherwise."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        whole = x.round()
        tenths = torch.floor(whole * 0.1 / 0.1 + 0.5)
        return x % 1, x // 1.0, torch.fmod(x, 1), torch.floor(whole * 49 / 49), tenths, (whole * 7 / 7).long(), x / 49


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("export", [False, True])
def test_steps_of_quotients_are_taken_where_torch_takes_them(tmp_path: Path, export: bool) -> None:
    made = convert(Steps(), tmp_path / "m.mlpackage", inputs=["x=4x32"], precision="f32", verify=False, export=export)
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(0)) * 60
    found = list(tlkit.load_model(tmp_path / "m.mlpackage").predict({"x": x.numpy()}).values())
    for mine, right in zip(found, Steps()(x), strict=True):
        np.testing.assert_allclose(mine, right, rtol=1e-5, atol=1e-5)
    operations = made.info.operations
    assert operations["real_div"] == 3 and operations["mul"] >= 4  # x / 49 is a product: no step hangs on it


class Gram(nn.Module):
    """A product of a value with its own transpose, behind a transpose that coremltools cancels with it."""

    def forward(self, x: Tensor) -> Tensor:
        turned = x.transpose(1, 2) * 90
        return turned @ turned.transpose(1, 2)


class Larger(nn.Module):
    """The same of an operation that takes numbers place by place."""

    def forward(self, x: Tensor) -> Tensor:
        turned = x.transpose(1, 2) * 90
        return torch.maximum(turned, turned.transpose(1, 2))


@pytest.mark.parametrize(("module", "shape"), [(Gram(), (1, 4, 4)), (Gram(), (1, 3, 5)), (Larger(), (1, 4, 4))])
def test_a_value_and_its_transpose_stay_two(tmp_path: Path, module: nn.Module, shape: tuple[int, ...]) -> None:
    ports = [f"x={'x'.join(map(str, shape))}"]
    convert(module, tmp_path / "m.mlpackage", inputs=ports, precision="f32", verify=False, auto=False)
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    (found,) = tlkit.load_model(tmp_path / "m.mlpackage").predict({"x": x.numpy()}).values()
    np.testing.assert_allclose(found, module(x), rtol=1e-5, atol=1e-5)
