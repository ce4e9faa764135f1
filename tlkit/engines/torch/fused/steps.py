"""Operations of a decoder's step that are one kernel together on a GPU: RMS norms, rotations, attention of one token to
its cache, gates, and sums after products. All in f32; only the order of sums differs.

Patterns are those of ``frontends/gguf/kit``; whatever is written otherwise stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from tlkit.engines.torch.fused.bounds import shape_of
from tlkit.engines.torch.fused.decoding import product
from tlkit.engines.torch.fused.kernels import step_kernels
from tlkit.mil.ops import activation, elementwise_binary, elementwise_unary, linear, reduction, tensor, transformation

_LONGEST = 4096
"""Elements of a row that a kernel holds at once."""


def fuse_steps(module: fx.GraphModule) -> int:
    """Rewrite ``module`` in place; return how many operations were put together."""
    count = 0
    for node in list(module.graph.nodes):
        for find in (_norm, _rotation, _attention, _gate, _sum):
            found = find(node)
            if found is not None:
                node.target, node.kwargs = found
                count += 1
                break
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    return count


Found = tuple[Callable[..., Any], dict[str, Any]] | None


def _is(node: Any, target: Callable[..., Any], *, alone: bool = True) -> bool:
    """Whether a node is an operation that rounds nothing, and that only one other uses."""
    return isinstance(node, fx.Node) and node.target is target and (not alone or len(node.users) == 1)


def _norm(node: Any) -> Found:
    """x * rsqrt(mean(x^2) + epsilon) * weight."""
    if not _is(node, elementwise_binary.mul, alone=False):
        return None
    scaled, weight = node.kwargs["x"], node.kwargs["y"]
    if not _is(scaled, elementwise_binary.mul):
        return None
    x, root = scaled.kwargs["x"], scaled.kwargs["y"]
    if not _is(root, elementwise_unary.rsqrt) or not _is(root.kwargs["x"], reduction.reduce_mean):
        return None
    mean = root.kwargs["x"]
    squares = mean.kwargs["x"]
    if not _is(squares, elementwise_binary.mul) or squares.kwargs["x"] is not x or squares.kwargs["y"] is not x:
        return None
    shape, width = shape_of(node), shape_of_constant(weight)
    if tuple(mean.kwargs.get("axes") or ()) != (-1,) or not mean.kwargs.get("keep_dims") or shape is None:
        return None
    if width != (shape[-1],) or shape[-1] > _LONGEST:
        return None
    return rms_norm, {"x": x, "weight": weight, "epsilon": root.kwargs["epsilon"]}


def shape_of_constant(node: Any) -> tuple[int, ...] | None:
    """Return the shape of a constant's node; None for anything else."""
    if not (isinstance(node, fx.Node) and node.op == "get_attr"):
        return None
    owner = node.graph.owning_module
    return tuple(getattr(owner, str(node.target)).shape)


def _rotation(node: Any) -> Found:
    """x * cosine + [-second half of x, first half of x] * sine."""
    if not _is(node, elementwise_binary.add, alone=False):
        return None
    plain, turned = node.kwargs["x"], node.kwargs["y"]
    if not (_is(plain, elementwise_binary.mul) and _is(turned, elementwise_binary.mul)):
        return None
    x, cosine = plain.kwargs["x"], plain.kwargs["y"]
    across, sine = turned.kwargs["x"], turned.kwargs["y"]
    shape = shape_of(x) if isinstance(x, fx.Node) else None
    if not _is(across, tensor.concat) or shape is None or len(shape) != 4 or shape[0] != 1 or shape[3] % 2:
        return None
    half, parts = shape[3] // 2, across.kwargs["values"]
    if len(parts) != 2 or across.kwargs["axis"] != 3 or not _is(parts[0], elementwise_binary.mul):
        return None
    minus = parts[0].kwargs["y"]
    if shape_of_constant(minus) is None or getattr(node.graph.owning_module, str(minus.target)).tolist() != -1:
        return None
    if not (_slices(parts[0].kwargs["x"], x, half, 2 * half) and _slices(parts[1], x, 0, half)):
        return None
    tables = (1, 1, shape[2], shape[3])
    if any(not isinstance(item, fx.Node) or shape_of(item) != tables for item in (cosine, sine)):
        return None
    return rotate, {"x": x, "cosine": cosine, "sine": sine}


