"""A lowered program run operation by operation, so that callers can inspect every value and errors name the operation.

Operations inside the blocks of ``cond`` and ``while_loop`` run as part of those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import fx

from tlkit.mil.lower.interpreter import Interpreter
from tlkit.mil.program import Operation, TensorType
from tlkit.mil.types import DType

Values = Mapping[str, np.ndarray[Any, Any]]
"""What an operation gives, by name, in the types that the program declares."""
Seen = Callable[[Operation, Callable[[], Values]], bool]
"""Called with each operation that ran and a function that returns its values (copies); returns True to stop there."""


class Stopped(Exception):
    """Raised when the watcher has seen enough."""


class Tracker(Interpreter):
    """Runs a graph node by node, remembers where it is, and shows each operation's values to ``seen``.

    ``rounded`` says that fp16 values were rounded to f16, and can be shown as such; otherwise they are shown as f32.
    """

    def __init__(self, module: fx.GraphModule, seen: Seen | None = None, *, rounded: bool = True) -> None:
        super().__init__(module)
        self.extra_traceback = False  # `where` says it; torch would import its compiler to say it, 2 s and 50 MB
        self._seen = seen
        self._rounded = rounded
        self._node: fx.Node | None = None
        self._inputs: list[str] = []

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; raise :class:`Stopped` when the watcher says so."""
        self._node = n
        _, kwargs = self.fetch_args_kwargs_from_env(n)
        self._inputs = [f"{name} {text}" for name, value in kwargs.items() if (text := _described(value))]
        result = super().run_node(n)
        operation = n.meta.get("mil")
        if self._seen and operation is not None and self._seen(operation, lambda: self._values(operation, result)):
            raise Stopped
        return result

    def where(self) -> str:
        """Describe the operation that ran last: name, type, place in the program, inputs, and recorded origin."""
        operation = self._node.meta.get("mil") if self._node is not None else None
        if operation is None:
            return f"node '{self._node}'"
        all_ = [node for node in self.module.graph.nodes if "mil" in node.meta]  # type: ignore[union-attr]
        place = f"operation {all_.index(self._node) + 1} of {len(all_)}"
        said = f"op '{operation.name}' ({operation.type}) on {', '.join(self._inputs) or 'no tensor'}, {place}"
        recorded = ", ".join(f"{key} {value}" for key, value in origin(operation).items())
        return f"{said} ({recorded})" if recorded else said

    def _values(self, operation: Operation, result: Any) -> Values:
        parts = result if isinstance(result, tuple) else (result,)
        found = {}
        for item, value in zip(operation.outputs, parts, strict=False):
            if isinstance(value, torch.Tensor) and isinstance(item.type, TensorType):
                half = item.type.dtype is DType.FP16 and self._rounded
                dtype = item.type.dtype.numpy_name if item.type.dtype is not DType.FP16 else None
                array = value.detach().cpu().numpy()
                found[item.name] = array.astype("float16" if half else dtype or array.dtype)  # always a copy
        return found


def origin(operation: Operation) -> dict[str, str]:
    """Return an operation's origin as far as the package records it, in text attributes.

    coremltools 9 writes none; tools that record a module or a source line put it there.
    """
    texts = {key: value for key, value in operation.attributes.items() if key not in ("name", "val")}
    strings = {key: value for key, value in texts.items() if getattr(value.type, "dtype", None) is DType.STRING}
    return {key: str(value.data[0]) for key, value in strings.items() if isinstance(value.data, tuple) and value.data}


def _described(value: Any) -> str:
    """Return a text about a tensor or a list of tensors; empty for anything else."""
    if isinstance(value, torch.Tensor):
        return _describe(value)
    parts = value if isinstance(value, list | tuple) else ()
    return " and ".join(_describe(part) for part in parts if isinstance(part, torch.Tensor))


def _describe(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}[{'x'.join(map(str, tensor.shape))}]"
