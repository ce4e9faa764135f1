"""A model's hyperparameters, from ``config.json`` to the metadata keys that llama.cpp reads.

What llama.cpp computes otherwise than the config says is a doubt: a sentence; such a file is not promised to run there.
Keys of tlkit's own (``tlkit.``) say what GGUF has no key for, and what no key says is a limit: nothing that reads the
file computes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tlkit.formats.gguf.model.rotation import Rotation, rotation
from tlkit.formats.gguf.model.row import Architecture
from tlkit.formats.gguf.write import Typed

_LARGEST = 1 << 31
_LAYERS = 1 << 12
_LOCAL_BASE = 10000.0  # of gemma3's sliding layers, where no key says otherwise
_ODD_SCALES = {"gemma2": 46, "gemma3": 62}  # layers of the models whose q is scaled by embedding / heads (27B)
_CAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}  # what llama.cpp takes where no key says it
_LAYERED = ("qwen2", "qwen3", "qwen2moe", "gemma2", "gemma3")  # those whose layers may attend in two ways
_KINDS = ("full_attention", "sliding_attention")
_TOLD = ("use_sliding_window", "norm_topk_prob")
"""Entries that keys tell, whether llama.cpp looks at them or not."""
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "swiglu": "silu",
    "gelu": "erf",
    "gelu_python": "erf",
    "gelu_new": "tanh",
    "gelu_fast": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "relu": "relu",
}
"""What transformers calls them: SiLU, the two forms of GELU, and ReLU."""
OWN_LIMITS, OWN_WINDOW = "tlkit.limits", "tlkit.attention.window"
OWN_SCALE, OWN_ACTIVATION = "tlkit.attention.query_scalar", "tlkit.activation"
"""Keys of tlkit's own: what is not computed, a window, what q is scaled by, the activation."""
PATTERN = "attention.sliding_window_pattern"
"""GGUF's key for which layers keep to the window, which llama.cpp reads of few architectures."""


@dataclass(slots=True)
class Described:
    """What a config says: metadata, the tensors that llama.cpp takes for the rotation (one row each), doubts and
    limits."""

    keys: dict[str, Typed] = field(default_factory=dict)
    tensors: Mapping[str, Sequence[float]] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)


class Config:
    """The entries of ``config.json`` (of its text model), with the defaults of transformers' config class."""

    def __init__(self, values: Mapping[str, Any], row: Architecture) -> None:
        inner = values.get("text_config")
        self._said: dict[str, Any] = {**values, **inner} if isinstance(inner, Mapping) else dict(values)
        self._defaults = row.defaults
        self.wrong: list[str] = []

    def get(self, *names: str) -> Any:
        """Return the first entry that has a value; the default of one of them where the config has none of them."""
        said = [self._said[name] for name in names if name in self._said]
        if said:
            return next((value for value in said if value is not None), None)
        return next((self._defaults[name] for name in names if name in self._defaults), None)

    def number(self, *names: str) -> int | None:
        """Return a count from 1 on; ``wrong`` says where the config has something else."""
        found = self.get(*names)
        if found is None or (type(found) is int and 0 < found < _LARGEST):
            return found
        self._refuse(f"config.json: {names[0]} is {str(found)[:40]}, which is not a count")
        return None

    def real(self, *names: str) -> float | None:
        """Return a finite number; ``wrong`` says where the config has something else."""
        found = self.get(*names)
        if found is None or (type(found) in (int, float) and math.isfinite(found)):
            return None if found is None else float(found)
        self._refuse(f"config.json: {names[0]} is {str(found)[:40]}, which is not a number")
        return None

    def _refuse(self, said: str) -> None:
        self.wrong += [said] if said not in self.wrong else []

    @property
    def activation(self) -> Any:
        """The activation's name, which each class of transformers' has an entry of its own for."""
        names = ("hidden_activation", "hidden_act", "activation_function")
        return self.get(*sorted(names, key=lambda name: name not in self._defaults))

    @property
    def rope(self) -> Mapping[str, Any]:
        """How positions rotate: of transformers 5 and later ``rope_parameters``, before that ``rope_scaling``."""
        found = self.get("rope_parameters") or self.get("rope_scaling")
        # Models whose layers rotate in two ways have one for each.
        if isinstance(found, Mapping) and isinstance(found.get("full_attention"), Mapping):
            return dict(found["full_attention"])
        return found if isinstance(found, Mapping) else {}

    @property
    def local_rope(self) -> Mapping[str, Any]:
        """How positions rotate in layers with a sliding window, where that is said apart."""
        found = self.get("rope_parameters")
        local = found.get("sliding_attention") if isinstance(found, Mapping) else None
        return local if isinstance(local, Mapping) else {}

    @property
    def local_base(self) -> float:
        """The base of the rotation of layers with a sliding window."""
        said = self.local_rope.get("rope_theta") or self.get("rope_local_base_freq")
        return float(said) if isinstance(said, int | float) else _LOCAL_BASE


