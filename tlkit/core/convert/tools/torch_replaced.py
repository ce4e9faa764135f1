"""Translations of torch ops that coremltools has, and gets wrong for some of their uses: those for which
:mod:`tlkit.core.convert.tools.torch_ops` says ``replaces``, and what goes with them.

The other uses go to coremltools' own translations.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from string import ascii_letters
from typing import Any

from tlkit.core.convert.tools.torch_ops import REPLACED, inputs_of, mend


@mend("einsum", "coremltools takes `...` for one more letter: the result has another shape", replaces=True)
def _einsum(context: Any, node: Any) -> None:
    from coremltools.converters.mil.frontend import _utils
    from coremltools.converters.mil.frontend.torch.ops import promote_input_dtypes

    equation, given = (context[name] if isinstance(name, str) and name in context else name for name in node.inputs[:2])
    operands = [item if hasattr(item, "dtype") else context[item] for item in given]
    equation = str(getattr(equation, "val", equation)).replace(" ", "")
    if "." in equation or "->" not in equation:
        equation = spelled_out(equation, [operand.rank for operand in operands])
        _check_labels(equation, operands)
    context.add(_utils.build_einsum_mil(promote_input_dtypes(operands), equation, node.name))


def spelled_out(equation: str, ranks: Sequence[int]) -> str:
    """Return an einsum ``equation`` with letters for its ``...`` and an output, which it may leave out.

    >>> spelled_out("...ij,...jk", [3, 3])
    'aij,ajk->aik'
    """
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    spans = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    letters = "".join(letter for letter in ascii_letters if letter not in equation)[: max(spans)]
    if not arrow:
        named = inputs.replace("...", "").replace(",", "")
        output = "..." * ("..." in inputs) + "".join(sorted(letter for letter in named if named.count(letter) == 1))
    filled = [term.replace("...", letters[len(letters) - span :]) for term, span in zip(terms, spans, strict=True)]
    return f"{','.join(filled)}->{output.replace('...', letters)}"


def _check_labels(equation: str, operands: Sequence[Any]) -> None:
    sizes: dict[str, int] = {}
    for term, operand in zip(equation.partition("->")[0].split(","), operands, strict=True):
        for letter, size in zip(term, operand.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise ValueError("einsum that broadcasts an axis: expand the operand first")


@mend("scaled_dot_product_attention", "coremltools leaves out `enable_gqa`", replaces=True)
def _attention(context: Any, node: Any) -> None:
    given = inputs_of(context, node, "query key value attn_mask dropout_p is_causal scale enable_gqa")
    groups = given["enable_gqa"] is not None and bool(given["enable_gqa"].val)
    if groups and node.kind == "scaled_dot_product_attention":
        node = copy(node)
        names = [f"{node.name}_{name}" for name in ("key", "value")]
        for name, part in zip(names, ("key", "value"), strict=True):
            times = given["query"].shape[-3] // given[part].shape[-3]
            context.add(_repeated(given[part], times, name), name)
        node.inputs = [node.inputs[0], *names, *node.inputs[3:7]]
    REPLACED["scaled_dot_product_attention"](context, node)


def _repeated(x: Any, times: int, name: str) -> Any:
    """Return ``x`` with each of its heads, on axis -3, ``times`` times in a row."""
    from coremltools.converters.mil import Builder as mb

    heads = x.rank - 3
    split = mb.tile(
        x=mb.expand_dims(x=x, axes=[heads + 1]), reps=[times if axis == heads + 1 else 1 for axis in range(x.rank + 1)]
    )
    return mb.reshape(x=split, shape=_merged(x, heads, times), name=name)


def _merged(x: Any, axis: int, times: int) -> list[int]:
    """Return the shape of ``x`` with ``axis`` longer; 0 keeps a length that is known only when the model runs."""
    return [
        size * times if index == axis else size if isinstance(size, int) else 0 for index, size in enumerate(x.shape)
    ]


@mend("index_copy", "caches of transformers write their new rows with it")
def _index_copy(context: Any, node: Any) -> None:
    given = inputs_of(context, node, "self dim index source")
    axis = int(given["dim"].val) % given["self"].rank
    context.add(_with_rows(given["self"], axis, given["index"], given["source"], node.name))


@mend("index_put", "coremltools takes one row after whole slices (`x[:, i] = y`), not several", replaces=True)
def _index_put(context: Any, node: Any) -> None:
    given = inputs_of(context, node, "self indices values accumulate")
    indices, x = given["indices"], given["self"]
    accumulate = given["accumulate"] is not None and bool(getattr(given["accumulate"], "val", given["accumulate"]))
    axis = next((axis for axis, index in enumerate(indices) if index is not None), 0)
    one = sum(index is not None for index in indices) == 1 and axis > 0
    if accumulate or not one or indices[axis].rank != 1 or indices[axis].shape == (1,):
        REPLACED["index_put"](context, node)
        return
    from coremltools.converters.mil.frontend._utils import pymil_broadcast_to

    shape = [*x.shape[:axis], *indices[axis].shape, *x.shape[axis + 1 :]]
    values = pymil_broadcast_to(given["values"], shape, f"{node.name}_values")
    context.add(_with_rows(x, axis, indices[axis], values, node.name))


def _with_rows(x: Any, axis: int, index: Any, rows: Any, name: str) -> Any:
    """Return ``x`` with ``rows`` at the places along ``axis`` that ``index`` names, one or several."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.frontend.torch.ops import _translate_torch_tensor_assign, promote_input_dtypes

    x, rows = promote_input_dtypes([x, rows])
    if index.shape != (1,):
        return mb.scatter(data=x, indices=index, updates=rows, axis=axis, mode="update", name=name)
    at, whole = mb.squeeze(x=index), [place != axis for place in range(x.rank)]
    begin, end = [0] * x.rank, list(x.shape)
    begin[axis], end[axis] = at, mb.add(x=at, y=1)
    return _translate_torch_tensor_assign(
        x=x,
        updates=rows,
        begin=mb.concat(values=begin, axis=0),
        end=mb.concat(values=end, axis=0),
        stride=[1] * x.rank,
        begin_mask=whole,
        end_mask=whole,
        squeeze_mask=[False] * x.rank,
        name=name,
    )


