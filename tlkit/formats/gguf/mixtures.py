"""Which tensor of a language model becomes which block type: llama.cpp's mixtures (Q4_K_M and its kin).

Source: ``llama_tensor_get_type_impl`` in llama.cpp's llama-quant.cpp. Tensors that answers depend on most have more
bits: the head, and the values and down projections of the first, the last and every third layer between. (Of models
with eight experts llama.cpp keeps keys and values in Q8_0; here they are as in others.)
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from tlkit.formats.gguf.write import fits

MIXTURES = {"Q4_K_S": ("Q4_K", "Q5_K"), "Q4_K_M": ("Q4_K", "Q6_K"), "Q5_K_S": ("Q5_K", "Q5_K")}
MIXTURES |= {"Q5_K_M": ("Q5_K", "Q6_K"), "Q3_K_S": ("Q3_K", "Q3_K"), "Q3_K_M": ("Q3_K", "Q5_K")}
MIXTURES |= {"Q3_K_L": ("Q3_K", "Q5_K")}
"""By the mixture's name: the type of most matrices, and the one of more bits."""

_NARROWER = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}
_NARROWER |= dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0")
"""What takes a type's place where rows are not blocks of 256."""
_BLOCK = re.compile(r"^blk\.(\d+)\.(\w+)\.weight$")
_KEPT = re.compile(r"(ffn_gate_inp(_shexp)?|position_embd|token_types)\.weight$")


@dataclass(frozen=True, slots=True)
class Mixture:
    """What ``name`` (a block type, or one of MIXTURES) means for a model with these tensors."""

    name: str
    layers: int
    tied: bool

    def of(self, name: str, shape: tuple[int, ...]) -> str | None:
        """Return the type of a matrix; None where it stays as it is."""
        wanted = self._wanted(name) if self.name in MIXTURES else self.name
        while wanted is not None and not fits(wanted, shape):
            wanted = _NARROWER.get(wanted)
        return wanted

    def _wanted(self, name: str) -> str | None:
        most, more = MIXTURES[self.name]
        if _KEPT.search(name):
            return None
        if name == ("token_embd.weight" if self.tied else "output.weight"):
            return "Q6_K"
        block = _BLOCK.match(name)
        if block is None:
            return most
        layer, short = int(block[1]), block[2]
        if self.name.startswith("Q3"):
            return self._of_three(layer, short)
        if short not in ("attn_v", "attn_qkv", "ffn_down", "ffn_down_exps"):
            return most
        if self.name == "Q4_K_S":
            # The first layers only.
            return more if layer < (self.layers // 8 if short.startswith("ffn") else 4) else most
        return more if self._dear(layer) else most

    def _of_three(self, layer: int, short: str) -> str:
        """Return the type of a block's matrix in the mixtures of three bits."""
        most, more = MIXTURES[self.name]
        if self.name == "Q3_K_S" or short not in ("attn_v", "attn_qkv", "attn_output", "ffn_down", "ffn_down_exps"):
            return most
        early = {"attn_output": 0, "ffn_down": self.layers // 16, "ffn_down_exps": self.layers // 16}.get(short, 2)
        return more if self.name == "Q3_K_L" or layer < early else "Q4_K"

    def _dear(self, layer: int) -> bool:
        eighth = self.layers // 8
        return layer < eighth or layer >= 7 * self.layers // 8 or (layer - eighth) % 3 == 2


def mixture(name: str, tensors: Collection[str]) -> Mixture:
    """Return what ``name`` means for a model whose tensors have these names."""
    numbers = [int(block[1]) for tensor in tensors if (block := _BLOCK.match(tensor))]
    return Mixture(name, max(numbers, default=-1) + 1, "output.weight" not in tensors)
