"""An attention written out in MIL, for tests of what makes one kernel of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.mil.programs import call, constant, function, tensor
from tlkit.mil.program import Function, Operation, Value


def plain(value: Any) -> Value:
    """A parameter in place."""
    kind = {bool: "bool", int: "int32", float: "fp16", str: "string"}
    many = isinstance(value, tuple)
    items = value if many else (value,)
    dtype = kind[type(items[0])]
    return Value(tensor(dtype, *((len(items),) if many else ())), items)


def attention(
    gain: float, *, normalized: bool = True, scaled: str = "scores", factor: float = 0.3535
) -> tuple[Function, dict[str, Any]]:
    """Two heads of width 8 over 5 places of rows of 16, written out."""
    rng = np.random.default_rng(3)
    rows, three = tensor("fp16", 1, 5, 16), tensor("fp16", 1, 5, 48)
    heads, split = tensor("fp16", 3, 1, 2, 5, 8), tensor("fp16", 1, 5, 3, 2, 8)
    one, scores = tensor("fp16", 1, 2, 5, 8), tensor("fp16", 1, 2, 5, 5)
    weight = (rng.standard_normal((48, 16)) * gain).astype(np.float16)
    operations: list[Operation] = [
        constant("weight", weight, "fp16"),
        constant("bias", np.linspace(-1, 1, 48).astype(np.float16), "fp16"),
        constant("scale", np.float16(factor), "fp16"),
        constant("gamma", np.linspace(0.5, 1.5, 16).astype(np.float16), "fp16"),
    ]
    if normalized:
        operations.append(
            call("layer_norm", "rows", rows, x="x", axes=plain((-1,)), gamma="gamma", epsilon=plain(0.001))
        )
    operations += [
        call("linear", "qkv", three, x="rows" if normalized else "x", weight="weight", bias="bias"),
        call("reshape", "split", split, x="qkv", shape=plain((1, 5, 3, 2, 8))),
        call("transpose", "heads", heads, x="split", perm=plain((2, 0, 3, 1, 4))),
    ]
    for place, name in enumerate("qkv"):
        begin, end = (place, 0, 0, 0, 0), (place + 1, 1, 2, 5, 8)
        mask = plain((True, False, False, False, False))
        operations.append(
            call("slice_by_index", name, one, x="heads", begin=plain(begin), end=plain(end), squeeze_mask=mask)
        )
    query = "q"
    if scaled == "query":
        operations.append(call("mul", "query", one, x="q", y="scale"))
        query = "query"
    operations.append(call("matmul", "scores", scores, x=query, y="k", transpose_y=plain(True)))
    last = "scores"
    if scaled == "scores":
        operations.append(call("mul", "scaled", scores, x="scale", y="scores"))
        last = "scaled"
    operations += [
        call("softmax", "shares", scores, x=last, axis=plain(-1)),
        call("matmul", "mixed", one, x="shares", y="v"),
    ]
    x = (rng.standard_normal((1, 5, 16)) * 3).astype(np.float32)
    return function({"x": rows}, operations, ["mixed"]), {"x": x}
