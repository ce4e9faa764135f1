"""Which values inside one model are those of the other: by name, by structure, or because they are equal.

A wrong match would name a wrong operation, so a match needs more than a name: one size, and for names that converters
number (``var_12``) also operations of one kind whose inputs belong together.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tlkit.core.compare.difference import snr_db
from tlkit.core.judge.inner import InnerValue, Inside, aligned

_KINDS = (
    ("linear", "addmm", "gemm", "matmul", "mm", "bmm", "einsum", "baddbmm"),
    ("conv", "_convolution", "convolution", "conv1d", "conv2d", "conv3d", "conv_transpose", "convtranspose"),
    ("mul", "multiply"),
    ("sub", "rsub", "subtract"),
    ("real_div", "div", "true_divide", "divide"),
    ("softmax", "_softmax"),
    ("select", "where", "masked_fill"),
    ("reduce_mean", "mean", "reducemean"),
    ("reduce_sum", "sum", "reducesum"),
    ("reduce_max", "amax", "max", "reducemax"),
    ("reshape", "view", "flatten", "_unsafe_view"),
    ("transpose", "permute", "t"),
    ("expand_dims", "unsqueeze"),
    ("gather", "embedding", "index_select", "index"),
    ("concat", "cat"),
    ("layer_norm", "native_layer_norm", "layernormalization"),
    ("batch_norm", "batchnormalization", "_native_batch_norm_legit_no_training"),
    ("sigmoid", "logistic"),
    ("tile", "expand", "repeat"),
    ("pow", "square"),
    ("clip", "clamp", "hardtanh", "relu6"),
    ("max_pool", "maxpool", "max_pool2d"),
    ("avg_pool", "averagepool", "avg_pool2d"),
)
_CANONICAL = {name: names[0] for names in _KINDS for name in names}
_INVERSED = "_inversed_"
"""How coremltools calls a product with an inverse that it makes of a division: the result is the same."""
_EQUAL_DB = 50.0
"""Signal to noise from which two values that nothing else links are taken for one."""


def canonical(kind: str) -> str:
    """Return one word for an operation's type, whether it is MIL's, torch's or ONNX's."""
    plain = kind.lower().rstrip("_")
    return _CANONICAL.get(plain, plain)


def match(a: Inside, b: Inside, outputs: Mapping[str, str]) -> dict[str, str]:
    """Return, for each value of ``b`` that has one, the value of ``a`` that it is. ``outputs``: b's names by a's."""
    found: dict[str, str] = {}
    for ours, theirs in outputs.items():
        one, other = a.outputs.get(ours, ours), b.outputs.get(theirs, theirs)
        if one in a.values and other in b.values and a.values[one].size == b.values[other].size:
            found[other] = one
    _by_name(a, b, found)
    # Each match may make others possible.
    for _ in range(_ROUNDS):
        before = len(found)
        _through_casts(b, found)
        _by_structure(a, b, found)
        _by_value(a, b, found)
        if len(found) == before:
            break
    # Of two layouts of a large value too little is kept to tell how they belong together.
    return {name: other for name, other in found.items() if aligned(a.values[other], b.values[name]) is not None}


_ROUNDS = 4


def _through_casts(b: Inside, found: dict[str, str]) -> None:
    """Match casts, which hand on what they are given, as that is."""
    for name, value in b.values.items():
        if name not in found and value.type == "cast" and value.inputs and value.inputs[0] in found:
            found[name] = found[value.inputs[0]]


def _by_name(a: Inside, b: Inside, found: dict[str, str]) -> None:
    plain: dict[str, str] = {}
    for name, value in a.values.items():
        plain.setdefault(value.plain, name)
    for name, value in b.values.items():
        other = name if name in a.values else plain.get(value.plain.removeprefix(_INVERSED))
        if name in found or other is None or a.values[other].size != value.size:
            continue
        if not value.plain.isdigit() or _consistent(a, b, other, name, found):
            found[name] = other


def _consistent(a: Inside, b: Inside, one: str, other: str, found: Mapping[str, str]) -> bool:
    """Whether two operations of one number are of one kind, or equal, and take a value in common (where a counterpart
    of what they take is known), and no other value is what the second gives."""
    x, y = a.values[one], b.values[other]
    if canonical(x.type) != canonical(y.type) and not _equal(x, y):
        return False
    wanted = {_moved(a, found[name]) for name in y.inputs if name in found}
    if wanted and not {_moved(a, name) for name in x.inputs} & wanted:
        return False
    # Numbers that are off by a few may lead to a neighbour of the same kind: another factor of the same value.
    return _close(x, y) or not any(item.size == y.size and _equal(item, y) for item in a.values.values())


def _close(one: InnerValue, other: InnerValue) -> bool:
    """Whether nothing speaks against two values being one: not finite, of which too little is left, or alike."""
    pair = aligned(one, other)
    if not (one.finite and other.finite) or pair is None:
        return True
    with np.errstate(all="ignore"):
        return snr_db(*pair) >= _EQUAL_DB


def _by_structure(a: Inside, b: Inside, found: dict[str, str]) -> None:
    """Match what is left where the kinds, sizes and all inputs agree: in order where several operations are alike,
    such as the projections of an attention, if as many are on both sides."""
    taken = set(found.values())
    alike = _grouped(a, {n: tuple(_moved(a, i) for i in v.inputs) for n, v in a.values.items() if n not in taken})
    left = {
        name: tuple(_counterpart(a, b, found, item) for item in value.inputs)
        for name, value in b.values.items()
        if name not in found
    }
    for key, names in _grouped(b, left).items():
        others = alike.get(key, [])
        if len(names) == 1 and len(others) > 1 and all(_same(a.values[others[0]], a.values[item]) for item in others):
            others = others[:1]  # computed twice there, once here
        if len(others) == len(names):
            pairs = list(zip(names, others, strict=True))
            if len(pairs) == 1 or all(_plausible(a.values[other], b.values[name]) for name, other in pairs):
                found |= dict(pairs)


_MOVES = {"transpose", "reshape", "expand_dims", "squeeze", "contiguous", "identity", "cast", "to", "detach", "dropout"}


def _moved(side: Inside, name: str) -> str:
    """Return the value that ``name`` is another layout of: one side may have a transpose where the other's matmul
    transposes by itself."""
    while name in side.values and canonical(side.values[name].type) in _MOVES and len(side.values[name].inputs) == 1:
        name = side.values[name].inputs[0]
    return name


def _counterpart(a: Inside, b: Inside, found: Mapping[str, str], name: str) -> str:
    """Return a's value for b's ``name``, an input's by its name; empty where it has none."""
    if name in found:
        return _moved(a, found[name])
    base = _moved(b, name)
    other = found.get(base, "" if base in b.values else base)
    return _moved(a, other) if other else ""


