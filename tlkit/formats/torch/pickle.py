"""Read what a pickle would do, without doing it: nothing is imported, nothing is called.

The opcodes run on a stack of stand-ins (``pickle_machine.py``). They show which tensors a checkpoint holds and what
loading it would import.
"""

from __future__ import annotations

import pickletools
import re
import struct
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

from tlkit.errors import LoadError, reason
from tlkit.formats.torch.pickle_machine import LongBytes, LongText, Persistent, PickleMachine

_OPCODES = 1_000_000  # a checkpoint of 10,000 tensors has some 400,000
_ELIDE = 1 << 16  # bytes of one string or blob that are worth looking at
_KEPT = 1 << 26  # bytes of all that are kept whole
_OPERATIONS = {ord(code.code): (code.name, code.arg.reader if code.arg else None) for code in pickletools.opcodes}

LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""How a file of ``torch.save`` began until PyTorch 1.6: the pickled number 0x1950a86a20f9469cfc6c."""

_EXPECTED = (
    "collections.OrderedDict",
    "torch._utils._rebuild_*",
    "torch._tensor._rebuild_from_type_v2",
    "torch.*Storage",
    "torch.storage.*Storage",
    "torch.nn.parameter.Parameter",
    "torch.nn.parameter.Buffer",
    "torch.Tensor",
    "torch.Size",
    "torch.device",
    "torch.serialization._get_layout",
    "torch.jit._pickle.*",
    "__torch__.*",
    "__torch__",
    "_codecs.encode",
    "__builtin__.set",
    "builtins.set",
    "__builtin__.dict",
    "builtins.dict",
    "__builtin__.list",
    "builtins.list",
    "builtins.bytearray",
    "__builtin__.bytearray",
    "builtins.int",
    "builtins.float",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.core.numeric._frombuffer",
    "numpy._core.numeric._frombuffer",
    "numpy.ndarray",
    "numpy.dtype",
)
_MODULE = re.compile(r"torch\.nn\.modules\.\w+\.[A-Z]\w*")  # torch's own layers, classes and no functions
_DTYPES = "float* bfloat16 double half int* uint* short long bool complex* quint* qint* strided sparse_coo per_*"


@dataclass(frozen=True, slots=True)
class Pickle:
    """A parsed pickle: its object, the names that it would import, in order, its end, and all its references."""

    root: Any
    imports: tuple[str, ...]
    end: int
    references: tuple[Persistent, ...] = ()


def unexpected(imports: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of ``imports`` that are neither needed by plain weights nor PyTorch's own layers."""
    plain = (*_EXPECTED, *(f"torch.{name}" for name in _DTYPES.split()))
    strange = (name for name in imports if not _MODULE.fullmatch(name))
    return tuple(name for name in strange if not any(fnmatchcase(name, pattern) for pattern in plain))


def read_pickle(data: memoryview, where: str, start: int = 0) -> Pickle:
    """Read one pickle in ``data`` from ``start``; LoadError where it is invalid, or too long to be a model's."""
    source = _Source(data, start)
    machine = PickleMachine()
    try:
        for _ in range(_OPCODES):
            name, argument = source.operation()
            machine.step(name, argument)
            if name == "STOP":
                references = tuple(machine.references)
                return Pickle(machine.stack[-1], tuple(machine.imports), source.position, references)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, struct.error) as error:
        raise LoadError(
            f"{where}: not a readable pickle: {reason(error)[:80]}", "the file is damaged, or not a model"
        ) from None
    raise LoadError(f"{where}: over {_OPCODES:,} opcodes in one pickle", "no model has so many")


class _Claimed(bytes):
    """The first bytes of a long run that claims the length of the whole: pickletools checks the length."""

    def __new__(cls, head: bytes, length: int) -> _Claimed:
        found = super().__new__(cls, head)
        found._length = length
        return found

    _length: int

    def __len__(self) -> int:
        return self._length


class _Source:
    """A position in mapped bytes, from which pickletools reads."""

    def __init__(self, data: memoryview, position: int) -> None:
        self._data, self.position, self._kept = data, position, 0
        self._stepped: tuple[int, int] | None = None

    def operation(self) -> tuple[str, Any]:
        """Return the next opcode's name and argument."""
        if self.position >= len(self._data):
            raise ValueError("it ends without STOP")
        found = _OPERATIONS.get(self._data[self.position])
        if found is None:
            raise ValueError(f"the byte at {self.position:,} is not an opcode")
        self.position += 1
        name, reader = found
        self._stepped = None
        # pickletools' readers take a file, and this reads like one.
        argument = reader(cast(Any, self)) if reader else None
        if self._stepped and isinstance(argument, str):
            return name, LongText(argument, *self._stepped, encoded="UNICODE" in name)
        if isinstance(argument, bytes) and argument.startswith(LEGACY_MAGIC):  # a file inside: its place matters
            return name, LongBytes(argument, self.position - len(argument), len(argument))
        return name, LongBytes(argument, *self._stepped) if self._stepped else argument

    def tell(self) -> int:
        return self.position

    def read(self, count: int) -> bytes:
        left = len(self._data) - self.position
        if not 0 <= count <= left:
            # Too few bytes, which the reader refuses.
            count = left
        start, self.position = self.position, self.position + count
        if count <= _ELIDE and (count <= 64 or self._kept < _KEPT):
            self._kept += count
            return bytes(self._data[start : self.position])
        self._stepped = (start, count)
        # Cut at a whole character: where it is text, pickletools decodes it.
        return _Claimed(bytes(self._data[start : start + 64]).decode("utf-8", "ignore").encode(), count)

    def readline(self) -> bytes:
        for length in (256, 65536):  # the second where the first does not do
            found = bytes(self._data[self.position : self.position + length])
            found = found[: found.find(b"\n") + 1]
            if found:
                break
        self.position += len(found)
        return found
