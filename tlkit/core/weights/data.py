"""The bytes of tensors on their way from one file to another, in pieces that fit the processor's caches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.core.weights.plan import Job
from tlkit.formats.base.arrays import chunks
from tlkit.formats.base.dtypes import BLOCKS
from tlkit.formats.base.planned import Planned
from tlkit.formats.base.tensors import TensorEntry, TensorFile
from tlkit.formats.encode import Losses, encode
from tlkit.formats.gguf.quants import WEIGHABLE

_AT_ONCE = 1 << 20  # elements: whole blocks of every type
_BYTES = 1 << 23


class JobReader:
    """Produces the bytes of each planned tensor, as its job says, and counts what is lost."""

    def __init__(
        self,
        source: TensorFile,
        jobs: Sequence[Job],
        report: Callable[[str, float], None],
        check: Callable[[], None],
        importance: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> None:
        """``importance`` has weights [matrices, columns] for quantized tensors, by their new names."""
        self._source, self._report, self._check = source, report, check
        self._jobs = {job.planned.name: job for job in jobs}
        self._total = sum(job.planned.nbytes for job in jobs) or 1
        self._done = 0
        self._losses = Losses()
        self._importance = importance or {}

    def __call__(self, tensor: Planned) -> Iterator[Any]:
        """Give the bytes of one tensor, piece by piece."""
        for piece in self._pieces(self._jobs[tensor.name]):
            # Between two pieces an interrupt may end it.
            self._check()
            yield piece
            self._done += piece.nbytes
            self._report("converting", self._done / self._total)

    def lost(self) -> dict[str, int]:
        """Return the counts of elements that were lost, without those that are zero."""
        return {key: count for key, count in asdict(self._losses).items() if count}

    def _pieces(self, job: Job) -> Iterator[Any]:
        if job.as_stored:
            for entry in (job.entry, *job.others):
                yield from self._stored(entry)
            return
        weights = self._importance.get(job.planned.name)
        if weights is not None and job.planned.dtype in WEIGHABLE:
            for rows, row in whole_rows(self._values(job), job.planned.shape, len(weights)):
                yield encode(rows, job.planned.dtype, self._losses, weights[row])
            return
        for values in self._values(job):
            for start in range(0, values.size, _AT_ONCE):
                yield encode(values[start : start + _AT_ONCE], job.planned.dtype, self._losses)

    def _values(self, job: Job) -> Iterator[NDArray[Any]]:
        source = self._source
        if job.made:
            yield np.array(job.made, np.float32)
        elif job.part:
            yield source.parts(job.entry)[job.part].numpy().reshape(-1)
            # What is read is let go, so that memory does not grow with the file.
            source.release(job.entry, job.entry.nbytes)
        elif job.change:
            yield job.change.apply(source.array(job.entry)).reshape(-1)
            source.release(job.entry, job.entry.nbytes)
        else:
            for entry in (job.entry, *job.others):
                yield from chunks(source, entry, _AT_ONCE)

    def _stored(self, entry: TensorEntry) -> Iterator[memoryview]:
        raw = self._source.raw(entry)
        if entry.strides:
            raw = _in_order(raw, entry)
        for start in range(0, len(raw), _BYTES):
            yield raw[start : start + _BYTES]
            self._source.release(entry, min(start + _BYTES, entry.nbytes))


def whole_rows(
    pieces: Iterator[NDArray[Any]], shape: Sequence[int], matrices: int
) -> Iterator[tuple[NDArray[Any], int]]:
    """Yield a tensor's values, flat, in whole rows that belong to one of so many ``matrices``, and which that is."""
    width, rows = shape[-1], math.prod(shape[:-1])
    each, step = rows // matrices, max(_AT_ONCE // width, 1)
    held: NDArray[Any] = np.empty(0, np.float32)
    row = 0
    for piece in pieces:
        held = piece.reshape(-1) if not held.size else np.concatenate([held, piece.reshape(-1)])
        while (count := min(held.size // width, step, each - row % each)) > 0:
            yield held[: count * width], row // each
            held, row = held[count * width :], row + count


def _in_order(raw: memoryview, entry: TensorEntry) -> memoryview:
    """Return the elements of a tensor that is not contiguous, row by row."""
    _, size = BLOCKS[entry.dtype]
    # Items of so many bytes, whatever they mean.
    items = np.frombuffer(raw, f"V{size}")
    strides = tuple(stride * size for stride in entry.strides)
    viewed = np.lib.stride_tricks.as_strided(items, entry.shape, strides, writeable=False)
    return np.ascontiguousarray(viewed).reshape(-1).view(np.uint8).data
