"""A program with fixed shapes at other ones: what shape each of its values then has.

A program declares the shape of every value. It is run at the new shape, and its declarations can be rewritten as long
as everything that the change reaches follows its operands' shapes: an operation whose own constants hold a shape (a
reshape, a slice) cannot be told from one that means just that shape, and is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from tlkit.errors import TlkitError, UsageError
from tlkit.formats.edit_shapes import Shape
from tlkit.mil.lower import lower
from tlkit.mil.ops import CARRIERS, library
from tlkit.mil.program import Function, Operation, StateType, TensorType

AGAIN = "convert the model again at that shape, or with a flexible one"
_FAMILIES = {"activation", "conv", "elementwise_binary", "elementwise_unary", "linear", "normalization", "pool"}
_FAMILIES |= {"reduction"}
_FOLLOW = {"concat", "cumsum", "depth_to_space", "expand_dims", "identity", "pad", "pixel_shuffle", "pixel_unshuffle"}
_FOLLOW |= {"select", "shape", "space_to_depth", "squeeze", "stack", "transpose"}
_FOLLOW |= {"upsample_bilinear", "upsample_nearest_neighbor"}
"""Operations whose result's shape follows from their operands' shapes, whatever their constants are."""


def infer(function: Function, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shape of every value of ``function`` with ``shapes`` at its inputs, by name.

    Found by running it on zeros. UsageError names the operation that the shapes do not fit or that does not follow.
    """
    walker = _Walker(lower(function, precision="f32"), function)
    operands = [_zeros(item.type, shapes.get(item.name)) for item in function.inputs]
    try:
        with torch.inference_mode():
            walker.run(*operands)
    except TlkitError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"the shape does not fit {walker.where}: {reason}", AGAIN) from None
    return walker.found | dict(shapes)


class _Walker(fx.Interpreter):
    """Notes each value's shape, and stops where an operation does not follow its operands."""

    def __init__(self, module: fx.GraphModule, function: Function) -> None:
        super().__init__(module)
        self.found: dict[str, Shape] = {}
        self.where = "the program"
        places = (node for node in module.graph.nodes if node.op == "placeholder")
        self._declared = {node: item.type for node, item in zip(places, function.inputs, strict=True)}
        self._changed: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        operation = n.meta.get("mil")
        if operation is not None:
            self.where = f"the operation '{operation.name}' ({operation.type})"
            _check_follows(operation, [name for name, given in n.kwargs.items() if self._holds_change(given)])
        result = super().run_node(n)
        values = result if isinstance(result, tuple) else (result,)
        if operation is not None:
            pairs = [(item.type, value) for item, value in zip(operation.outputs, values, strict=False)]
            for item, value in zip(operation.outputs, values, strict=False):
                if isinstance(value, torch.Tensor):
                    self.found[item.name] = tuple(value.shape)
        else:
            pairs = [(self._declared[n], result)] if n.op == "placeholder" else []
        # A part of a tuple, or a value that an operation reads as plain Python, has no declaration of its own.
        plain = operation is None and n.op != "placeholder"
        if any(_differs(kind, value) for kind, value in pairs) or (plain and self._holds_change((n.args, n.kwargs))):
            self._changed.add(n)
        return result

    def _holds_change(self, given: Any) -> bool:
        if isinstance(given, dict):
            given = tuple(given.values())
        if isinstance(given, tuple | list):
            return any(map(self._holds_change, given))
        return isinstance(given, fx.Node) and given in self._changed


def _check_follows(operation: Operation, changed: Sequence[str]) -> None:
    if not changed:
        return
    versions = library().get(operation.type, ())
    follows = operation.type in _FOLLOW or any(version.family in _FAMILIES for version in versions)
    if operation.type == "gather":
        follows = changed == ["indices"]
    if not follows or "output_shape" in operation.inputs:
        raise UsageError(
            f"the new shape reaches '{operation.name}' ({operation.type}), whose own constants may hold the old one",
            AGAIN,
        )


def _differs(kind: Any, value: Any) -> bool:
    known = isinstance(kind, TensorType) and isinstance(value, torch.Tensor) and kind.shape is not None
    return known and tuple(value.shape) != kind.shape


def _zeros(kind: Any, shape: Shape | None) -> Any:
    wrapped = kind.wrapped if isinstance(kind, StateType) else kind
    size = shape or wrapped.shape
    if size is None or None in size:
        raise UsageError("the program mixes fixed lengths with open ones", AGAIN)
    return torch.zeros(tuple(int(d or 0) for d in size), dtype=CARRIERS[wrapped.dtype])
