"""The network of an Espresso bundle as the ``Model`` message that it was compiled from, as far as that can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tlkit.errors import LoadError, contradictions
from tlkit.formats.coreml.espresso.network import EspressoLayer, Network
from tlkit.formats.coreml.espresso.weights import EspressoTensor, EspressoWeights
from tlkit.formats.coreml.mlmodelc import CompiledPackage
from tlkit.formats.coreml.package import Package
from tlkit.formats.coreml.ports import read_ports
from tlkit.frontends.espresso import kinds
from tlkit.frontends.espresso.kit.making import DAMAGED, UNREAD, Held, Kit, lookup, number, whole

KINDS = kinds.FAMILIES
"""The layer kinds, which importing it registers."""
_FUSED = {"fused_relu": "ReLU", "has_relu": "ReLU", "fused_tanh": "tanh", "has_tanh": "tanh"}
_SOURCE = "run the .mlmodel that it was compiled from, whose layers are published"
_COLORS = ("r", "g", "b")


def network_of(package: Package) -> Any:
    """Return the ``Model`` message of a package's neural network, made of its layers where it is compiled.

    LoadError names every kind of layer that cannot be made, or the one whose attributes are not known.
    """
    found = package.network if isinstance(package, CompiledPackage) else None
    if found is None or not isinstance(package, CompiledPackage):
        return package.model
    if found.note:
        raise LoadError(found.note, DAMAGED)
    package.require_weights()
    weights = package.espresso
    assert weights is not None
    return _model(package.model, found, weights, package.output_values)


def _model(described: Any, network: Network, weights: EspressoWeights, made: tuple[str, ...]) -> Any:
    missing = list(dict.fromkeys(layer.kind for layer in network.layers if lookup(layer.kind) is None))
    if missing:
        told = [f"{kind} ({UNREAD[kind]})" if kind in UNREAD else kind for kind in missing]
        hint = _SOURCE if {*missing} <= {*UNREAD} else DAMAGED
        raise LoadError(f"the compiled network has layers that tlkit does not know: {', '.join(told)}", hint)
    model = type(described)()
    model.CopyFrom(described)
    body = getattr(model, model.WhichOneof("Type") or "neuralNetwork")
    body.SetInParent()
    exact = any(extent.rank for extent in network.extents.values())
    body.arrayInputShapeMapping = int(exact)
    body.imageInputShapeMapping = int(exact and _images_are_of_rank_4(model, network))
    kit, held = Kit(weights, exact=exact), _held(weights)
    for layer in network.layers:
        _layer(kit, layer, held.get(id(layer), {}))
    for port, value in zip(model.description.output, made, strict=False):
        if value != port.name and not any(port.name in item.output for item in kit.made):
            kit.add("activation", _renaming(port.name, value), linear={"alpha": 1.0, "beta": 0.0})
    body.layers.extend(kit.made)
    _preprocessing(model, body, network.transforms)
    return model


def _held(weights: EspressoWeights) -> dict[int, dict[str, EspressoTensor]]:
    found: dict[int, dict[str, EspressoTensor]] = {}
    for tensor in weights.blobs:
        found.setdefault(id(tensor.layer), {})[tensor.role] = tensor
    return found


def _renaming(port: str, value: str) -> EspressoLayer:
    return EspressoLayer(port, "copy", (value,), (port,), {})


def _images_are_of_rank_4(model: Any, network: Network) -> bool:
    images = [spec.name for spec in read_ports(model.description.input) if spec.image is not None]
    return any(network.extents[name].rank == 4 for name in images if name in network.extents)


def _layer(kit: Kit, layer: EspressoLayer, held: Held) -> None:
    """Make a layer, and the nonlinearity that the compiler put into it."""
    make, said = lookup(layer.kind), f"layer '{layer.name}' ({layer.kind})"
    assert make is not None
    try:
        with contradictions(f"{said} contradicts itself", DAMAGED):
            if (not layer.inputs and layer.kind != "load_constant") or not layer.outputs:
                raise LoadError("it has no input or no output", DAMAGED)
            after = [kind for key, kind in _FUSED.items() if whole(layer, key)]
            result = layer.outputs[0]
            make(kit, replace(layer, outputs=(kit.fresh(result),)) if after else layer, held)
            for kind in after[:1]:
                kit.add("activation", layer, kit.made[-1].output[0], to=result, **{kind: {}})
    except LoadError as error:
        if error.message.startswith("layer '"):
            raise
        raise LoadError(f"{said}: {error.message}", error.hint) from error.__cause__


def _preprocessing(model: Any, body: Any, transforms: Mapping[str, Mapping[str, Any]]) -> None:
    """Write what is done to an image first: scale * x + bias, in 0..255."""
    inputs = {port.name for port in model.description.input}
    for name, given in transforms.items():
        if name not in inputs:
            continue
        stand = EspressoLayer(name, "transform_params", (), (), given)
        scale, biases = number(stand, "scale", 1.0), [number(stand, f"bias_{color}") for color in _COLORS]
        if scale == 1 and not any(biases):
            continue
        step = body.preprocessing.add(featureName=name)
        step.scaler.channelScale = scale
        step.scaler.redBias, step.scaler.greenBias, step.scaler.blueBias = biases
        step.scaler.grayBias = next((bias for bias in biases if bias), 0.0)
