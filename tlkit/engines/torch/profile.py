"""Measure the cost of each operation of a lowered program: the graph runs node by node, each timed to completion.

The sum exceeds an inference's time, since every node waits for the device; the shares are what counts. Bytes are those
of the tensors that an operation is given and makes, weights among them, as they lie in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from time import perf_counter_ns
from typing import Any

import torch
from torch import fx

from tlkit.engines.torch.device import synchronizer
from tlkit.engines.torch.engine import TorchEngine
from tlkit.engines.torch.roofline import roofline
from tlkit.mil.lower.interpreter import Interpreter
from tlkit.mil.program import TensorType
from tlkit.mil.work import Operand, Step, steps

_PASSES = 5


@dataclass
class Profiled:
    """One operation: its median time, how often it ran per inference, and what it was given and made."""

    name: str
    type: str
    times: list[int] = field(default_factory=list)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    macs: int = 0
    nbytes: int = 0

    @property
    def nanoseconds(self) -> float:
        """The median over the passes after the first, which warms up."""
        return float(median(self.times[1:]))


def profile(engine: TorchEngine, arrays: Mapping[str, Any]) -> list[Profiled]:
    """Return each operation of ``engine``'s program, in program order; times are medians of five passes."""
    operands = engine.operands(arrays)
    timer = _Timer(engine)
    with torch.inference_mode():
        # One more than is counted: the first pass warms up.
        for _ in range(_PASSES + 1):
            timer.run(*operands)
    return list(timer.found.values())


def costs(engine: TorchEngine, found: list[Profiled]) -> tuple[dict[str, Any], ...]:
    """Return the costs of what was profiled as data: nanoseconds, calls, shapes, MACs, bytes, their rates, and what
    bounds each operation by the device's roofline."""
    roof = roofline(engine.device)
    return tuple(
        {
            "nanoseconds": item.nanoseconds,
            "calls": 1,
            "inputs": item.inputs,
            "outputs": item.outputs,
            "macs": item.macs,
            "bytes": item.nbytes,
            "gmacs_per_s": item.macs / item.nanoseconds,
            "gb_per_s": item.nbytes / item.nanoseconds,
            "bound": roof.bound(item.nanoseconds, item.macs, item.nbytes),
        }
        for item in found
    )


class _Timer(Interpreter):
    def __init__(self, engine: TorchEngine) -> None:
        super().__init__(engine.module)
        self.found: dict[fx.Node, Profiled] = {}
        self._steps = {id(step.operation): step for step in steps(engine.function)}
        self._wait = synchronizer(engine.device)

    def run_node(self, n: fx.Node) -> Any:
        # These compute nothing.
        if n.op in ("placeholder", "get_attr", "output"):
            return super().run_node(n)
        if n not in self.found:
            self.found[n] = Profiled(n.name, _type(n))
        entry = self.found[n]
        start = perf_counter_ns()
        result = super().run_node(n)
        self._wait()
        entry.times.append(max(perf_counter_ns() - start, 1))
        if len(entry.times) == 1:  # what it is given is the same in each pass
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            self._note(entry, n, dict(enumerate(args)) | kwargs, result)
        return result

    def _note(self, entry: Profiled, n: fx.Node, given: Mapping[Any, Any], result: Any) -> None:
        read = [item for value in given.values() for item in _tensors(value)]
        made = list(_tensors(result))
        entry.inputs, entry.outputs = tuple(map(_shape, read)), tuple(map(_shape, made))
        entry.nbytes = sum(item.numel() * item.element_size() for item in (*read, *made))
        step = self._steps.get(id(n.meta.get("mil")))
        if step is not None:
            entry.macs = _met(step, given, made).macs


def _met(step: Step, given: Mapping[Any, Any], made: list[torch.Tensor]) -> Step:
    """Return ``step`` with the shapes that were met, where the program leaves dimensions open."""
    operands = {}
    for name, items in step.operands.items():
        met = list(_tensors(given.get(name)))
        same = len(met) == len(items)
        operands[name] = tuple(map(_sized, items, met)) if same else items
    results = tuple(map(_sized, step.results, made)) if len(made) == len(step.results) else step.results
    return replace(step, operands=operands, results=results)


def _sized(item: Operand, met: torch.Tensor) -> Operand:
    return replace(item, kind=TensorType(item.kind.dtype, tuple(met.shape)))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _type(node: fx.Node) -> str:
    operation = node.meta.get("mil")
    return str(operation.type) if operation is not None else str(getattr(node.target, "__name__", node.target))
