"""Values that a graph allows, found by following its inputs: against modules whose legal values are known.

Covers tlkit/core/convert/capture/flow.py and examples.py beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tlkit.core.convert.capture.study import Study, study, varying
from tlkit.errors import UsageError, reason
from tlkit.ports.parse import parse_ports
from tlkit.ports.port import example

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Net(nn.Module):
    """A module that computes ``body`` of its inputs."""

    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.table, self.wide = body, nn.Embedding(30, 4), nn.Embedding(90_000, 2)
        self.lstm = nn.LSTM(4, 3, batch_first=True)

    def forward(self, *inputs: Tensor) -> Any:
        return self.body(self, *inputs)


def studied(body: Callable[..., Any], *inputs: str, seed: int = 0) -> Study:
    return study(Net(body).eval(), tuple(map(example, parse_ports(inputs, ()))), seed)


def drawn(found: Study, name: str) -> np.ndarray[Any, Any]:
    return next(array for port, array in zip(found.ports, found.arrays, strict=True) if port.name == name)


@pytest.mark.parametrize(
    ("body", "low", "high"),
    [
        (lambda net, i: net.table(i), 0, 29),
        (lambda net, i: net.table(i + 2), -2, 27),
        (lambda net, i: net.wide(i.clone()[:, None]), 0, 89_999),
        (lambda net, i: net.table.weight[i], -30, 29),
        (lambda net, i: torch.index_select(net.table.weight, 1, i), 0, 3),
        (lambda net, i: net.table.weight.gather(0, i[:, None].expand(-1, 4).long()), 0, 29),
        (lambda net, i: torch.bincount(i, minlength=9) * 1.0, 0, 8),
        (lambda net, i: net.table.weight.T.index_reduce(1, i, torch.ones(4, 8), "amax"), 0, 29),
        (lambda net, i: torch.arange(12)[None] * (torch.arange(12) < i[:, None]) * 1.0, 1, 12),
    ],
)
def test_integers_reach_both_ends_of_what_they_index_or_count(body: Any, low: int, high: int) -> None:
    for seed in range(3):
        values = drawn(studied(body, "i=8:i32", seed=seed), "i")
        assert (values.min(), values.max()) == (low, high)


def test_data_has_both_signs_and_passes_16_bits_and_divisors_are_not_0() -> None:
    found = studied(lambda net, a, b: (a // b, a % b), "a=16:i32", "b=16:i32")
    for name in ("a", "b"):
        values = drawn(found, name)
        assert values.min() < -(2**16) and values.max() > 2**16
    assert drawn(found, "b").all()


def test_data_stays_where_32_bits_hold_its_results() -> None:
    values = drawn(studied(lambda net, a: a * a * 31, "a=16:i32"), "a")
    assert np.abs(values.astype(np.int64) ** 2 * 31).max() < 2**31 and (values < 0).any()


def masked(net: Net, ids: Tensor, mask: Tensor) -> Tensor:
    hidden = net.table(ids)
    scores = hidden @ hidden.transpose(1, 2) + (1.0 - mask[:, None].float()) * torch.finfo(torch.float32).min
    return scores.softmax(-1) @ hidden


@pytest.mark.parametrize("kind", ["", ":i32"])
@pytest.mark.parametrize("name", ["attention_mask", "m"])
def test_masks_hold_0_and_1_and_hide_no_row_wholly(name: str, kind: str) -> None:
    for seed in range(4):
        values = drawn(studied(masked, "ids=3x9:i32", f"{name}=3x9{kind}", seed=seed), name)
        assert set(np.unique(values)) == {0, 1}
        assert values.any(-1).all()
        assert values[:, 0].all() and not values[:, -1].all()


def packed(net: Net, x: Tensor, lengths: Tensor) -> Tensor:
    rows = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
    return nn.utils.rnn.pad_packed_sequence(net.lstm(rows)[0], batch_first=True, total_length=x.shape[1])[0]


def test_lengths_of_packed_sequences_are_lengths() -> None:
    values = drawn(studied(packed, "x=4x7x4", "lengths=4:i32"), "lengths")
    assert values.max() == 7 and values.min() == 1 and (np.diff(values) <= 0).all()


def boxes(net: Net, corners: Tensor) -> Tensor:
    """A box's width indexes a table: its corners must be in order."""
    return net.table(corners[:, 0]) + net.table(corners[:, 1] - corners[:, 0])


