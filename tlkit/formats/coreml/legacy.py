"""Core ML's neural networks from before mlprograms: layers and weights inside one protobuf."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tlkit.errors import LoadError
from tlkit.formats.coreml.weights import Weight
from tlkit.formats.files.wire import fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

NETWORKS = ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor")
"""The kinds of model that are neural networks."""

_PIPELINES = ("pipeline", "pipelineClassifier", "pipelineRegressor")


def body(model: Any) -> Any:
    """Return the message of a model's kind (its ``Type`` field), or None where it has none."""
    kind = model.WhichOneof("Type")
    return getattr(model, kind) if kind else None


def stages(model: Any) -> Iterator[Any]:
    """Yield ``model``, and the models inside it, at any depth, where it is a pipeline."""
    yield model
    for stage in inner(model):
        yield from stages(stage)


def inner(model: Any) -> Sequence[Any]:
    """Return the models that ``model`` runs one after another; empty where it is not a pipeline."""
    kind = model.WhichOneof("Type")
    if kind not in _PIPELINES:
        return ()
    pipeline = getattr(model, kind)
    models: Sequence[Any] = (pipeline if kind == "pipeline" else pipeline.pipeline).models
    return models


def stage_names(model: Any) -> list[str]:
    """Return the names of a pipeline's stages; empty where they have none."""
    kind = model.WhichOneof("Type")
    if kind not in _PIPELINES:
        return []
    pipeline = getattr(model, kind)
    return list((pipeline if kind == "pipeline" else pipeline.pipeline).names)


def rest(model: Any, first: int) -> Any:
    """Return a pipeline's stages from ``first`` on as a pipeline.

    Its inputs are the features that none of them makes, its outputs those of ``model`` that they make.
    """
    made = type(model)()
    made.CopyFrom(model)
    kind = made.WhichOneof("Type")
    pipeline = getattr(made, kind) if kind == "pipeline" else getattr(made, kind).pipeline
    del pipeline.models[:first]
    del pipeline.names[:first]
    outer, known = {port.name: port for port in model.description.input}, set[str]()
    asked: dict[str, Any] = {}
    for stage in pipeline.models:
        asked |= {port.name: outer.get(port.name, port) for port in stage.description.input if port.name not in known}
        known |= {port.name for port in stage.description.output}
    described = model.description
    known |= {described.predictedFeatureName, described.predictedProbabilitiesName}
    del made.description.input[:]
    made.description.input.extend(asked.values())
    del made.description.output[:]
    made.description.output.extend(port for port in described.output if port.name in known)
    return made


def weights(model: Any) -> Iterator[Weight]:
    """Yield the weights of all networks in ``model``; shapes are flat, as the protobuf keeps them."""
    return (weight for weight, _ in weight_messages(model))


def weight_messages(model: Any) -> Iterator[tuple[Weight, Any]]:
    """Yield the weights of all networks in ``model``, each with the ``WeightParams`` message that holds it."""
    for stage in stages(model):
        if stage.WhichOneof("Type") in NETWORKS:
            for layer in body(stage).layers:
                yield from _layer(layer.name, layer)


def layers(model: Any) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Yield name, kind, inputs and outputs of each layer of all networks in ``model``."""
    for stage in stages(model):
        if stage.WhichOneof("Type") in NETWORKS:
            for layer in body(stage).layers:
                yield layer.name, layer.WhichOneof("layer") or "unknown", list(layer.input), list(layer.output)


def labels(model: Any) -> tuple[str, ...]:
    """Return the class labels of the last stage that has any, integers as text."""
    found: tuple[str, ...] = ()
    for stage in stages(model):
        content = body(stage)
        if content is not None and "ClassLabels" in content.DESCRIPTOR.oneofs_by_name:
            which = content.WhichOneof("ClassLabels")
            found = tuple(map(str, getattr(content, which).vector)) if which else found
    return found


def _layer(name: str, message: Any) -> Iterator[tuple[Weight, Any]]:
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for item in value if _repeated(value) else (value,):
            if field.message_type.name == "WeightParams":
                yield from ((weight, item) for weight in _weight(f"{name}.{field.name}", item))
            elif field.message_type.full_name.startswith("CoreML.Specification."):
                yield from _layer(name, item)


def _repeated(value: Any) -> bool:
    # A message has it, a list of messages does not.
    return not hasattr(value, "ListFields")


def _weight(name: str, params: Any) -> Iterator[Weight]:
    bits = params.quantization.numberOfBits
    if params.floatValue:
        yield Weight(name, "F32", (len(params.floatValue),), 4 * len(params.floatValue))
    elif params.float16Value:
        yield Weight(name, "F16", (len(params.float16Value) // 2,), len(params.float16Value))
    elif params.int8RawValue:
        yield Weight(name, "INT8", (len(params.int8RawValue),), len(params.int8RawValue) + _beside(params))
    elif params.rawValue and bits:
        stored = "PAL" if params.quantization.WhichOneof("QuantizationType") == "lookupTableQuantization" else "INT"
        yield Weight(
            name, f"{stored}{bits}", (len(params.rawValue) * 8 // bits,), len(params.rawValue) + _beside(params)
        )


def _beside(params: Any) -> int:
    """Return the bytes of a quantized weight's scales or look-up table."""
    linear, table = params.quantization.linearQuantization, params.quantization.lookupTableQuantization
    return 4 * (len(linear.scale) + len(linear.bias) + len(table.floatValue))


