"""Feature engineering on numbers: missing values, scaling, norms, picking, and passing on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tlkit.engines.classic.values import (
    DAMAGED,
    Features,
    Rows,
    each,
    given,
    input_names,
    only_input,
    only_output,
    to_port,
    vector,
)
from tlkit.errors import ExecutionError, LoadError
from tlkit.formats.coreml.ports import read_ports
from tlkit.types import TensorSpec


def imputer(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return ``imputer``: what counts as missing becomes the model's value.

    Without a ``replace`` value NaN is missing, or an empty text. A dictionary gains the keys that it lacks.
    """
    message, source, name = model.imputer, only_input(model), only_output(model)
    which, replaced = message.WhichOneof("ImputedValue"), message.WhichOneof("ReplaceValue")
    if which is None:
        raise LoadError("an imputer without a value", DAMAGED)
    filling = getattr(message, which)
    missing = getattr(message, replaced) if replaced else None

    def step(features: Features) -> dict[str, Any]:
        value = given(features, source)
        if isinstance(value, Mapping):
            return {name: _completed(value, dict(filling.map), missing)}
        if isinstance(value, str):
            return {name: filling if value == (missing or "") else value}
        numbers = vector(features, [source])
        fill = np.array(filling.vector if hasattr(filling, "vector") else [filling], np.float64)
        if len(fill) not in (1, len(numbers)):
            raise ExecutionError(f"the input '{source}' has {len(numbers)} numbers, not {len(fill)}", "give it as many")
        gone = np.isnan(numbers) if missing is None or np.isnan(missing) else numbers == missing
        return {name: to_port(outputs.get(name), np.where(gone, fill, numbers))}

    return each(step)


def _completed(table: Mapping[Any, float], filling: Mapping[Any, float], missing: float | None) -> dict[Any, float]:
    def gone(value: float) -> bool:
        return bool(np.isnan(value)) if missing is None or np.isnan(missing) else value == missing

    kept = {key: value for key, value in table.items() if key not in filling or not gone(value)}
    return {**filling, **kept}


def scaler(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return ``scaler``: scale * (x + shift), each one number or one for each feature (0 and 1 where left out)."""
    message, source, name = model.scaler, only_input(model), only_output(model)
    shift, scale = np.array(message.shiftValue or [0.0]), np.array(message.scaleValue or [1.0])

    def step(features: Features) -> dict[str, Any]:
        numbers = vector(features, [source])
        if any(len(part) not in (1, len(numbers)) for part in (shift, scale)):
            wanted = max(len(shift), len(scale))
            raise ExecutionError(f"the input '{source}' has {len(numbers)} numbers, not {wanted}", "give it as many")
        return {name: to_port(outputs.get(name), scale * (numbers + shift))}

    return each(step)


def normalizer(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return ``normalizer``: x over its largest element, its sum of magnitudes, or its length; zeros stay zeros."""
    source, name, kind = only_input(model), only_output(model), model.normalizer.normType
    if kind not in (0, 1, 2):
        raise LoadError(f"unknown norm {kind}", DAMAGED)

    def step(features: Features) -> dict[str, Any]:
        numbers = vector(features, [source])
        # Core ML's maximum norm is the largest element, not the largest magnitude.
        # 0 is LMax; 1 and 2, L1 and L2, are numpy's orders too.
        size = np.linalg.norm(numbers, kind) if kind else numbers.max(initial=-np.inf)
        return {name: to_port(outputs.get(name), numbers / size if size and numbers.size else numbers)}

    return each(step)


def array_feature_extractor(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return ``arrayFeatureExtractor``: the elements at some places, counted from 0."""
    source, name = only_input(model), only_output(model)
    places = [int(place) for place in model.arrayFeatureExtractor.extractIndex]
    for spec in read_ports(model.description.input):
        size = math.prod(spec.shape) if spec.shape and not spec.flexible else None
        if size is not None and max(places, default=0) >= size:
            raise LoadError(f"the input '{source}' has {size} numbers, no number {max(places)}", DAMAGED)

    def step(features: Features) -> dict[str, Any]:
        numbers = vector(features, [source])
        if any(place >= len(numbers) for place in places):
            raise ExecutionError(
                f"the input '{source}' has {len(numbers)} numbers, no number {max(places)}", "give it more"
            )
        return {name: to_port(outputs.get(name), numbers[places])}

    return each(step)


def passed_on(model: Any, outputs: Mapping[str, TensorSpec]) -> Rows:
    """Return ``identity`` and ``classConfidenceThresholding``: the inputs are the outputs, by name and else in order.

    The latter's precision-recall curves are for the app to choose a threshold by; predicting leaves values alone.
    """
    inputs = input_names(model)
    pairs = list(zip([port.name for port in model.description.output], inputs, strict=False))

    def step(features: Features) -> dict[str, Any]:
        return {name: given(features, name if name in inputs else source) for name, source in pairs}

    return each(step)
