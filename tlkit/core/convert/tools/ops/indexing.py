"""Reading and writing at indices."""

from __future__ import annotations

from typing import Any

from tlkit.core.convert.tools.mends import REPLACED, mend
from tlkit.core.convert.tools.reading import inputs_of


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
