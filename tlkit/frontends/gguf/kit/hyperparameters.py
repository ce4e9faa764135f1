"""A language model's hyperparameters, read from GGUF's keys and held to bounds before anything is computed with them.

Keys and their defaults are those of llama.cpp's ``llama-hparams.cpp`` and ``llama-model.cpp``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlkit.errors import LoadError
from tlkit.formats.gguf.model.hyperparameters import OWN_SCALE, OWN_WINDOW, PATTERN

_LAYERS = 1 << 12
_WIDTH = 1 << 20
_CONTEXT = 1 << 28
_ROWS = 1 << 24
_EXPERTS = 1 << 12
_DAMAGED = "the file is damaged, or not a language model"


@dataclass(frozen=True, slots=True)
class Scaling:
    """How positions beyond the trained context are rotated: ``kind`` is ``""``, ``linear``, ``yarn`` or ``longrope``;
    but for YaRN frequencies are divided by the ``factor``.

    ``original`` is the trained context in tokens; ``attention`` scales cosine and sine where the file says so, and
    ``fast`` and ``slow`` are YaRN's betas.
    """

    kind: str = ""
    factor: float = 1.0
    original: int = 0
    attention: float = 0.0
    fast: float = 32.0
    slow: float = 1.0


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The sizes of one model. ``groups`` are the heads of keys and values, ``rotary`` the dimensions of a head that
    turn, ``window`` how many tokens sliding layers see (0: all), the caps 0 where there are none."""

    architecture: str
    layers: int
    width: int
    heads: int
    groups: int
    key_size: int
    value_size: int
    context: int
    epsilon: float
    vocabulary: int
    rotary: int
    base: float
    local_base: float
    scaling: Scaling
    window: int
    attention_cap: float
    final_cap: float
    experts: int
    experts_used: int
    renormalized: bool | None
    """Whether the chosen experts' shares are made to sum to 1; None where the file does not say."""
    max_bias: float
    pooling: int
    causal: bool
    sliding: tuple[bool, ...] = ()
    """Which layers keep to the window; () where the architecture knows it by heart."""
    own_window: int | None = None
    query_scalar: float = 0.0
    """What tlkit's own keys say beside GGUF's: a window, and what queries are scaled by."""


class Keys:
    """The metadata of one architecture, read by type and within bounds; errors name the key."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata = metadata
        name = metadata.get("general.architecture")
        self.architecture = name if isinstance(name, str) else ""

    def count(self, key: str, most: int, default: int | None = None, least: int = 1) -> int:
        """Return a count from ``least`` to ``most``; LoadError where it is something else, or not there and without a
        default."""
        found = self._one(key)
        if found is None and default is not None:
            return default
        if type(found) is not int or not least <= found <= most:
            said = "is not there" if found is None else f"is {str(found)[:40]}, which is not from {least} to {most}"
            raise LoadError(f"{self._whole(key)} {said}", _DAMAGED)
        return found

    def real(self, key: str, default: float, *, above: float = -math.inf) -> float:
        """Return a finite number above a bound."""
        found = self._one(key)
        if found is None:
            return default
        if type(found) not in (int, float) or not math.isfinite(found) or not found > above or found > 1e30:
            raise LoadError(f"{self._whole(key)} is {str(found)[:40]}, which is not such a number", _DAMAGED)
        return float(found)

    def text(self, key: str) -> str:
        """Return a text, empty where there is none."""
        found = self._one(key)
        return found if isinstance(found, str) else ""

    def says(self, key: str) -> bool:
        """Whether the key is there."""
        return f"{self.architecture}.{key}" in self.metadata

    def flag(self, key: str, default: bool) -> bool:
        """Return a boolean."""
        found = self._one(key)
        return found if isinstance(found, bool) else default

    def _one(self, key: str) -> Any:
        """Return a key's value; of an array with one value per layer the value that they share."""
        found = self.metadata.get(self._whole(key))
        if found is None or isinstance(found, str | int | float | bool):
            return found
        if isinstance(found, Sequence) and 0 < len(found) <= _LAYERS:
            values = set(_plain(found))
            if len(values) == 1:
                return values.pop()
            said = f"{self._whole(key)} differs from layer to layer, which tlkit does not build"
            raise LoadError(said, "run the model with llama.cpp")
        raise LoadError(f"{self._whole(key)} is not a value", _DAMAGED)

    def _whole(self, key: str) -> str:
        return key if key.startswith("tlkit.") else f"{self.architecture}.{key}"


def _plain(values: Sequence[Any]) -> Iterator[Any]:
    return (value if isinstance(value, int | float | str) else str(value) for value in values)


