"""A halved function with fused operations, beside the one that runs operation by operation."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from tlkit.engines.torch.fused.attention import fuse_attention
from tlkit.engines.torch.fused.bounds import declare
from tlkit.engines.torch.fused.convolution import fuse_convolutions
from tlkit.mil.program import Function


def fuse(module: fx.GraphModule, function: Function, *, convolutions: bool = True) -> fx.GraphModule:
    """Return a halved ``function`` with fused operations, sharing its weights; ``module`` where nothing is to fuse.

    ``convolutions`` is False for a compiler, which fuses those itself.
    """
    graph = fx.Graph()
    kept: dict[fx.Node, fx.Node] = {}
    output: Any = graph.graph_copy(module.graph, kept)
    graph.output(output)
    declare(graph, function)
    made = fx.GraphModule(module, graph)
    with torch.inference_mode():
        count = fuse_attention(made) + (fuse_convolutions(made) if convolutions else 0)
    if not count:
        return module
    made.graph.eliminate_dead_code()
    made.graph.lint()
    made.recompile()
    return made
