"""The torch ops that coremltools lacks or gets wrong, given to it through its public ``register_torch_op``.

Each entry says which torch brings the op and up to which coremltools it is needed. What coremltools has by now is left
to it, so that a newer one is never overruled; ``test_torch_ops.py`` notices entries that nobody needs.
Importing this module does not import coremltools; :func:`install` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
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
REPLACED: dict[str, Translate] = {}
"""coremltools' own translations of the ops replaced, for the uses that they are right for."""


def mend(op: str, why: str, *, replaces: bool = False) -> Callable[[Translate], Translate]:
    """Register a translation of ``op`` and why it is needed; ``replaces`` as in :class:`Mend`."""

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

    from tlkit.core.convert.tools import torch_replaced  # noqa: F401  # its entries

    taught = []
    for entry in MENDS.values():
        if supports(entry.op) and not (entry.replaces and _tools() <= _numbers(entry.coremltools)):
            continue
        if entry.replaces:
            REPLACED[entry.op] = _TORCH_OPS_REGISTRY.get_func(entry.op)
        named = _named(entry.translate, entry.op.replace(".", "_"))
        register_torch_op(
            named, torch_alias=[entry.op] if entry.op != named.__name__ else None, override=entry.replaces
        )
        taught.append(entry.op)
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


def inputs_of(context: Any, node: Any, names: str) -> dict[str, Any]:
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


@mend("new_ones", "masks of transformers begin with it")
def _new_ones(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    given = inputs_of(context, node, "self size dtype")
    ones = _filled(given["size"], 1.0)
    dtype = types.builtin_to_string(given["self"].dtype) if given["dtype"] is None else _dtype(given["dtype"])
    context.add(mb.cast(x=ones, dtype=dtype, name=node.name))


@mend("diff", "causal masks of transformers find packed sequences with it")
def _diff(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    given = inputs_of(context, node, "self n dim prepend append")
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


@mend("alias", "torch.export leaves it where a tensor is handed on as it is")
def _alias(context: Any, node: Any) -> None:
    from coremltools.converters.mil import Builder as mb

    context.add(mb.identity(x=inputs_of(context, node, "self")["self"], name=node.name))


def _logical(context: Any, node: Any, name: str) -> None:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    x, y = inputs_of(context, node, "self other").values()
    if not (types.is_bool(x.dtype) and types.is_bool(y.dtype)):
        raise ValueError(f"'{node.kind}' of integers: Core ML has it for booleans alone")
    context.add(getattr(mb, name)(x=x, y=y, name=node.name))


@mend("or", "`a | b`, as tracing records it")
@mend("bitwise_or", "`a | b`, as torch.export records it; coremltools has its `and` alone")
def _or(context: Any, node: Any) -> None:
    _logical(context, node, "logical_or")


@mend("xor", "`a ^ b`, as tracing records it")
@mend("bitwise_xor", "`a ^ b`, as torch.export records it")
def _xor(context: Any, node: Any) -> None:
    _logical(context, node, "logical_xor")
