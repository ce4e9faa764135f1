"""What one architecture differs in from the others: a row that its module in ``families/`` fills in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tlkit.errors import LoadError
from tlkit.formats.gguf.model.hyperparameters import OWN_ACTIVATION


@dataclass(frozen=True, slots=True)
class Family:
    """One of GGUF's architectures.

    ``activation`` is ``silu``, ``relu``, ``tanh`` or ``erf`` (the two forms of GELU); ``pairs`` says that GGUF's rows
    of q and k are in the order in which neighbours turn together. Of ``full_every`` layers the last sees everything and
    the others the window; 0: all layers are alike, and ``windowed`` says whether they keep to the window. Layers with a
    window turn by a base of their own where ``local_rotation``. ``scaled`` embeddings are multiplied by sqrt(width).
    ``odd_layers``: the model with so many scales queries by width / heads. ``biased`` are the linear layers that must
    have a bias. ``gate_inside`` says which half of ffn_up's rows is the gate. ``reads`` describes what tokens see:
    ``before`` them, or ``all`` (an encoder, whose result is normalized after each part).
    """

    name: str
    activation: str = "silu"
    pairs: bool = False
    rotates: bool = True
    full_every: int = 0
    windowed: bool = False
    local_rotation: bool = False
    scaled: bool = False
    odd_layers: int = 0
    biased: tuple[str, ...] = ()
    gate_inside: Literal["", "first", "second"] = ""
    renormalized: bool = False
    reads: Literal["before", "all"] = "before"
    biases: bool = False
    """Whether scores fall with distance (ALiBi)."""
    unused: tuple[str, ...] = ()
    """Endings of the names of tensors that inference does not need."""

    def ignores(self, name: str) -> bool:
        """Whether a tensor needs no place: what rotary positions are made of is read elsewhere, others are unused."""
        return name.startswith(("rope_freqs.", "rope_factors_")) or name.endswith((".rope_freqs.weight", *self.unused))

    def check(self, metadata: Mapping[str, Any]) -> None:
        """LoadError where a key asks for what llama.cpp computes, and this does not."""
        local = f"{self.name}.rope.freq_base_swa"
        other = local in metadata and not self.local_rotation and bool(self.full_every)
        both = self.reads == "before" and metadata.get(f"{self.name}.attention.causal") is False
        said = local if other and metadata[local] != metadata.get(f"{self.name}.rope.freq_base", 10000.0) else ""
        said = f"{self.name}.attention.causal" if both else said
        if said:
            raise LoadError(f"{said} is {metadata[said]}, which tlkit does not compute", "run it with llama.cpp")

    def activation_of(self, metadata: Mapping[str, Any]) -> str:
        """Return the activation, which a config may say is another one than the architecture's; LoadError for none that
        is known."""
        said = metadata.get(OWN_ACTIVATION, self.activation)
        if said not in ("silu", "tanh", "erf", "relu"):
            raise LoadError(
                f"{OWN_ACTIVATION} is '{str(said)[:40]}', which tlkit does not compute", "make the file again"
            )
        return str(said)
