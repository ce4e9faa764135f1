"""A lowered function in real f16 tensors, for GPUs.

A GPU's kernels take f16, compute in f32 and round once, which is what the program declares. So values declared fp16
become f16 tensors there: half the memory, and tensor cores. Operations that are one such kernel (``_NATIVE``), or that
only move elements, run on f16 tensors as they are. Any other is widened: its operands go to f32 and its result to f16,
since computed in steps it would round at each. A constant becomes f16 where that loses nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from tlkit.engines.torch.fused.kernels import convolve
from tlkit.mil import ops
from tlkit.mil.lower.lower import item_of
from tlkit.mil.ops import (
    activation,
    conv,
    elementwise_binary,
    elementwise_unary,
    linear,
    normalization,
    pool,
    reduction,
    scatter_gather,
    tensor,
    transformation,
    transformers,
)
from tlkit.mil.ops.control_flow import select
from tlkit.mil.ops.kit.narrow import mark_of
from tlkit.mil.program import Function, StateType, TensorType
from tlkit.mil.types import DType

_NATIVE: frozenset[Callable[..., Any]] = frozenset({
    activation.relu, activation.relu6, activation.leaky_relu, activation.elu, activation.gelu, activation.silu,
    activation.sigmoid, activation.softplus, activation.softmax, activation.thresholded_relu, conv.conv,
    conv.conv_transpose, elementwise_binary.add, elementwise_binary.sub, elementwise_binary.mul,
    elementwise_binary.real_div, elementwise_binary.maximum, elementwise_binary.minimum, elementwise_unary.abs_,
    elementwise_unary.clip, elementwise_unary.exp, elementwise_unary.erf, elementwise_unary.sqrt,
    elementwise_unary.tanh, elementwise_unary.sin, elementwise_unary.cos, linear.linear, linear.matmul,
    pool.max_pool,
    transformers.scaled_dot_product_attention, reduction.reduce_sum,
    reduction.reduce_mean, reduction.reduce_max, reduction.reduce_min, scatter_gather.gather,
    scatter_gather.gather_wrapping, select, tensor.identity,
    tensor.concat, tensor.stack, tensor.split, tensor.tile, tensor.pad, elementwise_binary.equal,
    elementwise_binary.not_equal, elementwise_binary.greater, elementwise_binary.greater_equal,
    elementwise_binary.less, elementwise_binary.less_equal,
})  # fmt: skip
"""What is one kernel on f16 tensors, computing in f32; the families below move elements only."""
_MOVES = frozenset({transformation.__name__})
_GELU = "SIGMOID_APPROXIMATION"
"""The one mode of gelu that takes several kernels."""


def halvable(function: Function) -> bool:
    """Whether a function can run in f16 tensors: states and nested blocks forbid it."""
    stateful = any(isinstance(item.type, StateType) for item in function.inputs)
    return not stateful and not any(operation.blocks for operation in function.block.operations)


def halve(module: fx.GraphModule, function: Function) -> bool:
    """Rewrite ``module`` in place for f16 tensors; return False, and leave it, where the function is not
    :func:`halvable`. Narrow weights (``mil/ops/kit/narrow.py``) are f16 tensors like others then."""
    if not halvable(function):
        return False
    for name, weight in list(module.named_buffers()):
        if mark_of(weight) is not None:
            setattr(module, name, weight.detach())  # another tensor over the same memory, without the mark
    _Halving(module, function).run()
    module.graph.lint()
    module.recompile()
    return True


def is_half(kind: Any) -> bool:
    """Whether a declared type is an fp16 tensor."""
    return isinstance(kind, TensorType) and kind.dtype is DType.FP16


class _Halving:
    def __init__(self, module: fx.GraphModule, function: Function) -> None:
        self.module, self.function = module, function
        self.halves: set[fx.Node] = set()
        self.narrowed: dict[str, fx.Node | None] = {}

    def run(self) -> None:
        """Visit the nodes in order."""
        inputs = iter(self.function.inputs)
        for node in list(self.module.graph.nodes):
            if node.op == "placeholder":
                if is_half(next(inputs).type):
                    self.halves.add(node)
            elif node.target is item_of:
                whole, index = node.args
                if is_half(whole.meta["mil"].outputs[index].type):
                    self.halves.add(node)
            elif node.op == "call_function" and "mil" in node.meta:
                self.operation(node)
        self.drop_unused()

    def operation(self, node: fx.Node) -> None:
        outputs = node.meta["mil"].outputs
        function: Any = getattr(node.target, "__wrapped__", node.target)
        half = any(is_half(item.type) for item in outputs)
        if half and len(outputs) == 1:
            self.halves.add(node)
        floats = [item for item in node.all_input_nodes if item in self.halves or self.floating(item)]
        if not half and not any(item in self.halves for item in floats):
            node.target = function if half else node.target
            return
        if self.native(node, function) and all(item in self.halves or self.narrow(item) for item in floats):
            node.target = convolve if function is conv.conv else function
            for item in floats:
                if item not in self.halves:
                    narrowed = self.narrow(item)
                    assert narrowed is not None
                    node.replace_input_with(item, narrowed)
            return
        declared = tuple(torch.float16 if is_half(item.type) else None for item in outputs)
        node.target = _widened(function, declared)

    def native(self, node: fx.Node, function: Callable[..., Any]) -> bool:
        if function is normalization.layer_norm:
            kind = node.meta["mil"].outputs[0].type
            axes, rank = node.kwargs.get("axes"), len(kind.shape) if isinstance(kind, TensorType) and kind.shape else 0
            return isinstance(axes, tuple) and axes in ((-1,), (rank - 1,))
        moves = function.__module__ in _MOVES
        return moves or (function in _NATIVE and node.kwargs.get("mode") != _GELU)

    def floating(self, node: fx.Node) -> bool:
        """Whether a node is an f32 constant."""
        return node.op == "get_attr" and self.tensor(node).is_floating_point()

    def tensor(self, node: fx.Node) -> torch.Tensor:
        found: torch.Tensor = getattr(self.module, str(node.target))
        return found

    def narrow(self, node: fx.Node) -> fx.Node | None:
        """Return the f16 twin of an f32 constant; None for anything else, or where f16 cannot hold it."""
        if not (node.op == "get_attr" and self.floating(node)):
            return None
        name = str(node.target)
        if name not in self.narrowed:
            tensor = self.tensor(node)
            half = tensor.to(torch.float16)
            if half is tensor:
                self.narrowed[name] = node
            elif not torch.equal(half.to(torch.float32), tensor):
                self.narrowed[name] = None
            else:
                self.module.register_buffer(f"{name}_half", half)
                with self.module.graph.inserting_after(node):
                    self.narrowed[name] = self.module.graph.get_attr(f"{name}_half")
        return self.narrowed[name]

    def drop_unused(self) -> None:
        """Let go of constants that only their f16 twins stand for now."""
        for node in list(self.module.graph.nodes):
            if node.op == "get_attr" and not node.users:
                self.module.graph.erase_node(node)
        used = {str(node.target) for node in self.module.graph.nodes if node.op == "get_attr"}
        for name, _ in list(self.module.named_buffers()):
            if name not in used:
                delattr(self.module, name)


def _widened(function: Callable[..., Any], declared: tuple[torch.dtype | None, ...]) -> Callable[..., Any]:
    """Return ``function`` on f32 copies of f16 operands, its results in the types ``declared`` (None: as they are)."""

    @functools.wraps(function)
    def widened(**given: Any) -> Any:
        made = function(**{name: _wide(value) for name, value in given.items()})
        if isinstance(made, tuple | list):
            return type(made)(_as(item, dtype) for item, dtype in zip(made, declared, strict=True))
        return _as(made, declared[0]) if declared else made

    widened.__name__ = widened.__qualname__ = f"{function.__name__}_widened"
    return widened


def _wide(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_wide(item) for item in value)
    half = isinstance(value, torch.Tensor) and value.dtype is torch.float16
    return value.to(torch.float32) if half else value


def _as(value: Any, dtype: torch.dtype | None) -> Any:
    return value.to(dtype) if dtype is not None and isinstance(value, torch.Tensor) else value


CARRIERS: Mapping[DType, torch.dtype] = {**ops.CARRIERS, DType.FP16: torch.float16}
"""The types of a halved function's inputs."""
