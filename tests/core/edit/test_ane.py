"""``edit --ane``: rewrites that help are made and checked, others are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.core.edit.test_edit import coremltools_program, ops
from tests.formats import packages
from tlkit.core.convert.convert import convert
from tlkit.core.edit.ane import Judged, for_ane, helps, judged
from tlkit.core.edit.edit import edit
from tlkit.core.inspect.placement import offered
from tlkit.core.model.load import load_model
from tlkit.errors import UsageError
from tlkit.formats.coreml.open import open_package
from tlkit.mil.text.api import parse_program


def weights() -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return [(rng.standard_normal(size) / 16).astype(np.float16) for size in ((1024, 256), (256, 1024))]


def feedforward(path: Path, rows: int) -> Path:
    """Two linear layers on ``rows`` rows, 256 -> 1024 -> 256, with a gelu between them."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    first, second = weights()

    @mb.program(input_specs=[mb.TensorSpec((1, rows, 256), types.fp16)], opset_version=ct.target.iOS17)  # type: ignore[untyped-decorator]
    def program(x: Any) -> Any:
        return mb.linear(x=mb.gelu(x=mb.linear(x=x, weight=first), mode="EXACT"), weight=second, name="y")

    how: dict[str, Any] = {"convert_to": "mlprogram", "minimum_deployment_target": ct.target.iOS17}
    ct.convert(program, **how, compute_precision=ct.precision.FLOAT16, skip_model_load=True).save(str(path))
    return path


def test_layers_become_convolutions_where_that_is_predicted_to_be_faster(tmp_path: Path) -> None:
    net = feedforward(tmp_path / "net.mlpackage", rows=512)
    result = edit(net, tmp_path / "ane.mlpackage", ane=True)
    assert result.ok and result.check is not None and result.check.passed
    made = [item for item in result.rewrites if item.made]
    assert [item.change for item in made] == ["2 linear layers as 1x1 convolutions on [B, C, 1, S]"]
    assert made[0].after.milliseconds < made[0].before.milliseconds
    offer = offered(open_package(net))
    assert offer is not None and (offer.before, offer.after) == (made[0].before, made[0].after)
    assert offered(open_package(result.path)) is None
    assert [kind for kind in ops(result.path) if kind in ("conv", "linear", "gelu")] == ["conv", "gelu", "conv"]
    coremltools_program(result.path)  # which infers every type again
    x = np.random.default_rng(1).standard_normal((1, 512, 256)).astype(np.float32)
    first, second = (torch.from_numpy(weight).float() for weight in weights())
    right = F.gelu(torch.from_numpy(x) @ first.T) @ second.T
    np.testing.assert_allclose(load_model(result.path).predict({"x": x})["y"], right, rtol=5e-3, atol=2e-2)


def test_a_rewrite_that_does_not_help_is_not_made(tmp_path: Path) -> None:
    net = feedforward(tmp_path / "net.mlpackage", rows=4)
    result = edit(net, tmp_path / "ane.mlpackage", ane=True)
    (tried,) = [item for item in result.rewrites if "linear layers" in item.change]
    assert not tried.made and tried.after.milliseconds > tried.before.milliseconds
    assert ops(result.path) == ops(net) == ["linear", "gelu", "linear"]
    assert result.ok


def test_what_the_chip_cannot_take_is_not_rewritten_for_it() -> None:
    text = """program(1.3) { func main<ios17>(tensor<int32, [1, 512]> ids) {
    tensor<fp16, [30000, 64]> table = const()[val = tensor<fp16, [30000, 64]>(0x1p+0)];
    int32 axis = const()[val = int32(0)]; int32 batch = const()[val = int32(0)];
    tensor<fp16, [1, 512, 64]> y = gather(x = table, indices = ids, axis = axis, batch_dims = batch); } -> (y); }"""
    program = parse_program(text, lambda name: None)
    for chip in ("m1", "m4"):
        _, tried = for_ane(program, chip)
        assert [item.made for item in tried if "gather_along_axis" in item.change] == [False]


