"""GGUF's header: a reader that knows the file's byte order, and arrays that are read on request."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import repeat
from operator import length_hint
from typing import Any, overload

from tlkit.formats.files.mapped import Mapped

_SCALARS = {
    0: ("u8", "B"),
    1: ("i8", "b"),
    2: ("u16", "H"),
    3: ("i16", "h"),
    4: ("u32", "I"),
    5: ("i32", "i"),
    6: ("f32", "f"),
    7: ("bool", "?"),
    10: ("u64", "Q"),
    11: ("i64", "q"),
    12: ("f64", "d"),
}
_STRING, _ARRAY = 8, 9
_WINDOW = 1 << 20
_NESTING = 8  # arrays of arrays
_EFFORT = 1 << 23  # strings in all arrays; what takes longer to read than a string counts for several


class GGUFArray(Sequence[Any]):
    """An array in the metadata: its length and element type are known, its elements are read on request."""

    def __init__(self, reader: Reader, kind: int, count: int, offset: int) -> None:
        self._reader, self._kind, self._count, self._offset = reader, kind, count, offset
        self.end = offset
        """Where the array ends in the file, once it has been skipped."""

    @property
    def type(self) -> str:
        """The elements' type: ``u8`` … ``f64``, ``bool``, ``str``, or ``arr[u8]`` … for arrays of arrays."""
        inner = self._values[0] if self._kind == _ARRAY and self._count else None
        return f"arr[{inner.type}]" if isinstance(inner, GGUFArray) else type_name(self._kind)

    @cached_property
    def _values(self) -> Sequence[Any]:
        reader = Reader(self._reader.file, self._reader.order, self._reader.wide, self._offset)
        if self._kind in _SCALARS:
            return reader.numbers(_SCALARS[self._kind][1], self._count)
        if self._kind == _STRING:
            return reader.strings(self._count, self.end)
        return [reader.value(self._kind, 1) for _ in range(self._count)]

    def strings(self) -> Strings:
        """Return an array of strings as such; TypeError for another."""
        if not isinstance(self._values, Strings):
            raise TypeError(f"an array of {self.type}")
        return self._values

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return list(self._values[index]) if isinstance(index, slice) else self._values[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"GGUFArray({self._count} x {self.type})"


class Strings(Sequence[str]):
    """Strings that stay in the file: ``ends`` are where they end in ``data``, ``step`` bytes before the next begins.

    A vocabulary has hundreds of thousands, of which a text has few. Invalid UTF-8 is kept as surrogate escapes.
    """

    def __init__(self, data: memoryview, ends: array[int], step: int) -> None:
        self.data, self.ends, self.step = data, ends, step

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self.ends)))]
        return str(self.raw(index), "utf-8", "surrogateescape")

    def raw(self, index: int) -> memoryview:
        """Return one string's bytes; IndexError where there is none."""
        place = index + len(self.ends) if index < 0 else index
        if place < 0:
            raise IndexError(index)
        end = self.ends[place]
        return self.data[(self.ends[place - 1] if place else 0) + self.step : end]

    def __iter__(self) -> Iterator[str]:
        data, start = bytes(self.data), self.step
        for end in self.ends:
            yield str(data[start:end], "utf-8", "surrogateescape")
            start = end + self.step


