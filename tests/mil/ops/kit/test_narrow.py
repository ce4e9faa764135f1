"""Weights that stay f16 until they are used: the same results, and no more memory than the largest takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.formats import packages
from tlkit.core.model.load import load_model
from tlkit.engines.torch.engine import TorchEngine
from tlkit.mil.ops.conv import conv, conv_transpose
from tlkit.mil.ops.kit import narrow
from tlkit.mil.ops.linear import linear
from tlkit.mil.ops.scatter_gather import gather, gather_wrapping


def made(*shape: int) -> tuple[torch.Tensor, list[int]]:
    """A narrow weight, and how often its pages were given back."""
    given: list[int] = []
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(torch.float16)
    return narrow.narrow(tensor, lambda: given.append(1)), given


@pytest.mark.parametrize("huge", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_is_the_same_as_with_the_widened_matrix(
    monkeypatch: pytest.MonkeyPatch, huge: bool, bias: bool
) -> None:
    monkeypatch.setattr(narrow, "_PIECE", 70)
    monkeypatch.setattr(narrow, "_HUGE", 10 if huge else 10**6)
    weight, given = made(23, 7)
    x, b = torch.randn(2, 3, 7), torch.randn(23) if bias else None
    for _ in range(3):
        torch.testing.assert_close(linear(x, weight, b), F.linear(x, weight.float(), b), rtol=1e-6, atol=1e-6)
    assert len(given) == 6 and weight.dtype is torch.float16


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_convolutions_widen_their_weights(form: Any) -> None:
    weight, given = made(5, 3, 3, 2)
    mark = narrow.mark_of(weight)
    assert mark is not None
    mark.channels_last = form is torch.channels_last
    x = torch.randn(1, 3, 6, 6)
    torch.testing.assert_close(conv(x, weight), F.conv2d(x, weight.float()))
    assert narrow.widened(weight).is_contiguous(memory_format=form)
    y = torch.randn(1, 5, 4, 4)
    torch.testing.assert_close(conv_transpose(y, weight), F.conv_transpose2d(y, weight.float()))
    assert given


def test_rows_are_picked_before_they_are_widened(monkeypatch: pytest.MonkeyPatch) -> None:
    table, _ = made(9, 4)
    monkeypatch.setattr(narrow.NarrowWeight, "widened", lambda *_: pytest.fail("the whole table was widened"))
    rows = torch.tensor([[3, 0], [8, 3]], dtype=torch.int32)
    for pick in (gather, gather_wrapping):
        found = pick(table, rows)
        assert found.dtype is torch.float32
        torch.testing.assert_close(found, table[rows.long()].float(), rtol=0, atol=0)


def test_a_weight_is_kept_from_the_second_use_on_where_there_is_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, _ = made(4, 4)
    first, second, third = (narrow.widened(weight) for _ in range(3))
    assert first is not second and second is third
    monkeypatch.setattr(narrow, "available_memory", lambda: 100)
    other, _ = made(4, 4)
    assert len({id(narrow.widened(other)) for _ in range(3)} | {id(other)}) > 1
    kept = narrow.mark_of(other)
    assert kept is not None and kept._wide is None


def test_pages_are_given_back_while_another_library_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    from time import sleep

    monkeypatch.setattr(narrow, "_OFTEN", 0.001)
    weight, given = made(2, 2)
    with narrow.giving_back([weight, torch.zeros(2)]):
        for _ in range(1000):
            if len(given) >= 2:
                break
            sleep(0.005)
    assert len(given) >= 3


def test_a_large_program_keeps_its_weights_narrow_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packages.stack(tmp_path / "net.mlpackage", 3, 1024)
    x = np.random.default_rng(0).standard_normal((1, 1024)).astype(np.float32)
    wanted = load_model(path, engine="eager").predict({"x": x})["y"]
    monkeypatch.setattr(narrow, "FROM", 1 << 20)
    for engine in ("eager", "onnxruntime", "openvino"):
        if engine == "openvino":
            pytest.importorskip("openvino")
        model = load_model(path, engine=engine, cache=False)
        for _ in range(2):
            found = model.predict({"x": x})["y"]
            np.testing.assert_allclose(found, wanted, atol=float(np.abs(wanted).max()) * 2**-10)
        if isinstance(model.engine, TorchEngine):
            np.testing.assert_array_equal(found, wanted)
            assert {item.dtype for item in model.engine.module.buffers()} == {torch.float16}


def test_what_is_compiled_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow, "FROM", 1 << 20)
    function = load_model(packages.stack(tmp_path / "net.mlpackage", 1, 1024)).function()
    engine = TorchEngine(function, engine="compile")
    assert {item.dtype for item in engine.module.buffers()} == {torch.float32}
