"""Weights of large programs stay f16 in their mapped file until an operation needs them.

An fp16 weight is carried in f32, twice its size. For a model of a gigabyte that is more than many machines have to
spare, so its large weights stay what they are in the file: f16 tensors over mapped pages. The operations in
:data:`TAKES` widen one when they use it, and let it go afterwards with the pages that were read; one that only picks
elements picks them first. From the second use on a weight stays widened where there is memory for it, since then the
model is run again and again.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import torch

from tlkit.host.machine import available_memory

FROM = 256 << 20
"""Bytes of f16 weights from which on a program's stay narrow."""
LARGE = 1 << 20
"""Bytes of a weight from which on it is worth it."""
TAKES: Mapping[str, str] = {"conv": "weight", "conv_transpose": "weight", "gather": "x", "linear": "weight"}
"""Operations that take a narrow weight, and as which parameter."""
_PIECE = 1 << 22
"""Elements that are widened at a time, so that the pages read and the copy do not add up."""
_HUGE = 1 << 26
"""Elements of a matrix that is widened part by part at its first use, as its copy would be as large as a model."""
_OFTEN = 0.05
"""Seconds between two times that pages are given back."""
_SPARE = 3
"""A widened weight is kept while the available memory is so many times its size."""


class NarrowWeight:
    """What is known of a narrow weight: how its pages are given back, its widened copy, and how often it was used."""

    def __init__(self, release: Callable[[], None]) -> None:
        self.release = release
        self.channels_last = False
        self._wide: torch.Tensor | None = None
        self._uses = 0

    def widened(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the weight in f32; the same one again where it is kept."""
        if self._wide is not None:
            return self._wide
        wide = _room(tensor.shape, self.channels_last)
        for piece in _pieces(tensor):
            wide[piece].copy_(tensor[piece])
            self.release()
        if self._keeps(4 * tensor.numel()):
            self._wide = wide
        return wide

    def parts(self, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the weight in f32 along its first axis: whole where it is kept or small, else piece by piece."""
        if self._wide is None and tensor.numel() > _HUGE and not self._keeps(4 * tensor.numel(), count=False):
            self._uses += 1
            for piece in _pieces(tensor):
                part = tensor[piece]
                yield _room(part.shape).copy_(part)
                self.release()
        else:
            yield self.widened(tensor)

    def _keeps(self, size: int, *, count: bool = True) -> bool:
        """Whether to keep a copy of ``size`` bytes: not of what is used for the first time."""
        again = self._uses > 0
        self._uses += count
        return again and available_memory() > _SPARE * size


def narrow(tensor: torch.Tensor, release: Callable[[], None]) -> torch.Tensor:
    """Return ``tensor``, an f16 weight over mapped pages, marked as narrow; ``release`` gives back its pages."""
    tensor.narrow_weight = NarrowWeight(release)  # type: ignore[attr-defined]
    return tensor


def mark_of(tensor: Any) -> NarrowWeight | None:
    """Return what is known of a narrow weight; None for any other value."""
    found = getattr(tensor, "narrow_weight", None)
    return found if isinstance(found, NarrowWeight) else None


def widened(x: torch.Tensor) -> torch.Tensor:
    """Return a narrow weight in f32, and any other value as it is."""
    mark = mark_of(x)
    return x if mark is None else mark.widened(x)


def picked(source: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """Return what was picked of ``source``: in f32, where that is a narrow weight."""
    return found if mark_of(source) is None else found.to(torch.float32)


@contextmanager
def giving_back(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """Give back the pages of narrow weights again and again while the body has another library read them all."""
    releases = {mark.release: None for mark in map(mark_of, tensors) if mark is not None}
    done = Event()

    def release() -> None:
        for one in releases:
            one()

    def watch() -> None:
        while not done.wait(_OFTEN):
            release()

    watcher = Thread(target=watch, daemon=True)
    if releases:
        watcher.start()
    try:
        yield
    finally:
        done.set()
        release()


def _room(shape: torch.Size, channels_last: bool = False) -> torch.Tensor:
    """Return memory for f32 values of a shape that goes back to the system when it is let go: what the allocator keeps
    for later (``host/allocator.py``) would add up to all weights."""
    flat = torch.frombuffer(mmap.mmap(-1, 4 * shape.numel()), dtype=torch.float32)
    if not channels_last:
        return flat.view(shape)
    count, channels, *window = shape
    return flat.view(count, *window, channels).movedim(-1, 1)


def _pieces(tensor: torch.Tensor) -> Iterator[slice]:
    rows = max(1, _PIECE // max(1, tensor[0].numel()))
    return (slice(start, start + rows) for start in range(0, len(tensor), rows))
