"""CUDA graphs: an inference captured once for each set of shapes, and replayed without the cost of launches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

Shapes = tuple[tuple[int, ...], ...]
KEPT = 8
"""Captured graphs that are held, each for one set of shapes."""
_WARMUP = 3


class Captured:
    """One inference as a CUDA graph. It reads inputs of its own, into which a call copies; its outputs are overwritten
    by the next call."""

    def __init__(self, forward: Callable[..., Any], operands: Sequence[torch.Tensor]) -> None:
        self._forward = forward  # holds the weights: the graph reads them where they lie
        self._inputs = [operand.clone() for operand in operands]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), torch.inference_mode(), _measuring():
            for _ in range(_WARMUP):  # libraries choose algorithms and allocate in the first runs
                forward(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), _measuring(), torch.cuda.graph(self._graph):
            self._outputs = forward(*self._inputs)

    def __call__(self, *operands: torch.Tensor) -> Any:
        """Replay on ``operands``; return the outputs."""
        for own, given in zip(self._inputs, operands, strict=True):
            own.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._outputs


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
        self._found: dict[Shapes, Callable[..., Any]] = {}

    def of(
        self, forward: Callable[..., Any], operands: Sequence[Any], plain: Callable[..., Any] | None = None
    ) -> Callable[..., Any]:
        """Return ``forward`` for operands of these shapes, captured where that is possible.

        ``plain`` computes the same without fused kernels, for a machine where one of them does not run.
        """
        if not all(isinstance(operand, torch.Tensor) for operand in operands):
            return plain or forward
        shapes = tuple(tuple(operand.shape) for operand in operands)
        if shapes not in self._found:
            if len(self._found) >= KEPT:
                self._found.pop(next(iter(self._found)))
            self._found[shapes] = _captured(forward, operands, plain)
        return self._found[shapes]


def _captured(
    forward: Callable[..., Any], operands: Sequence[torch.Tensor], plain: Callable[..., Any] | None
) -> Callable[..., Any]:
    try:
        return Captured(forward, operands)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError:  # it waits for the device, or copies from the host, in the middle; or a kernel does not run
        torch.cuda.synchronize()
    return forward if plain is None else _captured(plain, operands, None)
