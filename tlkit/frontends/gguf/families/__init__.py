"""The architectures, one module per line of models; :data:`FAMILIES` finds them by GGUF's name."""

from __future__ import annotations

from collections.abc import Mapping

from tlkit.errors import LoadError
from tlkit.frontends.gguf.families import bert, gemma, gpt2, llama, phi, qwen
from tlkit.frontends.gguf.kit.family import Family

FAMILIES: Mapping[str, Family] = {
    family.name: family for module in (llama, qwen, gemma, phi, gpt2, bert) for family in module.FAMILIES
}
"""By the architecture's name in GGUF (``general.architecture``)."""


def family_of(name: str, where: str = "the model") -> Family:
    """Return an architecture; LoadError that lists those that are known."""
    if name not in FAMILIES:
        said = f"{where}: its architecture is '{name[:60]}'" if name else f"{where}: it does not say its architecture"
        raise LoadError(said, f"tlkit runs {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]