@mend("_upsample_bilinear2d_aa", "coremltools leaves out the antialiasing", replaces=True)
@mend("_upsample_bilinear2d_aa.vec", "the same, as torch.export records it", replaces=True)
def _bilinear(context: Any, node: Any) -> None:
    _antialiased(context, node, "bilinear")


@mend("_upsample_bicubic2d_aa", "torchvision's bicubic `Resize` ends in it")
def _bicubic(context: Any, node: Any) -> None:
    _antialiased(context, node, "bicubic")


def _antialiased(context: Any, node: Any, mode: str) -> None:
    """Resize as torch does: each axis by a matrix, which torch itself tells, since a resize is linear and separable."""
    from coremltools.converters.mil import Builder as mb

    given = inputs_of(context, node, "input output_size align_corners scales_h scales_w")
    x, sizes = given["input"], _values(given["output_size"])
    if not all(isinstance(size, int) for size in x.shape[2:]):
        raise ValueError("an antialiased resize of a size that is known only when the model runs")
    scales = _values(given["scales_h"]) + _values(given["scales_w"])
    corners = bool(_values(given["align_corners"])[0])
    for axis in (0, 1):
        target = (
            {"scale_factor": (float(scales[axis]), 1.0)} if len(scales) == 2 else {"size": (int(sizes[axis]), None)}
        )
        weight = _resize_matrix(int(x.shape[2 + axis]), target, mode, corners)
        if axis == 0:
            x = mb.matmul(x=weight[None, None], y=x)
        else:
            x = mb.matmul(x=x, y=weight[None, None], transpose_y=True, name=node.name)
    context.add(x)


def _resize_matrix(length: int, target: dict[str, Any], mode: str, corners: bool) -> Any:
    import torch
    from torch.nn import functional

    if "size" in target:
        target = {"size": (target["size"][0], length)}
    unit = torch.eye(length)[None, None]
    return functional.interpolate(unit, mode=mode, align_corners=corners, antialias=True, **target)[0, 0].numpy()


def _values(given: Any) -> list[Any]:
    """Return what a list of numbers, or a number, is when the model is converted; empty for None."""
    import numpy as np

    if given is None:
        return []
    if isinstance(given, list | tuple):
        return [value for item in given for value in _values(item)]
    return list(np.ravel(getattr(given, "val", given))) if getattr(given, "val", given) is not None else []
