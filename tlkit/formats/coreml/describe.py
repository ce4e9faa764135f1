"""Describe a Core ML model: everything that ``tlkit inspect`` shows, read from the file, without coremltools.

A package whose weights are missing or truncated is described as far as possible; problems become notes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError
from tlkit.formats.base import sniff
from tlkit.formats.coreml import legacy
from tlkit.formats.coreml import legacy_kinds as _legacy_kinds
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.package import Package, blamed_on
from tlkit.formats.coreml.ports import read_ports
from tlkit.formats.coreml.weights import Weight, is_weight_file, stored_name
from tlkit.mil.opsets import system_of
from tlkit.mil.program import Function, ListType, Program, Ref, TensorType, Value, walk
from tlkit.mil.types import DType
from tlkit.types import Metadata, ModelInfo, TensorSpec

_PROVENANCE = "com.github.apple.coremltools."


def describe(path: Path) -> ModelInfo:
    """Describe the Core ML model at ``path``; LoadError where it is missing or damaged."""
    sniff.expect_coreml(path)
    return describe_package(open_package(path))


def describe_package(package: Package, function: str | None = None) -> ModelInfo:
    """Describe an opened model; inputs and outputs are those of ``function`` (default: the model's default
    function)."""
    with blamed_on(package.file):
        return _describe(package, function)


def _describe(package: Package, function: str | None) -> ModelInfo:
    model, program = package.model, package.program
    ports = _interface(model.description, function)
    table = weight_table(package)
    shares, faults = _shares(table), package.faults
    programs = [leaf.program for leaf in package.leaves() if leaf.program]
    versions = [stage.specificationVersion for stage in legacy.stages(model)]
    return ModelInfo(
        path=str(package.root),
        metadata=_metadata(model.description.metadata, shares),
        kind=model.WhichOneof("Type") or "unknown",
        inputs=_inputs(model, ports),
        outputs=read_ports(ports.output),
        states=read_ports(ports.state),
        labels=_labels(program, function) if program else _stage_labels(model, programs),
        functions=tuple(program.functions) if program else (),
        # A pipeline is as new as its newest stage.
        spec_version=max(versions) or None,
        opset=_opset(program, function) if program else next((_opset(stage, None) for stage in programs), ""),
        parameters=sum(weight.elements for weight in table),
        weights=shares,
        compute=_compute(programs),
        operations=_by_count(_all_operations(package)),
        sizes=_sizes(package),
        details={
            **_details(model, ports, program),
            **({} if program else _stages(package)),
            **package.extra,
            **({"weights_missing": True} if faults else {}),
        },
        notes=package.notes + tuple(error.message for error in faults),
        left_out=package.left_out,
    )


def _thresholds(suppression: Any, described: set[str]) -> Iterator[TensorSpec]:
    """Yield the thresholds that a suppression takes by name. Exporters describe them for the pipeline only: a stage
    that is described without them takes them all the same."""
    for name in (suppression.iouThresholdInputFeatureName, suppression.confidenceThresholdInputFeatureName):
        if name and name not in described:
            yield TensorSpec(name, "float64", kind="double", optional=True)


def _inputs(model: Any, ports: Any) -> tuple[TensorSpec, ...]:
    """Return the inputs; those of a neural network that sees arrays in rank 5 take sequences of batches, too."""
    found = read_ports(ports.input)
    content = legacy.body(model)
    if model.WhichOneof("Type") == "nonMaximumSuppression":
        return (*found, *_thresholds(content, {spec.name for spec in found}))
    # 0 is RANK5_ARRAY_MAPPING: arrays are seen in five dimensions.
    if model.WhichOneof("Type") not in legacy.NETWORKS or content.arrayInputShapeMapping != 0:
        return found
    # A network sees sequence x batch x C x H x W; ports of C or C x H x W may be given the axes before.
    fits = [spec.image is None and spec.kind == "tensor" and len(spec.shape) in (1, 3) for spec in found]
    return tuple(replace(spec, sequences=True) if fit else spec for spec, fit in zip(found, fits, strict=True))


def weight_table(package: Package) -> tuple[Weight, ...]:
    """Return the model's weights, one row each."""
    return tuple(weight for leaf in package.leaves() for weight in leaf.weights)


def _stages(package: Package) -> dict[str, Any]:
    """Return a pipeline's stages, each with its operations; empty for a model that is not a pipeline."""
    leaves = [leaf for leaf in package.leaves() if leaf is not package]
    rows = [
        {
            "kind": leaf.model.WhichOneof("Type") or "unknown",
            "inputs": [port.name for port in leaf.model.description.input],
            "outputs": [port.name for port in leaf.model.description.output],
            "operations": sum(_leaf_operations(leaf).values()),
            "parameters": sum(weight.elements for weight in leaf.weights),
            **({"opset": _opset(leaf.program, None)} if leaf.program else {}),
        }
        for leaf in leaves
    ]
    return {"stages": rows} if rows else {}


def _stage_labels(model: Any, programs: Iterable[Program]) -> tuple[str, ...]:
    """Return the class labels of a model without a program of its own, or of the programs that are its stages."""
    return legacy.labels(model) or next((found for program in programs if (found := _labels(program, None))), ())


