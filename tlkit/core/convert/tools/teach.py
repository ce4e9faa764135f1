"""Teach coremltools the mends, through its public ``register_torch_op``, and say which torch ops it translates then.

What coremltools has by now is left to it, so that a newer one is never overruled; ``test_teach.py`` notices entries
that nobody needs. Importing this module does not import coremltools; its functions do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from tlkit.core.convert.tools.mends import MENDS, REPLACED, Mend, Translate


@cache
def install() -> tuple[str, ...]:
    """Teach coremltools the mends that it needs, once in a process; return their names."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    from tlkit.core.convert.tools import ops
    from tlkit.core.convert.tools.expand import expand

    ops.load()
    taught = []
    for entry in MENDS.values():
        had = _TORCH_OPS_REGISTRY.get_func(entry.op)
        if had is not None and not _replaces(entry):
            continue
        if had is not None:
            REPLACED[entry.op] = had
        _register(entry.op, entry.translate or partial(expand, entry.compose), override=entry.replaces)
        taught.append(entry.op)
    return tuple(taught)


def supports(kind: str, *, exported: bool = False) -> bool:
    """Whether coremltools translates the torch op ``kind``, named as a graph names it (``aten::new_ones``).

    ``exported``: in torch.export's graphs, where it finds less, and where torch itself decomposes what is composed.
    """
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY
    from coremltools.converters.mil.frontend.torch.utils import sanitize_op_kind

    # It tidies the name when it reads the graph and again when it looks it up, which is how it finds `__and__`. Of
    # exported graphs it wants to know each op beforehand, and tidies once.
    name = sanitize_op_kind(kind)
    if exported:
        return name in _TORCH_OPS_REGISTRY.name_to_func_mapping and name not in _decomposed()
    return _TORCH_OPS_REGISTRY.get_func(name) is not None or _decompose(kind)


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return what torch.export is to take apart, by overload: mends in torch's words, and what coremltools lacks."""
    import torch
    from torch._decomp import decomposition_table

    install()
    table = {
        op: rule
        for op, rule in {**decomposition_table, **dict(torch.export.default_decompositions().items())}.items()
        if hasattr(op, "name") and not supports(op.name(), exported=True)
    }
    for name in install():
        compose = MENDS[name].compose
        if compose is not None:
            table.update(dict.fromkeys(_overloads(name), compose))
    return table


def _overloads(packet: str) -> list[Any]:
    import torch

    found = getattr(torch.ops.aten, packet, None)
    every = [getattr(found, name) for name in found.overloads()] if found is not None else []
    return [overload for overload in every if not overload._schema.is_mutable]


def _replaces(entry: Mend) -> bool:
    return entry.replaces and _numbers(version("coremltools")) <= _numbers(entry.coremltools)


def _register(op: str, translate: Translate, *, override: bool = False) -> None:
    from coremltools.converters.mil import register_torch_op

    named = _named(translate, op.replace(".", "_"))
    register_torch_op(named, torch_alias=[op] if op != named.__name__ else None, override=override)


_TAKEN_APART: set[str] = set()


def _decomposed() -> set[str]:
    return _TAKEN_APART | {name for name in install() if MENDS[name].compose is not None and name not in REPLACED}


def _decompose(kind: str) -> bool:
    """Have coremltools take apart, as torch does, an op of a trace that it does not know; False where torch cannot."""
    from tlkit.core.convert.tools.expand import decomposition, expand

    namespace, _, name = kind.partition("::")
    name = name.removesuffix("_")
    if namespace != "aten" or not any(decomposition(overload) for overload in _overloads(name)):
        return False
    _register(name, partial(expand, None))
    _TAKEN_APART.add(name)
    return True


def _named(translate: Translate, name: str) -> Translate:
    """Return ``translate`` under another name: coremltools registers a function by its own."""

    def call(context: Any, node: Any) -> None:
        translate(context, node)

    call.__name__ = name
    return call


def _numbers(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