def test_where_values_fail_tamer_ones_are_tried_and_told() -> None:
    found = studied(boxes, "corners=5x2:i32")
    values = drawn(found, "corners")
    assert (values[:, 1] >= values[:, 0]).all() and values.max() == 29
    assert "does not run on corners 0 to 29" in found.note and "corners 0 to 29, rising" in found.note


def test_logarithms_are_checked_on_positive_values() -> None:
    found = studied(lambda net, x: torch.log(x.amin()) + x, "x=50")
    assert not found.vacuous and (drawn(found, "x") > 0).all()
    assert studied(lambda net, x: torch.log(-x.abs()), "x=50").vacuous


def test_booleans_are_given_where_a_model_takes_nothing_else() -> None:
    found = studied(lambda net, x, keep: x.masked_fill(keep, 0.0), "x=3x6", "keep=3x6:i32")
    assert [port.name for port in found.ports if port.intake.boolean] == ["keep"]


def asserts(net: Net, x: Tensor, ids: Tensor) -> Tensor:
    assert ids.dtype == torch.int32
    return x * ids


def raises(net: Net, x: Tensor, ids: Tensor) -> Tensor:
    if ids.dtype != torch.int32:
        raise TypeError("ids: a tensor of int32 is wanted")
    return x * ids


def puts(net: Net, x: Tensor, ids: Tensor) -> Tensor:
    # PyTorch's own message: source and destination are of one dtype.
    return x * torch.zeros(6, dtype=torch.int32).index_put((torch.tensor([5, 4, 3, 2, 1, 0]),), ids)


@pytest.mark.parametrize("body", [asserts, raises, puts])
def test_integers_of_32_bits_are_given_where_a_model_takes_no_others(body: Any) -> None:
    found = studied(body, "x=3x6", "ids=6:i32")
    assert [port.name for port in found.ports if port.intake.narrow] == ["ids"]


def test_integers_of_both_widths_in_one_model() -> None:
    def mixed(net: Net, x: Tensor, long: Tensor, short: Tensor) -> Tensor:
        assert (long.dtype, short.dtype) == (torch.int64, torch.int32)
        return x * long + short

    found = studied(mixed, "x=3x6", "long=6:i32", "short=6:i32")
    assert [port.name for port in found.ports if port.intake.narrow] == ["short"]


def test_what_no_value_helps_says_the_models_own_reason() -> None:
    def refuses(net: Net, x: Tensor) -> Tensor:
        raise ValueError("needs seventy-seven")

    with pytest.raises(UsageError, match="needs seventy-seven") as caught:
        studied(refuses, "x=3")
    assert "--example FILE.npz" in caught.value.hint


def test_of_several_errors_the_one_furthest_in_is_told() -> None:
    def misfit(net: Net, corners: Tensor) -> Tensor:
        return boxes(net, corners) @ torch.zeros(77, 2)

    with pytest.raises(UsageError, match="shapes cannot be multiplied"):
        studied(misfit, "corners=5x2:i32")


def test_random_operations_are_named_with_their_line() -> None:
    found = studied(lambda net, x: x + torch.randn_like(x) * nn.functional.dropout(x), "x=3")
    assert [place.partition(" at ")[0] for place in found.random] == ["randn_like", "bernoulli"] or len(
        found.random
    ) == 2
    assert all("test_study.py:" in place for place in found.random)


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        (lambda net, x, mask: x * 2 if x.sum() > 0 else x * 3, True),
        (lambda net, x, mask: x * 2 if mask.bool().all() else x * 3, True),
        (lambda net, x, mask: x * 2 if (x * 0).sum() == 0 else x * 3, False),
        (lambda net, x, mask: x[:, : int(torch.tensor(x.shape[1] - 1))], False),
    ],
)
def test_choices_count_where_another_input_decides_otherwise(body: Any, changes: bool) -> None:
    module = Net(body).eval()
    ports = tuple(map(example, parse_ports(("x=2x5", "mask=2x5:i32"), ())))
    found = varying(module, study(module, ports, 0), 100)
    assert bool(found) == changes and all("test_study.py:" in place for place in found)


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] != 3:
            raise ValueError("x must have three rows,\nnot " + str(x.shape[0]))
        return x.view(7, 5)


@pytest.mark.parametrize(("rows", "said"), [(2, "x must have three rows, not 2"), (3, "shape '[7, 5]' is invalid")])
def test_a_scripts_reason_is_told_whole(rows: int, said: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # torch.jit.Error is no public name
        torch.jit.script(Raises())(torch.ones(rows, 4))
    assert reason(caught.value).startswith(said)
