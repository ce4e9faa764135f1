"""Tensors of more than five axes: what is done on folded axes is what torch does on all of them.

Covers tlkit/core/convert/tools/rank_rules.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tlkit.core.convert.convert import convert
from tlkit.core.convert.tools.ranks import merged
from tlkit.errors import ConversionError


class Six(nn.Module):
    """Every kind of operation on six axes and on seven, none of which coremltools finds a way around."""

    def forward(self, x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        y = x.reshape(2, 3, 2, 2, 2, 5)
        turned = y.permute(5, 3, 1, 4, 0, 2)
        first, second = y.chunk(2, 2)
        q, k, v = x.reshape(2, 2, 2, 5, 3, 2).unbind(4)
        wide = w.reshape(3, 1, 2, 1, 1)[:, :, :1]
        return (
            (turned + w.reshape(1, 1, 3, 2, 1, 1))[:, 0] * 2,
            (turned * w.reshape(3, 2, 1, 1)).amax((0, 4)),
            y[:, 1:, :, 1].softmax(-1),
            y[::2, :, -1, :, 1:, ::3].flatten(2),
            torch.stack([y, y * 2], 3).sum((1, 4)),
            (turned @ turned.transpose(-1, -2)).mean((0, 2)),
            torch.cat([second, first], 2).flip(3).flatten(0, 2),
            torch.where(y > 0, y, wide).amax(2),
            q + k * v,
            y[..., [0, 3]].cumsum(0).flatten(2),
            y.roll(1, 1).repeat(1, 1, 2, 1, 1, 1).argmax(5),
            F.pad(y, (1, 1, 0, 0, 1, 0)).flatten(3),
            F.layer_norm(y, (5,)).tanh().reshape(2, -1),
            F.linear(y.transpose(-1, -2), w.new_ones(2, 2)).var(5),
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("export", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_each_operation(export: bool, tmp_path: Path) -> None:
    inputs = ["x=2x3x8x5", "w=1x3x2"]
    found = convert(Six(), tmp_path / "m.mlpackage", inputs=inputs, export=export, auto=False, precision="f32")
    assert found.verification is not None
    assert found.verification.reasons == ()
    assert len(found.verification.outputs) == 14
    assert max(each.max_abs for each in found.verification.outputs.values()) < 1e-5


PLACES = torch.tensor([0, 1, 1])


class _Called(nn.Module):
    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("body", "shape", "said"),
    [
        (lambda x: x * 2, "1x2x2x2x2x2", r"an input of it has 6 axes \(1x2x2x2x2x2\), Core ML takes 5"),
        (lambda x: x.reshape(2, 2, 2, 2, 1, 2), "2x4x4", r"an output of it has 6 axes \(2x2x2x2x1x2\)"),
        (
            lambda x: x.reshape(2, 2, 2, 2, 2, 3)[:, PLACES, :, PLACES].sum((1, 3)),
            "2x2x2x2x6",
            r"the torch op 'index' \(.*test_ranks\.py:\d+\): a tensor of 6 axes",
        ),
    ],
)
def test_what_stays_of_six_axes_is_refused_in_torchs_words(
    tmp_path: Path, body: Callable[[Tensor], Tensor], shape: str, said: str
) -> None:
    with pytest.raises(ConversionError, match=said):
        convert(_Called(body), tmp_path / "m.mlpackage", inputs=[f"x={shape}"], auto=False)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_folded_axes_move_as_all_of_them(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=7))
    order = data.draw(st.permutations(range(len(shape))))
    values = np.arange(math.prod(shape)).reshape(shape)
    sizes, folded = merged(list(shape), order)
    assert len(sizes) <= len(shape)
    assert (values.reshape(sizes).transpose(folded).reshape(-1) == values.transpose(order).reshape(-1)).all()
