"""Mixtures of block types, beside files that llama.cpp made."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import gguf
import numpy as np
import pytest

from tlkit import convert_weights
from tlkit.errors import UsageError
from tlkit.formats.gguf.mixtures import MIXTURES, mixture
from tlkit.formats.gguf.read import GGUFFile
from tlkit.formats.gguf.write import Typed

Shapes = dict[str, tuple[int, ...]]

GEMMA = {
    "attn_q": (1024, 640),
    "attn_k": (256, 640),
    "attn_v": (256, 640),
    "attn_output": (640, 1024),
    "ffn_gate": (2048, 640),
    "ffn_up": (2048, 640),
    "ffn_down": (640, 2048),
}
"""Gemma 3 270M's matrices, of 18 layers."""


BY_LLAMA = {
    "Q4_0": ("d5fc0ae4209d", "b3c95dbbea4c"),
    "Q4_1": ("98d2e5682966", "98d2e5682966"),
    "Q8_0": ("352927dd57bd", "352927dd57bd"),
    "Q5_0": ("af21d390d810", "feee519403ff"),
    "Q5_1": ("449e09528b6a", "449e09528b6a"),
    "Q2_K": ("9be394dee325", "9be394dee325"),
    "Q3_K_S": ("850358b6a8a2", "850358b6a8a2"),
    "Q3_K_M": ("c4d8e58802ec", "c4d8e58802ec"),
    "Q3_K_L": ("f698ac958594", "f698ac958594"),
    "Q4_K_S": ("53c77daab6e8", "53c77daab6e8"),
    "Q4_K_M": ("28105ab73514", "28105ab73514"),
    "Q5_K_S": ("9e3a5201524a", "9e3a5201524a"),
    "Q5_K_M": ("e14ae0c7002e", "e14ae0c7002e"),
    "Q6_K": ("972396adee61", "972396adee61"),
    "IQ2_XXS": ("8af8e5f7e9b9", "e7326f66601f"),
    "IQ2_XS": ("8af8e5f7e9b9", "02af62c5b556"),
    "Q2_K_S": ("a070760e215a", "6032ed9af32b"),
    "IQ3_XS": ("fb69187b849c", "d566e34cfb6a"),
    "IQ3_XXS": ("636e6dd92b51", "5ad89f6ea29c"),
    "IQ1_S": ("8af8e5f7e9b9", "6d90d1303d48"),
    "IQ4_NL": ("ad45fb9bf970", "aa5cf558c75d"),
    "IQ3_S": ("e864f49ba99d", "e864f49ba99d"),
    "IQ3_M": ("64fb5345f7d5", "64fb5345f7d5"),
    "IQ2_S": ("fb69187b849c", "414dd387934e"),
    "IQ2_M": ("fb69187b849c", "dbabbec1ba7b"),
    "IQ4_XS": ("34f5ce3e112e", "19aca759dddf"),
    "IQ1_M": ("8af8e5f7e9b9", "bb3a518c553c"),
    "TQ1_0": ("aba04cbf5207", "aba04cbf5207"),
    "TQ2_0": ("f676ec005421", "f676ec005421"),
    "MXFP4_MOE": ("ee9385d0a0e3", "ee9385d0a0e3"),
}
"""Hashes of the types that ``llama_model_quantize`` of llama-cpp-python 0.3.36 gave the tensors of MODELS, without and
with an importance matrix; F32 stands where it made F16 of rows that are not whole blocks."""


def model(
    layers: int,
    width: int = 256,
    heads: tuple[int, int] = (4, 4),
    *,
    arch: str = "llama",
    tied: bool = False,
    experts: int = 0,
    shared: bool = False,
) -> tuple[Shapes, dict[str, Typed]]:
    """Shapes of a small model's tensors, and its metadata."""
    shapes: Shapes = {"token_embd.weight": (8, width), "output_norm.weight": (width,)}
    shapes |= {} if tied else {"output.weight": (8, width)}
    shapes |= {"position_embd.weight": (8, width)} if arch == "gpt2" else {}
    attention = ("qkv",) if arch == "gpt2" else tuple("qkv")
    for block in (f"blk.{layer}" for layer in range(layers)):
        shapes[f"{block}.attn_norm.weight"] = (width,)
        shapes |= {f"{block}.attn_{part}.weight": (8, width) for part in (*attention, "output")}
        for part in ("up", "down") if arch == "gpt2" else ("gate", "up", "down"):
            shapes[f"{block}.ffn_{part}{'_exps' if experts else ''}.weight"] = (*((experts,) * bool(experts)), 2, width)
            shapes |= {f"{block}.ffn_{part}_shexp.weight": (2, width)} if shared else {}
        shapes |= {f"{block}.ffn_gate_inp.weight": (experts, width)} if experts else {}
    numbers = {"block_count": layers, "attention.head_count": heads[0], "attention.head_count_kv": heads[1]}
    numbers |= {"expert_count": experts} if experts else {}
    metadata = {f"{arch}.{key}": Typed("u32", value) for key, value in numbers.items()}
    return shapes, {"general.architecture": Typed("str", arch), **metadata}


MODELS = {
    "wide": model(32),
    "shared": model(16, heads=(4, 1), tied=True),
    "narrow": model(9, 288),
    "odd": model(2, 240),
    "joined": model(24, arch="gpt2", tied=True),
    "eight": model(16, experts=8),
    "four": model(16, heads=(4, 2), experts=4, tied=True),
    "large": model(80, heads=(8, 4)),
    "moe": model(16, experts=6, arch="qwen2moe", shared=True),
}


