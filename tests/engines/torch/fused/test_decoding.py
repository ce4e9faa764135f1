"""A decoder's functions as a GPU has them, beside the same functions run operation by operation.

Covers tlkit/engines/torch/fused/decoding.py, tlkit/engines/torch/fused/steps.py,
tlkit/engines/torch/fused/triton_steps.py.
On the CPU what runs is PyTorch's own words for the kernels; on CUDA the kernels.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.formats.gguf.model.folders import build
from tests.mil.programs import call, constant, function, tensor
from tlkit.core.language.answer import answer
from tlkit.core.language.model import LanguageModel, open_language
from tlkit.engines.torch.engine import TorchEngine
from tlkit.engines.torch.fused import steps
from tlkit.engines.torch.fused.decoding import narrowed, product, put_, resident
from tlkit.engines.torch.fused.steps import fuse_steps
from tlkit.frontends.gguf.decoder import Form
from tlkit.mil import ops
from tlkit.mil.program import Operation, Ref, StateType, Value
from tlkit.types import Unit

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
# Of two layers: norms around both parts and at the end, q and k turned, gates, and what is added to what went in.
LLAMA = {"rms_norm": 5, "rotate": 4, "attend": 2, "gated": 2}


def halved(model_folder: Path, dtype: torch.dtype) -> None:
    """Round a folder's weights to what ``dtype`` holds."""
    from safetensors.torch import load_file, save_file

    file = model_folder / "model.safetensors"
    save_file({name: value.to(dtype) for name, value in load_file(file).items()}, file, {"format": "pt"})


def stepped(model: LanguageModel, device: str) -> tuple[list[Any], list[Any], Counter[str], set[torch.dtype]]:
    """Feed a chunk of 8 tokens and 4 more, plainly and as on a device; the logits and caches of both, and what was
    put together in the step."""
    forms = [Form(8, 64, 64), Form(1, 64, 64)]
    found: list[list[Any]] = []
    names: Counter[str] = Counter()
    kinds: set[torch.dtype] = set()
    for there in (False, True):
        constants: dict[Any, torch.Tensor] = {}
        engines = []
        for form in forms:
            engine = TorchEngine(model.function(form), precision="f32", constants=constants)
            if there:
                resident(engine.module, engine.function, torch.device(device), constants)
                fuse_steps(engine.module)
                assert not [node for node in engine.module.graph.nodes if node.target is ops.host]
            engines.append(engine)
        state = engines[0].make_state()
        seen: list[Any] = []
        turns = [(0, list(range(3, 11)))] + [(place, [place + 5]) for place in range(8, 12)]
        place_of = torch.device(device if there else "cpu")
        state.tensors = {name: value.to(place_of) for name, value in state.tensors.items()}
        for position, tokens in turns:
            engine = engines[len(tokens) == 1]
            given = {"tokens": np.array([tokens], np.int32), "position": np.array([position], np.int32)}
            given |= {"last": np.array([len(tokens) - 1], np.int32)} if len(tokens) > 1 else {}
            operands = [operand.to(place_of) for operand in engine.operands(given, state)]
            with torch.inference_mode():
                seen.append(engine.module(*operands)[0].cpu().numpy())
        seen += [value.cpu().numpy() for value in state.tensors.values()]
        found.append(seen)
        if there:
            names.update(getattr(node.target, "__name__", "") for node in engines[1].module.graph.nodes)
            kinds = {value.dtype for value in constants.values() if value.ndim == 2 and value.numel() >= 1 << 10}
            assert {id(value) for value in engines[0].module.buffers()} & set(map(id, constants.values()))
    return found[0], found[1], names, kinds


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("case", "dtype", "fused"),
    [
        ("llama31", torch.bfloat16, LLAMA),
        ("qwen3", torch.float16, {**LLAMA, "rms_norm": 9}),
        pytest.param("qwen2", torch.bfloat16, LLAMA, marks=pytest.mark.slow),
        pytest.param("gemma2", torch.bfloat16, {"rms_norm": 29, "rotate": 14}, marks=pytest.mark.slow),
        pytest.param("phi3", torch.float16, LLAMA, marks=pytest.mark.slow),
        pytest.param("gpt2", torch.float16, {"attend": 2}, marks=pytest.mark.slow),
    ],
)
def test_a_step_on_a_device_is_the_step(
    tmp_path: Path, device: str, case: str, dtype: torch.dtype, fused: dict[str, int]
) -> None:
    folder = build(tmp_path / "folder", case)
    halved(folder, dtype)
    wanted, found, names, kinds = stepped(open_language(folder), device)
    assert {name: names[name] for name in LLAMA} == dict.fromkeys(LLAMA, 0) | fused
    assert names["product"] >= 9
    assert dtype in kinds  # few values of bf16 may fit into f16, too
    assert kinds <= {torch.float16, torch.bfloat16}
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())


