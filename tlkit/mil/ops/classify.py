"""The last op of a classifier. In the graph its outputs are tensors, the index of the likeliest class and the
probabilities; ``engines/labels.py`` turns them into the label and the dictionary that users see."""

from __future__ import annotations

from typing import Any

from tlkit.mil.ops.kit.registry import Tensor, op


@op(exact=True)
def classify(probabilities: Tensor, classes: Any) -> tuple[Tensor, Tensor]:
    """The index of the largest probability, and all of them, flat; ``classes`` names them (str or int64)."""
    flat = probabilities.reshape(-1)
    return flat.argmax(), flat
