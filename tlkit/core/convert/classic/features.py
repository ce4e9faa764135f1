"""Feature engineering on numbers in MIL, as stages before a predictor; see :mod:`tlkit.engines.classic.numbers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlkit.engines.classic.values import DAMAGED, input_names, only_input, only_output
from tlkit.errors import ConversionError, LoadError
from tlkit.frontends.network.kit.blob import Blob, product
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.weights import array_value
from tlkit.mil.types import DType

Values = Mapping[str, Blob]
_EXACT = 1 << 24  # integers up to here are f32 numbers


def found(g: Graph, values: Values, name: str) -> Blob:
    """Return a feature [count]; LoadError where nothing makes it, or its size is open."""
    if name not in values:
        raise LoadError(f"no stage makes the feature '{name}'", DAMAGED)
    size = product(values[name].shape)
    if size is None:
        raise LoadError(f"the feature '{name}' has no fixed size", "fix the sizes of the model's inputs")
    return g.reshape(values[name], (size,))


def joined(g: Graph, parts: Sequence[Blob]) -> Blob:
    """Return features one after another."""
    if not parts:
        raise LoadError("a model without inputs", DAMAGED)
    size = sum(part.shape[0] or 0 for part in parts)
    return parts[0] if len(parts) == 1 else g.op("concat", (size,), values=list(parts), axis=0, interleave=False)


def vectorizer(g: Graph, values: Values, model: Any) -> dict[str, Blob]:
    """Its inputs one after another."""
    parts = [found(g, values, column.inputColumn) for column in model.featureVectorizer.inputList]
    for part, column in zip(parts, model.featureVectorizer.inputList, strict=True):
        if part.shape != (int(column.inputDimensions),):
            raise LoadError(f"the feature '{column.inputColumn}' has {part.shape[0]} numbers", DAMAGED)
    return {only_output(model): joined(g, parts)}


def scaler(g: Graph, values: Values, model: Any) -> dict[str, Blob]:
    """scale * (x + shift)."""
    x = found(g, values, only_input(model))
    for kind, numbers in (("add", model.scaler.shiftValue), ("mul", model.scaler.scaleValue)):
        if len(numbers):
            x = g.op(kind, x.shape, x=x, y=_along(numbers, x))
    return {only_output(model): x}


def imputer(g: Graph, values: Values, model: Any) -> dict[str, Blob]:
    """What counts as missing becomes the model's value."""
    message, x = model.imputer, found(g, values, only_input(model))
    which, replaced = message.WhichOneof("ImputedValue") or "", message.WhichOneof("ReplaceValue")
    filling = getattr(message, which, None)
    missing = getattr(message, replaced) if replaced else None
    if filling is None or isinstance(filling, str | bytes) or isinstance(missing, str) or hasattr(filling, "map"):
        raise ConversionError(f"MIL has no imputer of {which or 'nothing'}", "it runs with `tlkit run`")
    fill = list(getattr(filling, "vector", [filling]))
    as_nan = missing is None or np.isnan(missing)
    compared: Any = x if as_nan else float(missing or 0)
    gone = g.op("not_equal" if as_nan else "equal", x.shape, out=DType.BOOL, x=x, y=compared)
    whole = array_value(np.broadcast_to(np.array(fill, np.float32), (x.shape[0] or 0,)).copy())
    return {only_output(model): g.op("select", x.shape, cond=gone, a=whole, b=x)}


def normalizer(g: Graph, values: Values, model: Any) -> dict[str, Blob]:
    """x over its largest element, its sum of magnitudes, or its length; zeros stay zeros."""
    x, kind = found(g, values, only_input(model)), model.normalizer.normType
    reduction = {0: "reduce_max", 1: "reduce_l1_norm", 2: "reduce_l2_norm"}.get(kind)
    if reduction is None:
        raise LoadError(f"unknown norm {kind}", DAMAGED)
    size = g.op(reduction, (1,), x=x, axes=[0], keep_dims=True)
    nothing = g.op("equal", (1,), out=DType.BOOL, x=size, y=0.0)
    one = array_value(np.ones(1, np.float32))
    return {only_output(model): g.op("real_div", x.shape, x=x, y=g.op("select", (1,), cond=nothing, a=one, b=size))}


def extractor(g: Graph, values: Values, model: Any) -> dict[str, Blob]:
    """The elements at some places, counted from 0."""
    x, places = found(g, values, only_input(model)), [int(place) for place in model.arrayFeatureExtractor.extractIndex]
    if not places or max(places) >= (x.shape[0] or 0):
        raise LoadError(f"{x.shape[0]} features, of which those at {places} are taken", DAMAGED)
    return {only_output(model): g.op("gather", (len(places),), x=x, indices=places, axis=0)}


def one_hot(g: Graph, values: Values, model: Any) -> dict[str, Blob]:
    """1 at an integer category's place; zeros for a number that is no category."""
    message, x = model.oneHotEncoder, found(g, values, only_input(model))
    if message.WhichOneof("CategoryType") == "stringCategories":
        raise ConversionError("MIL has no texts, which a oneHotEncoder of texts takes", "it runs with `tlkit run`")
    categories = list(message.int64Categories.vector)
    if not categories or x.shape != (1,):
        raise LoadError(f"{len(categories)} categories for {x.shape[0]} numbers", DAMAGED)
    wide = next((category for category in categories if abs(category) > _EXACT), None)
    if wide is not None:
        raise ConversionError(f"the category {wide} is not an f32 number", "it runs with `tlkit run`")
    # Of two places for one category the last holds; nothing equals a NaN.
    last = {category: place for place, category in enumerate(categories)}
    compared = [category if last[category] == place else np.nan for place, category in enumerate(categories)]
    known = g.tensor(array_value(np.array(compared, np.float32)), "categories")
    return {
        only_output(model): g.cast(g.op("equal", known.shape, out=DType.BOOL, x=known, y=x), DType.FP32, DType.BOOL)
    }


def identity(g: Graph, values: Values, model: Any) -> dict[str, Blob]:
    """The inputs by the outputs' names."""
    names = [port.name for port in model.description.output]
    return {name: found(g, values, source) for name, source in zip(names, input_names(model), strict=False)}


STAGES = {
    "featureVectorizer": vectorizer,
    "scaler": scaler,
    "imputer": imputer,
    "normalizer": normalizer,
    "arrayFeatureExtractor": extractor,
    "oneHotEncoder": one_hot,
    "identity": identity,
}
"""The stages that can stand before a predictor, or by themselves: features by name to those that they add."""


def _along(numbers: Any, x: Blob) -> Any:
    if len(numbers) not in (1, x.shape[0]):
        raise LoadError(f"{len(numbers)} numbers for {x.shape[0]} features", DAMAGED)
    return array_value(np.array(numbers, np.float32))