def hyperparameters(values: Mapping[str, Any], row: Architecture) -> Described:
    """Return what a config's ``values`` are in GGUF's words."""
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
    local = config.local_rope.get("rope_type", "default")
    if row.encodes:
        found[f"{row.name}.attention.causal"] = Typed("bool", False)
        found["tokenizer.ggml.token_type_count"] = Typed("u32", config.number("type_vocab_size") or 0)
    made = Described(found, turn.tensors)
    made.limits += [*turn.limits, *_missing(found, row)]
    factor = turn.keys.get("rope.scaling.attn_factor")
    if row.name == "gemma3" and factor is not None and factor.value != 1:
        made.limits.append("YaRN's attention factor, which its sliding layers do not have, is not kept apart")
    if local != "default":
        made.limits.append(
            f"the rotation of its sliding layers is scaled by '{str(local)[:40]}', which tlkit does not compute"
        )
    made.doubts += [*turn.doubts, *made.limits]
    _differences(made, config, row)
    _scales(made, config, row)
    _windows(made, config, row)
    made.limits = config.wrong + made.limits
    made.doubts = config.wrong + made.doubts
    return made


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


def _differences(made: Described, config: Config, row: Architecture) -> None:
    """Add what llama.cpp computes otherwise, the keys that say so, and what nothing computes."""
    activation = config.activation
    if activation not in row.activations:
        made.doubts.append(f"its activation is {str(activation)[:40]}, and llama.cpp computes {row.activations[0]}")
    usual, kind = ACTIVATIONS[row.activations[0]], ACTIVATIONS.get(str(activation), "")
    if row.name == "gemma" and activation in row.activations:
        kind = usual  # which Gemma's first configs called by other names
    if not kind:
        made.limits.append(f"its activation is {str(activation)[:40]}, which tlkit does not compute")
    elif kind != usual:
        made.keys[OWN_ACTIVATION] = Typed("str", kind)
    for name, value in row.expected.items():
        said = config.get(name)
        if said is None or said == value or (value is None and not said):
            continue
        made.doubts.append(f"its {name} is {str(said)[:40]}, and llama.cpp computes as if it were {value}")
        if name not in _TOLD:
            made.limits.append(f"its {name} is {str(said)[:40]}, which tlkit does not compute")
        elif name == "norm_topk_prob":
            made.keys[f"{row.name}.expert_weights_norm"] = Typed("bool", said is True)


def _scales(made: Described, config: Config, row: Architecture) -> None:
    """Add caps, the scale of queries, and sizes of heads where they are others than llama.cpp's."""
    for name, cap in _CAPS.items() if row.name == "gemma2" else ():
        if config.get(name) is None:
            made.keys[f"gemma2.{name}"] = Typed("f32", 0.0)
            made.doubts.append(f"it has no {name}, and llama.cpp computes with {cap:g}")
    scale, width = config.real("query_pre_attn_scalar"), config.number("hidden_size")
    count = config.number("num_attention_heads", "n_head")
    if row.name == "olmoe" and config.number("num_key_value_heads") not in (None, count):
        made.doubts.append("its heads share keys, and llama.cpp's olmoe has a key for each")
    if row.name == "nomic-bert" and count and width and config.number("head_dim") not in (None, width // count):
        made.doubts.append("its heads are wider than its width, and llama.cpp's nomic-bert has none such")
    if row.name in _ODD_SCALES and scale and width and count:
        odd = config.number("num_hidden_layers") == _ODD_SCALES[row.name]
        size = width // count if odd else config.number("head_dim")
        if scale != size:
            made.doubts.append(f"its query_pre_attn_scalar is {scale:g}, and llama.cpp computes with {size}")
            made.keys[OWN_SCALE] = Typed("f32", scale)


def _windows(made: Described, config: Config, row: Architecture) -> None:
    """Add where the layers with a sliding window are others than llama.cpp's."""
    layers, window = config.number("num_hidden_layers") or 0, config.get("sliding_window")
    window = window if type(window) is int and 0 < window < _LARGEST else 0  # some configs write 0 for none
    kinds = config.get("layer_types") if row.name in _LAYERED else None
    step = row.attention_pattern
    if layers > _LAYERS:
        made.limits.append(f"config.json: num_hidden_layers is {layers}, which no model has")
        return
    if isinstance(kinds, list) and any(kind not in _KINDS for kind in kinds):
        strange = next(kind for kind in kinds if kind not in _KINDS)
        made.limits.append(f"its layers are of the kind {str(strange)[:40]}, which tlkit does not compute")
    if isinstance(kinds, list) and len(kinds) >= layers:
        sliding = [kind == "sliding_attention" for kind in kinds[:layers]]
    elif step:
        said = config.get("sliding_window_pattern", "_sliding_window_pattern")
        every = said if type(said) is int and said > 0 and row.name == "gemma3" else step
        sliding = [(layer + 1) % every != 0 for layer in range(layers)]
    else:
        first = config.get("max_window_layers") if row.name in _LAYERED else 0
        first = first if type(first) is int else 0
        sliding = [layer >= first for layer in range(layers)]
        if row.name == "qwen2moe":
            sliding = [layer < first and layer % 2 == 0 for layer in range(layers)]
    if step:
        if sliding != [(layer + 1) % step != 0 for layer in range(layers)]:
            made.doubts.append(f"its layers attend otherwise than llama.cpp's, where every {step}th sees everything")
            made.keys[f"{row.name}.{PATTERN}"] = Typed("arr[bool]", sliding)
        return
    context = config.number("max_position_embeddings")
    slides = row.slides and config.get("use_sliding_window") in (True, None) and any(sliding)
    if slides and window and context and window < context:
        made.doubts.append(f"llama.cpp attends to the whole context here, and not to a sliding window of {window}")
        if f"{row.name}.attention.sliding_window" not in made.keys:
            made.keys[OWN_WINDOW] = Typed("u32", window)
        if not all(sliding):
            made.keys[f"{row.name}.{PATTERN}"] = Typed("arr[bool]", sliding)