def test_weights_are_narrowed_where_that_loses_nothing() -> None:
    whole = torch.randn(128, 256)
    assert narrowed(whole.half().float()).dtype is torch.float16
    wide = whole.bfloat16().float() * 2.0**40
    assert narrowed(wide).dtype is torch.bfloat16
    assert torch.equal(narrowed(wide).float(), wide)
    for kept in (whole, whole.half(), whole[:2].half().float(), torch.cat([whole[:1].half().float(), whole[1:]])):
        assert narrowed(kept) is kept


def updating(begin: Any, update: tuple[int, ...], **masks: Any) -> Any:
    """A function that writes x into a state of [1, 2, 10, 4] at ``begin``, and returns what the state is then."""
    whole, part, four = tensor("fp32", 1, 2, 10, 4), tensor("fp32", *update), tensor("int32", 4)
    operations = [
        constant("zeros", np.zeros(2, np.int32), "int32"),
        constant("zero", np.zeros(1, np.int32), "int32"),
        constant("length", np.array([0, 0, update[2], 0], np.int32), "int32"),
        constant("axis", np.int32(0), "int32"),
        constant("no", np.bool_(False), "bool"),
        Operation(
            "concat",
            {
                "values": (Ref("zeros"), Ref("at"), Ref("zero")),
                "axis": (Ref("axis"),),
                "interleave": (Ref("no"),),
            },
            call("add", "begin", four, x="zeros", y="zeros").outputs,
        ),
        call("add", "end", four, x="begin", y="length"),
        call("read_state", "before", whole, input="s"),
        call("slice_update", "after", whole, x="before", update="x", begin="begin", end="end", **masks),
        Operation("write_state", {"input": (Ref("s"),), "data": (Ref("after"),)}, ()),
        call("read_state", "made", whole, input="s"),
    ]
    inputs = {"x": part, "at": tensor("int32", 1), "s": StateType(whole)}
    return function(inputs, operations, ["made"], "CoreML8"), {"x": begin, "at": np.array([3], np.int32)}


def flags(*values: bool) -> Value:
    return Value(tensor("bool", 4), values)


@pytest.mark.parametrize(
    ("masks", "replaced"),
    [
        ({"begin_mask": flags(True, True, False, True), "end_mask": flags(True, True, False, True)}, True),
        ({"begin_mask": flags(True, True, False, True), "end_mask": flags(True, True, True, True)}, False),
        ({"begin_mask": flags(True, True, True, True), "end_mask": flags(True, True, False, True)}, False),
    ],
)
def test_slices_are_written_where_a_tensor_says(masks: dict[str, Any], replaced: bool) -> None:
    rows = 3 if replaced or not masks["begin_mask"].data[2] else 6
    rows = 7 if masks["end_mask"].data[2] else rows
    x = np.arange(2 * rows * 4, dtype=np.float32).reshape(1, 2, rows, 4) + 1
    program, arrays = updating(x, x.shape, **masks)
    if masks["begin_mask"].data[2]:
        arrays["at"] = np.array([0], np.int32)
    plain, moved = (TorchEngine(program, precision="f32") for _ in range(2))
    resident(moved.module, program, torch.device("cpu"), {})
    puts = [node for node in moved.module.graph.nodes if node.target is put_]
    assert bool(puts) == replaced
    wanted = plain.run(arrays)["made"]
    with torch.inference_mode():
        np.testing.assert_array_equal(moved.module(*moved.operands(arrays))[0].numpy(), wanted)
    assert wanted.any()