def count(params: Any) -> int:
    """Return how many values a ``WeightParams`` message has; packed ones may be up to seven fewer."""
    if params.floatValue:
        return len(params.floatValue)
    if params.float16Value:
        return len(params.float16Value) // 2
    bits = params.quantization.numberOfBits
    return len(params.int8RawValue) or (len(params.rawValue) * 8 // bits if 0 < bits <= 8 else len(params.rawValue))


def stored(params: Any) -> bytes:
    """Return the bytes of a ``WeightParams`` message, float32 values little-endian."""
    if params.floatValue:
        return _floats(params).tobytes()
    return bytes(params.float16Value or params.int8RawValue or params.rawValue)


def values(params: Any, shape: tuple[int, ...] | None = None, axis: int = 0) -> NDArray[Any]:
    """Return the values of a ``WeightParams`` message, flat: quantized ones as float32, by their scales or table.

    Scales go along ``axis`` of ``shape``, or along the first one; what only fills the last byte is left out with a
    ``shape``.
    """
    import numpy as np

    if params.floatValue:
        return _floats(params)
    if params.float16Value:
        return np.frombuffer(params.float16Value, "<f2", len(params.float16Value) // 2)
    quantization, data = params.quantization, _codes(params)
    data = data if shape is None else data[: math.prod(shape)]
    if quantization.WhichOneof("QuantizationType") == "lookupTableQuantization":
        table = np.array(quantization.lookupTableQuantization.floatValue, np.float32)
        if data.size and not 0 <= data.min() <= data.max() < table.size:
            raise LoadError("a weight's index points past its look-up table", "the file is damaged")
        return np.take(table, data)
    linear, wide = quantization.linearQuantization, data.astype(np.float32)
    outer = math.prod(shape[:axis]) if shape else 1
    for name, part in (("scale", linear.scale or [1.0]), ("bias", linear.bias or [0.0])):
        along = np.array(part, np.float32)
        if data.size % (outer * along.size) or (shape and along.size not in (1, shape[axis])):
            raise LoadError("a weight's scales do not divide it", "the file is damaged")
        rows, column = wide.reshape(outer, along.size, -1), along[None, :, None]  # outer x scales x the rest
        wide = rows * column if name == "scale" else rows + column
    return np.asarray(wide.reshape(-1))


def _floats(params: Any) -> NDArray[Any]:
    """Return ``floatValue`` without a Python number for each: from its place in the message's bytes."""
    import numpy as np

    data = memoryview(params.SerializePartialToString())
    for number, wire, start, end in fields(data, 0, len(data)):
        # Packed, as it is usually written; otherwise each number is a field.
        if (number, wire) == (params.FLOATVALUE_FIELD_NUMBER, 2):
            return np.frombuffer(data[start:end], "<f4")
    return np.array(params.floatValue, np.float32)


def parts(params: Any) -> dict[str, NDArray[Any]]:
    """Return the parts of a quantized ``WeightParams`` message, flat: indices and their table, or codes and scales."""
    import numpy as np

    quantization, codes = params.quantization, np.asarray(_codes(params))
    codes = codes if codes.dtype == np.int8 else codes.astype(np.uint8)
    if quantization.WhichOneof("QuantizationType") == "lookupTableQuantization":
        return {"indices": codes, "lut": np.array(quantization.lookupTableQuantization.floatValue, np.float32)}
    linear = quantization.linearQuantization
    named = {"scale": np.array(linear.scale, np.float32), "bias": np.array(linear.bias, np.float32)}
    return {"data": codes} | {name: values for name, values in named.items() if values.size}


def _codes(params: Any) -> NDArray[Any]:
    """Return a quantized weight's integers; those below a byte are packed highest bits first."""
    import numpy as np

    if params.int8RawValue:
        return np.frombuffer(params.int8RawValue, np.int8)
    data, bits = np.frombuffer(params.rawValue, np.uint8), params.quantization.numberOfBits
    if not 0 < bits < 8:
        return data
    rows = np.unpackbits(data)[: data.size * 8 // bits * bits].reshape(-1, bits)
    return np.asarray(rows @ (1 << np.arange(bits)[::-1]))  # the highest bit first
