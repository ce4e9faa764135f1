"""The planner's path against every path there is; rules on small programs.

Covers tlkit/placement/facts.py, tlkit/placement/rules.py.
"""

from __future__ import annotations

import ast
import csv
import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from benchmarks.placement import built
from tlkit.errors import UsageError
from tlkit.mil.text.api import parse_program
from tlkit.mil.work import steps
from tlkit.placement.facts import all_rules, chip_named, chips, op_units
from tlkit.placement.predict import Prediction, cheapest_path, predict
from tlkit.placement.prices import SWITCH
from tlkit.placement.rules import against_ane
from tlkit.types import Unit

SUPPORT = Path(__file__).resolve().parents[2].parent / "shared/coreml/op_support_m4.csv"


def program(body: str, shape: str = "[1, 64, 32, 32]", kind: str = "fp16") -> str:
    return f"program(1.3) {{ func main<ios18>(tensor<{kind}, {shape}> x) {{ {body} }} -> (y); }}"


def predicted(text: str, unit: Unit = Unit.ANE, chip: str | None = None) -> Prediction:
    return predict(parse_program(text, lambda name: None).function(), unit, chip)


def price(units: tuple[str, ...], costs: list[dict[str, float]]) -> float:
    """The planner's published sum, read plainly: operations, changes, starts of regions, the end."""
    total = sum(cost[unit] for unit, cost in zip(units, costs, strict=True))
    for before, after in itertools.pairwise(("inputs", *units)):
        if before != after:
            total += 0 if before == "inputs" else SWITCH
            total += 0 if after == "cpu" else SWITCH
    return total + (0 if units[-1] == "cpu" else SWITCH)


