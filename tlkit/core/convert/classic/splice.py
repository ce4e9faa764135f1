"""An mlprogram as a stage of a program that is made: its operations between what comes before and what comes after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tlkit.core.convert.classic.ends import Chain, Classified
from tlkit.engines.classic.values import DAMAGED
from tlkit.errors import ConversionError, LoadError
from tlkit.formats.coreml.ports import read_ports
from tlkit.frontends.network.kit.blob import Blob
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.weights import array_value
from tlkit.mil.opsets import OPSETS, system_of, version_of
from tlkit.mil.passes.rewrite import defined, makers, substitute
from tlkit.mil.program import Function, Operation, Program, Ref, StateType, TensorType, Value, walk
from tlkit.mil.types import DType
from tlkit.types import TensorSpec

STAGES_RUN = "it runs with `tlkit run`; its stages are converted one by one with --stage"


def function_of(model: Any, program: Program) -> Function:
    """Return the function that ``model`` runs; ConversionError where a pipeline's program cannot have it inside."""
    function = program.function(model.description.defaultFunctionName or None)
    state = next((item.name for item in function.inputs if isinstance(item.type, StateType)), None)
    if state is not None:
        raise ConversionError(f"a stage has a state, '{state}', which a pipeline does not keep", STAGES_RUN)
    if function.opset not in OPSETS:
        raise ConversionError(f"a stage is written for {function.opset}, which tlkit does not know", STAGES_RUN)
    return function


def newest(functions: Sequence[Function], least: str) -> str:
    """Return the newest opset among those of ``functions`` and ``least``."""
    return max([least, *(function.opset for function in functions)], key=version_of)


def spliced(chain: Chain, model: Any, function: Function) -> None:
    """Add the operations of ``function``, which is what ``model`` runs, on the values of its inputs' names."""
    g, body = chain.g, function.block
    ports = {spec.name: spec for spec in read_ports(model.description.input)}
    names = {}
    for item in function.inputs:
        assert isinstance(item.type, TensorType)
        names[item.name] = _entered(chain, ports.get(item.name), item.name, item.type).name
    # What nested blocks define stays as it is, so that nothing outside may have its name.
    outer = [item.name for operation in body.operations for item in operation.outputs]
    inner = defined(function) - set(outer) - names.keys()
    for name in inner:
        g.reserve(name)
    names |= {name: g.fresh(name) for name in outer}
    made = dict(makers(body))
    held = {name: operation.attributes.get("val") for name, (operation, _) in made.items()}
    kinds = {item.name: item.type for item in function.inputs} | {name: item.type for name, (_, item) in made.items()}
    answer = next((operation for operation in body.operations if operation.type == "classify"), None)
    g.operations += [item for item in substitute(body, names).operations if item.type != "classify"]
    outputs = {spec.name: spec for spec in read_ports(model.description.output)}
    answered = {item.name for item in answer.outputs} if answer else set()
    for name in body.outputs:
        if name not in answered:
            _left(chain, name, names.get(name, name), kinds.get(name), outputs.get(name))
    if answer is not None:
        chain.answer = _classified(g, answer, names, kinds, held)


def refuse_changed(operations: Sequence[Operation], opset: str, final: str) -> None:
    """Raise ConversionError with the operations of ``opset`` that have other inputs in the newer one, ``final``."""
    if opset == final:
        return
    changed = sorted(set(_changed(operations, opset, final)))
    if changed:
        said = f"a stage needs {system_of(final)}, where operations of another have other inputs: {', '.join(changed)}"
        raise ConversionError(said, STAGES_RUN)


def _changed(operations: Sequence[Operation], opset: str, final: str) -> Iterator[str]:
    from tlkit.mil.ops import lookup  # it imports torch

    for operation in walk(operations):
        then, now = (lookup(operation.type, name) for name in (opset, final))
        if now is None or now is then:
            continue
        required = {name for name, parameter in now.parameters.items() if parameter.required}
        given = set(operation.inputs) - {"name"}
        if not given <= set(now.parameters) or not required <= given:
            yield operation.type


def _entered(chain: Chain, spec: TensorSpec | None, name: str, kind: TensorType) -> Blob:
    """Return the value of an input, of the type and shape that the stage's program has it in."""
    g, shape = chain.g, tuple(kind.shape or ())
    if None in shape:
        shape = tuple(spec.shape) if spec is not None else ()
        if len(shape) != len(kind.shape or ()):
            raise ConversionError(f"a stage's input '{name}' has no fixed shape", STAGES_RUN)
    if name in chain.pictures:
        raise ConversionError(f"a picture, '{name}', goes from one stage to another", STAGES_RUN)
    fixed = tuple(length or 0 for length in shape)
    if name in chain.values:
        value = g.reshape(chain.values[name], fixed)
    elif spec is not None and spec.optional:
        value = g.tensor(array_value(np.full(fixed, spec.default or 0, np.float32)), name)
    else:
        raise LoadError(f"no stage makes the feature '{name}'", DAMAGED)
    return g.cast(value, kind.dtype)


def _left(chain: Chain, name: str, inside: str, kind: Any, spec: TensorSpec | None) -> None:
    """Put an output under its name, in f32 as all values between stages."""
    if not isinstance(kind, TensorType) or kind.dtype is DType.STRING:
        raise ConversionError(f"a stage's output '{name}' is not an array", STAGES_RUN)
    blob = Blob(inside, tuple(kind.shape or ()))
    chain.values[name] = chain.g.cast(blob, DType.FP32, kind.dtype)
    chain.pictures |= {name} if spec is not None and spec.image is not None else set()


def _classified(
    g: Graph, answer: Operation, names: Mapping[str, str], kinds: Mapping[str, Any], held: Mapping[str, Value | None]
) -> Classified:
    """Return the scores and labels of a classifier's last operation; ``held`` are the values of constants."""
    (scores,), (listed,) = answer.inputs["probabilities"], answer.inputs["classes"]
    labels = held.get(listed.name) if isinstance(listed, Ref) else listed
    kind = kinds.get(scores.name) if isinstance(scores, Ref) else None
    data = labels.data if labels is not None else None
    if not isinstance(scores, Ref) or not isinstance(kind, TensorType) or not isinstance(data, tuple):
        raise ConversionError("a stage is a classifier whose labels are computed", STAGES_RUN)
    values = g.cast(Blob(names[scores.name], tuple(kind.shape or ())), DType.FP32, kind.dtype)
    found = tuple(item.python() if isinstance(item, Value) else item for item in data)
    return Classified(g.reshape(values, (len(found),)), found)
