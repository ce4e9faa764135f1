"""Hypothesis strategies for MIL programs of every shape that the text can hold, sensible or not."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from tlkit.mil import immediate
from tlkit.mil.program import (
    BlobRef,
    Block,
    DictType,
    Function,
    ListType,
    NamedType,
    Operation,
    Program,
    Ref,
    StateType,
    TensorType,
    TupleType,
    Value,
)
from tlkit.mil.types import DType

KEYWORDS = ["tensor", "list", "nan", "inf", "true", "BLOBFILE", "block", "func", "a.1", "x:0", "1", "fp16"]
NAMES = st.one_of(
    st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True), st.sampled_from(KEYWORDS), st.text(max_size=4)
)
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
OPEN_SHAPES = st.one_of(st.none(), st.lists(st.one_of(st.none(), st.integers(0, 2**62)), max_size=3).map(tuple))
BLOBS = st.builds(BlobRef, st.one_of(st.just("@model_path/weights/weight.bin"), NAMES), st.integers(0, 2**62))


def tensor_types(shapes: Any) -> Any:
    return st.builds(TensorType, st.sampled_from(list(DType)), shapes)


TYPES = st.recursive(
    st.one_of(tensor_types(OPEN_SHAPES), st.builds(StateType, tensor_types(OPEN_SHAPES))),
    lambda inner: st.one_of(
        st.builds(ListType, inner, st.one_of(st.none(), st.integers(0, 9))),
        st.builds(TupleType, st.lists(inner, max_size=3).map(tuple)),
        st.builds(DictType, inner, inner),
    ),
    max_leaves=4,
)


def scalars(dtype: DType) -> Any:
    """Elements as ``immediate.pack`` wants them: bits for the small floats."""
    if dtype is DType.STRING:
        return st.text(max_size=5)
    if dtype is DType.BOOL:
        return st.booleans()
    if dtype in (DType.FP32, DType.FP64):
        return st.floats(width=dtype.bits).map(lambda x: math.nan if math.isnan(x) else x)
    low, high = (0, (1 << dtype.bits) - 1) if dtype.is_float else immediate.limits(dtype)
    return st.integers(low, high)


@st.composite
def tensor_values(draw: Any) -> Value:
    kind = draw(tensor_types(SHAPES))
    size = kind.size
    special = draw(st.integers(0, 15))
    if special == 0:
        return Value(kind, draw(BLOBS))
    if special == 1:
        return Value(kind, ())
    if special == 2 and not 0 < kind.dtype.bits < 8:
        size = 1  # one element for a whole shape
    return Value(kind, immediate.pack(kind.dtype, draw(st.lists(scalars(kind.dtype), min_size=size, max_size=size))))


def _list_value(items: list[Value]) -> Value:
    return Value(ListType(items[0].type if items else TensorType(DType.INT32), len(items)), tuple(items))


def _tuple_value(items: list[Value]) -> Value:
    return Value(TupleType(tuple(item.type for item in items)), tuple(items))


def _dict_value(items: list[tuple[Value, Value]]) -> Value:
    key, value = (items[0][0].type, items[0][1].type) if items else (TensorType(DType.STRING), TensorType(DType.BOOL))
    return Value(DictType(key, value), tuple(items))


VALUES = st.recursive(
    tensor_values(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2).map(_list_value),
        st.lists(inner, max_size=2).map(_tuple_value),
        st.lists(st.tuples(tensor_values(), inner), max_size=2).map(_dict_value),
    ),
    max_leaves=4,
)
ATTRIBUTES = st.dictionaries(NAMES, VALUES, max_size=2)
NAMED = st.lists(st.builds(NamedType, NAMES, TYPES), max_size=2).map(tuple)
ARGUMENTS = st.lists(st.one_of(st.builds(Ref, NAMES), VALUES), max_size=2).map(tuple)


def operations(blocks: Any) -> Any:
    return st.builds(Operation, NAMES, st.dictionaries(NAMES, ARGUMENTS, max_size=2), NAMED, ATTRIBUTES, blocks)


def blocks(of: Any) -> Any:
    names = st.lists(NAMES, max_size=2).map(tuple)
    return st.builds(Block, NAMED, names, st.lists(of, max_size=2).map(tuple), ATTRIBUTES)


OPERATIONS = st.recursive(
    operations(st.just(())), lambda inner: operations(st.lists(blocks(inner), max_size=2).map(tuple)), max_leaves=3
)
OPSETS = st.one_of(st.sampled_from(["CoreML5", "CoreML8", "CoreML9", "ios16", "CoreML99"]), NAMES)


@st.composite
def functions(draw: Any) -> Function:
    opset = draw(OPSETS)
    if draw(st.booleans()):
        plain = Block((), ("y",), tuple(draw(st.lists(OPERATIONS, max_size=2))))
        return Function(draw(NAMED), opset, {opset: plain}, draw(ATTRIBUTES))
    bodies = draw(st.dictionaries(OPSETS, blocks(OPERATIONS), max_size=2))
    return Function(draw(NAMED), opset, {**bodies, opset: draw(blocks(OPERATIONS))}, draw(ATTRIBUTES))


PROGRAMS = st.builds(Program, st.dictionaries(NAMES, functions(), max_size=2), st.integers(0, 3), ATTRIBUTES)
