"""A decoder's function on a GPU: weights stay as narrow as the model stores them, and the cache is written where the
device itself says, so that a step is one CUDA graph.

Values are f32, as the program says. A weight whose values f16 or bf16 holds exactly is kept so, and GGUF's blocks stay
blocks (``blocks.py``): a product with few rows takes as long as its weights take to be read, and widens them on their
way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from tlkit.engines.torch.fused import blocks
from tlkit.engines.torch.fused.bounds import declare, shape_of, target_of
from tlkit.engines.torch.fused.kernels import block_kernels, step_kernels
from tlkit.mil import ops
from tlkit.mil.ops import linear, scatter_gather, transformation
from tlkit.mil.program import Function

_LARGE = 1 << 10
"""Elements from which a weight is worth it."""
ROWS = 8
"""Rows that the kernel for products with narrow weights takes at most."""
_PICKS = (scatter_gather.gather, scatter_gather.gather_wrapping)
_PUTS = (transformation.slice_update, transformation.slice_update_)


def resident(
    module: fx.GraphModule, function: Function, device: torch.device, constants: dict[Any, torch.Tensor]
) -> None:
    """Rewrite ``module``, of ``function``, in place for ``device``; ``constants`` then holds what lies there, for other
    functions of the same weights.

    The caller makes sure that what a state's slices are given lies inside them.
    """
    _move(module, device, constants)
    declare(module.graph, function)
    for node in list(module.graph.nodes):
        held = getattr(module, str(node.target), None) if node.op == "get_attr" else None
        if _narrow(held):
            _use(node, _wide)
        elif isinstance(held, blocks.BlockWeight):
            _use(node, blocks.dense)
        elif target_of(node) in _PUTS:
            _put(node)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()


def _move(module: fx.GraphModule, device: torch.device, constants: dict[Any, torch.Tensor]) -> None:
    kept = {id(tensor): key for key, tensor in constants.items()}
    for name, tensor in list(module.named_buffers(recurse=False)):  # blocks are where they should be
        moved = narrowed(tensor).to(device)
        setattr(module, name, moved)
        if id(tensor) in kept:
            constants[kept[id(tensor)]] = moved


def narrowed(tensor: torch.Tensor) -> torch.Tensor:
    """Return a large f32 matrix as f16 or bf16 where that loses nothing, else as it is."""
    if tensor.dtype is not torch.float32 or tensor.ndim != 2 or tensor.numel() < _LARGE:
        return tensor
    for dtype in (torch.float16, torch.bfloat16):
        small = tensor.to(dtype)
        if torch.equal(small.to(torch.float32), tensor):
            return small
    return tensor


def _narrow(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and tensor.dtype in (torch.float16, torch.bfloat16)


def _use(node: fx.Node, widen: Callable[..., torch.Tensor]) -> None:
    """Let what uses a narrow weight, or blocks, widen it."""
    for user in list(node.users):
        target = target_of(user)
        if target is linear.linear and user.kwargs["weight"] is node and user.kwargs["x"] is not node:
            user.target = product_rounded if _rounds(user) else product
        elif widen is blocks.dense and _takes_rows(user, node):
            user.target = blocks.picked
            user.kwargs = {"x": node, "indices": user.kwargs["indices"]}
        elif widen is _wide and target in _PICKS and user.kwargs["x"] is node and user.kwargs["indices"] is not node:
            with user.graph.inserting_after(user):
                wide = user.graph.call_function(_wide, (user,))
            user.replace_all_uses_with(wide, lambda one, wide=wide: one is not wide)  # type: ignore[misc]
            wide.meta.update(user.meta)
        else:
            with user.graph.inserting_before(user):
                wide = user.graph.call_function(widen, (node,))
            user.replace_input_with(node, wide)


def _takes_rows(user: fx.Node, node: fx.Node) -> bool:
    """Whether a node takes whole rows of another."""
    given = user.kwargs
    return target_of(user) in _PICKS and given["x"] is node and not given.get("axis") and not given.get("batch_dims")


def _rounds(node: fx.Node) -> bool:
    """Whether a node rounds its result to f16."""
    return hasattr(node.target, "__wrapped__")


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.float32)


def product(
    x: torch.Tensor, weight: Any, bias: torch.Tensor | None = None, residual: torch.Tensor | None = None
) -> torch.Tensor:
    """x times a transposed weight that is narrow or of blocks, plus bias and residual, in f32: [.., in] by [out, in] is
    [.., out]."""
    rows = x.reshape(-1, x.shape[-1])
    shape = (*x.shape[:-1], weight.shape[0])
    in_blocks = isinstance(weight, blocks.BlockWeight)
    kernels = block_kernels(x) if in_blocks else step_kernels(x)
    if kernels is not None and len(rows) <= ROWS:
        made: torch.Tensor = kernels.product(rows, weight, bias, residual)
        return made.reshape(shape)
    made = blocks.many(rows, weight, bias) if in_blocks else F.linear(rows, weight.to(torch.float32), bias)
    made = made.reshape(shape)
    return made if residual is None else made + residual


def product_rounded(x: torch.Tensor, weight: Any, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The same, rounded to f16."""
    made: torch.Tensor = ops.round_f16(product(x, weight, bias))
    return made


def _put(node: fx.Node) -> None:
    """Let a slice be written where a tensor says, without reading that back; leave what is another kind of slice."""
    given: dict[str, Any] = dict(node.kwargs)
    begin, update = given["begin"], given["update"]
    whole, part = shape_of(node), shape_of(update) if isinstance(update, fx.Node) else None
    if not (isinstance(begin, fx.Node) and begin.target is ops.host) or whole is None or part is None:
        return
    axis = _axis(given, whole, part)
    if axis is None:
        return
    function: Any = node.target
    target: Callable[..., Any] = put_ if function is transformation.slice_update_ else put
    node.target = target
    node.kwargs = {"x": given["x"], "update": update, "begin": begin.args[0], "axis": axis}


def _axis(given: dict[str, Any], shape: tuple[int, ...], update: tuple[int, ...]) -> int | None:
    """Return the only axis along which a slice does not take all."""
    rank = len(shape)
    masks = [given.get(name) or (False,) * rank for name in ("begin_mask", "end_mask", "squeeze_mask")]
    if given.get("stride") is not None or any(not isinstance(mask, tuple | list) for mask in masks):
        return None
    starts, ends, squeezed = masks
    opened = [axis for axis in range(rank) if not (starts[axis] and ends[axis])]
    others = [axis for axis in range(rank) if axis not in opened]
    if len(opened) != 1 or any(squeezed) or len(update) != rank or starts[opened[0]] or ends[opened[0]]:
        return None
    return opened[0] if all(shape[axis] == update[axis] for axis in others) else None


def put_(x: torch.Tensor, update: torch.Tensor, begin: torch.Tensor, axis: int) -> torch.Tensor:
    """Write ``update`` into ``x`` from ``begin[axis]`` on, and nowhere else."""
    rows = x.ndim == 4 and axis == 2 and x.shape[0] == 1 and x.stride(3) == update.stride(3) == 1
    kernels = step_kernels(x)
    if kernels is not None and rows:
        kernels.put_(x, update, begin[axis])
        return x
    start = begin[axis].long().clamp(0, x.shape[axis] - update.shape[axis])
    return x.index_copy_(axis, start + torch.arange(update.shape[axis], device=x.device), update.to(x.dtype))


def put(x: torch.Tensor, update: torch.Tensor, begin: torch.Tensor, axis: int) -> torch.Tensor:
    """The same on a copy."""
    return put_(x.clone(), update, begin, axis)
