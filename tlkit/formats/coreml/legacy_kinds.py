"""Facts about models of each of Core ML's kinds, and pipelines as a tree of nested models.

One function per family turns a model's message into plain facts by name. Kinds without one (identity, …) have none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlkit.formats.coreml import legacy

Facts = dict[str, Any]
_DEPTH = 32


def tree(model: Any, name: str = "", depth: int = 0) -> dict[str, Any]:
    """Return ``{"kind", "name", "inputs", "outputs", "facts", "models"}``; ``models`` are those inside a pipeline."""
    description = model.description
    node: dict[str, Any] = {
        "kind": model.WhichOneof("Type") or "unknown",
        "name": name,
        "inputs": [port.name for port in description.input],
        "outputs": [port.name for port in description.output],
        "facts": facts(model),
    }
    names, models = _inner(model)
    if models and depth < _DEPTH:
        node["models"] = [
            tree(inner, names[index] if index < len(names) else "", depth + 1) for index, inner in enumerate(models)
        ]
    return node


def facts(model: Any) -> Facts:
    """Return the notable facts about a model of any kind: sizes, kernels, labels, preprocessing, updatable parts."""
    kind = model.WhichOneof("Type") or ""
    message = legacy.body(model)
    found = _KINDS[kind](message) if kind in _KINDS else {}
    labels = _labels(message)
    if labels:
        found["classes"] = labels
    if model.isUpdatable:
        found["updatable"] = True
        found["training_inputs"] = [port.name for port in model.description.trainingInput]
    return {key: value for key, value in found.items() if value not in (None, "", [], {}, 0) or key == "threshold"}


def _inner(model: Any) -> tuple[list[str], list[Any]]:
    kind = model.WhichOneof("Type")
    if kind not in ("pipeline", "pipelineClassifier", "pipelineRegressor"):
        return [], []
    pipeline = getattr(model, kind)
    pipeline = pipeline if kind == "pipeline" else pipeline.pipeline
    return list(pipeline.names), list(pipeline.models)


def _labels(message: Any) -> int:
    if message is None:
        return 0
    for oneof in ("ClassLabels", "Tags"):
        if oneof in message.DESCRIPTOR.oneofs_by_name and message.WhichOneof(oneof):
            return len(getattr(message, message.WhichOneof(oneof)).vector)
    return 0


def _enum(message: Any, field: str) -> str:
    values = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number
    number = getattr(message, field)
    return values[number].name if number in values else f"value {number}"


def _network(message: Any) -> Facts:
    layers = list(message.layers)
    found: Facts = {"layers": len(layers)}
    custom = sorted({layer.custom.className for layer in layers if layer.WhichOneof("layer") == "custom"})
    found["custom_layers"] = custom
    found["preprocessing"] = [_preprocessing(step) for step in message.preprocessing]
    found["updatable_layers"] = [layer.name for layer in layers if layer.isUpdatable]
    if message.HasField("updateParams"):
        update = message.updateParams
        found["loss"] = [layer.WhichOneof("LossLayerType") for layer in update.lossLayers]
        found["optimizer"] = update.optimizer.WhichOneof("OptimizerType")
        found["epochs"] = update.epochs.defaultValue
    return found


def _preprocessing(step: Any) -> str:
    name = f"{step.featureName}: " if step.featureName else ""
    if step.WhichOneof("preprocessor") != "scaler":
        return f"{name}minus a mean image"
    scaler = step.scaler
    biases = {channel: getattr(scaler, f"{channel}Bias") for channel in ("red", "green", "blue", "gray")}
    shown = ", ".join(f"{channel} {value:g}" for channel, value in biases.items() if value)
    return f"{name}pixel x {scaler.channelScale:g}" + (f" + ({shown})" if shown else "")


def _trees(message: Any) -> Facts:
    nodes = message.treeEnsemble.nodes
    leaves = sum(1 for node in nodes if node.nodeBehavior == 6)  # LeafNode
    return {
        "trees": len({node.treeId for node in nodes}),
        "nodes": len(nodes),
        "leaves": leaves,
        "outputs": message.treeEnsemble.numPredictionDimensions,
        "transform": _enum(message, "postEvaluationTransform"),
    }


def _linear(message: Any) -> Facts:
    return {
        "coefficients": sum(len(row.value) for row in message.weights),
        "rows": len(message.weights),
        "transform": _enum(message, "postEvaluationTransform"),
    }


def _vectors(message: Any) -> Facts:
    which = message.WhichOneof("supportVectors")
    vectors = getattr(message, which).vectors if which else ()
    kernel = message.kernel.WhichOneof("kernel") or ""
    settings = getattr(message.kernel, kernel).ListFields() if kernel else ()
    return {
        "kernel": kernel.removesuffix("Kernel"),
        "kernel_settings": {field.name: value for field, value in settings},
        "support_vectors": len(vectors),
        "sparse": which == "sparseSupportVectors",
    }


def _neighbours(message: Any) -> Facts:
    index = message.nearestNeighborsIndex
    return {
        "samples": len(index.floatSamples),
        "dimensions": index.numberOfDimensions,
        "neighbours": message.numberOfNeighbors.defaultValue,
        "index": index.WhichOneof("IndexType"),
        "weighting": message.WhichOneof("WeightingScheme"),
    }


def _language(message: Any) -> Facts:
    return {"language": message.language, "revision": message.revision, "data_bytes": len(message.modelParameterData)}


def _versioned(oneof: str) -> Callable[[Any], Facts]:
    """Return the name and version of a model that is part of the system and only named in the file."""

    def facts_of(message: Any) -> Facts:
        which = message.WhichOneof(oneof)
        held = getattr(message, which) if which else None
        known = held is not None and "version" in held.DESCRIPTOR.fields_by_name
        return {"extractor": which, "version": _enum(held, "version") if known else None, "built_in": True}

    return facts_of


def _mapping(message: Any, oneof: str, field: str) -> int:
    which = message.WhichOneof(oneof)
    return len(getattr(getattr(message, which), field)) if which else 0


def _linked(message: Any) -> Facts:
    file = message.linkedModelFile
    return {
        "file": file.linkedModelFileName.defaultValue,
        "search_path": file.linkedModelSearchPath.defaultValue,
    }


def _suppression(message: Any) -> Facts:
    return {
        "iou_threshold": message.iouThreshold,
        "confidence_threshold": message.confidenceThreshold,
        "per_class": message.pickTop.perClass,
    }


def _items(message: Any) -> Facts:
    return {"items": len(message.itemItemSimilarities)}


def _custom(message: Any) -> Facts:
    return {
        "class": message.className,
        "parameters": sorted(message.parameters),
        "description": message.description,
    }


_KINDS: dict[str, Callable[[Any], Facts]] = {
    **dict.fromkeys(("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor"), _network),
    **dict.fromkeys(("treeEnsembleRegressor", "treeEnsembleClassifier"), _trees),
    **dict.fromkeys(("glmRegressor", "glmClassifier"), _linear),
    **dict.fromkeys(("supportVectorRegressor", "supportVectorClassifier"), _vectors),
    **dict.fromkeys(("textClassifier", "wordTagger", "gazetteer", "wordEmbedding"), _language),
    "pipeline": lambda m: {"models": len(m.models)},
    "pipelineClassifier": lambda m: {"models": len(m.pipeline.models)},
    "pipelineRegressor": lambda m: {"models": len(m.pipeline.models)},
    "bayesianProbitRegressor": lambda m: {"features": m.numberOfFeatures},
    "kNearestNeighborsClassifier": _neighbours,
    "itemSimilarityRecommender": _items,
    "customModel": _custom,
    "linkedModel": _linked,
    "classConfidenceThresholding": lambda m: {"curves": len(m.precisionRecallCurves)},
    "oneHotEncoder": lambda m: {
        "categories": _mapping(m, "CategoryType", "vector"),
        "unknown": _enum(m, "handleUnknown"),
        "sparse_output": m.outputSparse,
    },
    "imputer": lambda m: {"imputes": m.WhichOneof("ImputedValue"), "replaces": m.WhichOneof("ReplaceValue")},
    "featureVectorizer": lambda m: {
        "features": len(m.inputList),
        "dimensions": sum(column.inputDimensions for column in m.inputList),
    },
    "dictVectorizer": lambda m: {"vocabulary": _mapping(m, "Map", "vector")},
    "scaler": lambda m: {"scales": len(m.scaleValue), "shifts": len(m.shiftValue)},
    "categoricalMapping": lambda m: {"entries": _mapping(m, "MappingType", "map")},
    "normalizer": lambda m: {"norm": _enum(m, "normType")},
    "arrayFeatureExtractor": lambda m: {"indices": len(m.extractIndex)},
    "nonMaximumSuppression": _suppression,
    "visionFeaturePrint": _versioned("VisionFeaturePrintType"),
    "soundAnalysisPreprocessing": _versioned("SoundAnalysisPreprocessingType"),
    "audioFeaturePrint": _versioned("AudioFeaturePrintType"),
    "serializedModel": lambda m: {"identifier": m.identifier, "bytes": len(m.model)},
}
