"""Which tensor of a language model becomes which block type: llama.cpp's mixtures (Q4_K_M and its kin).

Source: ``llama_tensor_get_type_impl``, ``tensor_type_fallback`` and ``tensor_requires_imatrix`` in llama.cpp's
llama-quant.cpp. Tensors that answers depend on most have more bits: the head, values, and down projections of the
first, the last and every third layer between. (What llama.cpp has for Falcon, GLM 5 and Bailing alone is not here.)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from tlkit.formats.gguf.quants import IMPORTANT
from tlkit.formats.gguf.write import Typed, fits

MIXTURES = {
    "Q4_0": (2, "Q4_0"),
    "Q4_1": (3, "Q4_1"),
    "Q8_0": (7, "Q8_0"),
    "Q5_0": (8, "Q5_0"),
    "Q5_1": (9, "Q5_1"),
    "Q2_K": (10, "Q2_K"),
    "Q3_K_S": (11, "Q3_K"),
    "Q3_K_M": (12, "Q3_K"),
    "Q3_K_L": (13, "Q3_K"),
    "Q4_K_S": (14, "Q4_K"),
    "Q4_K_M": (15, "Q4_K"),
    "Q5_K_S": (16, "Q5_K"),
    "Q5_K_M": (17, "Q5_K"),
    "Q6_K": (18, "Q6_K"),
    "IQ2_XXS": (19, "IQ2_XXS"),
    "IQ2_XS": (20, "IQ2_XS"),
    "Q2_K_S": (21, "Q2_K"),
    "IQ3_XS": (22, "IQ3_S"),
    "IQ3_XXS": (23, "IQ3_XXS"),
    "IQ1_S": (24, "IQ1_S"),
    "IQ4_NL": (25, "IQ4_NL"),
    "IQ3_S": (26, "IQ3_S"),
    "IQ3_M": (27, "IQ3_S"),
    "IQ2_S": (28, "IQ2_XS"),
    "IQ2_M": (29, "IQ2_S"),
    "IQ4_XS": (30, "IQ4_XS"),
    "IQ1_M": (31, "IQ1_M"),
    "TQ1_0": (36, "TQ1_0"),
    "TQ2_0": (37, "TQ2_0"),
    "MXFP4_MOE": (38, "MXFP4"),
}
"""By the mixture's name: ``general.file_type`` (llama.cpp's enum llama_ftype), and the type of most matrices."""

PURE = ":PURE"
"""After a block type: the one type for all."""

_NARROWER = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_NARROWER |= dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0")
_NARROWER |= dict.fromkeys(
    ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"),
    "IQ4_NL",
)
"""What takes a type's place where rows are not blocks of 256."""
_BLOCK = re.compile(r"(?:^|\.)blk\.(\d+)\.")
_KEPT = re.compile(
    r"_norm\.weight$|ffn_gate_inp(_shexp)?\.weight|^(position_embd|token_types)\.weight$|altup|laurel"
    r"|per_layer_model_proj|ssm_conv1d|shortconv\.conv\.weight|attn_rel_b\.weight|indexer\.[kq]_proj\.weight"
    r"|time_mix_(first|[wvag][0-2]|decay_w[12]|lerp_fused)\.weight"
)
_KINDS = (
    ("embedding", re.compile(r"^(per_layer_)?token_embd\.weight$")),
    ("head", re.compile(r"^output\.weight$")),
    ("value", re.compile(r"attn_(qkv|kv_b|v)\.weight")),
    ("key", re.compile(r"attn_k\.weight")),
    ("query", re.compile(r"attn_q\.weight")),
    ("output", re.compile(r"attn_output\.weight")),
    ("up", re.compile(r"ffn_up|ffn_gate")),
    ("down", re.compile(r"ffn_down")),
)
_SMALL = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M")
_LARGER_SMALL = ("IQ2_S", "IQ2_M")
_EMBEDDINGS = dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS"), "Q2_K")
_EMBEDDINGS |= dict.fromkeys(("IQ2_S", "IQ2_M", "IQ3_XXS"), "IQ3_S") | dict.fromkeys(("TQ1_0", "TQ2_0"), "Q4_K")
_VALUES = {"Q2_K": ("Q4_K", "Q3_K"), "Q2_K_S": ("Q4_K", "Q2_K"), "IQ3_M": ("Q4_K", "Q4_K"), "Q3_K_L": ("Q5_K", "Q5_K")}
_VALUES |= dict.fromkeys(("IQ3_XXS", "IQ3_XS", "IQ3_S"), ("Q4_K", "IQ3_S"))
_VALUES |= {"IQ4_NL": ("Q5_K", "IQ4_NL"), "IQ4_XS": ("Q5_K", "IQ4_XS")}
"""Of values: where four or more query heads share them, and else."""
_OUTPUTS = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
_OUTPUTS_OF_EIGHT = {"Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M"}
_OUTPUTS_OF_EIGHT |= {"IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS"}
"""Where there are eight experts: the mixtures whose attention's outputs are Q5_K."""
_REFUSED = IMPORTANT | {"IQ3_XXS", "IQ2_S", "IQ1_M"}


