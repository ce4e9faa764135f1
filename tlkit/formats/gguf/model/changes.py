"""What llama.cpp's converter does to values beside renaming them, and the way back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tlkit.formats.gguf.model.row import Architecture, ChangeKind

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Change:
    """One tensor's change from Hugging Face's values to llama.cpp's, or ``back``. ``heads`` share a matrix's rows."""

    kind: ChangeKind
    heads: int = 0
    back: bool = False

    @property
    def moves(self) -> bool:
        """Whether it moves rows as a whole."""
        return self.kind in ("q rows", "k rows", "halves")

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return what ``shape`` becomes."""
        return shape[::-1] if self.kind == "transposed" else shape

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of ``shape`` can be changed so."""
        if self.kind == "transposed":
            return len(shape) == 2
        halves = 2 if self.kind == "halves" else 2 * self.heads
        return self.kind == "one more" or (bool(shape) and halves > 0 and shape[0] % halves == 0)

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the changed values; what is added to is float32."""
        import numpy as np

        if self.kind == "transposed":
            return np.ascontiguousarray(values.T)
        if self.kind == "one more":
            one = np.float32(-1 if self.back else 1)
            return np.asarray(values.astype(np.float32) + one)
        if self.kind == "halves":
            return np.roll(values, values.shape[0] // 2, 0)
        # Hugging Face turns the two halves of a head against each other, llama.cpp neighbours.
        pairs = (self.heads, -1, 2) if self.back else (self.heads, 2, values.shape[0] // self.heads // 2)
        parts = values.reshape(*pairs, *values.shape[1:])
        return np.ascontiguousarray(parts.swapaxes(1, 2)).reshape(values.shape)


def change_of(name: str, row: Architecture, heads: tuple[int, int]) -> Change | None:
    """Return what becomes of the tensor that GGUF calls ``name``; ``heads`` are counts of query and key heads."""
    kind = row.changes.get(short_name(name))
    if kind is None:
        return None
    return Change(kind, {"q rows": heads[0], "k rows": heads[1]}.get(kind, 0))


def changes_back(names: Iterable[str], row: Architecture, heads: tuple[int, int]) -> dict[str, Change]:
    """Return how the tensors of a GGUF file become Hugging Face's, by GGUF's name."""
    found = ((name, change_of(name, row, heads)) for name in names)
    return {name: replace(change, back=True) for name, change in found if change}


def short_name(name: str) -> str:
    """Return a tensor's name without its block.

    >>> short_name("blk.12.attn_q.weight")
    'attn_q.weight'
    """
    return name.split(".", 2)[2] if name.startswith("blk.") and name.count(".") > 1 else name
