"""Feature engineering between kinds of features: one-hot, dictionaries, categories, and their joining to one vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tlkit.engines.classic.values import Features, Rows, each, given, only_input, only_output, scalar, to_port, vector
from tlkit.errors import ExecutionError, LoadError
from tlkit.host import budget
from tlkit.types import TensorSpec


def one_hot(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return ``oneHotEncoder``: 1 at the category's place, as an array or as {place: 1.0}."""
    message, source, name = model.oneHotEncoder, only_input(model), only_output(model)
    which = message.WhichOneof("CategoryType")
    categories = list(getattr(message, which).vector) if which else []
    places = {category: place for place, category in enumerate(categories)}

    def step(features: Features) -> dict[str, Any]:
        category = scalar(given(features, source))
        place = places.get(category)
        if place is None and message.handleUnknown == 0:  # 0 is ErrorOnUnknown
            shown = ", ".join(map(str, categories[:8])) + (", ..." if len(categories) > 8 else "")
            raise ExecutionError(f"the input '{source}' is {category!r}, which is not a category", f"it is {shown}")
        if message.outputSparse:
            return {name: {} if place is None else {place: 1.0}}
        found = np.zeros(len(categories))
        if place is not None:
            found[place] = 1.0
        return {name: to_port(outputs.get(name), found)}

    return each(step)


def dict_vectorizer(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return ``dictVectorizer``: each key's value at the key's place; keys that the model does not know are dropped.

    The specification demands that all keys are known; scikit-learn's vectorizer, of which most are made, drops them.
    """
    message, source, name = model.dictVectorizer, only_input(model), only_output(model)
    which = message.WhichOneof("Map")
    keys = list(getattr(message, which).vector) if which else []
    places = {key: place for place, key in enumerate(keys)}
    spec = outputs.get(name)

    def step(features: Features) -> dict[str, Any]:
        table = given(features, source)
        if not isinstance(table, Mapping):
            raise ExecutionError(f"the input '{source}' is not a dictionary", 'give it one: {"key": 1.0}')
        known = {places[key]: float(value) for key, value in table.items() if key in places}
        if spec is not None and spec.kind == "dictionary":
            return {name: known}
        found = np.zeros(len(keys))
        found[list(known)] = list(known.values())
        return {name: to_port(spec, found)}

    return each(step)


def feature_vectorizer(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return ``featureVectorizer``: its inputs one after another; a dictionary is sparse, its keys are places."""
    # A size, although the specification's comment speaks of an index.
    columns = [(column.inputColumn, int(column.inputDimensions)) for column in model.featureVectorizer.inputList]
    name = only_output(model)
    said = budget.over(sum(size for _, size in columns))
    if said:
        raise LoadError(f"a vector of {said[0]}", said[1])

    def step(features: Features) -> dict[str, Any]:
        parts = [_column(features, source, size) for source, size in columns]
        return {name: to_port(outputs.get(name), np.concatenate(parts) if parts else np.empty(0))}

    return each(step)


def _column(features: Features, source: str, size: int) -> Any:
    value = given(features, source)
    if not isinstance(value, Mapping):
        found = vector(features, [source])
        if len(found) != size:
            raise ExecutionError(f"the input '{source}' has {len(found)} numbers, not {size}", "give it as many")
        return found
    found = np.zeros(size)
    for place, number in value.items():
        if not isinstance(place, int) or not 0 <= place < size:
            raise ExecutionError(f"the input '{source}' has the key {place!r}", f"its keys are 0 to {size - 1}")
        found[place] = number
    return found


def categorical_mapping(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return ``categoricalMapping``: texts to integers or integers to texts, one by one."""
    message, source, name = model.categoricalMapping, only_input(model), only_output(model)
    which = message.WhichOneof("MappingType")
    table = dict(getattr(message, which).map) if which else {}
    other = message.WhichOneof("ValueOnUnknown")

    def mapped(key: Any) -> Any:
        if key in table:
            return table[key]
        if other is None:
            raise ExecutionError(f"the input '{source}' is {key!r}, which the model does not know", "give it another")
        return getattr(message, other)

    def step(features: Features) -> dict[str, Any]:
        value = given(features, source)
        if isinstance(value, list | tuple):
            return {name: [mapped(key) for key in value]}
        return {name: mapped(scalar(value))}

    return each(step)
