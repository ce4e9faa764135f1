"""How large values can get at most, from the weights: what proves that a product cannot overflow f16.

Bounds are of the Euclidean norm of a row (the last axis) or of a block of it, whatever the inputs are. They start at a
layer norm, whose rows have a norm that its weights bound, or at a table that rows are taken from, and go on through
sums, linear layers and operations that move elements. An f16 rounding on the way adds a 2,000th; whoever uses a bound
keeps a factor of 2 below f16's largest number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from tlkit.mil.lower.lower import item_of
from tlkit.mil.ops import elementwise_binary, linear, normalization, scatter_gather, tensor, transformation
from tlkit.mil.program import Function, TensorType

PORT = "port"
"""Where an input's node holds its declared type."""
_DEPTH = 64
_PARTS: frozenset[Any] = frozenset({transformation.slice_by_index, transformation.slice_by_size, tensor.split})
"""What takes some rows, or a part of each."""
_SAME_ROWS: frozenset[Any] = _PARTS | {
    transformation.expand_dims,
    transformation.squeeze,
    tensor.identity,
}
"""What leaves rows as they are, where the last axis is as long as it was."""


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """Return the shape that the program declares for a node's value; None where it is open."""
    if node.target is item_of:
        whole, place = node.args
        assert isinstance(whole, fx.Node) and isinstance(place, int)
        kind = whole.meta["mil"].outputs[place].type
    elif PORT in node.meta:
        kind = node.meta[PORT]
    elif "mil" in node.meta and len(node.meta["mil"].outputs) == 1:
        kind = node.meta["mil"].outputs[0].type
    else:
        return None
    if not isinstance(kind, TensorType) or kind.shape is None or any(size is None for size in kind.shape):
        return None
    return tuple(int(size or 0) for size in kind.shape)


def target_of(node: Any) -> Callable[..., Any] | None:
    """Return a node's function of ``mil/ops``, without its rounding; None for anything else."""
    if not (isinstance(node, fx.Node) and node.op == "call_function" and "mil" in node.meta):
        return None
    target: Any = node.target
    found: Callable[..., Any] = getattr(target, "__wrapped__", target)
    return found


def declare(graph: fx.Graph, function: Function) -> None:
    """Tell the graph of ``function`` the types of its inputs."""
    ports = [node for node in graph.nodes if node.op == "placeholder"]
    for node, item in zip(ports, function.inputs, strict=True):
        node.meta[PORT] = item.type


