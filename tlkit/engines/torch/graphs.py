"""CUDA graphs: an inference captured once for each set of shapes, and replayed without the cost of launches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

KEPT = 8
"""Captured graphs that are held, each for one set of shapes."""
_WARMUP = 3


class Captured:
    """One inference as a CUDA graph. It reads inputs of its own, into which a call copies; its outputs are overwritten
    by the next call. Those of ``operands`` that ``states`` names by place are read and written where they lie."""

    def __init__(
        self, forward: Callable[..., Any], operands: Sequence[torch.Tensor], states: Collection[int] = ()
    ) -> None:
        self._forward = forward  # holds the weights: the graph reads them where they lie
        self._places = [place for place in range(len(operands)) if place not in states]
        self._inputs = [operand if i in states else operand.clone() for i, operand in enumerate(operands)]
        self._staged: list[torch.Tensor] = []
        self._graph = torch.cuda.CUDAGraph()
        before = [operands[place].clone() for place in states]
        try:
            self._outputs = self._capture()
        finally:  # trial runs update them
            for place, tensor in zip(states, before, strict=True):
                operands[place].copy_(tensor)

    def _capture(self) -> Any:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), torch.inference_mode(), _measuring():
            for _ in range(_WARMUP):  # libraries choose algorithms and allocate in the first runs
                self._forward(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        with torch.inference_mode(), _measuring(), torch.cuda.graph(self._graph):
            return self._forward(*self._inputs)

    def __call__(self, *operands: torch.Tensor) -> Any:
        """Replay on ``operands``; return the outputs. States are those that it was captured with."""
        for place in self._places:
            self._inputs[place].copy_(operands[place], non_blocking=True)
        self._graph.replay()
        return self._outputs

    def fed(self, given: Sequence[torch.Tensor]) -> list[Any]:
        """Replay on tensors of the CPU, all operands but states; return copies of the outputs there.

        Both go through pinned memory, so that nothing waits but for the end.
        """
        own = [self._inputs[place] for place in self._places]
        if not self._staged:
            self._staged = [torch.empty_like(tensor, device="cpu", pin_memory=True) for tensor in own]
        for tensor, staged, source in zip(own, self._staged, given, strict=True):
            staged.copy_(source)
            tensor.copy_(staged, non_blocking=True)
        self._graph.replay()
        found = [_fetched(item) if isinstance(item, torch.Tensor) else item for item in self._outputs]
        torch.cuda.current_stream().synchronize()
        return found


def _fetched(item: torch.Tensor) -> torch.Tensor:
    """Return a copy in pinned memory, which is complete when the stream has come so far."""
    return torch.empty_like(item, device="cpu", pin_memory=True).copy_(item, non_blocking=True)


@contextmanager
def _measuring() -> Iterator[None]:
    """Let cuDNN measure which of its algorithms is the fastest; what it found is captured."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class Graphs:
    """The captured graphs of one function, a bounded number; what cannot be captured runs as it is."""

    def __init__(self) -> None:
        self._found: dict[Any, Callable[..., Any]] = {}

    def ready(self, shapes: Sequence[Sequence[int]], states: Sequence[torch.Tensor]) -> Captured | None:
        """Return what was captured for operands of these shapes, states among them; None where nothing was."""
        found = self._found.get(_key(shapes, states))
        return found if isinstance(found, Captured) else None

    def of(
        self,
        forward: Callable[..., Any],
        operands: Sequence[Any],
        plain: Callable[..., Any] | None = None,
        states: Collection[int] = (),
    ) -> Callable[..., Any]:
        """Return ``forward`` for operands of these shapes, captured where that is possible; a graph of its own for each
        set of states, which ``states`` names by their places.

        ``plain`` computes the same without fused kernels, for a machine where one of them does not run.
        """
        if not all(isinstance(operand, torch.Tensor) for operand in operands):
            return plain or forward
        key = _key([operand.shape for operand in operands], [operands[place] for place in states])
        if key not in self._found:
            if len(self._found) >= KEPT:
                self._found.pop(next(iter(self._found)))
            self._found[key] = _captured(forward, operands, plain, states)
        return self._found[key]


def _key(shapes: Sequence[Sequence[int]], states: Sequence[torch.Tensor]) -> Any:
    return tuple(map(tuple, shapes)), tuple(tensor.data_ptr() for tensor in states)


def _captured(
    forward: Callable[..., Any],
    operands: Sequence[torch.Tensor],
    plain: Callable[..., Any] | None,
    states: Collection[int],
) -> Callable[..., Any]:
    try:
        return Captured(forward, operands, states)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError:  # it waits for the device, or copies from the host, in the middle; or a kernel does not run
        torch.cuda.synchronize()
    return forward if plain is None else _captured(plain, operands, None, states)
