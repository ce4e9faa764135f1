"""Mixtures of block types, beside files that llama.cpp made."""

from __future__ import annotations

from collections import Counter

from tlkit.formats.gguf.mixtures import mixture

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


def test_three_bits() -> None:
    """As llama.cpp's llama-quant.cpp has it: values of the first two layers and some down projections get more."""
    names = ["output.weight", *(f"blk.{n}.attn_v.weight" for n in range(32))]
    wide = (512, 512)
    middle, large, small = (mixture(f"Q3_K_{size}", names) for size in "MLS")
    wanted = {"attn_v": ["Q5_K", "Q5_K", "Q4_K"], "ffn_down": ["Q5_K", "Q5_K", "Q4_K"], "attn_output": ["Q4_K"] * 3}
    wanted |= {"attn_q": ["Q3_K"] * 3, "ffn_up": ["Q3_K"] * 3}
    for short, types in wanted.items():
        assert [middle.of(f"blk.{n}.{short}.weight", wide) for n in range(3)] == types
        dear = short in ("attn_v", "ffn_down", "attn_output")
        assert large.of(f"blk.5.{short}.weight", wide) == ("Q5_K" if dear else "Q3_K")
        assert small.of(f"blk.0.{short}.weight", wide) == "Q3_K"
    assert middle.of("output.weight", wide) == "Q6_K"
    assert [mixture("IQ4_XS", names).of("blk.0.attn_q.weight", (8, n)) for n in (256, 96, 40)] == [
        "IQ4_XS",
        "IQ4_NL",
        None,
    ]
    assert mixture("Q2_K", names).of("blk.0.attn_q.weight", (8, 96)) == "Q4_0"
