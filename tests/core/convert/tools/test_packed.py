"""Recurrent layers over packed sequences: as PyTorch runs them, at lengths known only when the model runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tlkit.core.convert.convert import convert
from tlkit.core.model.load import load_model

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Packed(nn.Module):
    """Packs ``x`` (batch first or not) by ``lengths``, runs over it, and pads again: to all steps, if ``whole``."""

    def __init__(self, kind: str, ordered: bool, whole: bool, first: bool, **how: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = getattr(nn, kind)(4, 5, batch_first=first, **how)
        self.ordered, self.whole, self.first = ordered, whole, first

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        rows = pack_padded_sequence(x, lengths, batch_first=self.first, enforce_sorted=self.ordered)
        rows, states = self.layer(rows)
        total = x.shape[1 if self.first else 0] if self.whole else None
        out, counted = pad_packed_sequence(rows, batch_first=self.first, total_length=total, padding_value=-2.0)
        return (out, counted, *(states if isinstance(states, tuple) else (states,)))


CASES = [
    pytest.param(Packed("LSTM", False, True, True, num_layers=2, bidirectional=True), [2, 5, 1], id="lstm, both ways"),
    *(
        pytest.param(module, lengths, id=name, marks=pytest.mark.slow)
        for name, module, lengths in [
            ("as long as the longest", Packed("LSTM", True, False, False), [4, 3, 1]),
            ("gru", Packed("GRU", False, True, True, num_layers=2, bidirectional=True), [1, 6, 3]),
            ("rnn", Packed("RNN", True, True, False, nonlinearity="relu"), [6, 2, 2]),
            ("projected", Packed("LSTM", True, True, True, proj_size=3), [5, 4, 2]),
            ("no bias", Packed("LSTM", True, True, True, bias=False, bidirectional=True), [3, 3, 2]),
        ]
    ),
]


@pytest.mark.parametrize(("module", "lengths"), CASES)
def test_packed_sequences(module: Packed, lengths: list[int], tmp_path: Path) -> None:
    shape = (3, 6, 4) if module.first else (6, 3, 4)
    inputs = [f"x={'x'.join(map(str, shape))}", "lengths=3:i32"]
    result = convert(module, tmp_path / "m.mlpackage", inputs=inputs, precision="f32", auto=False)
    assert result.ok
    assert "lengths 1 to 6" in result.verification.values  # type: ignore[union-attr]
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    found = load_model(result.path).predict({"x": x, "lengths": np.array(lengths, np.int32)})
    with torch.no_grad():
        expected = module(torch.from_numpy(x), torch.tensor(lengths))
    for index, value in enumerate(expected):
        np.testing.assert_allclose(found[f"output_{index}"], value.numpy(), rtol=1e-4, atol=1e-5)
