"""A model's hyperparameters, from ``config.json`` to the metadata keys that llama.cpp reads.

What llama.cpp computes otherwise than the config says is a doubt: a sentence; such a file is not promised to run there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tlkit.formats.gguf.model.architectures import Architecture
from tlkit.formats.gguf.model.rotation import Rotation, rotation
from tlkit.formats.gguf.write import Typed

_LARGEST = 1 << 31
_LOCAL_BASE = 10000.0  # of gemma3's sliding layers, where no key says otherwise
_ODD_SCALES = {"gemma2": 46, "gemma3": 62}  # layers of the models whose q is scaled by embedding / heads (27B)


class Config:
    """The entries of ``config.json`` (of its text model), with the defaults of transformers' config class."""

    def __init__(self, values: Mapping[str, Any], row: Architecture) -> None:
        inner = values.get("text_config")
        self._said: dict[str, Any] = {**values, **inner} if isinstance(inner, Mapping) else dict(values)
        self._defaults = row.defaults
        self.doubts: list[str] = []

    def get(self, *names: str) -> Any:
        """Return the first entry that has a value; the default of one of them where the config has none of them."""
        said = [self._said[name] for name in names if name in self._said]
        if said:
            return next((value for value in said if value is not None), None)
        return next((self._defaults[name] for name in names if name in self._defaults), None)

    def number(self, *names: str) -> int | None:
        """Return a count from 1 on; a doubt says where the config has something else."""
        found = self.get(*names)
        if found is None or (type(found) is int and 0 < found < _LARGEST):
            return found
        self.doubts.append(f"config.json: {names[0]} is {str(found)[:40]}, which is not a count")
        return None

    def real(self, *names: str) -> float | None:
        """Return a finite number; a doubt says where the config has something else."""
        found = self.get(*names)
        if found is None or (type(found) in (int, float) and math.isfinite(found)):
            return None if found is None else float(found)
        self.doubts.append(f"config.json: {names[0]} is {str(found)[:40]}, which is not a number")
        return None

    @property
    def rope(self) -> Mapping[str, Any]:
        """How positions rotate: of transformers 5 and later ``rope_parameters``, before that ``rope_scaling``."""
        found = self.get("rope_parameters") or self.get("rope_scaling")
        # Models whose layers rotate in two ways have one for each.
        if isinstance(found, Mapping) and isinstance(found.get("full_attention"), Mapping):
            return dict(found["full_attention"])
        return found if isinstance(found, Mapping) else {}

    @property
    def local_base(self) -> float:
        """The base of the rotation of layers with a sliding window."""
        found = self.get("rope_parameters")
        local = found.get("sliding_attention") if isinstance(found, Mapping) else None
        said = local.get("rope_theta") if isinstance(local, Mapping) else self.get("rope_local_base_freq")
        return float(said) if isinstance(said, int | float) else _LOCAL_BASE


def hyperparameters(
    values: Mapping[str, Any], row: Architecture
) -> tuple[dict[str, Typed], Mapping[str, Sequence[float]], list[str]]:
    """Return the metadata, the tensors that llama.cpp takes for the rotation (one row each), and the doubts."""
    config = Config(values, row)
    found: dict[str, Typed] = {}
    derived = _derived(config)
    turn = rotation(config.rope, row, config.real, config.number, derived["head_dim"]) if row.rotates else Rotation()
    derived |= {"rotary_dim": turn.dimensions, "rope_theta": turn.base}
    for line in row.keys.strip().splitlines():
        key, kind, *names = line.split()
        value = next((derived[name] for name in names if derived.get(name)), None)
        if value is None:
            value = config.number(*names) if kind == "u32" else config.real(*names)
        if value is not None:
            found[f"{row.name}.{key}"] = Typed(kind, value)
    if "sliding_window" in row.keys and f"{row.name}.attention.sliding_window" not in found and row.name == "phi3":
        # llama.cpp's own converter writes the key for every phi3; 0 means no window.
        found["phi3.attention.sliding_window"] = Typed("u32", 0)
    found |= {f"{row.name}.{key}": typed for key, typed in turn.keys.items()}
    if row.name == "gemma3" and config.local_base != _LOCAL_BASE:
        found["gemma3.rope.freq_base_swa"] = Typed("f32", config.local_base)
    if row.encodes:
        found[f"{row.name}.attention.causal"] = Typed("bool", False)
        found["tokenizer.ggml.token_type_count"] = Typed("u32", config.number("type_vocab_size") or 0)
    return found, turn.tensors, [*config.doubts, *turn.doubts, *_missing(found, row), *_differences(config, row)]


