"""Measure the cost of each operation of a lowered program: the graph runs node by node, each timed to completion.

The sum exceeds an inference's time, since every node waits for the device; the shares are what counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from time import perf_counter_ns
from typing import Any

import torch
from torch import fx

from tlkit.engines.torch.device import synchronizer
from tlkit.engines.torch.engine import TorchEngine

_PASSES = 5


def profile(engine: TorchEngine, arrays: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """Return (name, MIL type, share of the sum 0..1) of each operation, in program order; medians of five passes."""
    operands = engine.operands(arrays)
    timer = _Timer(engine.module, engine.device)
    with torch.inference_mode():
        # One more than is counted: the first pass warms up.
        for _ in range(_PASSES + 1):
            timer.run(*operands)
    # The first pass warms up.
    costs = {node: median(times[1:]) for node, times in timer.times.items()}
    total = sum(costs.values()) or 1.0
    return [(node.name, _type(node), cost / total) for node, cost in costs.items()]


class _Timer(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, device: torch.device) -> None:
        super().__init__(module)
        self.times: dict[fx.Node, list[int]] = {}
        self._wait = synchronizer(device)

    def run_node(self, n: fx.Node) -> Any:
        # These compute nothing.
        if n.op in ("placeholder", "get_attr", "output"):
            return super().run_node(n)
        start = perf_counter_ns()
        result = super().run_node(n)
        self._wait()
        self.times.setdefault(n, []).append(perf_counter_ns() - start)
        return result


def _type(node: fx.Node) -> str:
    operation = node.meta.get("mil")
    return str(operation.type) if operation is not None else str(getattr(node.target, "__name__", node.target))