def test_no_function_is_predicted_to_be_slower() -> None:
    body = """tensor<fp16, [1, 3, 64, 64]> h = cast(x = x, dtype = string("fp16"));
    tensor<fp16, [512, 3, 16, 16]> w = const()[val = tensor<fp16, [512, 3, 16, 16]>(0x1p-8)];
    tensor<int32, [2]> s = const()[val = tensor<int32, [2]>([16, 16])];
    tensor<fp16, [1, 512, 4, 4]> y = conv(x = h, weight = w, strides = s);"""
    text = f"program(1.3) {{ func main<ios17>(tensor<fp32, [1, 3, 64, 64]> x) {{ {body} }} -> (y); }}"
    program = parse_program(text, lambda name: None)
    made, tried = for_ane(program)
    assert judged(made.function()).milliseconds <= judged(program.function()).milliseconds
    assert tried


def test_the_chip_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    net = packages.linear(tmp_path / "net.mlpackage")
    with pytest.raises(UsageError, match="unknown chip 'm99'"):
        edit(tmp_path / "none.mlpackage", tmp_path / "b.mlpackage", ane=True, chip="m99")
    with pytest.raises(UsageError, match="--chip goes with --ane"):
        edit(net, tmp_path / "b.mlpackage", version="1", chip="m1")
    assert edit(net, tmp_path / "b.mlpackage", ane=True).ok
    with pytest.raises(UsageError) as caught:
        convert(net, tmp_path / "c.mlpackage", ane=True)
    assert caught.value.hint == f"tlkit edit {net} --ane -o {tmp_path / 'c.mlpackage'}"


def vit() -> torch.nn.Module:
    from transformers import ViTConfig, ViTModel

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = ViTModel(ViTConfig(num_hidden_layers=2), add_pooling_layer=False).eval()

        def forward(self, x: torch.Tensor) -> Any:
            return self.inner(x).last_hidden_state

    return Net()


def bert() -> torch.nn.Module:
    from transformers import BertConfig, BertModel

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = BertModel(BertConfig(num_hidden_layers=5), add_pooling_layer=False).eval()

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> Any:
            return self.inner(input_ids=ids, attention_mask=mask).last_hidden_state

    return Net()


def gpt2() -> torch.nn.Module:
    from transformers import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2Block

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = GPT2Block(GPT2Config(), layer_idx=0).eval()

        def forward(self, x: torch.Tensor) -> Any:
            made = self.inner(x)
            return made[0] if isinstance(made, tuple) else made

    return Net()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "inputs"),
    [(vit, ["x=1x3x224x224"]), (bert, ["ids=1x128:i32", "mask=1x128:i32"]), (gpt2, ["x=1x128x768"])],
)
def test_transformers_are_converted_to_run_on_the_neural_engine(
    make: Callable[[], torch.nn.Module], inputs: list[str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    result = convert(make(), tmp_path / "net.mlpackage", inputs=inputs, ane=True)
    assert result.ok and result.verification is not None and result.verification.passed
    made = [item for item in result.rewrites if item.made]
    program = open_package(tmp_path / "net.mlpackage").program
    assert program is not None and made
    after = judged(program.function())
    assert after.share >= 0.99
    assert after.milliseconds <= made[0].before.milliseconds


def test_what_is_faster_on_the_cpu_is_not_made_where_it_leaves_the_neural_engine() -> None:
    before = Judged(cost=300.0, share=1.0, elsewhere=0.0, milliseconds=0.30, operations=9, on_ane=9)
    moved = Judged(cost=90.0, share=0.0, elsewhere=90.0, milliseconds=0.20, operations=9, on_ane=0)
    quicker = Judged(cost=200.0, share=0.99, elsewhere=2.0, milliseconds=0.20, operations=9, on_ane=8)
    slower = Judged(cost=100.0, share=1.0, elsewhere=0.0, milliseconds=0.31, operations=9, on_ane=9)
    assert [helps(before, before, after) for after in (moved, quicker, slower, before)] == [False, True, False, False]
