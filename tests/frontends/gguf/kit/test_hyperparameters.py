"""Hyperparameters: defaults, and what is refused.

Covers tlkit/frontends/gguf/families/__init__.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlkit.errors import LoadError
from tlkit.frontends.gguf.families import FAMILIES, family_of
from tlkit.frontends.gguf.kit.hyperparameters import read_hyperparameters

LLAMA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.context_length": 128,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}


def test_what_is_not_said_has_llama_cpp_s_defaults() -> None:
    sizes = read_hyperparameters(LLAMA)
    assert (sizes.groups, sizes.key_size, sizes.value_size, sizes.rotary, sizes.base) == (4, 16, 16, 16, 10000.0)
    assert (sizes.window, sizes.experts, sizes.attention_cap, sizes.final_cap) == (0, 0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("block_count", 0, "block_count is 0"),
        ("block_count", 1 << 31, "block_count is 2147483648"),
        ("embedding_length", "64", "embedding_length is 64"),
        ("attention.head_count", [4, 2], "differs from layer to layer"),
        ("attention.head_count_kv", 3, "do not share"),
        ("attention.layer_norm_rms_epsilon", float("nan"), "layer_norm_rms_epsilon is nan"),
        ("rope.freq_base", -1.0, "freq_base"),
        ("rope.dimension_count", 7, "odd"),
        ("rope.scaling.type", "spiral", "spiral"),
        ("context_length", None, "context_length is not there"),
        ("expert_count", 1 << 20, "expert_count"),
        ("vocab_size", 1 << 40, "vocab_size is 1099511627776"),
        ("feed_forward_length", 1 << 31, "feed_forward_length is 2147483648"),
        ("feed_forward_length", 0, "feed_forward_length is 0"),
    ],
)
def test_what_no_model_has_is_refused(key: str, value: Any, said: str) -> None:
    with pytest.raises(LoadError, match=said):
        read_hyperparameters({**LLAMA, f"llama.{key}": value})


def test_factors_and_patterns_mean_what_llama_cpp_takes_them_for() -> None:
    """As llama.cpp's logits moved when these keys were put into a file (0.3.36 for Python)."""

    def read(**said: Any) -> Any:
        return read_hyperparameters(
            {**LLAMA, **{f"llama.{key.replace('__', '.')}": item for key, item in said.items()}}
        )

    assert read(rope__scaling__factor=4.0).scaling.factor == 4.0
    assert read(rope__scale_linear=4.0).scaling.factor == 4.0
    assert read(rope__scaling__factor=4.0, rope__scaling__type="none").scaling.factor == 1.0
    assert read(rope__scaling__factor=0.0).scaling.factor == 1.0
    assert read(attention__sliding_window_pattern=2).sliding == (True, False)
    assert read(attention__sliding_window_pattern=[False, True]).sliding == (False, True)
    with pytest.raises(LoadError, match="does not say it of each layer"):
        read(attention__sliding_window_pattern=[True])


def test_a_decoder_that_sees_what_follows_is_refused() -> None:
    with pytest.raises(LoadError, match=r"attention\.causal is False"):
        family_of("llama").check({"llama.attention.causal": False})
    family_of("bert").check({"bert.attention.causal": False})
    with pytest.raises(LoadError, match="freq_base_swa is 33"):
        family_of("gemma2").check({"gemma2.rope.freq_base_swa": 33.0})
    family_of("gemma3").check({"gemma3.rope.freq_base_swa": 33.0})


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*LLAMA, "llama.attention.key_length", "llama.expert_count"]), st.one_of(
    st.integers(), st.floats(), st.text(max_size=3), st.booleans(), st.lists(st.integers(), max_size=3), st.none()
)))  # fmt: skip
def test_any_metadata_are_read_or_refused_in_one_line(changes: dict[str, Any]) -> None:
    try:
        sizes = read_hyperparameters({**LLAMA, **changes})
    except LoadError:
        return
    assert 0 < sizes.layers <= 1 << 12
    assert sizes.heads % sizes.groups == 0


def test_an_unknown_architecture_is_named_with_those_that_are_known() -> None:
    with pytest.raises(LoadError, match="'mamba'") as caught:
        family_of("mamba", "x.gguf")
    assert all(name in caught.value.hint for name in FAMILIES)