def _grouped(side: Inside, inputs: Mapping[str, tuple[str, ...]]) -> dict[tuple[str, int, tuple[str, ...]], list[str]]:
    groups: dict[tuple[str, int, tuple[str, ...]], list[str]] = {}
    for name, given in inputs.items():
        if given and "" not in given:
            value = side.values[name]
            groups.setdefault((canonical(value.type), value.size, given), []).append(name)
    return groups


def _same(one: InnerValue, other: InnerValue) -> bool:
    return bool(np.array_equal(one.taken, other.taken, equal_nan=one.kind == "f"))


def _plausible(one: InnerValue, other: InnerValue) -> bool:
    """Whether two values may be one: they are alike, or one of them is no number any more."""
    pair = aligned(one, other)
    if not (one.finite and other.finite) or pair is None:
        return True
    with np.errstate(all="ignore"):
        return snr_db(*pair) > 0


def _by_value(a: Inside, b: Inside, found: dict[str, str]) -> None:
    """Match what is left where the values agree closely, are not constant, and only one value is like that."""
    taken = set(found.values())
    sizes: dict[int, list[InnerValue]] = {}
    for value in a.values.values():
        if value.name not in taken and value.finite and value.high > value.low:
            sizes.setdefault(value.size, []).append(value)
    for name, value in b.values.items():
        if name in found or not value.finite or not value.high > value.low or value.kind != "f":
            continue
        close = [item for item in sizes.get(value.size, ()) if _equal(item, value)]
        if len(close) == 1:
            found[name] = close[0].name


def _equal(one: InnerValue, other: InnerValue) -> bool:
    apart = max(abs(one.high - other.high), abs(one.low - other.low))
    if one.kind != "f" or apart > 0.01 * one.largest:
        return False
    pair = aligned(one, other)
    with np.errstate(all="ignore"):
        return pair is not None and snr_db(*pair) >= _EQUAL_DB
