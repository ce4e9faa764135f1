"""How a package's function holds its weights, and what to know about that: counts and notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tlkit.formats.base.dtypes import QUANTIZED
from tlkit.frontends.gguf.kit.net import DecodedWeight
from tlkit.frontends.gguf.kit.rounding import ChannelPart, HalfWeight, Weights, stored_type
from tlkit.mil.program import Function, Operation, Ref, TensorType, Value

_BLOCKS = "constexpr_blockwise_shift_scale"
_LEAST = 1 << 12
"""Elements of a weight that is counted."""


def count_weights(function: Function) -> dict[str, int]:
    """Return how many matrices are stored in blocks, in nested ones, with one scale per channel, as f16 that an f32
    program widens (``half``), and dense."""
    found = {"blocks": 0, "nested": 0, "channels": 0, "half": 0, "dense": 0}
    makers = {item.name: operation for operation in function.block.operations for item in operation.outputs}
    blocks = {name for name, operation in makers.items() if operation.type == _BLOCKS}
    inside = {item.name for name in blocks for item in makers[name].inputs["data"] if isinstance(item, Ref)} & blocks
    for name in blocks - inside:
        codes = _data(makers[name], makers)
        if codes is None:
            found["nested"] += 1
        else:
            found["channels" if isinstance(codes.data, ChannelPart) else "blocks"] += 1
    found["half"] = sum(operation.type == "constexpr_cast" for operation in function.block.operations)
    found["dense"] = sum(_is_large(value) for value in _dense(function)) - found["half"]
    return found


def left_dense(function: Function) -> Counter[str]:
    """Return the block types of the file whose tensors are dense in the program, with how many there are."""
    kinds = (stored_type(value.data.tensor) for value in _dense(function) if isinstance(value.data, DecodedWeight))
    return Counter(kind for kind in kinds if kind in QUANTIZED)


def notes_on(function: Function, weights: Weights, precision: str) -> list[str]:
    """Return what to know about the weights: which units they suit, and what became of types that did not fit."""
    counts, left, notes = count_weights(function), left_dense(function), []
    if counts["blocks"] or counts["nested"]:
        notes.append("weights in blocks suit CPU and GPU; for the Neural Engine: --weights int8 --precision f16")
    if counts["channels"]:
        also = "" if precision == "f16" else ", which computes in f16 only: add --precision f16"
        notes.append(f"one scale per output channel suits CPU, GPU and the Neural Engine{also}")
    if weights == "f16" and precision == "f32":
        notes.append(
            "weights of f16 are widened where the model is loaded: CPU and GPU only (f16 throughout: --precision)"
        )
    if counts["nested"]:
        notes.append("nested constexprs are valid MIL, and no device has been seen to load them (a guess until then)")
    if left:
        kinds = ", ".join(f"{count} {kind}" for kind, count in left.most_common())
        dense = "dense f32, exactly" if precision == "f32" else "dense f16, rounded once"
        ways = "--nested keeps their blocks (exact), --requantize does in one operation (rounded scales)"
        notes.append(f"{kinds} tensors are {dense}: {ways}")
    return notes


def _dense(function: Function) -> Iterator[Value]:
    for operation in function.block.operations:
        value = operation.attributes.get("val") if operation.type == "const" else None
        if value is not None and isinstance(value.data, DecodedWeight | HalfWeight):
            yield value


def _is_large(value: Value) -> bool:
    kind = value.type
    return isinstance(kind, TensorType) and len(kind.shape or ()) > 1 and (kind.size or 0) > _LEAST


def _data(operation: Operation, makers: dict[str, Operation]) -> Value | None:
    """Return the codes of an operation on blocks; None where they are another one's result."""
    (item,) = operation.inputs["data"]
    if isinstance(item, Value):
        return item
    maker = makers[item.name]
    return maker.attributes["val"] if maker.type == "const" else None
