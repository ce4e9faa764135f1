"""What models cost, against counts by hand; of real networks against those that their papers and authors give.

Covers tlkit/core/inspect/totals.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlkit
from tests.formats import packages
from tests.mil.programs import call, constant, function, tensor
from tests.real_models import MODELS, needs_models
from tlkit.core.inspect.costs import by_module, function_costs
from tlkit.errors import UsageError
from tlkit.mil.program import Function


def _net() -> Function:
    flat = tensor("fp16", 1, 16, 32)
    heads = tensor("fp16", 1, 16, 16)
    return function(
        {"x": flat},
        [
            constant("blocks_0_fc_weight_to_fp16", np.ones((64, 32)), "fp16"),
            constant("blocks_1_fc_weight_to_fp16", np.ones((32, 64)), "fp16"),
            call("linear", "a", tensor("fp16", 1, 16, 64), x="x", weight="blocks_0_fc_weight_to_fp16"),
            call("linear", "b", flat, x="a", weight="blocks_1_fc_weight_to_fp16"),
            call("relu", "r", flat, x="b"),
            call("matmul", "s", heads, x="r", y="r"),
        ],
        ["s"],
    )


def test_operations_are_counted_by_hand() -> None:
    costs = function_costs(_net())
    assert [(op.type, op.macs, op.weights, op.weight_bytes) for op in costs.per_op] == [
        ("linear", 16 * 64 * 32, 2048, 4096),
        ("linear", 16 * 64 * 32, 2048, 4096),
        ("relu", 0, 0, 0),
        ("matmul", 16 * 16 * 32, 0, 0),
    ]
    assert costs.macs == 2 * 32768 + 8192 and costs.flops == 2 * costs.macs
    first = costs.per_op[0]
    assert [(port.name, port.dtype, port.shape) for port in first.inputs] == [("x", "float16", (1, 16, 32))]
    assert costs.activations is not None and costs.activations.peak_bytes == 1024 + 2048 + 1024


def test_operations_are_chosen_by_name_type_number_and_module() -> None:
    costs = function_costs(_net())

    def chosen(*patterns: str) -> list[str]:
        return [op.name for op in costs.matching(patterns)]

    assert chosen() == ["a", "b", "r", "s"]
    assert chosen("lin*") == chosen("blocks") == chosen("blocks.*") == ["a", "b"]
    assert chosen("linear_1", "matmul") == ["b", "s"] and chosen("blocks.0") == ["a"]
    assert chosen("nothing") == [] and "linear" in costs.nearest("linea")


def test_modules_add_up_their_operations() -> None:
    costs = function_costs(_net())
    assert [(row.module, row.operations, row.macs) for row in by_module(costs.per_op, 2)] == [
        ("blocks.0", 1, 32768),
        ("blocks.1", 1, 32768),
        ("", 2, 8192),
    ]
    assert [(row.module, row.weights) for row in by_module(costs.per_op, 1)] == [("blocks", 4096), ("", 0)]
    assert sum(row.macs for row in by_module(costs.per_op, 1)) == costs.macs


def test_a_package_has_its_default_function_s_costs(tmp_path: Path) -> None:
    path = packages.classifier(tmp_path / "net.mlpackage")
    costs = tlkit.inspect(path).costs
    assert costs is not None and [op.macs for op in costs.per_op if op.type == "linear"] == [12]
    assert [op.type for op in costs.per_op] == [row["type"] for row in tlkit.inspect(path).program]


def test_the_summary_s_figures_are_those_of_the_operations(tmp_path: Path) -> None:
    found = tlkit.inspect(packages.classifier(tmp_path / "net.mlpackage"))
    costs, totals = found.costs, found.totals
    assert costs is not None and costs.activations is not None and totals is not None
    assert totals == (costs.macs, costs.activations.peak_bytes, costs.open) and totals.macs == 12


def test_weights_have_no_costs(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(3))
    assert tlkit.inspect(tmp_path / "x.npy").costs is None


@needs_models
@pytest.mark.parametrize("name", ["waifu2x_anime_noise0_model", "identity_model_varvara"])
def test_a_compiled_network_costs_what_its_source_does(name: str) -> None:
    source = tlkit.inspect(MODELS / f"mlmodel/{name}.mlmodel").costs
    compiled = tlkit.inspect(MODELS / f"mlmodelc/{name}.mlmodelc").costs
    assert source is not None and compiled is not None and source.macs == compiled.macs > 1_000_000


@needs_models
@pytest.mark.parametrize("name", ["carn", "my_network_vincentg"])
def test_a_network_and_its_onnx_twin_cost_the_same(name: str) -> None:
    network = tlkit.inspect(MODELS / f"mlmodel/{name}.mlmodel").costs
    twin = tlkit.inspect(MODELS / f"oracle/{name}.onnx").costs
    assert network is not None and twin is not None and network.macs == twin.macs > 0
    assert network.activations is not None and twin.activations is not None
    assert network.activations.peak_bytes == twin.activations.peak_bytes


@needs_models
def test_a_network_that_cannot_be_made_says_why() -> None:
    costs = tlkit.inspect(MODELS / "mlmodel/lstsq_custom_layer.mlmodel").costs
    assert costs is not None and not costs.per_op and any("custom layer" in note for note in costs.notes)


def bert_base() -> tuple[Any, list[str]]:
    import torch
    from transformers import BertConfig, BertModel

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = BertModel(BertConfig(), add_pooling_layer=False)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.bert(input_ids=ids).last_hidden_state

    return Encoder().eval(), ["ids=1x128:i32"]


def _network(name: str) -> tuple[Any, list[str]]:
    from fixtures.networks import NETWORKS

    if name == "bert_base":
        return bert_base()
    return NETWORKS[name]()[0], ["image=1x3x224x224"]


# A layer of BERT, for 128 tokens: four projections, two products with the scores, two layers of 4 times the width.
_BERT = 12 * (4 * 128 * 768 * 768 + 2 * 128 * 128 * 768 + 2 * 128 * 768 * 3072)
# ViT-B/16: 197 tokens, the patches by a convolution, and the classes of one token.
_VIT = 12 * (4 * 197 * 768 * 768 + 2 * 197 * 197 * 768 + 2 * 197 * 768 * 3072) + 196 * 768 * 768 + 768 * 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "macs"), [("resnet50", 4.09e9), ("mobilenet_v2", 0.3008e9), ("vit_b16", _VIT), ("bert_base", _BERT)]
)
def test_networks_cost_what_is_known_of_them(name: str, macs: float, tmp_path: Path) -> None:
    from tlkit.core.convert.convert import convert

    module, inputs = _network(name)
    path = convert(module, tmp_path / "net.mlpackage", inputs=inputs, verify=False).path
    costs = tlkit.inspect(path).costs
    assert costs is not None and costs.macs == pytest.approx(macs, rel=2e-3)


def test_patterns_need_the_flag(tmp_path: Path) -> None:
    from tlkit.cli.inspect import _model_first

    path = str(packages.linear(tmp_path / "net.mlpackage"))
    assert _model_first("conv*", [path], True) == (path, ["conv*"])
    assert _model_first(path, ["conv*"], True) == (path, ["conv*"])
    with pytest.raises(UsageError, match="one model at a time"):
        _model_first(path, ["b.mlpackage"], False)
