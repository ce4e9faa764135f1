"""What each kind of Espresso layer is written with: the network that is made, and the attributes and tensors read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from tlkit.errors import LoadError
from tlkit.formats.coreml.espresso.network import EspressoLayer, Extent
from tlkit.formats.coreml.espresso.weights import EspressoTensor, EspressoWeights
from tlkit.mil import coreml_proto

Held: TypeAlias = Mapping[str, EspressoTensor]
"""A layer's tensors by their roles."""
Array = np.ndarray[Any, Any]
Fields: TypeAlias = dict[str, Any]
"""What a layer of the network holds, by its fields' names."""
DAMAGED = "compile the model again, or run the .mlmodel that it was made of"
_AXES = 5


class Kit:
    """The layers as they are made. ``exact`` says that values have ranks of their own; else all are seen in five
    dimensions, [seq, n, k, h, w]."""

    def __init__(self, weights: EspressoWeights, *, exact: bool) -> None:
        self.weights, self.exact = weights, exact
        self.extents: Mapping[str, Extent] = weights.network.extents
        self.made: list[Any] = []
        self._proto = coreml_proto.module("NeuralNetwork_pb2")
        self._taken = {name for layer in weights.network.layers for name in (*layer.inputs, *layer.outputs)}

    def fresh(self, hint: str) -> str:
        """Return a name that no value has."""
        count = 0
        while (name := f"{hint}_{count}") in self._taken:
            count += 1
        self._taken.add(name)
        return name

    def add(self, kind: str, layer: EspressoLayer, /, *inputs: str, to: str = "", **fields: Any) -> str:
        """Add a layer of the network's ``kind`` for ``layer``, with its inputs and first output unless others are
        given; return the output. A field is a number, a list, a dictionary (a message) or a message."""
        made = self._proto.NeuralNetworkLayer(name=layer.name)
        made.input.extend(inputs or layer.inputs)
        made.output.extend([to] if to else layer.outputs)
        params = getattr(made, kind)
        params.SetInParent()
        _fill(params, fields)
        self.made.append(made)
        return to or layer.outputs[0]

    def tensor(self, held: Held, role: str) -> Any:
        """Return a tensor as a ``WeightParams`` message; LoadError where the layer has none."""
        return self.params(self.array(held, role))

    def array(self, held: Held, role: str) -> Array:
        """Return a tensor's values; those of codes as f16, which they are rounded to before Core ML computes."""
        if role not in held:
            raise LoadError(f"its {role} are not there", DAMAGED)
        found: Array = self.weights.values(held[role])
        return found.astype(np.float16) if held[role].scale is not None else found

    def params(self, values: Array) -> Any:
        """Return values as a ``WeightParams`` message of f16 or f32."""
        if values.dtype == np.float16:
            return self._proto.WeightParams(float16Value=np.ascontiguousarray(values, "<f2").tobytes())
        data = np.ascontiguousarray(values, "<f4").tobytes()
        head = bytes([self._proto.WeightParams.FLOATVALUE_FIELD_NUMBER << 3 | 2])
        # A list of numbers would take eight times the memory.
        return self._proto.WeightParams.FromString(head + _varint(len(data)) + data)

    def rank(self, name: str) -> int:
        """Return the rank of a value; LoadError where the bundle does not say it."""
        if not self.exact:
            return _AXES
        extent = self.extents.get(name)
        if extent is None or not extent.rank or extent.rank > _AXES:
            raise LoadError(f"the rank of '{name}' is not known", DAMAGED)
        return extent.rank


Maker: TypeAlias = Callable[[Kit, EspressoLayer, Held], object]
_MAKERS: dict[str, Maker] = {}


def espresso(*kinds: str) -> Callable[[Maker], Maker]:
    """Register the decorated function for Espresso layers of ``kinds``."""

    def register(function: Maker) -> Maker:
        _MAKERS.update(dict.fromkeys(kinds, function))
        return function

    return register


UNREAD = {
    "rnn_arch": "the order of the gates in its weights is not published",
    "scatter_nd": "what its accumulation_mode means is published in two ways that contradict each other",
    "one_hot": "its attributes are not published",
    "range": "its attributes are not published",
    "fill": "its attributes are not published",
    "sequence_repeat": "its attributes are not published",
}
"""Kinds that compiled networks are known to have, and why their layers are not made."""


def lookup(kind: str) -> Maker | None:
    """Return what makes layers of ``kind``, or None."""
    return _MAKERS.get(kind)


def number(layer: EspressoLayer, key: str, default: float = 0.0) -> float:
    """Return a finite number among a layer's attributes, ``default`` where it is left out."""
    value = layer.attributes.get(key, default)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise LoadError(f"its {key} is {value!r:.80}, not a number", DAMAGED)
    return float(value)


def whole(layer: EspressoLayer, key: str, default: int = 0) -> int:
    """Return a whole number among a layer's attributes, which may be below 0; ``default`` where it is left out."""
    value = number(layer, key, default)
    if value != int(value) or abs(value) >= 1 << 31:
        raise LoadError(f"its {key} is {value:g}, not a whole number", DAMAGED)
    return int(value)


def flag(layer: EspressoLayer, key: str) -> bool:
    """Return whether a layer has an attribute that is not 0."""
    return bool(whole(layer, key))


def listed(layer: EspressoLayer, prefix: str, count: int) -> list[int]:
    """Return the attributes ``prefix_0``, ``prefix_1``, ... as a list of ``count``."""
    return [whole(layer, f"{prefix}_{index}") for index in range(min(count, 1000))]


def unknown(layer: EspressoLayer, key: str) -> LoadError:
    """Return the error for a value of an attribute whose meaning is not known."""
    return LoadError(f"what {key} {layer.attributes.get(key)!r:.40} means there is not known", DAMAGED)


def _fill(message: Any, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            getattr(message, name).SetInParent()
            _fill(getattr(message, name), value)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for item in value:
                _fill(getattr(message, name).add(), item)
        elif isinstance(value, list):
            getattr(message, name).extend(value)
        elif hasattr(value, "DESCRIPTOR"):
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))
