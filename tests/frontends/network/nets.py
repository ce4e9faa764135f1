"""Small neural networks as messages, and what runs them: for tests of layers one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlkit.engines.torch.shaped import ShapedEngine
from tlkit.frontends.network.network import NeuralNetwork
from tlkit.mil import coreml_proto

DOUBLE, FLOAT, INT = 65600, 65568, 131104
Array = np.ndarray[Any, Any]


def model(
    layers: Sequence[Any],
    inputs: Mapping[str, Sequence[int]],
    outputs: Sequence[str] = ("y",),
    *,
    exact: bool = True,
    kind: str = "neuralNetwork",
) -> Any:
    """A model of ``layers`` whose inputs have these shapes."""
    made = coreml_proto.module("Model_pb2").Model(specificationVersion=4 if exact else 1)
    network = getattr(made, kind)
    network.SetInParent()
    network.layers.extend(layers)
    network.arrayInputShapeMapping = int(exact)
    for name, shape in inputs.items():
        port = made.description.input.add(name=name)
        port.type.multiArrayType.shape.extend(shape)
        port.type.multiArrayType.dataType = FLOAT
    for name in outputs:
        made.description.output.add(name=name).type.multiArrayType.dataType = FLOAT
    return made


def layer(kind: str, inputs: str = "x", outputs: str = "y", *, name: str = "", **fields: Any) -> Any:
    """One layer; ``inputs`` and ``outputs`` are names with blanks between, a list fills a repeated field, a dictionary
    a message, an array a ``WeightParams``."""
    made = coreml_proto.module("NeuralNetwork_pb2").NeuralNetworkLayer(name=name or f"the_{outputs.split()[0]}")
    made.input.extend(inputs.split())
    made.output.extend(outputs.split())
    params = getattr(made, kind)
    params.SetInParent()
    fill(params, fields)
    return made


def fill(message: Any, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            getattr(message, name).floatValue.extend(value.astype(np.float32).ravel().tolist())
        elif isinstance(value, Mapping):
            getattr(message, name).SetInParent()
            fill(getattr(message, name), value)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for item in value:
                fill(getattr(message, name).add(), item)
        elif isinstance(value, list):
            getattr(message, name).extend(value)
        elif hasattr(value, "DESCRIPTOR"):
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)


def network(*layers: Any) -> Any:
    """A network inside a layer."""
    made = coreml_proto.module("NeuralNetwork_pb2").NeuralNetwork()
    made.layers.extend(layers)
    return made


def run(
    layers: Sequence[Any] | Any, arrays: Mapping[str, Array], outputs: Sequence[str] = ("y",), **how: Any
) -> dict[str, Array]:
    """Run layers on arrays; return the outputs as the engine gives them."""
    several = list(layers) if isinstance(layers, list | tuple) else [layers]
    hooks = how.pop("hooks", None)
    given = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    made = model(several, {name: array.shape for name, array in given.items()}, outputs, **how)
    return ShapedEngine(NeuralNetwork(made, hooks).function).run(given)


def one(layers: Sequence[Any] | Any, **arrays: Array) -> Array:
    """Run layers with exact shapes on arrays by name; return ``y``."""
    result: Array = run(layers, arrays)["y"]
    return result


def packed(codes: Sequence[int], bits: int) -> bytes:
    """Codes of so many bits one after the other, highest bits first."""
    text = "".join(f"{code:0{bits}b}" for code in codes)
    return bytes(int(text[start : start + 8].ljust(8, "0"), 2) for start in range(0, len(text), 8))


def sizes(x: Array, *, parameters: Mapping[str, Any], weights: Sequence[Array]) -> Array:
    """What a custom layer may compute."""
    return np.abs(x)