def _slices(node: Any, x: Any, begin: int, end: int) -> bool:
    """Whether a node is these elements along the last of four axes, and all along the others."""
    if not _is(node, transformation.slice_by_index) or node.kwargs["x"] is not x:
        return False
    shape = shape_of(x)
    given = node.kwargs
    if shape is None or any(given.get(name) for name in ("stride", "squeeze_mask")):
        return False
    # Where a mask is set, the axis is whole on that side.
    starts, ends = (given.get(name) or (False,) * 4 for name in ("begin_mask", "end_mask"))
    first = tuple(0 if masked else place for masked, place in zip(starts, given["begin"], strict=True))
    last = tuple(size if masked else place for masked, place, size in zip(ends, given["end"], shape, strict=True))
    return first == (0, 0, 0, begin) and last == (*shape[:3], end)


def _attention(node: Any) -> Found:
    """matmul(softmax(matmul(q, k^T) + hidden), v), of one token's heads."""
    if not _is(node, linear.matmul, alone=False) or node.kwargs.get("transpose_x") or node.kwargs.get("transpose_y"):
        return None
    shares, values = node.kwargs["x"], node.kwargs["y"]
    if not _is(shares, activation.softmax) or shares.kwargs.get("axis") != -1:
        return None
    whole = shares.kwargs["x"]
    if not _is(whole, elementwise_binary.add) or not _is(whole.kwargs["x"], linear.matmul):
        return None
    scores, hidden = whole.kwargs["x"], whole.kwargs["y"]
    if scores.kwargs.get("transpose_x") or not scores.kwargs.get("transpose_y"):
        return None
    queries, keys = scores.kwargs["x"], scores.kwargs["y"]
    shapes = [shape_of(item) if isinstance(item, fx.Node) else None for item in (queries, scores, node, hidden)]
    query, score, made, mask = shapes
    if query is None or score is None or made is None or mask is None or len(query) != 4 or query[0] != 1:
        return None
    if mask != (1, 1, *score[2:]) or max(query[3], made[3]) > 256:
        return None
    return attend, {"queries": queries, "keys": keys, "values": values, "hidden": hidden}


def _gate(node: Any) -> Found:
    """silu(x) * y."""
    if not _is(node, elementwise_binary.mul, alone=False):
        return None
    gate, value = node.kwargs["x"], node.kwargs["y"]
    if not _is(gate, activation.silu) or not isinstance(value, fx.Node) or shape_of(value) != shape_of(node):
        return None
    return gated, {"x": gate.kwargs["x"], "y": value}


def _sum(node: Any) -> Found:
    """x + product."""
    if not _is(node, elementwise_binary.add, alone=False):
        return None
    x, made = node.kwargs["x"], node.kwargs["y"]
    if not _is(made, product) or not isinstance(x, fx.Node) or shape_of(x) != shape_of(node):
        return None
    given = dict(made.kwargs)
    return (product, given | {"residual": x}) if "residual" not in given else None


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """x * rsqrt(mean(x^2) + epsilon) * weight over the last axis."""
    kernels = step_kernels(x)
    if kernels is not None:
        made: torch.Tensor = kernels.rms_norm(x, weight, epsilon)
        return made
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + epsilon) * weight


def rotate(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Heads x [1, heads, T, size] turned by [1, 1, T, size], halves against each other."""
    kernels = step_kernels(x)
    if kernels is not None and x.stride(3) == 1:
        made: torch.Tensor = kernels.rotate(x, cosine, sine)
        return made
    first, second = x.chunk(2, 3)
    return x * cosine + torch.cat([-second, first], 3) * sine


def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T + hidden) v for q [1, groups, rows, size], k [1, groups, S, size], v [1, groups, S, width], hidden
    [1, 1, rows, S]."""
    few = queries.shape[1] * queries.shape[2] <= 1024 and queries.shape[2] <= 64
    kernels = step_kernels(queries)
    if kernels is not None and few and keys.stride(3) == values.stride(3) == 1:
        made: torch.Tensor = kernels.attend(queries, keys, values, hidden)
        return made
    return torch.softmax(queries @ keys.mT + hidden, -1) @ values


def gated(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """silu(x) * y."""
    kernels = step_kernels(x)
    if kernels is not None:
        made: torch.Tensor = kernels.gated(x, y)
        return made
    return torch.nn.functional.silu(x) * y