def test_every_mixture_has_its_hash() -> None:
    assert set(BY_LLAMA) == set(MIXTURES)


@pytest.mark.parametrize("name", BY_LLAMA)
def test_types_are_those_that_llama_gives(name: str) -> None:
    for weighed, wanted in zip((False, True), BY_LLAMA[name], strict=True):
        said = []
        for called, (shapes, metadata) in MODELS.items():
            made = mixture(name, shapes, metadata, weighed=weighed)
            types = [
                (made.of(tensor, shapes[tensor]) if len(shapes[tensor]) > 1 else None) for tensor in sorted(shapes)
            ]
            pairs = zip(sorted(shapes), types, strict=True)
            refused = not weighed and any(kind and made.needs_importance(tensor, kind) for tensor, kind in pairs)
            said += [called, "refused"] if refused else [called, *(kind or "F32" for kind in types)]
        assert hashlib.sha256(" ".join(said).encode()).hexdigest()[:12] == wanted


def written(path: Path) -> dict[str, np.ndarray]:
    """A file of a language model of one block."""
    draw, writer = np.random.default_rng(7), gguf.GGUFWriter(path, "llama")
    made = {"token_embd.weight": (8, 256), "output.weight": (8, 256), "blk.0.attn_q.weight": (8, 256)}
    tensors = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in made.items()}
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def matrix_of(path: Path, names: list[str]) -> Path:
    writer = gguf.GGUFWriter(path, "imatrix")
    for name in names:
        writer.add_tensor(f"{name}.in_sum2", np.ones((1, 256), np.float32))
        writer.add_tensor(f"{name}.counts", np.ones((1, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def kinds(path: Path) -> dict[str, str]:
    return {entry.name: entry.dtype for entry in GGUFFile(path).entries()}


def test_what_needs_an_importance_matrix_is_refused_with_a_hint_that_helps(tmp_path: Path) -> None:
    written(tmp_path / "m.gguf")
    goal = tmp_path / "q.gguf"
    for name in ("iq2_xxs", "iq3_xxs", "iq2_xs:pure"):
        with pytest.raises(UsageError, match="which needs an importance matrix") as error:
            convert_weights(tmp_path / "m.gguf", goal, quantize=name)
        assert "--imatrix FILE" in error.value.hint
        assert "q2_k or iq3_s" in error.value.hint
        assert not goal.exists()
    other = matrix_of(tmp_path / "other.gguf", ["output.weight"])
    with pytest.raises(UsageError, match=r"it has no weights for 'blk\.0\.attn_q\.weight', which IQ2_XXS needs"):
        convert_weights(tmp_path / "m.gguf", goal, quantize="iq2_xxs", imatrix=other)
    weights = matrix_of(tmp_path / "i.gguf", ["blk.0.attn_q.weight"])
    convert_weights(tmp_path / "m.gguf", goal, quantize="iq2_xxs", imatrix=weights)
    assert kinds(goal) == {"token_embd.weight": "Q2_K", "output.weight": "Q5_K", "blk.0.attn_q.weight": "IQ2_XXS"}
    assert GGUFFile(goal).metadata["general.file_type"] == 19
    for name in ("q2_k", "iq3_s"):
        convert_weights(tmp_path / "m.gguf", goal, quantize=name, force=True)


def test_pure_is_one_type_for_all(tmp_path: Path) -> None:
    written(tmp_path / "m.gguf")
    for name in ("iq3_xxs:pure", "q4_0:pure", "nvfp4"):
        convert_weights(tmp_path / "m.gguf", tmp_path / "q.gguf", quantize=name, force=True)
        assert set(kinds(tmp_path / "q.gguf").values()) == {name.removesuffix(":pure").upper()}
    with pytest.raises(UsageError, match="not a block type") as error:
        convert_weights(tmp_path / "m.gguf", tmp_path / "q.gguf", quantize="q4_k_m:pure", force=True)
    assert "q4_0:pure" in error.value.hint


def test_gemmas_types_are_those_of_its_file() -> None:
    """Of the Q4_K_M file that is published: 81 Q5_0, 27 Q4_K, 10 Q8_0 and 9 Q6_K tensors."""
    shapes = {f"blk.{layer}.{name}.weight": shape for layer in range(18) for name, shape in GEMMA.items()}
    shapes["token_embd.weight"] = (262144, 640)
    made = mixture("Q4_K_M", shapes)
    found = {name: made.of(name, shape) for name, shape in shapes.items()}
    assert Counter(found.values()) == {"Q5_0": 81, "Q4_K": 27, "Q8_0": 10, "Q6_K": 9}
    assert found["token_embd.weight"] == "Q8_0"
    down = [layer for layer in range(18) if found[f"blk.{layer}.ffn_down.weight"] == "Q6_K"]
    assert down == [0, 1, 4, 7, 10, 13, 15, 16, 17]


def test_heads_routers_and_rows() -> None:
    names = ["token_embd.weight", "output.weight", *(f"blk.{n}.ffn_gate_inp.weight" for n in range(8))]
    made = mixture("Q5_K_M", names)
    wide = (512, 512)
    assert (made.of("token_embd.weight", wide), made.of("output.weight", wide)) == ("Q5_K", "Q6_K")
    assert made.of("blk.0.ffn_gate_inp.weight", (8, 512)) is None
    assert [made.of("blk.2.attn_q.weight", (64, n)) for n in (512, 96, 40)] == ["Q5_K", "Q5_1", None]
    assert mixture("Q8_0", names).of("blk.0.attn_v.weight", wide) == "Q8_0"
    assert mixture("Q4_0", names).of("blk.0.attn_v.weight", (8, 40)) is None
