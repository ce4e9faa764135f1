"""Quantized folders: each layout packed here code by code, and read back as the formula of its documentation says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

import tlkit
from tlkit.core.weights.weights import convert_weights
from tlkit.errors import IncompleteError

RNG = np.random.default_rng(0)
Q = "model.layers.0.self_attn.q_proj"


def folder(path: Path, config: dict[str, Any], tensors: dict[str, Any]) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    ready = {
        k: v if isinstance(v, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()
    }
    save_file(ready, path / "model.safetensors")
    return path


def pack(codes: np.ndarray[Any, Any], bits: int, order: tuple[int, ...] | None = None) -> np.ndarray[Any, Any]:
    """Pack along the last axis, one code after another; ``order[i]`` is the column that the i-th code is of."""
    per = 32 // bits
    out = np.zeros((codes.shape[0], codes.shape[1] // per), np.uint64)
    for row in range(codes.shape[0]):
        for column in range(codes.shape[1]):
            word, place = divmod(column, per)
            slot = order.index(place) if order else place
            out[row, word] |= np.uint64(int(codes[row, column]) << (bits * slot))
    return out.astype(np.uint32).view(np.int32)


def check(path: Path, tmp_path: Path, wanted: np.ndarray[Any, Any], said: str) -> None:
    info = tlkit.inspect(path)
    assert info.parameters == wanted.size and said in info.details["quantized"] and not info.left_out
    convert_weights(path, tmp_path / "x.safetensors", names="keep")
    found = load_file(tmp_path / "x.safetensors")
    assert list(found) == [f"{Q}.weight"] and found[f"{Q}.weight"].dtype == np.float32
    np.testing.assert_array_equal(found[f"{Q}.weight"], wanted)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("method", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("ordered", [True, False])
def test_gptq(tmp_path: Path, bits: int, method: str, ordered: bool) -> None:
    inputs, outputs, group = 32, 16, 8
    codes = RNG.integers(0, 1 << bits, (inputs, outputs))
    zeros = RNG.integers(1, 1 << bits, (inputs // group, outputs))
    scales = RNG.uniform(0.01, 0.1, zeros.shape).astype(np.float16)
    groups = np.arange(inputs) // group if ordered else RNG.permutation(np.arange(inputs) // group)
    config = {"quantization_config": {"quant_method": method, "bits": bits, "group_size": group}}
    tensors = {"qweight": pack(codes.T, bits).T, "qzeros": pack(zeros - (method == "gptq"), bits), "scales": scales}
    tensors["g_idx"] = groups.astype(np.int32)
    wanted = np.empty((outputs, inputs), np.float32)
    for i in range(inputs):
        for o in range(outputs):
            wanted[o, i] = np.float32(codes[i, o] - zeros[groups[i], o]) * np.float32(scales[groups[i], o])
    made = folder(tmp_path / "f", config, {f"{Q}.{key}": value for key, value in tensors.items()})
    check(made, tmp_path, wanted, f"{method}, {bits} bits, groups of 8")


def test_awq(tmp_path: Path) -> None:
    inputs, outputs, group = 16, 24, 8
    codes, zeros = RNG.integers(0, 16, (inputs, outputs)), RNG.integers(0, 16, (inputs // group, outputs))
    scales = RNG.uniform(0.01, 0.1, zeros.shape).astype(np.float16)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    config = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": group}}
    tensors = {f"{Q}.qweight": pack(codes, 4, order), f"{Q}.qzeros": pack(zeros, 4, order), f"{Q}.scales": scales}
    wanted = ((codes - zeros.repeat(group, 0)).astype(np.float32) * scales.astype(np.float32).repeat(group, 0)).T
    check(folder(tmp_path / "f", config, tensors), tmp_path, wanted, "awq, 4 bits")


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_mlx(tmp_path: Path, bits: int) -> None:
    codes = RNG.integers(0, 1 << bits, (6, 128))
    scales, biases = (RNG.normal(size=(6, 2)).astype(np.float16) for _ in range(2))
    words = torch.from_numpy(pack(codes, bits)).view(torch.uint32)
    tensors = {f"{Q}.weight": words, f"{Q}.scales": scales, f"{Q}.biases": biases}
    wanted = codes.astype(np.float32) * scales.astype(np.float32).repeat(64, 1) + biases.astype(np.float32).repeat(
        64, 1
    )
    made = folder(tmp_path / "f", {"quantization": {"group_size": 64, "bits": bits}}, tensors)
    check(made, tmp_path, wanted, f"MLX affine, {bits} bits")


@pytest.mark.parametrize("shape", [(3, 2), (300,), (300, 1), (), (1,)])
def test_fp8(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Scales by block of 128 x 128 (the last ones smaller), by row, or one for all."""
    plain = RNG.normal(size=(300, 200)).astype(ml_dtypes.float8_e4m3fn)
    scale = RNG.uniform(0.1, 2, shape).astype(np.float32)
    name = "weight_scale_inv" if len(shape) == 2 and shape[1] == 2 else "weight_scale"
    stored = torch.from_numpy(plain.view(np.uint8)).view(torch.float8_e4m3fn)
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    made = folder(tmp_path / "f", config, {f"{Q}.weight": stored, f"{Q}.{name}": torch.from_numpy(np.asarray(scale))})
    spread = np.empty((300, 200), np.float32)
    for i in range(300):
        for j in range(200):
            by = (i // 128, j // 128) if shape == (3, 2) else (i, 0) if len(shape) == 2 else (i,)
            spread[i, j] = scale[by] if shape not in ((), (1,)) else scale.reshape(-1)[0]
    check(made, tmp_path, plain.astype(np.float32) * spread, "fp8")


@pytest.mark.parametrize(
    ("config", "tensors"),
    [
        (
            {"quant_method": "bitsandbytes"},
            {f"{Q}.weight": np.zeros((32, 1), np.uint8), f"{Q}.weight.absmax": np.ones(4)},
        ),
        ({"quant_method": "bitsandbytes"}, {f"{Q}.weight": np.zeros((4, 4), np.int8), f"{Q}.SCB": np.ones(4)}),
        ({"quant_method": "compressed-tensors"}, {f"{Q}.weight_packed": np.zeros((4, 4), np.int32)}),
        ({"quant_method": "gptq", "bits": 3}, {f"{Q}.qweight": np.zeros((3, 8), np.int32)}),
        ({"quant_method": "fp8"}, {f"{Q}.weight": torch.zeros(4, 4).to(torch.float8_e4m3fn)}),
        ({"quant_method": "new-thing"}, {f"{Q}.codes": np.zeros((4, 4), np.int16)}),
    ],
)
@pytest.mark.parametrize("goal", ["x.safetensors", "x.gguf"])
def test_other_layouts_are_refused_by_name(tmp_path: Path, config: dict[str, Any], tensors: Any, goal: str) -> None:
    made = folder(
        tmp_path / "f", {"quantization_config": config}, {**tensors, "model.norm.weight": np.ones(4, np.float32)}
    )
    assert config["quant_method"] in tlkit.inspect(made).details["quantized"]
    with pytest.raises(IncompleteError, match=f"packed by {config['quant_method']}"):
        convert_weights(made, tmp_path / goal)
    assert not (tmp_path / goal).exists()


def test_the_words_of_a_folder_that_is_not_quantized(tmp_path: Path) -> None:
    made = folder(tmp_path / "f", {}, {"ids": np.zeros((2, 2), np.int32)})
    assert "quantized" not in tlkit.inspect(made).details and not tlkit.inspect(made).left_out


PACKED = json.loads(Path(__file__).with_name("packed.json").read_text())
"""What ``mlx``, ``auto-gptq`` and ``autoawq`` packed: make_packed.py beside this file."""


def stored(made: Any) -> dict[str, Any]:
    """Return the tensors of a case of packed.json, by name."""
    return {f"{Q}.{key}": np.array(flat, kind).reshape(shape) for key, (kind, shape, flat) in made["tensors"].items()}


@pytest.mark.parametrize("case", PACKED)
def test_what_the_libraries_packed(case: str, tmp_path: Path) -> None:
    made = PACKED[case]
    tensors = stored(made)
    check(
        folder(tmp_path / "f", made["config"], tensors), tmp_path, np.array(made["values"], np.float32), case.split()[1]
    )


def test_layers_of_other_bits_in_an_mlx_folder(tmp_path: Path) -> None:
    made = PACKED["mlx 6"]
    config = {"quantization": {"group_size": 64, "bits": 4, Q: made["config"]["quantization"], "lm_head": False}}
    tensors = stored(made)
    check(folder(tmp_path / "f", config, tensors), tmp_path, np.array(made["values"], np.float32), "MLX affine")


@pytest.mark.parametrize(
    ("case", "entry", "said"),
    [("gptq 4", {"checkpoint_format": "marlin"}, "gptq marlin"), ("awq 4", {"version": "gemv"}, "awq gemv")],
)
def test_other_packings_of_a_method_are_not_guessed(case: str, entry: Any, said: str, tmp_path: Path) -> None:
    made = PACKED[case]
    config = {"quantization_config": {**made["config"]["quantization_config"], **entry}}
    tensors = stored(made)
    with pytest.raises(IncompleteError, match=said):
        convert_weights(folder(tmp_path / "f", config, tensors), tmp_path / "x.safetensors")
