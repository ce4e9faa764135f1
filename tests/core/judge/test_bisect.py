"""Where two models part, on networks with faults whose place is known.

Covers tlkit/core/judge/inside.py, tlkit/core/judge/inner.py, tlkit/core/judge/captured.py,
tlkit/core/judge/matching.py, tlkit/core/judge/reasons.py, tlkit/cli/views/judge/bisect.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tlkit
from fixtures.strays import INPUTS, WIDTH, Mask, Overflow, Strays
from tlkit.core.judge.bisect import find
from tlkit.core.judge.compare import compare
from tlkit.core.judge.inner import ConstantRange, InnerValue, Inside, aligned, measured
from tlkit.core.judge.inside import operands_of
from tlkit.core.judge.matching import match
from tlkit.core.judge.reasons import why
from tlkit.mil.program import Operation, Ref


def value(name: str, kind: str, inputs: tuple[str, ...], array: np.ndarray) -> InnerValue:
    return measured(name, name, kind, inputs, np.asarray(array, np.float32), 1 << 10)


def inside(*values: InnerValue) -> Inside:
    return Inside({item.name: item for item in values}, {"y": values[-1].name})


RNG = np.random.default_rng(0)
X, Y, Z = (RNG.standard_normal(100) for _ in range(3))


def test_an_infinity_that_does_no_harm_is_passed_over() -> None:
    """A mask that is minus infinity differs, and nothing that follows does; the fault is elsewhere."""
    masked, hidden = np.where(X > 0, X, -3e38), np.where(X > 0, X, -np.inf)
    a = inside(value("m", "select", ("x",), masked), value("s", "softmax", ("m",), Y), value("y", "mul", ("s",), Z))
    b = inside(value("m", "select", ("x",), hidden), value("s", "softmax", ("m",), Y), value("y", "mul", ("s",), -Z))
    found = find(a, b, {name: name for name in a.values}, ["y"], 26, half=True)
    assert found.first is not None and found.first.operation == "y" and found.others == ()


def test_what_strays_by_itself_is_listed_in_order() -> None:
    a = inside(value("p", "mul", ("x",), X), value("q", "exp", ("x",), Y), value("y", "add", ("p", "q"), Z))
    b = inside(value("p", "mul", ("x",), -X), value("q", "exp", ("x",), Y * np.inf), value("y", "add", ("p", "q"), -Z))
    found = find(a, b, {name: name for name in a.values}, ["y"], 26, half=True)
    assert [item.operation for item in (found.first, *found.others) if item] == ["p", "q"]


def test_what_has_no_counterpart_is_passed_through_and_said() -> None:
    a = inside(value("p", "mul", ("x",), X), value("y", "add", ("p",), Z))
    b = inside(value("p", "mul", ("x",), X), value("h", "gelu", ("p",), Y), value("y", "add", ("h",), -Z))
    found = find(a, b, {"p": "p", "y": "y"}, ["y"], 26, half=True)
    assert found.first is not None and (found.first.operation, found.first.before) == ("y", ("h",))
    assert found.unmatched == ("h",)


def test_numbered_names_are_not_trusted_alone() -> None:
    """Two conversions number their values anew: var_7 of one is another operation than var_7 of the other."""
    a = inside(value("var_5", "mul", ("x",), X), value("var_7", "exp", ("var_5",), Y), value("y", "add", ("var_7",), Z))
    b = inside(
        value("var_7", "mul", ("x",), X), value("var_9", "exp", ("var_7",), -Y), value("y", "add", ("var_9",), Z)
    )
    assert match(a, b, {"y": "y"}) == {"y": "y", "var_7": "var_5", "var_9": "var_7"}


def test_a_number_that_another_operation_has_is_no_match() -> None:
    """Of one kind and one number, and computed from something else: what is known of the inputs decides."""
    a = inside(
        value("p", "conv", ("x",), X), value("var_7", "mul", ("x",), Z), value("var_9", "mul", ("p",), Y),
        value("y", "add", ("var_7", "var_9"), Z),
    )  # fmt: skip
    b = inside(value("p", "conv", ("x",), X), value("var_7", "mul", ("p",), Y), value("y", "add", ("var_7",), -Z))
    assert match(a, b, {"y": "y"}) == {"y": "y", "p": "p", "var_7": "var_9"}


def test_a_neighbour_of_the_same_kind_is_no_match_where_another_is_equal() -> None:
    """Two factors of one value, numbered otherwise by each conversion: the values say which is which."""
    a = inside(
        value("var_5", "mul", ("x",), X), value("var_6", "mul", ("x",), 3 * X), value("y", "add", ("var_5", "var_6"), Z)
    )
    b = inside(
        value("var_6", "mul", ("x",), X), value("var_7", "mul", ("x",), 3 * X), value("y", "add", ("var_6", "var_7"), Z)
    )
    assert match(a, b, {"y": "y"}) == {"y": "y", "var_6": "var_5", "var_7": "var_6"}


def test_a_value_whose_axes_are_in_another_order_is_compared_by_them() -> None:
    """coremltools moves transposes; a square one has the same shape either way."""
    for shape in ((2, 3, 4), (1, 6, 6)):
        array = RNG.standard_normal(shape)
        one, other = value("p", "mul", ("x",), array), value("p", "mul", ("x",), array.transpose(0, 2, 1) + 1e-4)
        pair = aligned(one, other)
        assert pair is not None and np.abs(pair[0] - pair[1]).max() < 2e-4
        a, b = inside(one, value("y", "exp", ("p",), Y)), inside(other, value("y", "exp", ("p",), -Y))
        found = find(a, b, match(a, b, {"y": "y"}), ["y"], 26, half=True)
        assert found.first is not None and found.first.operation == "y" and found.others == ()
    # Too little is kept of a large one to turn it.
    large, turned = RNG.standard_normal((50, 60)), RNG.standard_normal((60, 50))
    assert aligned(value("p", "mul", (), large), value("p", "mul", (), turned)) is None


def test_what_is_kept_of_a_large_value_belongs_together_whatever_the_room() -> None:
    array = RNG.standard_normal(5000).astype(np.float32)
    few, more = (measured("p", "p", "mul", (), array, most) for most in (100, 1500))
    pair = aligned(few, more)
    assert pair is not None and pair[0].size > 50 and np.array_equal(*pair)


def test_a_loss_in_one_operation_counts_before_later_roundings() -> None:
    """30 dB lost at once are a fault although f16 is allowed 26; slow losses are none where the outputs agree."""

    def noisy(array: np.ndarray, db: float) -> np.ndarray:
        return array + RNG.standard_normal(array.shape) * 10 ** (-db / 20)

    a = inside(value("p", "mul", ("x",), X), value("q", "sub", ("p",), Y), value("y", "exp", ("q",), Z))
    b = inside(
        value("p", "mul", ("x",), noisy(X, 60)), value("q", "sub", ("p",), noisy(Y, 32)), value("y", "exp", ("q",), -Z)
    )
    found = find(a, b, {name: name for name in a.values}, ["y"], 26, half=True)
    assert found.first is not None and found.first.operation == "q"
    b = inside(
        value("p", "mul", ("x",), noisy(X, 60)), value("q", "sub", ("p",), noisy(Y, 50)),
        value("y", "exp", ("q",), noisy(Z, 45)),
    )  # fmt: skip
    found = find(a, b, {name: name for name in a.values}, ["y"], 55, half=True, passed=True)
    assert found.first is None and "no operation loses much" in found.said


def test_a_logarithm_near_1_is_explained_by_the_rounding_of_its_operand() -> None:
    """MIL's log has an epsilon of 1e-45 by default, which is 0 in f16 and explains nothing here."""
    near = value("p", "add", ("x",), 1 + 2e-4 * np.tanh(X))
    epsilon = (ConstantRange("epsilon", 1.4e-45, 1.4e-45, False),)
    strays = measured("y", "y", "log", ("p",), Y.astype(np.float32), 1 << 10, constants=epsilon)
    told = why(strays, strays, [near], [near], half=True)
    assert "a logarithm of values near 1 (0.9998" in told
    wide = value("p", "add", ("x",), 3 + 0 * X)
    assert "1.4e-45" in why(strays, strays, [wide], [wide], half=True)


