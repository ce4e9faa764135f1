"""What a name means in a program: operation, value, type with a number, or the module that weights' names tell."""

from __future__ import annotations

import pytest

from tests.mil.programs import call, function, tensor
from tlkit.mil.program import Function, NamedType, Operation, Value
from tlkit.mil.survey.names import find, matching, modules, modules_before, nearest, running
from tlkit.mil.types import DType, TensorType

KIND = tensor("fp16", 1, 8)
WEIGHT = tensor("fp16", 8, 8)


def _weight(name: str) -> Operation:
    return Operation("const", {}, (NamedType(name, WEIGHT),), {"val": Value(WEIGHT, bytes(128))})


@pytest.fixture
def net() -> Function:
    recorded = {"module": Value(TensorType(DType.STRING, ()), ("head.out",))}
    last = call("softmax", "var_9", KIND, x="b")
    return function(
        {"x": KIND},
        [
            _weight("inner_layers_0_fc_weight_to_fp16"),
            _weight("layers_10_attn_q_proj_weight_palettized"),
            call("linear", "a", KIND, x="x", weight="inner_layers_0_fc_weight_to_fp16"),
            call("relu", "r", KIND, x="a"),
            call("linear", "b", KIND, x="r", weight="layers_10_attn_q_proj_weight_palettized"),
            Operation(last.type, last.inputs, last.outputs, recorded),
        ],
        ["var_9"],
    )


def test_modules_are_told_by_weights_and_by_what_is_recorded(net: Function) -> None:
    assert modules(running(net)) == ["layers.0.fc", "", "layers.10.attn_q_proj", "head.out"]


def test_an_operations_own_result_names_no_module() -> None:
    """``reduce_mean_0`` looks like the mean of a module ``reduce``."""
    mean, bias = call("reduce_mean", "reduce_mean_0", KIND, x="x"), call("add", "add_bias", KIND, x="reduce_mean_0")
    assert modules([mean, bias, call("relu", "r", KIND, x="add_bias")]) == ["", "", ""]
    assert modules([call("add", "s", KIND, x="x", y="norm_1_running_mean")]) == ["norm.1"]


def test_modules_before_follow_values_and_not_the_order(net: Function) -> None:
    """Of two branches the one that is read counts; what joins them comes from the one that ran last."""
    more = [call("relu", "s", KIND, x="a"), call("add", "t", KIND, x="s", y="r"), call("add", "u", KIND, x="s", y="b")]
    lone = call("relu", "v", KIND, x="x")
    operations = [*running(net)[:-1], *more, lone]
    found = dict(zip("arbstuv", modules_before(operations, modules(operations)), strict=True))
    first, second = "layers.0.fc", "layers.10.attn_q_proj"
    assert found == {"a": first, "r": first, "b": second, "s": first, "t": first, "u": second, "v": ""}


@pytest.mark.parametrize(("other", "module"), [("p_head_fc_weight", "enc.0"), ("head_fc_weight", "p_enc.0")])
def test_the_exporters_prefix_is_no_part_of_a_module(other: str, module: str) -> None:
    """``torch.export`` begins every parameter's name with ``p_``; a module may be named so as well."""
    operations = [
        call("linear", "a", KIND, x="x", weight="p_enc_0_weight"),
        call("linear", "b", KIND, x="a", weight=other),
    ]
    assert modules(operations)[0] == module
    assert modules([call("conv", "net/block1/conv/Conv2D", KIND, x="x")]) == ["net.block1.conv"]


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("a", ["a"]),
        ("linear", ["a", "b"]),
        ("linear_0", ["a"]),
        ("linear_1", ["b"]),
        ("linear_2", []),
        ("softmax_0", ["var_9"]),
        ("layers.0", ["a"]),
        ("layers.1", []),
        ("layers.10.attn.q_proj", ["b"]),
        ("layers", ["a", "b"]),
        ("head", ["var_9"]),
        ("HEAD.out", ["var_9"]),
        ("layers.0.fc.weight", []),
        ("inner_layers_0_fc_weight_to_fp16", []),
        ("", []),
    ],
)
def test_a_name_means(net: Function, name: str, outputs: list[str]) -> None:
    assert [op.outputs[0].name for op in find(net, name)] == outputs


@pytest.mark.parametrize(
    ("pattern", "outputs"), [("lin*", ["a", "b"]), ("layers.*", ["a", "b"]), ("?", ["a", "r", "b"]), ("relu_0", ["r"])]
)
def test_a_pattern_matches(net: Function, pattern: str, outputs: list[str]) -> None:
    assert [op.outputs[0].name for op in matching(net, pattern)] == outputs


@pytest.mark.parametrize(
    ("name", "first"), [("sofmax", "softmax"), ("layers.0.fx", "layers.0.fc"), ("attn", "layers.10.attn_q_proj")]
)
def test_the_nearest_names_mean_something(net: Function, name: str, first: str) -> None:
    near = nearest(net, name)
    assert near[0] == first and len(near) <= 3
    assert all(find(net, text) for text in near)


def test_numbers_beside_each_other_are_modules_each() -> None:
    op = call("linear", "z", KIND, x="x", weight="stages_1_2_fc_weight")
    assert modules([op]) == ["stages.1.2.fc"]


def test_nothing_is_near_nonsense(net: Function) -> None:
    assert nearest(net, "qqqqqqq") == ()
