"""A compiler that drops f16's rounding is found out."""

from __future__ import annotations

import pytest
import torch
from torch._inductor import config as inductor

from tlkit.engines.torch.selftest import is_known_to_keep_rounding, keeps_rounding


@pytest.mark.slow
@pytest.mark.parametrize("asked", [True, False])
def test_dropped_roundings_are_seen(asked: bool) -> None:
    torch._dynamo.reset()
    with inductor.patch(emulate_precision_casts=asked), torch.inference_mode():
        found = keeps_rounding.__wrapped__()
    # An older release drops them whatever it is asked.
    assert found is asked or not is_known_to_keep_rounding()


@pytest.mark.parametrize(
    ("version", "known"), [("2.13.0+cpu", True), ("2.20.1", True), ("3.0", True), ("2.11.0+cu130", False), ("x", False)]
)
def test_which_releases_need_no_look(monkeypatch: pytest.MonkeyPatch, version: str, known: bool) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    assert is_known_to_keep_rounding() is known