def test_projections_of_one_value_are_matched_in_order_unless_their_values_contradict() -> None:
    a = inside(value("q", "linear", ("x",), X), value("k", "linear", ("x",), Y), value("y", "add", ("q", "k"), Z))
    b = inside(value("l0", "linear", ("x",), X), value("l1", "linear", ("x",), Y), value("y", "add", ("l0", "l1"), Z))
    assert match(a, b, {"y": "y"}) == {"y": "y", "l0": "q", "l1": "k"}
    turned = inside(
        value("l0", "linear", ("x",), -Y * 1.4), value("l1", "linear", ("x",), -X), value("y", "add", ("l0", "l1"), Z)
    )
    assert match(a, turned, {"y": "y"}) == {"y": "y"}


class One(torch.nn.Module):
    """One fault between two sound layers."""

    def __init__(self, fault: torch.nn.Module) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.fault, self.last = torch.nn.Linear(WIDTH, WIDTH), fault, torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.last(torch.tanh(self.fault(torch.tanh(self.first(x)))))
        return hidden


@pytest.mark.parametrize(
    ("fault", "because"),
    [(Overflow("exp"), "exponential of 1"), pytest.param(Mask("row"), "mask", marks=pytest.mark.slow)],
)
def test_the_operation_its_line_and_its_cause_are_named(tmp_path: Path, fault: torch.nn.Module, because: str) -> None:
    net = One(fault).eval()
    tlkit.convert(net, tmp_path / "net.mlpackage", inputs=INPUTS, verify=False)
    whole: list[None] = []
    net.register_forward_hook(lambda *_: whole.append(None))
    found = compare(net, tmp_path / "net.mlpackage", bisect=True, count=1)
    # Every run of the source counts, tracing too.
    assert 1 <= len(whole) <= 4
    assert not found.ok and found.bisection is not None and found.bisection.first is not None
    first = found.bisection.first
    assert first.place.startswith("fault, strays.py:") and because in first.why, first
    assert first.not_finite and max(found.bisection.runs) <= 2
    # The package against itself without rounding finds the same operation.
    own = compare(tmp_path / "net.mlpackage", precision="f32,f16", bisect=True, count=1).bisection
    assert own is not None and own.first is not None and own.first.operation == first.operation
    assert own.first.place.startswith("fault, strays.py:")  # the package's own record


@pytest.mark.slow
def test_the_first_planted_fault_is_found_in_thirty_networks(tmp_path: Path) -> None:
    right = []
    for seed in range(30):
        net = Strays(seed).eval()
        tlkit.convert(net, tmp_path / f"{seed}.mlpackage", inputs=INPUTS, verify=False, auto=False)
        found = compare(net, tmp_path / f"{seed}.mlpackage", bisect=True, count=1).bisection
        assert found is not None
        right.append(found.first is not None and found.first.place.startswith(f"{net.truth[0]},"))
    assert sum(right) >= 28, [seed for seed, ok in enumerate(right) if not ok]


@pytest.mark.parametrize(
    ("kind", "inputs", "order"),
    [("select", "b a cond", "cond a b"), ("sub", "y x", "x y"), ("gather", "indices x", "x indices")],
)
def test_values_are_taken_in_the_order_of_pytorch_whatever_the_files(kind: str, inputs: str, order: str) -> None:
    operation = Operation(kind, {name: (Ref(name),) for name in inputs.split()}, (), {})
    assert operands_of(operation, {}) == tuple(order.split())
