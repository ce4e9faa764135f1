"""What can be drawn for a model's inputs: the texts and keys that it knows, and shapes that its layers take.

A port says that it takes a text or a dictionary, not which; the stage that reads it lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.core.model.plain import example
from tlkit.engines.classic.text import vocabulary
from tlkit.errors import LoadError, UsageError
from tlkit.formats.coreml import legacy
from tlkit.types import TensorSpec

_WORDS = 8
"""How many words, keys or items are drawn at most."""


@dataclass(frozen=True, slots=True)
class Known:
    """By input: the ``values`` (texts, integers, keys) that the model knows, and ``shapes`` to draw where a port's own
    shape does not do; and the file of the tokenizer that it carries."""

    values: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    tokenizer: Path | None = None


NOTHING = Known()


def known_values(model: Any) -> dict[str, Sequence[Any]]:
    """Return the values that inputs of a ``Model`` message may take, where the stages that read them list them."""
    wanted = {port.name for port in model.description.input}
    found: dict[str, Sequence[Any]] = {}
    for stage in legacy.stages(model):
        source = next((port.name for port in stage.description.input), "")
        if source in wanted and source not in found and (values := _listed(stage)):
            found[source] = values
        if not legacy.inner(stage):  # what a stage makes hides an input of its name from those after it
            wanted -= {port.name for port in stage.description.output}
    return found


def _listed(stage: Any) -> Sequence[Any]:
    """Return the values that a stage's first input may take; empty where it does not list them."""
    kind, message = stage.WhichOneof("Type"), legacy.body(stage)
    if kind in ("oneHotEncoder", "dictVectorizer"):
        which = message.WhichOneof("CategoryType" if kind == "oneHotEncoder" else "Map")
        return list(getattr(message, which).vector) if which else ()
    if kind == "categoricalMapping":
        which = message.WhichOneof("MappingType")
        return list(getattr(message, which).map) if which else ()
    if kind == "itemSimilarityRecommender":
        items = list(message.itemStringIds.vector) or list(message.itemInt64Ids.vector)
        return items or [int(row.itemId) for row in message.itemItemSimilarities]
    if kind == "textClassifier":
        try:
            return vocabulary(bytes(message.modelParameterData))
        except LoadError:  # the engine says why, when it reads it
            return ()
    return ()


def draw_known(spec: TensorSpec, values: Sequence[Any], rng: np.random.Generator) -> Any:
    """Return a text, a dictionary or a list of some of ``values``, or one integer; UsageError where there are none."""
    if not values:
        raise UsageError(f"input '{spec.name}' takes a {spec.kind}, which cannot be drawn at random", example(spec))
    count = min(len(values), _WORDS)
    several = [values[int(place)] for place in rng.choice(len(values), count, replace=False)]
    if spec.kind == "dictionary":
        return {key: float(rng.integers(1, 4)) for key in several}
    return several if spec.kind == "sequence" else several[0]
