"""The class labels of a classifier replaced, or put on a model that gives one score for each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tlkit.errors import UsageError
from tlkit.formats.coreml.edit.dtypes import set_output_dtype
from tlkit.formats.coreml.edit.message import Interface, defined
from tlkit.formats.coreml.edit.names import substitute
from tlkit.formats.coreml.edit.operations import drop_unused, names_in, text_value
from tlkit.mil import coreml_proto

_STRING, _FP64 = 2, 12
LABEL, SCORES = "classLabel", "classLabel_probs"
"""The outputs of a classifier, as coremltools names them."""


def set_labels(target: Interface, labels: Sequence[str]) -> None:
    """Make the function a classifier with ``labels``, in the order of its scores.

    UsageError unless it is one already, or has one floating-point output; and unless there is a label for each score.
    """
    bodies = target.blocks()
    if not bodies:
        raise UsageError(
            "class labels can be set for mlprograms only", "convert the model's source with `tlkit convert`"
        )
    made = [next((op for op in body.operations if op.type == "classify"), None) for body in bodies]
    for body, classify in zip(bodies, made, strict=True):
        if classify is None:
            classify = _add_classify(target, body)
        _check_count(body, classify, len(labels))
        replaced = names_in(classify.inputs["classes"])
        _write(classify, labels)
        drop_unused(body, replaced)
    _describe(target, [item.name for item in bodies[0].operations[_place(bodies[0])].outputs])


def _place(body: Any) -> int:
    return next(index for index, operation in enumerate(body.operations) if operation.type == "classify")


def _add_classify(target: Interface, body: Any) -> Any:
    scores = [(op, item) for op in body.operations for item in op.outputs if item.name in body.outputs]
    if len(body.outputs) != 1 or len(scores) != 1:
        outputs = ", ".join(body.outputs)
        raise UsageError(f"a classifier has one output of scores, this model has {outputs}", "edit another model")
    name = body.outputs[0]
    set_output_dtype(target, name, "float32")  # what classify takes
    taken = (defined(target) | set(target.names("input", "state"))) - {name}
    for wanted in (LABEL, SCORES):
        if wanted in taken:
            raise UsageError(f"the name '{wanted}' is taken in the program", f"rename it: --rename {wanted}=NAME")
    if name in (LABEL, SCORES):
        substitute(body, {name: f"{name}_scores"})
        name = f"{name}_scores"
    classify = body.operations.add(type="classify")
    classify.attributes["name"].CopyFrom(text_value("classify"))
    classify.inputs["probabilities"].arguments.add().name = name
    for output in (LABEL, SCORES):
        classify.outputs.add(name=output)
    body.outputs[:] = [LABEL, SCORES]
    return classify


def _check_count(body: Any, classify: Any, labels: int) -> None:
    scores = classify.inputs["probabilities"].arguments[0].name
    kinds = [item.type for operation in body.operations for item in operation.outputs if item.name == scores]
    lengths = [d.constant.size for kind in kinds for d in kind.tensorType.dimensions if d.HasField("constant")]
    if not kinds or len(lengths) < len(kinds[0].tensorType.dimensions):
        return  # an open length: nothing to count
    if math.prod(lengths) != labels:
        raise UsageError(f"{labels} class labels for {math.prod(lengths)} scores", "give one label for each score")


def _write(classify: Any, labels: Sequence[str]) -> None:
    mil = coreml_proto.module("MIL_pb2")
    string = mil.ValueType()
    string.tensorType.dataType = _STRING
    value = mil.Value()
    value.type.listType.type.CopyFrom(string)
    value.type.listType.length.constant.size = len(labels)
    for label in labels:
        value.immediateValue.list.values.add().CopyFrom(text_value(label))
    classify.inputs["classes"].Clear()
    classify.inputs["classes"].arguments.add().value.CopyFrom(value)
    classify.outputs[0].type.CopyFrom(string)
    classify.outputs[1].type.dictionaryType.keyType.CopyFrom(string)
    classify.outputs[1].type.dictionaryType.valueType.tensorType.dataType = _FP64


def _describe(target: Interface, names: Sequence[str]) -> None:
    """Give the description the two outputs of a classifier, unless it has them, with string labels."""
    description = target.description
    if description.predictedFeatureName not in names:
        del description.output[:]
        for name in names:
            description.output.add(name=name)
        description.predictedFeatureName, description.predictedProbabilitiesName = names
    for feature in description.output:
        if feature.name == names[0]:
            feature.type.stringType.SetInParent()
        elif feature.name == names[1]:
            feature.type.dictionaryType.stringKeyType.SetInParent()
