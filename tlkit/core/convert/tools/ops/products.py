"""Products of tensors: einsum, attention."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from string import ascii_letters
from typing import TYPE_CHECKING, Any

from tlkit.core.convert.tools.kit.mends import REPLACED, composed, mend
from tlkit.core.convert.tools.kit.reading import inputs_of
from tlkit.core.convert.tools.ops.complexes import einsum as of_complex

if TYPE_CHECKING:
    from torch import Tensor


@mend("einsum", "coremltools takes `...` for one more letter: the result has another shape", replaces=True)
def _einsum(context: Any, node: Any) -> None:
    from coremltools.converters.mil.frontend import _utils
    from coremltools.converters.mil.frontend.torch.ops import promote_input_dtypes
    from coremltools.converters.mil.mil import types

    equation, given = (context[name] if isinstance(name, str) and name in context else name for name in node.inputs[:2])
    operands = [item if hasattr(item, "dtype") else context[item] for item in given]
    equation = str(getattr(equation, "val", equation)).replace(" ", "")
    if "." in equation or "->" not in equation or any(types.is_complex(operand.dtype) for operand in operands):
        equation = spelled_out(equation, [operand.rank for operand in operands])
        _check_labels(equation, operands)
    if any(types.is_complex(operand.dtype) for operand in operands):
        of_complex(context, node, equation, operands)
        return
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
        # Without an output einsum returns `...` and then, sorted, the letters that occur once.
        output = "..." * ("..." in inputs) + "".join(sorted(letter for letter in named if named.count(letter) == 1))
    # A `...` of fewer axes stands for the last ones, as in broadcasting.
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
        # Without enable_gqa, the last operand.
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


def _by_vector(given: Sequence[Any]) -> bool:
    return len(getattr(given[1], "shape", (1, 1))) == 1


@composed("linear", "coremltools wants a matrix; torch takes a vector as well", replaces=True, applies=_by_vector)
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    if weight.dim() != 1:
        return NotImplemented
    product = (x * weight).sum(-1) if x.dim() == 1 else (x @ weight[:, None]).squeeze(-1)
    return product if bias is None else product + bias


_FACTORS = "coremltools refuses whole numbers for `alpha` and `beta`"


def _scaled(given: Sequence[Any]) -> bool:
    return any(getattr(factor, "val", factor) != 1 for factor in given[3:5])


@composed("addmm", _FACTORS, replaces=True, applies=_scaled)
@composed("baddbmm", _FACTORS, replaces=True, applies=_scaled)
def _added(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    if beta == 1 and alpha == 1:
        return NotImplemented
    product = (a @ b) * alpha
    return x * beta + product if beta else product
