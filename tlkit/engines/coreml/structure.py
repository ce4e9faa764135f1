"""Build coremltools' ``MLModelStructure`` from a program: Core ML's view of a compiled model's operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tlkit.errors import UnavailableError
from tlkit.formats.coreml.package import Package
from tlkit.mil.program import Block, Function, NamedType, Operation, Ref


def model_structure(package: Package) -> Any:
    """Return the ``MLModelStructure`` of an mlprogram, or of a pipeline of them; UnavailableError for other kinds."""
    from coremltools.models.compute_plan import MLModelStructure, MLModelStructurePipeline, MLModelStructureProgram

    if package.program is not None:
        functions = {name: _function(function) for name, function in package.program.functions.items()}
        return MLModelStructure(None, MLModelStructureProgram(functions), None)
    kind = package.model.WhichOneof("Type") or "unknown"
    if not kind.startswith("pipeline"):
        raise UnavailableError(f"only Core ML itself knows the structure of a {kind} model", "mlprograms have one here")
    stages = [(f"model{index}", model_structure(stage)) for index, stage in enumerate(package.stages())]
    return MLModelStructure(None, None, MLModelStructurePipeline(stages))


def _function(function: Function) -> Any:
    from coremltools.models.compute_plan import MLModelStructureProgramFunction

    return MLModelStructureProgramFunction(_named(function.inputs), _block(function.block))


def _block(block: Block) -> Any:
    from coremltools.models.compute_plan import MLModelStructureProgramBlock

    return MLModelStructureProgramBlock(
        _named(block.inputs), [_operation(item) for item in block.operations], list(block.outputs)
    )


def _operation(operation: Operation) -> Any:
    from coremltools.models.compute_plan import MLModelStructureProgramOperation

    return MLModelStructureProgramOperation(
        _arguments(operation.inputs),
        operation.type,
        _named(operation.outputs),
        [_block(block) for block in operation.blocks],
        operation,
    )


def _arguments(inputs: Mapping[str, Iterable[Any]]) -> dict[str, Any]:
    from coremltools.models.compute_plan import (
        MLModelStructureProgramArgument,
        MLModelStructureProgramBinding,
        MLModelStructureProgramValue,
    )

    def binding(item: Any) -> Any:
        if isinstance(item, Ref):
            return MLModelStructureProgramBinding(item.name, None)
        # coremltools' classes for values and types have no fields: there is nothing to fill in.
        return MLModelStructureProgramBinding(None, MLModelStructureProgramValue())

    return {name: MLModelStructureProgramArgument([binding(item) for item in given]) for name, given in inputs.items()}


def _named(items: Iterable[NamedType]) -> list[Any]:
    from coremltools.models.compute_plan import (
        MLModelStructureProgramNamedValueType,
        MLModelStructureProgramValueType,
    )

    return [MLModelStructureProgramNamedValueType(item.name, MLModelStructureProgramValueType()) for item in items]
