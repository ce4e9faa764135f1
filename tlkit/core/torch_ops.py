"""The torch ops that coremltools lacks or gets wrong, given to it through its public ``register_torch_op``.

Each entry says which torch brings the op and up to which coremltools it is needed. What coremltools has by now is left
to it, so that a newer one is never overruled; ``tests/core/test_torch_ops.py`` notices entries that nobody needs.
Importing this module does not import coremltools; :func:`install` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from string import ascii_letters
from typing import Any

Translate = Callable[[Any, Any], None]
"""(coremltools' context, its node): reads the node's inputs, adds the value of its output to the context."""


@dataclass(frozen=True, slots=True)
class Mend:
    """A torch op as coremltools names it (lower case, no namespace) and why tlkit translates it.

    ``torch`` is the version whose models brought it up, ``coremltools`` the last version known to need it, ``replaces``
    whether that version has the op and translates some of its uses only.
    """

    op: str
    torch: str
    coremltools: str
    why: str
    translate: Translate
    replaces: bool = False


MENDS: dict[str, Mend] = {}
_REPLACED: dict[str, Translate] = {}
"""coremltools' own translations of the ops replaced, for the uses that they are right for."""


def _mend(op: str, why: str, *, replaces: bool = False) -> Callable[[Translate], Translate]:
    def register(translate: Translate) -> Translate:
        if op in MENDS:
            raise ValueError(f"two translations of {op}")
        MENDS[op] = Mend(op, "2.13", "9.0", why, translate, replaces)
        return translate

    return register


@cache
def install() -> tuple[str, ...]:
    """Teach coremltools the ops above that it lacks, once in a process; return their names."""
    from coremltools.converters.mil import register_torch_op
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    taught = []
    for mend in MENDS.values():
        if supports(mend.op) and not (mend.replaces and _tools() <= _numbers(mend.coremltools)):
            continue
        if mend.replaces:
            _REPLACED[mend.op] = _TORCH_OPS_REGISTRY.get_func(mend.op)
        named = _named(mend.translate, mend.op.replace(".", "_"))
        register_torch_op(named, torch_alias=[mend.op] if mend.op != named.__name__ else None, override=mend.replaces)
        taught.append(mend.op)
    return tuple(taught)


def supports(kind: str, *, exported: bool = False) -> bool:
    """Whether coremltools translates the torch op ``kind``, named as a graph names it (``aten::new_ones``).

    ``exported``: in torch.export's graphs, where it finds less.
    """
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY
    from coremltools.converters.mil.frontend.torch.utils import sanitize_op_kind

    # It tidies the name when it reads the graph and again when it looks it up, which is how it finds `__and__`. Of
    # exported graphs it wants to know each op beforehand, and tidies once.
    name = sanitize_op_kind(kind)
    if exported and name not in _TORCH_OPS_REGISTRY.name_to_func_mapping:
        return False
    return _TORCH_OPS_REGISTRY.get_func(name) is not None


def _named(translate: Translate, name: str) -> Translate:
    """Return ``translate`` under another name: coremltools registers a function by its own."""

    def call(context: Any, node: Any) -> None:
        translate(context, node)

    call.__name__ = name
    return call


def _tools() -> tuple[int, int]:
    from importlib.metadata import version

    return _numbers(version("coremltools"))


def _numbers(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def _inputs(context: Any, node: Any, names: str) -> dict[str, Any]:
    """Return the node's inputs by name, None for those left out, however the graph passes them."""
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs, _get_kwinputs

    given = dict.fromkeys(names.split())
    given.update(zip(given, _get_inputs(context, node), strict=False))
    for name in given:
        if node.kwinputs and name in node.kwinputs:
            given[name] = _get_kwinputs(context, node, name, default=[None])[0]
    return given


def _dtype(code: Any) -> str:
    """Return MIL's name of the type that torch's number ``code`` stands for; 64 bits become 32."""
    from coremltools.converters.mil.frontend.torch.utils import NUM_TO_DTYPE_STRING

    return str(NUM_TO_DTYPE_STRING[int(getattr(code, "val", code))])


def _filled(size: Any, value: float) -> Any:
    """Return an f32 tensor of ``size``: numbers known only when the model runs come as a list of them."""
    from coremltools.converters.mil import Builder as mb

    if isinstance(size, list | tuple):
        size = mb.concat(values=size, axis=0)
    if size.shape == (0,):
        return mb.const(val=value)
    return mb.fill(shape=mb.cast(x=size, dtype="int32"), value=value)


@_mend("new_ones", "masks of transformers begin with it")
def _new_ones(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    given = _inputs(context, node, "self size dtype")
    ones = _filled(given["size"], 1.0)
    dtype = types.builtin_to_string(given["self"].dtype) if given["dtype"] is None else _dtype(given["dtype"])
    context.add(mb.cast(x=ones, dtype=dtype, name=node.name))


@_mend("diff", "causal masks of transformers find packed sequences with it")
def _diff(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    given = _inputs(context, node, "self n dim prepend append")
    axis = -1 if given["dim"] is None else int(given["dim"].val)
    parts = [given["prepend"], given["self"], given["append"]]
    parts = [part for part in parts if part is not None]
    x = mb.concat(values=parts, axis=axis) if len(parts) > 1 else parts[0]
    for _ in range(1 if given["n"] is None else int(given["n"].val)):
        later, earlier = _sliced(x, axis, first=1), _sliced(x, axis, last=-1)
        boolean = types.is_bool(x.dtype)
        x = mb.logical_xor(x=later, y=earlier) if boolean else mb.sub(x=later, y=earlier)
    context.add(mb.identity(x=x, name=node.name))


def _sliced(x: Any, axis: int, first: int = 0, last: int = 0) -> Any:
    """Return ``x`` along ``axis`` from ``first`` to before ``last`` (0: to the end)."""
    from coremltools.converters.mil import Builder as mb

    axis %= x.rank
    begin, end = [0] * x.rank, [0] * x.rank
    begin[axis], end[axis] = first, last
    whole = [index != axis for index in range(x.rank)]
    return mb.slice_by_index(
        x=x,
        begin=begin,
        end=end,
        begin_mask=[flag or first == 0 for flag in whole],
        end_mask=[flag or last == 0 for flag in whole],
    )


@_mend("alias", "torch.export leaves it where a tensor is handed on as it is")
def _alias(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb

    context.add(mb.identity(x=_inputs(context, node, "self")["self"], name=node.name))


def _logical(context: Any, node: Any, name: str) -> None:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    x, y = _inputs(context, node, "self other").values()
    if not (types.is_bool(x.dtype) and types.is_bool(y.dtype)):
        raise ValueError(f"'{node.kind}' of integers: Core ML has it for booleans alone")
    context.add(getattr(mb, name)(x=x, y=y, name=node.name))


@_mend("or", "`a | b`, as tracing records it")
@_mend("bitwise_or", "`a | b`, as torch.export records it; coremltools has its `and` alone")
def _or(context: Any, node: Any) -> None:
    _logical(context, node, "logical_or")


@_mend("xor", "`a ^ b`, as tracing records it")
@_mend("bitwise_xor", "`a ^ b`, as torch.export records it")
def _xor(context: Any, node: Any) -> None:
    _logical(context, node, "logical_xor")


@_mend("einsum", "coremltools takes `...` for one more letter: the result has another shape", replaces=True)
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


@_mend("scaled_dot_product_attention", "coremltools leaves out `enable_gqa`", replaces=True)
def _attention(context: Any, node: Any) -> None:
    given = _inputs(context, node, "query key value attn_mask dropout_p is_causal scale enable_gqa")
    groups = given["enable_gqa"] is not None and bool(given["enable_gqa"].val)
    if groups and node.kind == "scaled_dot_product_attention":
        node = copy(node)
        names = [f"{node.name}_{name}" for name in ("key", "value")]
        for name, part in zip(names, ("key", "value"), strict=True):
            times = given["query"].shape[-3] // given[part].shape[-3]
            context.add(_repeated(given[part], times, name), name)
        node.inputs = [node.inputs[0], *names, *node.inputs[3:7]]
    _REPLACED["scaled_dot_product_attention"](context, node)


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