COSTS = st.lists(
    st.dictionaries(st.sampled_from(["cpu", "ane", "gpu"]), st.integers(0, 600).map(float), min_size=1),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(COSTS)
# Units of two equally cheap paths, joined, cost more.
@example([{"ane": 0.0, "gpu": 0.0}, {"cpu": 0.0, "gpu": 0.0}])
def test_no_path_is_cheaper(costs: list[dict[str, float]]) -> None:
    chosen, ties = cheapest_path(costs)
    every = {path: price(path, costs) for path in itertools.product(*costs)}
    assert price(tuple(chosen), costs) == min(every.values())
    best = [path for path, cost in every.items() if cost == min(every.values())]
    assert [set(units) for units in ties] == [set(units) for units in zip(*best, strict=True)]


def test_a_whole_graph_has_to_save_a_quarter_of_a_millisecond_and_an_island_three_eighths() -> None:
    assert cheapest_path([{"cpu": 249.0, "ane": 0.0}])[0] == ["cpu"]
    assert cheapest_path([{"cpu": 251.0, "ane": 0.0}])[0] == ["ane"]
    island = [{"cpu": 0.0}, {"cpu": 374.0, "ane": 0.0}, {"cpu": 0.0}]
    assert cheapest_path(island)[0] == ["cpu", "cpu", "cpu"]
    assert cheapest_path([island[0], {"cpu": 376.0, "ane": 0.0}, island[2]])[0] == ["cpu", "ane", "cpu"]


@pytest.mark.parametrize(
    ("body", "shape", "kind", "rule"),
    [
        ("tensor<fp16, [1, 64, 32, 32]> y = sinh(x = x);", "[1, 64, 32, 32]", "fp16", "ANE-op"),
        ("tensor<fp16, [1, 64, 32, 32]> y = relu(x = x);", "[1, 64, 32, 32]", "fp16", None),
        ("tensor<fp32, [4]> y = relu(x = x);", "[4]", "fp32", "f32-compute"),
        ("tensor<int32, [4]> y = add(x = x, y = x);", "[4]", "int32", "ANE-int"),
        ("tensor<fp16, [65537]> y = relu(x = x);", "[65537]", "fp16", "ANE-dim"),
        ("tensor<fp16, [65536]> y = relu(x = x);", "[65536]", "fp16", None),
        ("tensor<fp16, [?, 4]> y = relu(x = x);", "[?, 4]", "fp16", "ANE-range-shape"),
        ("tensor<fp16, [1, 1, 1, 1, 1, 2]> y = relu(x = x);", "[1, 1, 1, 1, 1, 2]", "fp16", "ANE-rank"),
        ("tensor<fp16, [4]> y = wobble(x = x);", "[4]", "fp16", "unknown-op"),
        ('tensor<int8, [4]> y = cast(x = x, dtype = string("int8"));', "[4]", "fp16", None),
        ('tensor<int32, [4]> y = cast(x = x, dtype = string("int32"));', "[4]", "fp16", "ANE-int"),
        ('tensor<int32, [4]> y = cast(x = x, dtype = string("int32"));', "[4]", "int8", "ANE-int"),
        ('tensor<fp16, [4]> y = cast(x = x, dtype = string("fp16"));', "[4]", "int32", "ANE-int"),
        ('tensor<fp16, [?]> y = cast(x = x, dtype = string("fp16"));', "[?]", "int32", None),
        ("tensor<int16, []> y = squeeze(x = x);", "[1]", "int16", None),
        ("tensor<int32, []> y = squeeze(x = x);", "[1]", "int32", "ANE-int"),
    ],
)
def test_rules(body: str, shape: str, kind: str, rule: str | None) -> None:
    (step,) = steps(parse_program(program(body, shape, kind), lambda name: None).function())
    found = against_ane(step, 65536)
    assert (rule in found) if rule else (found == ())
    assert all(name in all_rules() for name in found)


@pytest.mark.slow
@pytest.mark.skipif(not SUPPORT.exists(), reason="the published table is not in the repository")
def test_every_published_operation_lists_the_units_that_an_m4_lists() -> None:
    published: dict[str, list[tuple[str, set[str]]]] = {}
    with SUPPORT.open() as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            units = set(row["supported"].lower().split(","))
            published.setdefault(row["case"], []).append((row["case"], units))
    found = {
        case: [(case, set(placed.supported)) for placed in predict(function, Unit.ALL).operations]
        for case, function in built(published, context=False).items()
    }
    assert found == published


def test_a_size_that_is_an_input_is_narrowed_on_the_cpu_only() -> None:
    narrowed = 'tensor<int16, [{n}]> y = cast(x = x, dtype = string("int16"));'
    one, many = (predicted(program(narrowed.format(n=n), f"[{n}]", "int32"), Unit.ALL) for n in (1, 64))
    assert (one.operations[0].supported, many.operations[0].supported) == (("cpu",), ("cpu", "gpu"))


def test_older_chips_take_smaller_dimensions() -> None:
    text = program("tensor<fp16, [16385]> y = relu(x = x);", "[16385]")
    assert predicted(text, chip="m4").operations[0].reasons != ("ANE-dim",)
    assert predicted(text, chip="M1 Max").operations[0].reasons == ("ANE-dim",)


def test_unknown_operations_are_counted_and_not_guessed() -> None:
    (placed,) = predicted(program("tensor<fp16, [4]> y = wobble(x = x);", "[4]")).operations
    assert (placed.unit, placed.confidence) == ("cpu", "unknown")


def test_a_setting_allows_what_core_ml_s_does() -> None:
    text = program("tensor<fp16, [4]> y = relu(x = x);", "[4]")
    supported = {unit: predicted(text, unit).operations[0].supported for unit in Unit}
    assert supported == {
        Unit.CPU: ("cpu",), Unit.GPU: ("cpu", "gpu"), Unit.ANE: ("cpu", "ane"), Unit.ALL: ("cpu", "gpu", "ane"),
    }  # fmt: skip


def test_an_unknown_chip_lists_the_known() -> None:
    with pytest.raises(UsageError, match="unknown chip 'm99'") as caught:
        chip_named("m99")
    assert "M4 Pro" in caught.value.hint
    assert chip_named("a17-pro").name == "A17 Pro"
    assert len(chips()) >= 25


def test_every_known_operation_is_one_that_mil_has() -> None:
    from tlkit.mil.ops.kit.spec import VERSIONS

    assert set(op_units()) - set(VERSIONS) == set()


def test_the_largest_m5s_put_all_but_small_networks_on_the_gpu() -> None:
    body = """tensor<fp16, [{c}, {c}, 3, 3]> w = const()[val = tensor<fp16, [{c}, {c}, 3, 3]>(0x1p+0)];
    tensor<fp16, [1, {c}, 126, 126]> a = conv(x = x, weight = w); tensor<fp16, [1, {c}, 126, 126]> y = relu(x = a);"""
    large, small = (program(body.format(c=c), f"[1, {c}, 128, 128]") for c in (1024, 128))
    conv, relu = predicted(large, Unit.ALL, "M5 Max").operations
    assert conv.unit == "gpu" and "ane" not in (*conv.supported, *relu.supported)
    assert conv.reasons == ("GPU-first",)
    assert "gpu" not in [placed.unit for placed in predicted(small, Unit.ALL, "M5 Max").operations]
    assert [placed.unit for placed in predicted(large, Unit.ANE, "M5 Max").operations] == ["ane", "ane"]
    assert [placed.unit for placed in predicted(large, Unit.ALL, "M4").operations] == ["ane", "ane"]


def test_every_rule_that_is_no_command_s_says_what_to_write_instead() -> None:
    """Two lines of Python, before and after; what no line of a source changes is named here."""
    without = {"custom-layer", "island", "cheaper-elsewhere", "GPU-only-not", "GPU-first", "GPU-op", "ANE-none"}
    for rule in all_rules().values():
        if rule.id in without or rule.mend.startswith("tlkit "):
            continue
        before, after = rule.example.strip().splitlines()
        assert ast.dump(ast.parse(before)) != ast.dump(ast.parse(after)), rule.id


def test_examples_compute_the_same() -> None:
    """Those that claim to."""
    x, n = torch.randn(3, 5, dtype=torch.float64), 5
    assert torch.allclose(x.cumsum(-1), x @ torch.ones(n, n, dtype=x.dtype).triu())
    b, h, w, c = 2, 3, 2, 4
    x = torch.randn(b, h * 7, w * 7, c)
    one, other = x.view(b, h, 7, w, 7, c).permute(0, 1, 3, 2, 4, 5), x.view(b * h, 7, w, 7 * c).permute(0, 2, 1, 3)
    assert torch.equal(one.reshape(-1), other.reshape(-1))
