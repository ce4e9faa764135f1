"""Tensors in a pickle that PyTorch wrote, found without unpickling: names, shapes, and the storages they view."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tlkit.errors import LoadError
from tlkit.formats.base.dtypes import PLAIN
from tlkit.formats.torch.pickle_machine import Call, Dict, Global

STORAGES = {
    "FloatStorage": "F32",
    "DoubleStorage": "F64",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "ComplexFloatStorage": "C64",
    "ComplexDoubleStorage": "C128",
    "QInt8Storage": "I8",
    "QUInt8Storage": "U8",
    "QInt32Storage": "I32",
    "UntypedStorage": "U8",
}
DTYPES = {
    "float32": "F32",
    "float64": "F64",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "bool": "BOOL",
    "complex32": "C32",
    "complex64": "C64",
    "complex128": "C128",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
}
_NESTED = 64
_REPEATS = 10_000  # modules met again
_RANK = 64


@dataclass(frozen=True, slots=True)
class View:
    """A tensor: which storage (of ``room`` bytes) it views, from which element, in what shape and strides."""

    storage: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    room: int

    @property
    def span(self) -> int:
        """The elements from its first to its last, both included."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))

    @property
    def contiguous(self) -> bool:
        """Whether its elements lie one after another, row by row."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return 0 in self.shape
            expected *= size
        return True


def find_tensors(root: Any, where: str) -> Iterator[tuple[str, View]]:
    """Yield every tensor in ``root`` by its dotted path, a module's as its ``state_dict`` names them.

    LoadError for a tensor whose numbers make no sense. A container that appears twice is looked into once, but for
    modules: they may be in a model under several names, and their tensors then are too.
    """
    seen: set[int] = set()
    left = _REPEATS
    stack: list[tuple[str, Any, int]] = [("", root, 0)]
    while stack:
        path, value, depth = stack.pop()
        view = _tensor(value, f"{where}: '{path[:100]}'")
        if view is not None:
            yield path, view
        elif isinstance(value, Call | Dict | list | tuple):
            if id(value) in seen:
                left -= 1
                if left < 0 or depth > _NESTED or not _is_module(value):
                    continue
            seen.add(id(value))
            if depth > _NESTED:
                raise LoadError(f"{where}: objects nested over {_NESTED} deep", "no model is")
            inner = [(f"{path}.{key}" if path else str(key), item, depth + 1) for key, item in _children(value)]
            stack.extend(reversed(inner))


def _is_module(value: Any) -> bool:
    state = value.state if isinstance(value, Call) else None
    return isinstance(state, Dict) and any(key == "_modules" for key, _ in state.pairs)


def top_level(root: Any, where: str) -> dict[str, Any]:
    """Return what a checkpoint holds at its top, by name: plain values as they are, anything else in a word."""
    pairs = root.pairs if isinstance(root, Call | Dict) else ()
    found: dict[str, Any] = {}
    for key, value in pairs:
        if isinstance(key, str) and _tensor(value, f"{where}: '{key[:100]}'") is None:
            plain = isinstance(value, str | int | float | bool) or value is None
            found[key] = value if plain and len(str(value)) < 10_000 else _word(value)
    return found


def _word(value: Any) -> str:
    if isinstance(value, Dict | list | tuple):
        count = len(value.pairs if isinstance(value, Dict) else value)
        return f"{'dict' if isinstance(value, Dict) else type(value).__name__} of {count}"
    return str(value.func) if isinstance(value, Call) and isinstance(value.func, Global) else type(value).__name__


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, list | tuple):
        yield from enumerate(value)
    elif isinstance(value, Dict):
        yield from _named(value.pairs)
    else:
        state = dict(_named(value.state.pairs)) if isinstance(value.state, Dict) else {}
        if "_modules" in state or "_parameters" in state:
            for part in ("_parameters", "_buffers", "_modules"):
                yield from _named(getattr(state.get(part), "pairs", ()))
        else:
            yield from _named(value.pairs)
            yield from enumerate(value.items)
            yield from ((key, item) for key, item in state.items() if key != "_metadata")


def _named(pairs: Any) -> Iterator[tuple[Any, Any]]:
    return ((key, item) for key, item in pairs if isinstance(key, str | int))


def _tensor(value: Any, where: str) -> View | None:
    """Return the view that a call of one of torch's rebuild functions would make; None for anything else."""
    for _ in range(4):
        if not isinstance(value, Call) or not isinstance(value.func, Global) or not isinstance(value.args, tuple):
            return None
        name, args = str(value.func), value.args
        if name.startswith("torch._utils._rebuild_parameter") and args:
            value = args[0]
        elif name == "torch._tensor._rebuild_from_type_v2" and len(args) > 2:
            value = Call(args[0], args[2])
        elif name in (
            "torch._utils._rebuild_tensor_v2",
            "torch._utils._rebuild_tensor",
            "torch._utils._rebuild_qtensor",
        ):
            return _view(args, where)
        elif name == "torch._utils._rebuild_tensor_v3":
            return _view(args, where, args[6] if len(args) > 6 else None)
        else:
            return None
    return None


def _view(args: tuple[Any, ...], where: str, dtype: Any = None) -> View | None:
    try:
        reference, offset, shape, strides = args[:4]
        _, kind, key, _, count = reference.id[:5]
    except (ValueError, TypeError, AttributeError):
        raise LoadError(f"{where}: a tensor that refers to no storage", "the file is damaged") from None
    stored = DTYPES.get(dtype.name) if isinstance(dtype, Global) else STORAGES.get(getattr(kind, "name", ""))
    shape, strides = (tuple(_sizes(sizes)) for sizes in (shape, strides))
    numbers = (*shape, *strides, offset, count)
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers) or math.prod(shape) >= 1 << 59:
        raise LoadError(f"{where}: a shape, stride or offset that is no size", "the file is damaged")
    if len(shape) != len(strides) or len(shape) > _RANK or stored is None:
        raise LoadError(
            f"{where}: a tensor of an unknown type or rank", "the file is damaged, or newer than this tlkit"
        )
    width = PLAIN[STORAGES.get(getattr(kind, "name", ""), stored)]
    return View(str(key), stored, offset, shape, strides, count * width)


def _sizes(value: Any) -> tuple[Any, ...]:
    """A size is a tuple, or ``torch.Size`` of one."""
    if isinstance(value, Call) and isinstance(value.args, tuple) and value.args:
        value = value.args[0]
    return tuple(value) if isinstance(value, tuple | list) else (None,)