def read_hyperparameters(metadata: Mapping[str, Any]) -> Hyperparameters:
    """Return the hyperparameters that GGUF's ``metadata`` say; LoadError where one is missing or out of bounds."""
    keys = Keys(metadata)
    width = keys.count("embedding_length", _WIDTH)
    experts = keys.count("expert_count", _EXPERTS, 0, least=0)
    for key in ("vocab_size", "feed_forward_length"):  # the tensors say them, too, and are believed
        if type(metadata.get(f"{keys.architecture}.{key}")) is int:
            keys.count(key, _ROWS, least=0 if experts else 1)
    heads = keys.count("attention.head_count", _WIDTH)
    groups = keys.count("attention.head_count_kv", _WIDTH, heads)
    if heads % groups:
        said = f"{keys.architecture}: {heads} heads do not share {groups} heads of keys and values"
        raise LoadError(said, _DAMAGED)
    size = keys.count("attention.key_length", _WIDTH, max(width // heads, 1))
    rotary = keys.count("rope.dimension_count", size, size)
    if rotary % 2:
        raise LoadError(f"{keys.architecture}.rope.dimension_count is odd: {rotary}", _DAMAGED)
    tokens = metadata.get("tokenizer.ggml.tokens")
    base = keys.real("rope.freq_base", 10000.0, above=0)
    caps = (50.0, 30.0) if keys.architecture == "gemma2" else (0.0, 0.0)
    return Hyperparameters(
        keys.architecture,
        layers=keys.count("block_count", _LAYERS),
        width=width,
        heads=heads,
        groups=groups,
        key_size=size,
        value_size=keys.count("attention.value_length", _WIDTH, size),
        context=keys.count("context_length", _CONTEXT),
        epsilon=_epsilon(keys),
        vocabulary=len(tokens) if isinstance(tokens, Sequence) else 0,
        rotary=rotary,
        base=base,
        local_base=keys.real("rope.freq_base_swa", 10000.0, above=0),
        scaling=_scaling(keys),
        window=keys.count("attention.sliding_window", 2**31 - 1, 0, least=0),
        attention_cap=keys.real("attn_logit_softcapping", caps[0], above=-1e-9),
        final_cap=keys.real("final_logit_softcapping", caps[1], above=-1e-9),
        experts=experts,
        experts_used=keys.count("expert_used_count", experts, 0, least=1) if experts else 0,
        renormalized=keys.flag("expert_weights_norm", False) if keys.says("expert_weights_norm") else None,
        max_bias=keys.real("attention.max_alibi_bias", 8.0, above=-1e-9),
        pooling=keys.count("pooling_type", 8, 0, least=0),
        causal=keys.flag("attention.causal", True),
        own_window=keys.count(OWN_WINDOW, 2**31 - 1, 0, least=0) if OWN_WINDOW in metadata else None,
        sliding=_sliding(keys),
        query_scalar=keys.real(OWN_SCALE, 0.0, above=0),
    )


def _sliding(keys: Keys) -> tuple[bool, ...]:
    """Return which layers slide: the key says it of each, or of how many the last one does not."""
    said = keys.metadata.get(f"{keys.architecture}.{PATTERN}")
    layers = keys.count("block_count", _LAYERS)
    if said is None:
        return ()
    if type(said) is int:
        return tuple(not said or layer % said < said - 1 for layer in range(layers))
    listed = list(said) if isinstance(said, Sequence) and len(said) <= _LAYERS else [None]
    if len(listed) < layers or not all(isinstance(item, bool | int) for item in listed):
        raise LoadError(f"{keys.architecture}.{PATTERN} does not say it of each layer", _DAMAGED)
    return tuple(map(bool, listed[:layers]))


def _epsilon(keys: Keys) -> float:
    plain = keys.real("attention.layer_norm_epsilon", 1e-5, above=0)
    return keys.real("attention.layer_norm_rms_epsilon", plain, above=0)


def _scaling(keys: Keys) -> Scaling:
    kind = keys.text("rope.scaling.type")
    if kind not in ("", "none", "linear", "yarn", "longrope"):
        said = f"{keys.architecture}.rope.scaling.type is '{kind[:40]}': tlkit knows linear, yarn and longrope"
        raise LoadError(said, "run the model with llama.cpp")
    # Before there were scaling keys, linear scaling was this one; without a type a factor is that of linear scaling.
    old = keys.real("rope.scale_linear", 1.0, above=0)
    factor = keys.real("rope.scaling.factor", old, above=-1e-9) or 1.0
    return Scaling(
        kind if kind != "none" else "",
        factor=1.0 if kind == "none" else factor,
        original=keys.count("rope.scaling.original_context_length", _CONTEXT, 0, least=0),
        attention=keys.real("rope.scaling.attn_factor", 0.0, above=-1e-9),
        fast=keys.real("rope.scaling.yarn_beta_fast", 32.0, above=0),
        slow=keys.real("rope.scaling.yarn_beta_slow", 1.0, above=0),
    )