@on_cuda
@pytest.mark.parametrize("span", [1, 63, 64, 100, 300, 4096])
def test_attention_of_one_token(span: int) -> None:
    torch.manual_seed(span)
    queries = torch.randn(1, 3, 4, 72, device="cuda")
    keys, values = (torch.randn(1, 3, 5000, size, device="cuda")[:, :, :span] for size in (72, 40))
    hidden = torch.where(torch.rand(1, 1, 4, span, device="cuda") < 0.3, -1e30, 0.0)
    hidden[..., 0] = 0
    wanted = torch.softmax(queries.double() @ keys.double().mT + hidden, -1) @ values.double()
    found = steps.attend(queries, keys, values, hidden)
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5


@on_cuda
@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 2048, 2048), (8, 513, 1111), (3, 1, 40)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_products_sum_in_f32(count: int, rows: int, columns: int, dtype: torch.dtype) -> None:
    x, weight = torch.randn(count, columns, device="cuda"), torch.randn(rows, columns, device="cuda").to(dtype)
    bias, residual = torch.randn(rows, device="cuda"), torch.randn(count, rows, device="cuda")
    wanted = x.double() @ weight.double().T + bias + residual
    found = product(x, weight, bias, residual)
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 2e-6


@on_cuda
def test_rotations_norms_gates_and_rows() -> None:
    x = torch.randn(1, 7, 6, 40, device="cuda").transpose(1, 2)
    tables = torch.randn(2, 1, 1, 7, 40, device="cuda")
    first, second = x.chunk(2, 3)
    wanted = x * tables[0] + torch.cat([-second, first], 3) * tables[1]
    torch.testing.assert_close(steps.rotate(x, *tables), wanted, rtol=1e-5, atol=1e-5)
    rows, weight = torch.randn(3, 2000, device="cuda"), torch.randn(2000, device="cuda")
    wanted = torch.nn.functional.rms_norm(rows.double(), (2000,), weight.double(), 1e-5).float()
    torch.testing.assert_close(steps.rms_norm(rows, weight, 1e-5), wanted, rtol=1e-5, atol=1e-5)
    wanted = torch.nn.functional.silu(rows) * rows[:, :1]
    torch.testing.assert_close(steps.gated(rows, rows[:, :1].expand_as(rows)), wanted, rtol=1e-5, atol=1e-5)
    cache, new = torch.randn(1, 8, 300, 64, device="cuda"), torch.randn(1, 5, 8, 64, device="cuda").transpose(1, 2)
    wanted = cache.clone()
    wanted[:, :, 37:42] = new
    put_(cache, new, torch.tensor([0, 0, 37, 0], device="cuda"), 2)
    assert torch.equal(cache, wanted)


@on_cuda
@pytest.mark.parametrize("case", ["llama31", "qwen3", "gemma3", "phi3", "gpt2"])
def test_a_gpu_says_what_the_cpu_says(tmp_path: Path, case: str) -> None:
    folder = build(tmp_path / "folder", case)
    halved(folder, torch.bfloat16)
    said = [
        answer(folder, "The quick brown fox", most=64, context=100, engine="torch", unit=unit)
        for unit in (Unit.CPU, Unit.GPU)
    ]
    assert said[0].tokens == said[1].tokens
    assert "on " in said[1].engine