def _all_operations(package: Package) -> Counter[str]:
    if package.program is None and not any(leaf.program for leaf in package.leaves()):
        return Counter(kind for _, kind, _, _ in package.layers())
    return sum((_leaf_operations(leaf) for leaf in package.leaves()), Counter())


def _leaf_operations(leaf: Package) -> Counter[str]:
    return _operations(leaf.program) if leaf.program else Counter(kind for _, kind, _, _ in leaf.layers())


def _interface(description: Any, name: str | None) -> Any:
    """Return the message that lists the ports: the description, or that of one function of several."""
    functions = {function.name: function for function in description.functions}
    if not functions:
        return description
    wanted = name or description.defaultFunctionName or next(iter(functions))
    if wanted not in functions:
        raise LoadError(f"the model has no function '{wanted}'", f"functions: {', '.join(functions)}")
    return functions[wanted]


def _function(program: Program, name: str | None) -> Function | None:
    if name is None and "main" not in program.functions:
        return next(iter(program.functions.values()), None)
    return program.function(name)


def _metadata(message: Any, shares: Mapping[str, int]) -> Metadata:
    return Metadata(
        format="CoreML",
        quantization=next(iter(shares), ""),
        author=message.author,
        description=message.shortDescription,
        license=message.license,
        version=message.versionString,
        # What a machine recorded of each operation is no text for people.
        user={key: text for key, text in sorted(message.userDefined.items()) if not _of_operations(key)},
    )


def _of_operations(key: str) -> bool:
    return key.startswith("tlkit.") and key.endswith(".places")


def _opset(program: Program, name: str | None) -> str:
    function = _function(program, name)
    return system_of(function.opset) if function else ""


def _labels(program: Program, name: str | None) -> tuple[str, ...]:
    """Return the labels that the program's ``classify`` op names, integers as text."""
    function = _function(program, name)
    operations = list(walk(function.block.operations)) if function else []
    classifiers = [op for op in operations if op.type == "classify"]
    if not classifiers:
        return ()
    # The labels are usually a constant beside the op.
    constants = {op.outputs[0].name: op.attributes.get("val") for op in operations if op.type == "const" and op.outputs}
    for op in classifiers:
        argument = next(iter(op.inputs.get("classes", ())), None)
        value = constants.get(argument.name) if isinstance(argument, Ref) else argument
        if isinstance(value, Value) and isinstance(value.type, ListType | TensorType):
            return tuple(map(str, value.python()))
    return ()


def _shares(table: Iterable[Weight]) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for weight in table:
        counted[weight.dtype] += weight.elements
    return _by_count(counted)


def _operations(program: Program) -> Counter[str]:
    return Counter(op.type for f in program.functions.values() for op in walk(f.block.operations) if op.type != "const")


def _compute(programs: Iterable[Program]) -> dict[str, int]:
    """Count the ops by the type of their first output; expanding weights does not count as computation."""
    counted: Counter[DType] = Counter()
    for function in (function for program in programs for function in program.functions.values()):
        for op in walk(function.block.operations):
            kind = op.outputs[0].type if op.outputs and not op.type.startswith("const") else None
            if isinstance(kind, TensorType):
                counted[kind.dtype] += 1
    named: Counter[str] = Counter()
    for dtype, count in counted.items():
        if dtype is not DType.STRING:
            named[stored_name(dtype)] += count  # INT8 is two types
    return _by_count(named)


def _by_count(counted: Counter[str]) -> dict[str, int]:
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _details(model: Any, ports: Any, program: Program | None) -> dict[str, Any]:
    user = model.description.metadata.userDefined
    provenance = {key.removeprefix(_PROVENANCE): user[key] for key in sorted(user) if key.startswith(_PROVENANCE)}
    stages = [{"kind": stage.WhichOneof("Type") or "unknown"} for stage in legacy.stages(model)][1:]
    details: dict[str, Any] = {
        "provenance": provenance,
        "predicted_feature": ports.predictedFeatureName,
        "predicted_probabilities": ports.predictedProbabilitiesName,
        "updatable": model.isUpdatable,
        "stages": stages,
        "model": {} if program else _legacy_kinds.tree(model),
    }
    if program and len(program.functions) > 1:
        details["functions"] = {
            function.name: {"inputs": read_ports(function.input), "outputs": read_ports(function.output)}
            for function in model.description.functions
        }
    return {key: value for key, value in details.items() if value}


def _sizes(package: Package) -> dict[str, int]:
    """Return bytes on disk by part. A ``.mlmodel`` file counts as program: older kinds keep their weights in it."""
    if not package.root.is_dir():
        return {"model": package.root.stat().st_size}
    sizes = {"program": 0, "weights": 0, "other": 0}
    program = package.file.resolve()
    for folder, _, names in os.walk(package.root):
        for name in names:
            path = Path(folder, name)
            if not path.is_file():
                continue
            part = "program" if path.resolve() == program else "weights" if is_weight_file(str(path)) else "other"
            sizes[part] += path.stat().st_size
    return sizes
