"""Rows about models that Core ML does not load, or refuses to run."""

from __future__ import annotations

import math

from tlkit.mil.program import TensorType, Value, walk
from tlkit.mil.risks.kit import Found, Level, Survey, half, made, rule
from tlkit.mil.types import DType

_NEEDED = {
    **dict.fromkeys(("gather", "gather_nd"), (17, "validate_indices")),
    "log": (15, "epsilon"),
    "transpose": (15, "perm"),
}
"""Inputs that are optional in MIL but that the runtime requires, by operation: since which release, and which."""


@rule(
    "C1",
    Level.REFUSED,
    "every unit",
    "tensors of more than 5 axes: Core ML does not load them",
    "fold axes together before the operation (reshape), and take them apart after it",
)
def _rank(survey: Survey) -> Found:
    """A gather of a rank-5 tensor by a scalar counts: internally it has rank 6."""
    for item in survey.operations:
        deep = any(isinstance(out.type, TensorType) and len(out.type.shape or ()) > 5 for out in item.outputs)
        scalar = item.type == "gather" and len(survey.shape(item, "x")) == 5 and survey.tensor(item, "indices")
        # An empty shape of a known type means a scalar.
        if deep or (scalar and not survey.shape(item, "indices")):
            yield item.name
    for given in survey.function.inputs:
        if isinstance(given.type, TensorType) and len(given.type.shape or ()) > 5:
            yield given.name


@rule(
    "C1",
    Level.REFUSED,
    "every unit",
    "pad in reflect or replicate mode beyond the last two axes: Core ML takes those only",
    "move the padded axes last (transpose) before the pad",
)
def _pad_axes(survey: Survey) -> Found:
    for item in survey.of("pad"):
        amounts = survey.ints(item, "pad")
        # All but the (before, after) pairs of the last two axes.
        if survey.constant(item, "mode") in ("reflect", "replicate") and any(amounts[:-4]):
            yield item.name


@rule(
    "C2",
    Level.REFUSED,
    "every unit",
    "a weight of 2 GiB or more: Core ML fails to declare the network (one of 32767 x 32767 in f16 loads)",
    "split the weight in two along an axis and concatenate the results",
)
def _huge_weight(survey: Survey) -> Found:
    for name, value in survey.constants.items():
        kind = value.type
        if isinstance(kind, TensorType) and (kind.size or 0) * _bytes(kind.dtype) >= 1 << 31:
            yield name


@rule(
    "C2",
    Level.PLACED,
    "Neural Engine of iPhones",
    "more than 1 GB of weights: an iPhone's Neural Engine does not take such a model as a whole",
    "split the model, or compress its weights",
)
def _huge_model(survey: Survey) -> Found:
    if survey.weights > 10**9:
        yield "weights"


@rule(
    "C3",
    Level.REFUSED,
    "every unit",
    "more than 128 listed shapes for an input: Core ML takes 128",
    "list fewer shapes, or give a range",
)
def _many_shapes(survey: Survey) -> Found:
    for spec in survey.inputs:
        if len(spec.listed) > 128:
            yield spec.name


@rule(
    "C4",
    Level.REFUSED,
    "every unit",
    "matmul or linear of int32: Core ML fails to load it (error -14), or computes something else",
    "cast to f16 or f32 before it",
)
def _integer_product(survey: Survey) -> Found:
    for item in survey.of("matmul", "linear"):
        kind = survey.tensor(item, "x")
        if kind and kind.dtype is DType.INT32:
            yield item.name


@rule(
    "C4",
    Level.REFUSED,
    "every unit",
    "matmul of a tensor with one axis: Core ML infers a different type for it, and predict crashes",
    "add a second axis before it (expand_dims) and remove it afterwards (squeeze)",
)
def _vector_product(survey: Survey) -> Found:
    for item in survey.of("matmul"):
        kinds = [survey.tensor(item, name) for name in ("x", "y")]
        if any(kind is not None and kind.shape is not None and len(kind.shape) == 1 for kind in kinds):
            yield item.name


@rule(
    "C5",
    Level.REFUSED,
    "every unit",
    "dimensions of size 0: Core ML refuses them",
    "remove the empty part of the model",
)
def _empty(survey: Survey) -> Found:
    for item in survey.operations:
        if any(isinstance(out.type, TensorType) and 0 in (out.type.shape or ()) for out in item.outputs):
            yield item.name


@rule(
    "C5",
    Level.REFUSED,
    "every unit",
    "resize that keeps a length by a 0 in its shape: it fails on Core ML",
    "write the length itself",
)
def _inherited_length(survey: Survey) -> Found:
    return (item.name for item in survey.of("resize") if 0 in survey.ints(item, "shape"))


