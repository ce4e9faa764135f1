"""The input of weight writers: the tensors of one file, whose sizes are known before any of them is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO, Any

from tlkit.errors import ConversionError
from tlkit.formats.base.dtypes import stored_bytes


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor to write: its name, stored type and row-major shape in the output."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """The bytes that it will take; ConversionError where they are not a whole number of blocks."""
        found = stored_bytes(self.dtype, self.elements)
        assert found is not None, f"{self.name}: not a whole number of {self.dtype} blocks"
        return found


Data = Callable[[Planned], Iterable[Any]]
"""Gives a tensor's bytes in order, in pieces (anything with the buffer interface)."""


def copy_data(file: IO[bytes], tensor: Planned, data: Data) -> None:
    """Write a tensor's pieces; ConversionError if their bytes are more or fewer than planned."""
    left = tensor.nbytes
    for piece in data(tensor):
        view = memoryview(piece)
        left -= view.nbytes
        if view.nbytes:
            # A piece may be an array of wider items.
            file.write(view.cast("B"))
    if left:
        raise ConversionError(f"{tensor.name}: {abs(left):,} bytes too {'few' if left > 0 else 'many'} were read")
