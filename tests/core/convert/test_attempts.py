"""The other way of capturing is tried, and what was tried is told; a package that differs is told why.

Covers tlkit/core/convert/cause.py, tlkit/core/convert/order.py and tlkit/core/convert/capture/inside.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tlkit.core.convert.capture.inside import output_names, values_inside
from tlkit.core.convert.capture.trace import trace
from tlkit.core.convert.convert import ConversionResult, convert
from tlkit.core.model.load import load_model
from tlkit.errors import ConversionError, UsageError
from tlkit.ports.parse import parse_ports

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Net(nn.Module):
    """Computes ``body`` of itself and its inputs."""

    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.table, self.linear = body, nn.Embedding(300, 4), nn.Linear(8, 8)
        self.register_buffer("large", torch.randn(8, 8) * 3e5)

    def forward(self, *inputs: Tensor) -> Any:
        return self.body(self, *inputs)


def converted(tmp_path: Path, body: Callable[..., Any], *inputs: str, **options: Any) -> ConversionResult:
    return convert(Net(body), tmp_path / "m.mlpackage", inputs=inputs, **options)


def columns(net: Net, x: Tensor) -> Tensor:
    y = x * 1
    part = y.chunk(2, dim=1)[0]  # writes into parts of a chunk are not followed in a trace
    part[:, torch.tensor([1, 2])] = 0
    return y


def test_what_a_trace_loses_is_captured_by_export_and_said(tmp_path: Path) -> None:
    result = converted(tmp_path, columns, "x=2x8")
    assert result.ok
    (note,) = result.notes
    assert "traced, it differs (output: cosine" in note
    assert "captured by torch.export instead, it agrees" in note
    found = load_model(result.path).predict({"x": np.ones((2, 8), np.float32)})["output"]
    assert found[:, 1:3].any() is np.False_ and (found[:, 3:] == 1).all()


def test_without_auto_only_one_way_is_tried(tmp_path: Path) -> None:
    result = converted(tmp_path, columns, "x=2x8", auto=False)
    assert not result.ok
    assert not result.notes


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(lambda net, x: (net.large @ x.T).T * 1e-6, "over f16's 65504", marks=pytest.mark.slow),
        (lambda net, x: nn.functional.linear(x, net.large) * 1e-6, "over f16's"),
        pytest.param(lambda net, x: 1 / (1e6 * x.abs() + 1e6) * 1e6, "over f16's 65504", marks=pytest.mark.slow),
    ],
)
def test_what_f16_cannot_hold_is_the_cause_and_f32_was_tried(
    tmp_path: Path, body: Callable[..., Any], said: str
) -> None:
    result = converted(tmp_path, body, "x=4x8", auto=False)
    assert result.verification is not None and result.verification.passed is False
    assert said in result.verification.cause
    assert "--precision f32 was tried: it agrees" in result.verification.cause
    assert converted(tmp_path, body, "x=4x8", precision="f32", force=True).ok


def heavy(net: Net, x: Tensor) -> Tensor:
    result: Tensor = net.linear(x / ((x * 300).square() + 1.0).mean(-1, keepdim=True) * 1e5)
    return result


def test_what_f16_cannot_hold_is_computed_in_f32_and_the_rest_in_f16(tmp_path: Path) -> None:
    result = converted(tmp_path, heavy, "x=4x8")
    assert result.ok
    assert any("stays in f32, the rest is f16; it agrees" in note for note in result.notes)
    assert result.info.compute["F16"] and result.info.compute["F32"]
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(5)) * 3
    found = load_model(result.path).predict({"x": x.numpy()})["output"]
    torch.testing.assert_close(torch.tensor(found), Net(heavy)(x).detach(), rtol=1e-2, atol=1e-3)


def near_ties(net: Net, x: Tensor) -> Tensor:
    places = (x + 1000).topk(3, dim=-1).indices  # f16 has steps of 0.5 there: ties
    result: Tensor = net.linear(net.table.weight[places].flatten(1)[:, :8])
    return result


def amplified(net: Net, x: Tensor) -> Tensor:
    y = torch.sigmoid(x)
    for _ in range(10):
        y = 3.9 * y * (1 - y)  # each step nearly doubles what was rounded before
    for _ in range(20):
        y = torch.relu(y * 1.01 + 0.01)
    return y


def stepped(net: Net, x: Tensor) -> Tensor:
    wave = torch.remainder(x * 9, 0.7)
    return torch.cat([net.linear(wave + torch.floor(x * 9 / 0.7)), net.linear(x)])


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (near_ties, "what its last 'topk' chooses by stays"),
        pytest.param(amplified, "the first half of its operations stays", marks=pytest.mark.slow),
        pytest.param(stepped, "what its last 'floor' chooses by stays", marks=pytest.mark.slow),
    ],
)
def test_where_roundings_decide_part_of_it_is_computed_in_f32(
    tmp_path: Path, body: Callable[..., Any], kept: str
) -> None:
    assert not converted(tmp_path, body, "x=4x8", auto=False).ok
    result = converted(tmp_path, body, "x=4x8", force=True)
    assert result.ok
    assert any(f"{kept} in f32, the rest is f16; it agrees" in note for note in result.notes)
    assert result.info.compute["F16"] and result.info.compute["F32"]
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(5))
    found = load_model(result.path).predict({"x": x.numpy()})["output"]
    torch.testing.assert_close(torch.tensor(found), Net(body)(x).detach(), rtol=1e-2, atol=1e-2)


def test_a_length_that_a_trace_froze_is_a_difference_with_its_line(tmp_path: Path) -> None:
    def frozen(net: Net, x: Tensor) -> Tensor:
        return x * torch.tensor([float(i) for i in range(x.shape[1])]).exp().cos()

    result = converted(tmp_path, frozen, "x=1x4..16", auto=False)
    found = result.verification
    assert found is not None and found.passed is False
    assert any("does not run on seed" in reason for reason in found.reasons)
    assert "tracing fixed a size or a choice at test_attempts.py:" in found.cause
    told = converted(tmp_path, frozen, "x=1x4..16", force=True)
    assert told.verification is not None
    assert "one fixed shape was tried, x 1x7: it agrees" in told.verification.cause
    assert any("torch.export fixed the shape x 1x7" in note for note in told.notes)


class Batch(nn.Module):
    """Takes whatever it is given, by name."""

    def forward(self, **batch: Tensor) -> Tensor:
        return batch["image"] * 2 + batch["more"]


class Many(nn.Module):
    """Takes any number of tensors, of which none is called ``xs``."""

    def forward(self, *xs: Tensor) -> Tensor:
        return xs[0] * 2


def test_inputs_by_any_name_and_in_any_number(tmp_path: Path) -> None:
    made = convert(Batch(), tmp_path / "m.mlpackage", inputs=["more=1x4", "image=1x4"])
    assert made.ok
    image, more = np.full((1, 4), 3, np.float32), np.ones((1, 4), np.float32)
    assert (load_model(made.path).predict({"image": image, "more": more})["output"] == 7).all()
    assert convert(Many(), tmp_path / "n.mlpackage", inputs=["xs=1x4"]).ok


def test_a_script_is_traced_where_export_was_asked_for(tmp_path: Path) -> None:
    made = convert(torch.jit.script(nn.Linear(3, 2)), tmp_path / "m.mlpackage", inputs=["x=1x3"], export=True)
    assert made.ok
    assert any("torch.export does not take TorchScript" in note and "traced instead" in note for note in made.notes)


def test_a_random_source_is_not_a_package_that_differs(tmp_path: Path) -> None:
    result = converted(tmp_path, lambda net, x: x + torch.randn_like(x), "x=2x8")
    found = result.verification
    assert not result.ok and found is not None and found.passed is None
    assert "random by itself (randn_like at test_attempts.py:" in found.reasons[0]


def test_where_a_random_source_cannot_be_converted_both_are_told(tmp_path: Path) -> None:
    def drawn(net: Net, x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(x @ x.T) + torch.randn_like(x[0])

    with pytest.raises(ConversionError, match="linalg_eigvalsh") as caught:
        converted(tmp_path, drawn, "x=8x8", auto=False)
    (note,) = [note for note in caught.value.notes if "random by itself" in note]
    assert "(randn_like at test_attempts.py:" in note and "take the random numbers as an input" in note


@pytest.mark.parametrize(
    "drawn", [lambda net, x: x * torch.bernoulli(x.sigmoid()), lambda net, x: x[:, torch.randperm(8)[:4]]]
)
def test_where_what_draws_cannot_be_converted_the_numbers_are_to_be_an_input(
    tmp_path: Path, drawn: Callable[..., Tensor]
) -> None:
    with pytest.raises(ConversionError, match=r"bernoulli|randperm") as caught:
        converted(tmp_path, drawn, "x=2x8", auto=False)
    assert "take the random numbers as an input" in caught.value.hint and "unpack" not in caught.value.message


def test_a_choice_by_values_is_not_exported_and_its_line_is_told(tmp_path: Path) -> None:
    def chosen(net: Net, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x - 1

    line = chosen.__code__.co_firstlineno + 1
    with pytest.raises(ConversionError, match=f"known only at run time .test_attempts.py, line {line}"):
        converted(tmp_path, chosen, "x=2x8", export=True, auto=False)


def test_agreeing_on_nothing_is_no_agreement(tmp_path: Path) -> None:
    result = converted(tmp_path, lambda net, x: (x * 0).sqrt() * net.linear(x), "x=2x8")
    assert not result.ok and result.verification is not None
    assert result.verification.passed is None and "nothing was compared" in result.verification.reasons[0]
    assert result.verification is not None and not result.verification.cause


def test_a_picture_of_0_to_1_is_told(tmp_path: Path) -> None:
    def picture(net: Net, x: Tensor) -> Tensor:
        return x.sigmoid()

    result = converted(tmp_path, picture, "x=1x3x8x8", output_names=["y:RGB"])
    assert result.verification is not None
    assert any("a black picture; multiply it by 255" in note for note in result.verification.notes)
    assert not converted(
        tmp_path, lambda net, x: x.sigmoid() * 255, "x=1x3x8x8", output_names=["y:RGB"], force=True
    ).verification.notes  # type: ignore[union-attr]


def ratio(net: Net, x: Tensor, count: Tensor) -> Tensor:
    if int(count) != 12:
        raise ValueError("twelve at a time")
    return x * count


def test_an_example_is_captured_on_and_verified_on(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="twelve at a time") as caught:
        converted(tmp_path, ratio, "x=2x8", "count=1:i32")
    assert "--example FILE.npz" in caught.value.hint
    np.savez(tmp_path / "real.npz", x=np.ones((2, 8)), count=[12])
    result = converted(tmp_path, ratio, "x=2x8", "count=1:i32", example=tmp_path / "real.npz")
    assert result.ok and result.verification is not None
    assert result.verification.cases == ("real.npz",)


@pytest.mark.parametrize("kind", ["", ":i32"])
def test_booleans_become_integers_and_that_is_said(tmp_path: Path, kind: str) -> None:
    result = converted(tmp_path, lambda net, x, keep: x.masked_fill(keep, -1.0), "x=2x8", f"keep=2x8{kind}")
    assert result.ok
    assert any("keep: the model takes booleans" in note for note in result.notes)


@pytest.mark.parametrize("export", [False, True])
def test_a_model_that_takes_only_integers_of_32_bits_is_converted(tmp_path: Path, export: bool) -> None:
    def looked_up(net: Net, ids: Tensor) -> Tensor:
        assert ids.dtype == torch.int32
        return net.table(ids)  # type: ignore[no-any-return]

    result = converted(tmp_path, looked_up, "ids=2x5:i32", export=export, auto=False)
    assert result.ok
    ids = np.array([[0, 299, 7, 1, 4], [5, 6, 256, 8, 255]], np.int32)
    found = load_model(result.path).predict({"ids": ids})["output"]
    np.testing.assert_allclose(found, Net(looked_up).table.weight.detach().numpy()[ids], rtol=1e-3, atol=1e-3)


def landmarks(net: Net, x: Tensor) -> Tensor:
    """As transformers' models do: a mask that hides nothing is left out, except where it is traced."""
    mask = torch.zeros(8, 8) if torch.jit.is_tracing() else None
    scores = net.linear(x).reshape(4, 2, 8).mean(1)  # fewer than queries, which that mask does not fit
    return (scores if mask is None else scores + mask).softmax(-1)