def heads(values: Mapping[str, Any], row: Architecture) -> tuple[int, int]:
    """Return the counts of query and of key heads, 0 where the config does not say."""
    config = Config(values, row)
    count = config.number("num_attention_heads", "n_head") or 0
    return count, config.number("num_key_value_heads") or count


def _derived(config: Config) -> dict[str, Any]:
    """Return what follows from other entries where the config does not say it."""
    width, count = config.number("hidden_size", "n_embd"), config.number("num_attention_heads", "n_head")
    head = config.number("head_dim") or (width // count if width and count else None)
    # GPT-2's n_inner may be None, which stands for four times the width.
    inner = config.get("intermediate_size", "n_inner") or (4 * width if width else None)
    return {
        "head_dim": head,
        "num_key_value_heads": config.number("num_key_value_heads") or count,
        "n_inner": inner if type(inner) is int and 0 < inner < _LARGEST else None,
    }


def _missing(found: Mapping[str, Typed], row: Architecture) -> list[str]:
    """Say which of the keys that every model has are not there."""
    wanted = ["block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count"]
    gone = [key for key in wanted if f"{row.name}.{key}" not in found]
    return [f"config.json does not say what llama.cpp reads as {', '.join(gone)}"] if gone else []


def _differences(config: Config, row: Architecture) -> list[str]:
    """Say what llama.cpp computes otherwise."""
    found = []
    activation = config.get("hidden_activation", "hidden_act", "activation_function")
    if activation not in row.activations:
        found.append(f"its activation is {str(activation)[:40]}, and llama.cpp computes {row.activations[0]}")
    for name, value in row.expected.items():
        said = config.get(name)
        if said is not None and said != value and not (value is None and not said):
            found.append(f"its {name} is {str(said)[:40]}, and llama.cpp computes as if it were {value}")
    scale, width = config.number("query_pre_attn_scalar"), config.number("hidden_size")
    count = config.number("num_attention_heads", "n_head")
    if row.name in _ODD_SCALES and scale and width and count:
        odd = config.number("num_hidden_layers") == _ODD_SCALES[row.name]
        usual = width // count if odd else config.number("head_dim")
        if scale != usual:
            found.append(f"its query_pre_attn_scalar is {scale}, and llama.cpp computes with {usual}")
    return found + _pattern(config, row)


def _pattern(config: Config, row: Architecture) -> list[str]:
    """Say where the layers with a sliding window are others than llama.cpp's."""
    kinds, layers = config.get("layer_types"), config.number("num_hidden_layers") or 0
    if row.attention_pattern:
        step = row.attention_pattern
        said = config.get("sliding_window_pattern", "_sliding_window_pattern")
        wrong = type(said) is int and said != step
        if isinstance(kinds, list):
            wrong = any((kind == "full_attention") != ((i + 1) % step == 0) for i, kind in enumerate(kinds[:layers]))
        return [f"its layers attend otherwise than llama.cpp's, where every {step}th sees everything"] if wrong else []
    window, context = config.number("sliding_window"), config.number("max_position_embeddings")
    slides = config.get("use_sliding_window") is not False and window and context and window < context
    if slides and row.rotates:
        return [f"llama.cpp attends to the whole context here, and not to a sliding window of {window}"]
    return []