class Bounds:
    """Bounds of the values of one module, each computed once."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        self._found: dict[tuple[Any, ...], float] = {}

    def constant(self, node: Any) -> torch.Tensor | None:
        """Return the constant that a node stands for, or None."""
        if not (isinstance(node, fx.Node) and node.op == "get_attr"):
            return None
        found = getattr(self._module, str(node.target))
        return found.detach() if isinstance(found, torch.Tensor) else None

    def number(self, node: Any) -> float | None:
        """Return the one number that a constant holds, or None."""
        found = self.constant(node)
        return float(found.item()) if found is not None and found.numel() == 1 else None

    def block(self, node: fx.Node, size: int, depth: int = 0) -> float:
        """Return a bound of the norm of any ``size`` consecutive values of a row that begin at a multiple of ``size``;
        infinity where none is known."""
        key = (node, size)
        if key not in self._found:
            self._found[key] = math.inf if depth > _DEPTH else self._block(node, size, depth + 1)
        return self._found[key]

    def _block(self, node: fx.Node, size: int, depth: int) -> float:
        held = self.constant(node)
        if held is not None:
            return _norm(held) if held.is_floating_point() and held.numel() and held.ndim else math.inf
        if node.target is item_of:
            whole = node.args[0]
            assert isinstance(whole, fx.Node)
            return self._moved(whole, shape_of(node), size, depth)
        target, given = target_of(node), node.kwargs
        if target is normalization.layer_norm:
            return self._normalized(node)
        if target is linear.linear:
            return self._linear(given, size, depth)
        if target is elementwise_binary.add:
            return sum(self._term(given[name], shape_of(node), size, depth) for name in ("x", "y"))
        if target is elementwise_binary.mul:
            return self._scaled(given["x"], given["y"], size, depth)
        if target in (scatter_gather.gather, scatter_gather.gather_wrapping):
            table = self.constant(given["x"])
            plain = not given.get("axis") and not given.get("batch_dims")
            return _norm(table) if table is not None and table.ndim == 2 and plain else math.inf
        return self._moved(node, shape_of(node), size, depth)

    def _term(self, item: Any, shape: tuple[int, ...] | None, size: int, depth: int) -> float:
        """Return the bound of one operand of a sum, which may be repeated along the last axis."""
        own = self.shape(item)
        if not (own is not None and shape):
            return math.inf
        if own and own[-1] == shape[-1]:
            return self._of(item, size, depth)
        held = self.constant(item)
        return math.inf if held is None else float(held.abs().max()) * math.sqrt(size)

    def _of(self, node: Any, size: int, depth: int) -> float:
        return self.block(node, size, depth) if isinstance(node, fx.Node) else math.inf

    def _moved(self, node: fx.Node, shape: tuple[int, ...] | None, size: int, depth: int) -> float:
        """Return the bound of what only moves elements, by that of its operand."""
        target, x = target_of(node), node.kwargs.get("x")
        before = self.shape(x)
        if not (isinstance(x, fx.Node) and before and shape):
            return math.inf
        if target is transformation.reshape:
            return self.block(x, size, depth) if before[-1] % size == 0 else math.inf
        if target is transformation.transpose:
            perm: Any = node.kwargs["perm"]
            return self.block(x, size, depth) if perm[-1] % len(before) == len(before) - 1 else math.inf
        if shape[-1] == before[-1] and target in _SAME_ROWS and _keeps_last(node):
            return self.block(x, size, depth)
        parts = target in _PARTS and shape[-1] < before[-1] and _keeps_last(node)
        return self.block(x, before[-1], depth) if parts else math.inf

    def shape(self, node: Any) -> tuple[int, ...] | None:
        """Return the shape of a node or a constant; None where it is open."""
        held = self.constant(node)
        if held is not None:
            return tuple(held.shape)
        return shape_of(node) if isinstance(node, fx.Node) else None

    def _normalized(self, node: fx.Node) -> float:
        """Return sqrt(n) max|gamma| + |beta|: a normalized row has a norm of at most sqrt(n)."""
        shape, axes = shape_of(node), node.kwargs.get("axes")
        gamma, beta = (node.kwargs.get(name) for name in ("gamma", "beta"))
        if shape is None or not isinstance(axes, tuple) or axes not in ((-1,), (len(shape) - 1,)):
            return math.inf
        scale, shift = (None if item is None else self.constant(item) for item in (gamma, beta))
        if (gamma is not None and scale is None) or (beta is not None and shift is None):
            return math.inf
        largest = 1.0 if scale is None else float(scale.abs().max())
        return math.sqrt(shape[-1]) * largest + (0.0 if shift is None else _norm(shift))

    def _linear(self, given: Any, size: int, depth: int) -> float:
        weight = self.constant(given["weight"])
        bias = None if given.get("bias") is None else self.constant(given["bias"])
        if weight is None or (given.get("bias") is not None and bias is None) or len(weight) % size:
            return math.inf
        rows = self.block(given["x"], weight.shape[1], depth)
        if math.isinf(rows):
            return rows
        added = 0.0 if bias is None else float(_wide(bias).reshape(-1, size).norm(dim=1).max())
        return rows * _gain(weight, size) + added

    def _scaled(self, x: Any, y: Any, size: int, depth: int) -> float:
        for item, other in ((x, y), (y, x)):
            factor = self.number(other)
            if factor is not None:
                return abs(factor) * self._of(item, size, depth)
        return math.inf


def _keeps_last(node: fx.Node) -> bool:
    """Whether a slice reads the last axis as it is, or leaves out a part of it: it is not indexed away."""
    squeezed: Any = node.kwargs.get("squeeze_mask") or ()
    return not (squeezed and squeezed[-1])


def _norm(rows: torch.Tensor) -> float:
    """Return the largest norm of a row."""
    return float(_wide(rows).reshape(-1, rows.shape[-1]).norm(dim=1).max())


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values.cpu().to(torch.float32)


def _gain(weight: torch.Tensor, size: int) -> float:
    """Return the largest spectral norm of ``size`` rows of a matrix [n * size, in], bounded from above."""
    blocks = _wide(weight).reshape(-1, size, weight.shape[1])
    gram = blocks @ blocks.mT if size <= weight.shape[1] else blocks.mT @ blocks
    largest = float(torch.linalg.eigvalsh(gram)[:, -1].max())
    return math.sqrt(max(largest, 0.0)) * 1.001  # for what f32 loses