def test_what_a_model_does_only_where_it_is_traced_is_left_out_where_that_fails(tmp_path: Path) -> None:
    result = converted(tmp_path, landmarks, "x=8x8", auto=False)
    assert result.ok and torch.jit.is_tracing() is False
    x = np.random.default_rng(5).standard_normal((8, 8), np.float32)
    with torch.no_grad():
        wanted = Net(landmarks)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(load_model(result.path).predict({"x": x})["output"], wanted, atol=2e-3)


def test_what_runs_but_is_not_traced_is_not_said_not_to_run(tmp_path: Path) -> None:
    def counted(net: Net, x: Tensor) -> Tensor:
        if isinstance(x.shape[0], Tensor):  # as sizes are in a trace
            raise ValueError("a size is a number")
        return x * 2

    with pytest.raises(ConversionError, match="cannot trace the model: a size is a number"):
        converted(tmp_path, counted, "x=2x8", auto=False)


def test_conditions_that_torch_checks_are_traced(tmp_path: Path) -> None:
    def unpooled(net: Net, x: Tensor) -> Tensor:
        found, places = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
        return torch.nn.functional.max_unpool2d(found, places, 2)

    assert converted(tmp_path, unpooled, "x=1x2x8x8", auto=False).ok


def test_every_value_of_a_trace_is_to_be_had_by_name() -> None:
    ports = parse_ports(("x=2x8",), ())
    x = torch.randn(2, 8)
    traced = trace(Net(lambda net, x: (net.linear(x).relu() * 2, x.sum())), ports, (x,))
    inside = values_inside(traced, (x,))
    first, second = (inside[name] for name in output_names(traced))
    with torch.no_grad():
        torch.testing.assert_close(first, Net(lambda *_: None).linear(x).relu() * 2)
    assert second == x.sum()


