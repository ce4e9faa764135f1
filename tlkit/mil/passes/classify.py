"""Replace a classifier's labels, or make a classifier of a function that gives one score for each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tlkit.errors import UsageError
from tlkit.mil.passes.base import Outcome, Pass
from tlkit.mil.passes.cast_ports import cast_output
from tlkit.mil.passes.rewrite import (
    change_bodies,
    change_function,
    defined,
    drop_unused,
    makers,
    references,
    substitute,
    text,
    texts,
)
from tlkit.mil.program import (
    Block,
    DictType,
    Function,
    NamedType,
    Operation,
    Program,
    Ref,
    TensorType,
)
from tlkit.mil.types import DType

LABEL, SCORES = "classLabel", "classLabel_probs"
"""The outputs of a classifier, as coremltools names them."""
_STRING = TensorType(DType.STRING)


@dataclass(frozen=True)
class SetLabels(Pass):
    """Make ``function`` a classifier with ``labels``, in the order of its scores.

    UsageError unless it is a classifier or has a single floating-point output, and unless labels and scores match in
    number.
    """

    function: str
    labels: tuple[str, ...]

    def run(self, program: Program) -> Outcome:
        """See :class:`~tlkit.mil.passes.base.Pass`."""
        taken = defined(program.function(self.function))

        def changed(function: Function) -> Function:
            return change_bodies(function, lambda body: _labelled(body, self.labels, taken))

        return Outcome(change_function(program, self.function, changed), (f"{len(self.labels)} class labels",))


def classifier_outputs(function: Function) -> tuple[str, ...]:
    """Return the names of the label and score outputs of ``function``; empty where it is not a classifier."""
    classify = _classify(function.block)
    return tuple(item.name for item in classify.outputs) if classify is not None else ()


def _classify(body: Block) -> Operation | None:
    return next((operation for operation in body.operations if operation.type == "classify"), None)


def _labelled(body: Block, labels: Sequence[str], taken: set[str]) -> Block:
    classify = _classify(body)
    if classify is None:
        body, classify = _with_classify(body, taken)
    _check_count(body, classify, len(labels))
    # Core ML's probabilities are doubles, whatever type the scores have.
    dictionary = DictType(_STRING, TensorType(DType.FP64))
    label, scores = classify.outputs
    outputs = (NamedType(label.name, _STRING), NamedType(scores.name, dictionary))
    made = replace(classify, inputs={**classify.inputs, "classes": (texts(labels),)}, outputs=outputs)
    changed = replace(body, operations=tuple(made if item is classify else item for item in body.operations))
    return drop_unused(changed, references(classify.inputs.get("classes", ())))


def _with_classify(body: Block, taken: set[str]) -> tuple[Block, Operation]:
    scores = [name for name, _ in makers(body) if name in body.outputs]
    if len(body.outputs) != 1 or len(scores) != 1:
        found = ", ".join(body.outputs)
        raise UsageError(f"a classifier has one output, the scores; this model has {found}", "edit another model")
    name = body.outputs[0]
    body = cast_output(body, name, DType.FP32, taken)  # what classify takes
    for wanted in (LABEL, SCORES):
        if wanted in taken - {name}:
            raise UsageError(f"the name '{wanted}' is taken in the program", f"rename it: --rename {wanted}=NAME")
    # The score output already has a name that classify's outputs need.
    if name in (LABEL, SCORES):
        body = substitute(body, {name: f"{name}_scores"})
        name = f"{name}_scores"
    outputs = (NamedType(LABEL, _STRING), NamedType(SCORES, _STRING))  # their types come with the labels
    classify = Operation("classify", {"probabilities": (Ref(name),)}, outputs, {"name": text("classify")})
    return replace(body, outputs=(LABEL, SCORES), operations=(*body.operations, classify)), classify


def _check_count(body: Block, classify: Operation, labels: int) -> None:
    names = references(classify.inputs["probabilities"])
    kinds = [item.type for name, (_, item) in makers(body) if name in names]
    if not kinds or not isinstance(kinds[0], TensorType) or kinds[0].size is None:
        return  # an open length: nothing to count
    if kinds[0].size != labels:
        raise UsageError(f"{labels} class labels for {kinds[0].size} scores", "give one label for each score")