@rule("C5", Level.REFUSED, "every unit", "no input: Core ML refuses a program without one", "give it an input")
def _no_input(survey: Survey) -> Found:
    if not survey.function.inputs:
        yield "main"


@rule(
    "C6",
    Level.REFUSED,
    "every unit",
    "f16 constants of several elements written in the program: Core ML wants them in the weight file",
    "write the package again with coremltools, which puts them there",
)
def _inline_half(survey: Survey) -> Found:
    """coremltools itself writes up to nine elements inline, and Core ML accepts those."""
    for item in walk(survey.function.block.operations):
        value = item.attributes.get("val")
        if item.type == "const" and isinstance(value, Value) and isinstance(value.data, bytes | tuple):
            kind = value.type
            if isinstance(kind, TensorType) and half(kind) and (kind.size or 0) > 9:
                yield item.name


@rule(
    "C6",
    Level.REFUSED,
    "every unit",
    "inputs left out that are optional in MIL but required by Core ML's runtime",
    "write them out: keep_dims of a reduction, validate_indices of a gather, epsilon of a log",
)
def _left_out(survey: Survey) -> Found:
    for item in survey.operations:
        # No release has the number 99: nothing is missing then.
        since, name = (15, "keep_dims") if item.type.startswith("reduce_") else _NEEDED.get(item.type, (99, ""))
        if survey.release >= since and name not in item.inputs:
            yield item.name


@rule(
    "C6",
    Level.REFUSED,
    "every unit",
    "outputs whose names begin with a digit: Core ML refuses them",
    "rename them: tlkit edit --rename",
)
def _digit_first(survey: Survey) -> Found:
    return (name for name in survey.function.block.outputs if name[:1].isdigit())


@rule(
    "C12",
    Level.REFUSED,
    "CPU",
    "scaled_dot_product_attention of several queries with heads of more than 128: seen to crash on macOS 26",
    "write the attention out (matmul, softmax, matmul), or use smaller heads",
)
def _wide_heads(survey: Survey) -> Found:
    for item in survey.of("scaled_dot_product_attention"):
        shape = survey.shape(item, "query")
        if len(shape) >= 3 and shape[-2] != 1 and (shape[-1] or 0) > 128:
            yield item.name


@rule(
    "C17",
    Level.REFUSED,
    "GPU, Neural Engine",
    "open dimensions: GPU and Neural Engine were seen to fail, or to kill the process, on macOS 26",
    "fix the shape, or list a few shapes; on the CPU it works",
)
def _open_length(survey: Survey) -> Found:
    for given in survey.function.inputs:
        if isinstance(given.type, TensorType) and (given.type.shape is None or None in given.type.shape):
            yield given.name


@rule(
    "C17",
    Level.WRONG,
    "every unit",
    "range_1d up to an open length: it fails to load, or gives wrong values",
    "fix the shape, or slice a constant range",
)
def _open_range(survey: Survey) -> Found:
    return (item.name for item in survey.of("range_1d") if not survey.is_constant(item, "end") and _open(made(item)))


@rule(
    "I5",
    Level.REFUSED,
    "every unit",
    "int8 inputs or outputs: such a model was seen to fail on Core ML",
    "take and give float32 or int32, and cast inside",
)
def _small_ports(survey: Survey) -> Found:
    # An image's pixels have 8 bits, and Core ML takes those.
    return (
        spec.name for spec in (*survey.inputs, *survey.outputs) if spec.dtype in ("int8", "uint8") and not spec.image
    )


@rule(
    "I5",
    Level.WRONG,
    "every unit",
    "an image output of open size: predict may return an empty dictionary",
    "fix the size, or give a tensor",
)
def _open_image(survey: Survey) -> Found:
    sized = {name: kind for name, kind in survey.types.items() if isinstance(kind, TensorType)}
    return (spec.name for spec in survey.outputs if spec.image and _open(sized.get(spec.name)))


@rule(
    "O7",
    Level.REFUSED,
    "every unit",
    "gather of bool: Core ML refuses it",
    "cast to int32 before it, and back after it",
)
def _bool_gather(survey: Survey) -> Found:
    for item in survey.of("gather", "gather_nd", "gather_along_axis"):
        kind = survey.tensor(item, "x")
        if kind and kind.dtype is DType.BOOL:
            yield item.name


def _open(kind: TensorType | None) -> bool:
    return kind is not None and (kind.shape is None or None in kind.shape)


def _bytes(dtype: DType) -> float:
    return math.ceil(dtype.bits / 8)