@dataclass(frozen=True, slots=True)
class Mixture:
    """What ``name`` (a block type, or one of MIXTURES) means for a model: ``pure`` is the one type for all.

    ``shared`` is how many query heads have the same values, ``large`` whether llama.cpp counts it as one of 70 billion
    parameters, ``weighed`` whether there is an importance matrix; ``places`` count the values, and the down
    projections, from the first on.
    """

    name: str
    pure: bool
    layers: int
    tied: bool
    shared: int = 1
    experts: int = 0
    large: bool = False
    weighed: bool = False
    places: Mapping[str, int] = field(default_factory=dict)
    values: int = 0

    @property
    def file_type(self) -> int | None:
        """``general.file_type`` of what is written; None where llama.cpp has no number for it."""
        return None if self.pure or self.name not in MIXTURES else MIXTURES[self.name][0]

    def of(self, name: str, shape: tuple[int, ...]) -> str | None:
        """Return the type of a matrix; None where it stays as it is."""
        if self.layers and _stays(name):
            return None
        wanted: str | None = self.name if self.pure else self._wanted(name, shape)
        while wanted is not None and not fits(wanted, shape):
            wanted = _NARROWER.get(wanted)
        return wanted

    def needs_importance(self, name: str, dtype: str) -> bool:
        """Whether a tensor that becomes ``dtype`` is refused without importance: by ggml, or by llama.cpp as the result
        would be of no use."""
        if dtype in IMPORTANT:
            return True
        if self.pure or _kind(name) in ("embedding", "head"):
            return False
        return dtype in _REFUSED or (dtype == "Q2_K" and self.name == "Q2_K_S")

    def _wanted(self, name: str, shape: tuple[int, ...]) -> str:
        kind, most = _kind(name), MIXTURES[self.name][1]
        if kind == "head" or (self.tied and kind == "embedding"):
            return self._head(shape)
        if self.name == "MXFP4_MOE":
            return "MXFP4" if len(shape) > 2 and shape[-3] > 1 else "Q8_0"
        if kind == "embedding":
            return _EMBEDDINGS.get(self.name, most)
        if self.name in _SMALL:
            return self._of_small(kind, self.places.get(name, 0))
        if kind == "value":
            return self._value(self.places.get(name, 0))
        if kind == "output" and self.experts == 8:
            return "Q5_K" if self.name in _OUTPUTS_OF_EIGHT else most
        if kind == "output":
            return _OUTPUTS.get(self.name, most)
        if kind == "key" and self.experts == 8:
            return "Q8_0"
        if kind in ("key", "query"):
            return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(self.name, most)
        block = _BLOCK.match(name)
        layer = int(block[1]) if block and self.experts > 1 else self.places.get(name, 0)
        if kind == "up":
            middle = self.layers // 8 <= layer < 7 * self.layers // 8
            return "IQ3_XXS" if self.name == "IQ3_XS" and middle else most
        return self._down(layer) if kind == "down" else most

    def _head(self, shape: tuple[int, ...]) -> str:
        most = MIXTURES[self.name][1]
        if self.name in ("MXFP4_MOE", "Q8_0") or not fits(most, shape):
            return "Q8_0"
        return "Q5_K" if self.name in (*_SMALL, "IQ3_XXS") else "Q6_K"

    def _of_small(self, kind: str, place: int) -> str:
        """Return the type of a block's matrix in the mixtures of one and two bits."""
        most = MIXTURES[self.name][1]
        dear = "IQ3_S" if self.name in _LARGER_SMALL else "Q2_K"
        if kind == "value":
            return "Q4_K" if self.shared >= 4 or self.experts >= 4 else dear
        if kind == "key" and self.experts == 8:
            return "Q4_K"
        if kind == "down" and place < self.layers // 8:
            return dear
        if kind == "output":
            ones = {"IQ1_S": "IQ2_XXS", "IQ1_M": "IQ2_XXS", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S"}
            return "Q5_K" if self.experts == 8 else ones.get(self.name, most)
        return most

    def _value(self, place: int) -> str:
        if self.experts == 8:
            return "Q8_0"
        found = MIXTURES[self.name][1]
        if self.name in _VALUES:
            found = _VALUES[self.name][self.shared < 4]
            if self.name == "IQ3_XXS" and self.weighed and self.shared < 4:
                found = "IQ3_XXS"
        elif self.name == "Q3_K_M":
            found = "Q5_K" if place < 2 else "Q4_K"
        elif self.name in ("Q4_K_M", "Q5_K_M") and _is_dear(place, self.values):
            found = "Q6_K"
        elif self.name == "Q4_K_S" and place < 4:
            found = "Q5_K"
        return "Q5_K" if self.large and found in ("Q3_K", "Q4_K") else found

    def _down(self, layer: int) -> str:
        first, dear = layer < self.layers // 8, _is_dear(layer, self.layers)
        most, name = MIXTURES[self.name][1], self.name
        always = {"Q2_K": "Q3_K", "Q3_K_L": "Q5_K", "Q3_K_M": "Q5_K" if layer < self.layers // 16 else "Q4_K"}
        early = {"Q2_K_S": "Q4_K", "IQ3_M": "Q4_K", "Q4_K_S": "Q5_K"}
        early |= {"Q4_0": "Q4_1", "Q5_0": "Q5_1"} if self.weighed else {"IQ4_NL": "Q5_K", "IQ4_XS": "Q5_K"}
        if name in ("Q4_K_M", "Q5_K_M"):
            return "Q6_K" if dear else most
        if name == "IQ3_XXS" and not self.weighed:
            return "Q4_K" if first else "Q3_K"
        if name == "IQ3_M" and self.experts == 8 and dear:
            return "Q4_K"
        return always.get(name, early.get(name, most) if first else most)


def _is_dear(place: int, count: int) -> bool:
    """Whether a matrix is one of the first, the last, or every third between."""
    return place < count // 8 or place >= 7 * count // 8 or (place - count // 8) % 3 == 2


@lru_cache(1 << 12)
def _kind(name: str) -> str:
    return next((kind for kind, pattern in _KINDS if pattern.search(name)), "")


@lru_cache(1 << 12)
def _stays(name: str) -> bool:
    return not name.endswith("weight") or _KEPT.search(name) is not None


def mixture(
    name: str, tensors: Collection[str], metadata: Mapping[str, Typed] | None = None, *, weighed: bool = False
) -> Mixture:
    """Return what ``name`` means for a model whose tensors have these names: one of MIXTURES, or a block type for all
    matrices (``Q4_0:PURE``, those that no mixture is named after, and where no tensor is a language model's).

    ``weighed`` says whether there is an importance matrix; ``metadata`` tell of heads and experts.
    """
    known = metadata or {}
    arch = known["general.architecture"].value if "general.architecture" in known else ""
    numbers = {tensor: int(block[1]) if (block := _BLOCK.search(tensor)) else -1 for tensor in tensors}
    layers = max(numbers.values(), default=-1) + 1
    heads = _number(known, f"{arch}.attention.head_count", 1)
    key_heads = _number(known, f"{arch}.attention.head_count_kv", heads)
    places: dict[str, int] = {}
    counts: Counter[str] = Counter()
    for tensor in sorted(tensors, key=lambda tensor: (numbers[tensor], tensor)):
        if not _stays(tensor):
            kind = "gate" if "ffn_gate" in tensor else _kind(tensor)
            places[tensor] = counts[kind]
            counts[kind] += 1
    plain = name.removesuffix(PURE)
    return Mixture(
        plain,
        pure=plain != name or layers == 0 or plain not in MIXTURES,
        layers=_number(known, f"{arch}.block_count", layers) if layers else 0,
        tied="output.weight" not in tensors,
        shared=heads // key_heads if key_heads else 0,
        experts=_number(known, f"{arch}.expert_count", 0),
        large=layers == 80 and (arch == "qwen2" or (arch == "llama" and heads != key_heads)),
        weighed=weighed,
        places=places,
        values=counts["value"],
    )


def _number(known: Mapping[str, Typed], key: str, default: int) -> int:
    """Return a number of the metadata; of several, the first layer's."""
    value: Any = known[key].value if key in known else default
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if len(value) else default
    return value if isinstance(value, int) else default