class Reader:
    """A position in the header, which moves with each read; ``struct.error`` where that would pass the file's end."""

    def __init__(self, file: Mapped, order: str, wide: bool, offset: int) -> None:
        self.file, self.order, self.wide, self.offset, self._effort = file, order, wide, offset, 0
        self._length = struct.Struct(order + ("Q" if wide else "I"))

    def scalars(self, code: str, count: int) -> tuple[Any, ...]:
        """Return ``count`` numbers of the struct type ``code``."""
        size = struct.calcsize(f"<{code}") * count
        self._within(size)
        found = struct.unpack_from(f"{self.order}{count}{code}", self.file.view, self.offset)
        self.offset += size
        return found

    def numbers(self, code: str, count: int) -> Sequence[Any]:
        """Return ``count`` numbers of the struct type ``code``, held as such."""
        if code == "?":
            return self.scalars(code, count)
        found = array(code)
        size = found.itemsize * count
        self._within(size)
        found.frombytes(self.file.view[self.offset : self.offset + size])
        if (self.order == "<") != (sys.byteorder == "little"):
            found.byteswap()
        self.offset += size
        return found

    def count(self) -> int:
        """Return a count or a length: 64 bits, 32 in version 1."""
        (found,) = self._length.unpack_from(self.file.view, self.offset)
        self.offset += self._length.size
        return int(found)

    def text(self) -> str:
        """Return a string; invalid UTF-8 is replaced."""
        size = self.count()
        self._within(size)
        self.offset += size
        return str(self.file.view[self.offset - size : self.offset], "utf-8", "replace")

    def strings(self, count: int, end: int) -> Strings:
        """Return strings, which a vocabulary's tokens are.

        They have been skipped once, up to ``end``, so that no length passes the file's end.
        """
        view = self.file.view[self.offset : end]
        data, self.offset = bytes(view), end  # lengths are read faster from bytes than from a mapping
        unpack, step, place, ends = self._length.unpack_from, self._length.size, 0, array("Q")
        for _ in repeat(None, count):
            place += step + unpack(data, place)[0]
            ends.append(place)
        return Strings(view, ends, step)

    def afford(self, count: int, smallest: int, what: str, effort: int = 0) -> None:
        """Refuse a count that is more than the rest of the file could hold, or than any model has."""
        if count * smallest > self.file.size - self.offset:
            raise self.file.broken(f"it claims {count:,} {what}, more than its {self.file.size:,} bytes can hold")
        self._effort += count * effort
        if self._effort > _EFFORT:
            raise self.file.broken(f"it claims {count:,} {what}, more than any model has")

    def value(self, kind: int, depth: int = 0) -> Any:
        """Return a metadata value of type ``kind``; an array is skipped and read on request."""
        if kind in _SCALARS:
            return self.scalars(_SCALARS[kind][1], 1)[0]
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise self.file.broken(f"it has metadata of the unknown type {kind}")
        (inner,) = self.scalars("I", 1)
        count = self.count()
        array = GGUFArray(self, inner, count, self.offset)
        self._skip(inner, count, depth)
        array.end = self.offset
        return array

    def _skip(self, kind: int, count: int, depth: int) -> None:
        """Step over ``count`` values."""
        if kind in _SCALARS:
            self.afford(count, struct.calcsize(f"<{_SCALARS[kind][1]}"), "array elements")
            self.offset += count * struct.calcsize(f"<{_SCALARS[kind][1]}")
        elif kind == _STRING:
            self.afford(count, self._length.size, "strings", 1)
            self._skip_strings(count)
        elif kind != _ARRAY or depth >= _NESTING:
            raise self.file.broken(f"it has an array of the unknown type {kind}, or arrays nested too deeply")
        else:
            self.afford(count, 4 + self._length.size, "arrays", 16)
            for _ in range(count):
                (inner,) = self.scalars("I", 1)
                self._skip(inner, self.count(), depth + 1)

    def _skip_strings(self, count: int) -> None:
        """Skip strings: the hot loop, with one read per string; a length past the end fails the next read, or the last
        check.

        It reads from windows copied from the file, since reading lengths from ``bytes`` is faster than from a mapping.
        """
        unpack, step = self._length.unpack_from, self._length.size
        left = count
        while left:
            window = bytes(self.file.view[self.offset : self.offset + _WINDOW])
            # The iterator knows how many are left, so that the loop need not count.
            offset, steps = 0, repeat(None, left)
            left = 0
            try:
                for _ in steps:
                    offset += unpack(window, offset)[0] + step
            except struct.error:  # the next length lies past the window
                left = length_hint(steps) + 1  # the string in hand is read again
            self.offset += offset
            self._within(step if left else 0)
            self.file.release(self.offset - offset, self.offset)

    def _within(self, size: int) -> None:
        if self.offset + size > self.file.size:
            raise struct.error


def type_name(kind: int) -> str:
    """Return tlkit's name of a metadata type: ``u32``, ``str``, ``arr``."""
    return _SCALARS[kind][0] if kind in _SCALARS else {_STRING: "str", _ARRAY: "arr"}.get(kind, f"type {kind}")
