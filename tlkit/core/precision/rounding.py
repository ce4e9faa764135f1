"""An f32 program run as if all of it but a kept set were f16: a candidate costs one run, and no package is written.

Importing this module imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from tlkit.core.compare.difference import F16_LARGEST
from tlkit.core.convert.tools.passes import LIKE_INFINITY
from tlkit.core.precision.wanted import Kept
from tlkit.core.precision.wanted import kept as figures_of
from tlkit.engines.torch.engine import TorchEngine
from tlkit.mil.lower.interpreter import Interpreter
from tlkit.mil.program import Function, Operation, Ref, TensorType, Value, walk
from tlkit.mil.types import DType

Array = NDArray[Any]
Arrays = Mapping[str, Array]
_APART = ("cast", "cond", "while_loop", "classify", "const")
"""What coremltools does not cast: casts themselves, what only holds blocks, and labels."""
_FLOATS = (DType.FP16, DType.FP32)
_LEAST = 2.0**-24
"""f16's least number above 0."""
_NUDGED = 400
"""Elements below which coremltools keeps the numbers of a constant from becoming 0: an epsilon."""


class Rounded:
    """The function ``wide`` (of f32), with its outputs on ``inputs`` as the reference."""

    def __init__(self, wide: Function, inputs: Sequence[Arrays]) -> None:
        self.engine = TorchEngine(wide, precision="f32")
        self.inputs = tuple(inputs)
        nodes = [node.meta["mil"] for node in self.engine.module.graph.nodes if "mil" in node.meta]
        self.operations: tuple[Operation, ...] = tuple(filter(_takes_part, nodes))
        self.names = tuple(item.name for item in self.operations)
        self.runs = 0
        names = frozenset(self.names)
        self.anyway = _beyond(wide) & names
        """Those that coremltools leaves in f32 whatever is kept: they are not rounded, only what they give."""
        ranges = _Rounding(self.engine.module, names, names)
        self._exact = []
        for arrays in self.inputs:
            self.engine.through(ranges, arrays)
            self._exact.append(ranges.outputs)
        self.largest = ranges.largest
        """The largest magnitude that each operation takes or gives on the inputs."""

    @property
    def finite(self) -> bool:
        """Whether f32 itself gives finite numbers: else nothing can be told from them."""
        return all(bool(np.isfinite(item).all()) for outputs in self._exact for item in outputs)

    def snr(self, kept: frozenset[str], most: int | None = None) -> float:
        """Return the worst signal to noise in dB where only the operations ``kept`` are not rounded to f16.

        Minus infinity where a number is not finite; ``most`` limits the inputs that are run.
        """
        return self.figures(kept, most).snr

    def figures(self, kept: frozenset[str], most: int | None = None) -> Kept:
        """Return all figures of the outputs where only the operations ``kept`` are not rounded to f16."""
        pairs = []
        for arrays, exact in zip(self.inputs[:most], self._exact, strict=False):
            runner = _Rounding(self.engine.module, frozenset(self.names), kept | self.anyway)
            self.engine.through(runner, arrays)
            self.runs += 1
            pairs += list(zip(exact, runner.outputs, strict=True))
        return figures_of(pairs)


def _takes_part(operation: Operation) -> bool:
    if operation.type in _APART or operation.type.startswith("constexpr"):
        return False
    kinds = [item.type for item in operation.outputs]
    return any(isinstance(kind, TensorType) and kind.dtype in _FLOATS for kind in kinds)


def _beyond(wide: Function) -> frozenset[str]:
    """Return the names of operations that coremltools leaves in f32 by itself: those with a constant that f16 does not
    hold. What is as good as infinite (1e38 and more) becomes an infinity instead."""
    operations = list(walk(wide.block.operations))
    large = {
        operation.outputs[0].name
        for operation in operations
        if operation.type == "const" and _out_of_range(operation.attributes.get("val"))
    }
    return frozenset(
        operation.name
        for operation in operations
        for item in (argument for given in operation.inputs.values() for argument in given)
        if (item.name in large if isinstance(item, Ref) else _out_of_range(item))
    )


def _out_of_range(value: Value | None) -> bool:
    if value is None or not isinstance(value.type, TensorType) or value.type.dtype is not DType.FP32:
        return False
    sizes = np.abs(np.asarray(value.numpy()))
    return bool((sizes[sizes < LIKE_INFINITY] > F16_LARGEST).any())


class _Rounding(Interpreter):
    """Rounds what an operation of ``names`` takes and gives to f16, unless it is one of ``kept``."""

    def __init__(self, module: fx.GraphModule, names: frozenset[str], kept: frozenset[str]) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.outputs: tuple[Array, ...] = ()
        self.largest: dict[str, float] = {}
        self._names = names
        self._kept = kept
        self._operation: Operation | None = None
        self._small: dict[int, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """See fx."""
        found: Operation | None = n.meta.get("mil")
        self._operation = found if found is not None and found.name in self._names else None
        result = super().run_node(n)
        if n.op == "get_attr" and isinstance(result, torch.Tensor) and result.numel() < _NUDGED:
            self._small[id(result)] = result  # held, so that no other tensor gets its id
        if n.op == "output":
            self.outputs = tuple(
                item.detach().cpu().numpy().copy() for item in result if isinstance(item, torch.Tensor)
            )
        elif self._operation is not None:
            if self._operation.name not in self._kept:
                return self._round(result)
            self._measure(result)
        return result

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See fx."""
        if self._operation is not None:
            if self._operation.name not in self._kept:
                args, kwargs = self._round(args), self._round(kwargs)
            else:
                self._measure(args)
                self._measure(list(kwargs.values()))
        return super().call_function(target, args, kwargs)

    def _measure(self, value: Any) -> None:
        assert self._operation is not None
        if isinstance(value, torch.Tensor):
            if value.is_floating_point() and value.numel():
                found = float(value.abs().max())
                name = self._operation.name
                self.largest[name] = max(found, self.largest.get(name, 0.0))
        elif isinstance(value, list | tuple):
            for item in value:
                self._measure(item)

    def _round(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if not value.is_floating_point():
                return value
            half = value.half().to(value.dtype)
            if id(value) in self._small:
                lost = (half == 0) & (value != 0)
                half = torch.where(lost, torch.copysign(torch.full_like(value, _LEAST), value), half)
            return half
        if isinstance(value, float):
            with np.errstate(over="ignore"):
                return float(np.float16(value)) or math.copysign(_LEAST if value else 0.0, value)
        if isinstance(value, dict):
            return {key: self._round(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(self._round, value))
        return value
