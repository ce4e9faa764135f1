"""Programs that are made for the shapes of their inputs: an engine for each set of shapes that is met.

A neural network of before mlprograms takes a sequence of any length, and its layers mean different operations by it;
MIL fixes that when it is written. The engines share their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from tlkit.engines.torch.engine import TorchEngine
from tlkit.engines.torch.finite import Stray
from tlkit.engines.torch.state import State
from tlkit.engines.torch.watch import Seen
from tlkit.errors import LoadError
from tlkit.mil.program import Function

Arrays = Mapping[str, np.ndarray[Any, Any]]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]
_KEPT = 8  # programs; each has a graph of its own, the weights are shared


class ShapedEngine:
    """Runs what ``make`` gives for the shapes of the inputs; ``settings`` are those of :class:`TorchEngine`.

    That layers do not fit together at the ports' own shapes is said when these are run: a network of sequences may take
    no sequence of 1.
    """

    name = "torch"

    def __init__(self, make: Callable[[Mapping[str, tuple[int, ...]] | None], Function], **settings: Any) -> None:
        self._make, self._settings = make, settings
        self._constants: dict[Any, torch.Tensor] = {}
        self._engines: dict[Shapes, TorchEngine] = {}
        try:
            function = make(None)
        except LoadError as error:
            if error.message.startswith("layer '"):
                return
            raise
        shapes = tuple((item.name, tuple(getattr(item.type, "shape", ()))) for item in function.inputs)
        self._engines[shapes] = self._engine(function)

    def _engine(self, function: Function) -> TorchEngine:
        return TorchEngine(function, constants=self._constants, **self._settings)

    def of(self, arrays: Arrays) -> TorchEngine:
        """Return the engine for inputs of these shapes; LoadError where the network's layers do not fit them."""
        shapes = tuple((name, tuple(array.shape)) for name, array in arrays.items())
        if shapes not in self._engines:
            # The oldest is dropped: the one whose shapes were met first.
            if len(self._engines) >= _KEPT:
                self._engines.pop(next(iter(self._engines)))
            self._engines[shapes] = self._engine(self._make(dict(shapes)))
        return self._engines[shapes]

    def make_state(self) -> State:
        """Return no state: these networks have none."""
        return State({})

    def run(self, arrays: Arrays, state: State | None = None) -> dict[str, Any]:
        """See :meth:`TorchEngine.run`."""
        return self.of(arrays).run(arrays, state)

    def bind(self, arrays: Arrays, state: State | None = None) -> Callable[[], Any]:
        """See :meth:`TorchEngine.bind`."""
        return self.of(arrays).bind(arrays, state)

    def watch(self, arrays: Arrays, seen: Seen, state: State | None = None) -> dict[str, Any] | None:
        """See :meth:`TorchEngine.watch`."""
        return self.of(arrays).watch(arrays, seen, state)

    def check(self, arrays: Arrays, state: State | None = None) -> tuple[dict[str, Any], Stray | None]:
        """See :meth:`TorchEngine.check`."""
        return self.of(arrays).check(arrays, state)