class Counted(nn.Module):
    """Counts its runs; takes no negative numbers, if told so."""

    def __init__(self, refuses: bool) -> None:
        super().__init__()
        self.refuses, self.runs = refuses, 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        if self.refuses and not torch.jit.is_scripting() and bool((x < 0).any()):
            raise ValueError("not below 0")
        return x.relu() + 1


def test_without_a_check_of_what_is_made_floats_cost_no_run_but_the_trace(tmp_path: Path) -> None:
    module = Counted(refuses=False)
    convert(module, tmp_path / "m.mlpackage", inputs=["x=2x8"], verify=False)
    assert module.runs == 1


def test_where_the_trace_fails_on_values_that_were_not_tried_others_are_found(tmp_path: Path) -> None:
    module = Counted(refuses=True)
    result = convert(module, tmp_path / "m.mlpackage", inputs=["x=2x8"], verify=False)
    assert any("not below 0" in note for note in result.notes)
    found = load_model(result.path).predict({"x": np.array([[-1.0, 2.0] * 4] * 2, np.float32)})
    assert (found["output"] == np.array([1, 3] * 4, np.float32)).all()


def test_an_input_that_is_returned_is_an_output_and_said_to_be(tmp_path: Path) -> None:
    result = converted(tmp_path, lambda net, x: (x, x * 2, x), "x=2x4:i32", output_names=["a", "b"], auto=False)
    assert result.ok
    assert "output 'output_0' is an input, unchanged" in result.notes
    given = np.array([[1, -2, 70000, 0]] * 2, np.int32)
    found = load_model(result.path).predict({"x": given})
    assert (found["a"] == given).all() and (found["b"] == 2 * given).all()


def test_a_choice_by_length_that_leaves_an_input_as_it_is_differs_at_others(tmp_path: Path) -> None:
    result = converted(tmp_path, lambda net, x: x[:, :8] if x.shape[1] > 8 else x, "x=1x4..16")
    assert not result.ok and result.verification is not None
    assert "tracing fixed a size or a choice at test_attempts.py" in result.verification.cause


def test_the_range_of_numbers_that_it_was_checked_on_is_said(tmp_path: Path) -> None:
    found = converted(tmp_path, lambda net, x, y: x @ y.float(), "x=2x200", "y=200x2:i32").verification
    assert found is not None
    match = re.fullmatch(r"x (-\d\S*) to (\d\S*), y (-\d+ to \d+)", found.values)
    assert match is not None and -5 < float(match[1]) < -1.5 and 1.5 < float(match[2]) < 5
