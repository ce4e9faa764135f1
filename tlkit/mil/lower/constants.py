"""Compile-time values: constants in their carrier types, and the results of ``constexpr`` ops, without a graph."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from tlkit.errors import LoadError, reason
from tlkit.host import budget
from tlkit.mil import ops
from tlkit.mil.lower.guard import Guard, TooLargeError
from tlkit.mil.ops.kit.narrow import LARGE, narrow
from tlkit.mil.ops.kit.registry import OpDef, Parameter
from tlkit.mil.program import Argument, BlobRef, Operation, Ref, TensorType, Value
from tlkit.mil.types import DType

Stays = Callable[[Value], Any]
"""What says as what a weight stays for the operations that take it so (``narrow.TAKES``), a tensor or a module; None
for other constants. Equal ones say the same."""


def half_bytes(operations: Iterable[Operation]) -> int:
    """Return the bytes of the f16 weights that operations map from files."""
    values = (operation.attributes.get("val") for operation in operations if operation.type == "const")
    return sum(_half(value) for value in values if value is not None)


def _half(value: Value) -> int:
    """Return the bytes of an f16 weight in a file; 0 for any other constant."""
    kind = value.type
    mapped = isinstance(kind, TensorType) and kind.dtype is DType.FP16 and isinstance(value.data, BlobRef)
    return 2 * (kind.size or 0) if mapped and isinstance(kind, TensorType) else 0


def stored(operations: Iterable[Operation]) -> int:
    """Return the bytes that operations store: their weight files', plus one per element (or byte) written inline."""
    files: dict[int, int] = {}
    inline = 0
    for operation in operations:
        arguments = (item for items in operation.inputs.values() for item in items if isinstance(item, Value))
        for value in (*operation.attributes.values(), *arguments):
            if isinstance(value.data, BlobRef):
                files[id(value.data.file)] = len(value.data.file) if value.data.file is not None else 0
            elif isinstance(value.data, tuple | bytes):
                inline += len(value.data)
            else:
                inline += value.data.stored
    return sum(files.values()) + inline


class Allowance:
    """How large a program's constants may be: ``most`` elements each, as many as its file warrants."""

    def __init__(self, most: float) -> None:
        self.most = most
        self._filled = 0

    def fill(self, value: Value) -> None:
        """Count a constant that one element fills; LoadError where such constants together are too large."""
        if isinstance(value.data, tuple | bytes) and isinstance(value.type, TensorType):
            # A byte stores up to 8 elements (uint1): only those beyond that are filled.
            self._filled += max((value.type.size or 0) - 8 * len(value.data), 0)
            said = budget.over(self._filled, budget.HELD * self.most)
            if said:
                raise LoadError(f"constants of equal elements have {said[0]}", said[1])


class Constant:
    """A compile-time value, as a tensor in its carrier or as plain Python.

    Equal constants have the same ``key``. ``make`` decodes the value each time, for ops that run once: caching their
    inputs would only hold memory. ``value`` is what the program stores, where that is the constant itself.
    """

    def __init__(
        self,
        make: Callable[[], torch.Tensor],
        python: Callable[[], Any],
        cache: dict[Any, torch.Tensor],
        key: Any,
        value: Value | None = None,
    ) -> None:
        self.make = make
        self.python = python
        self.key = key
        self._cache = cache
        self._value = value

    def stays(self, how: Stays) -> Any:
        """Return what the constant stays as, shared like :attr:`tensor`; None where ``how`` knows nothing of it."""
        key = (how, self.key)
        if self._value is not None and key not in self._cache:
            found = how(self._value)
            if found is None:
                return None
            self._cache[key] = found
        return self._cache.get(key)

    @functools.cached_property
    def tensor(self) -> torch.Tensor:
        """The constant as a tensor, shared by all constants of the same key."""
        if self.key not in self._cache:
            self._cache[self.key] = self.make()
        return self._cache[self.key]


def mapped(value: Value) -> torch.Tensor | None:
    """Return a large f16 weight as it lies in its file, marked as narrow (``ops/kit/narrow.py``); None for others."""
    if _half(value) < LARGE or not isinstance(value.data, BlobRef) or value.data.file is None:
        return None
    array = value.numpy()
    return narrow(torch.from_numpy(array), value.data.file.release) if array.flags.writeable else None


def to_carrier(value: Value) -> torch.Tensor:
    """Return a tensor constant in its carrier type; no copy where the file stores that type."""
    if not isinstance(value.type, TensorType) or value.type.dtype is DType.STRING:
        raise LoadError(f"a constant of type {value.type} is not a tensor")
    array = value.numpy()
    # torch warns of an array that it could not write to.
    if not array.flags.writeable:
        array = array.copy()
    stored = torch.from_numpy(array)
    carrier = stored.to(ops.CARRIERS[value.type.dtype])
    if carrier is not stored and stored.nbytes >= LARGE and isinstance(value.data, BlobRef) and value.data.file:
        value.data.file.release()  # the carrier is a copy: what was read of the file need not stay in memory
    return carrier


def given(definition: OpDef, operation: Operation) -> list[tuple[Parameter, tuple[Argument, ...]]]:
    """Return an op's arguments by parameter; LoadError for an unknown or a missing input."""
    found: dict[str, tuple[Argument, ...]] = dict(operation.inputs)
    if definition.constexpr:  # iOS16's constexpr ops keep everything in attributes
        found |= {name: (value,) for name, value in operation.attributes.items() if name in definition.parameters}
    unknown = [name for name in found if name not in definition.parameters]
    if unknown:
        raise LoadError(f"unknown input '{unknown[0]}'", f"it takes {', '.join(definition.parameters)}")
    missing = [name for name, parameter in definition.parameters.items() if parameter.required and name not in found]
    if missing:
        raise LoadError(f"the input '{missing[0]}' is missing", "the program is damaged")
    return [(parameter, found[name]) for name, parameter in definition.parameters.items() if name in found]


def _constexpr(
    target: Callable[..., Any], constants: Mapping[Parameter, Constant], operation: Operation, most: float
) -> tuple[torch.Tensor, ...]:
    """Run an op on constants, and check its results against the shapes that the program declares."""
    try:
        arguments = {parameter.name: _argument(parameter, constant) for parameter, constant in constants.items()}
        with Guard(most):
            result = target(**arguments)
        made: tuple[torch.Tensor, ...] = result if isinstance(result, tuple) else (result,)
        for tensor, item in zip(made, operation.outputs, strict=True):
            if isinstance(item.type, TensorType) and item.type.shape != tuple(tensor.shape):
                raise LoadError(f"it makes {tuple(tensor.shape)} and declares {item.type.shape}")
    except (LoadError, TooLargeError, RuntimeError, IndexError, ValueError) as error:
        where = f"op '{operation.name}' ({operation.type})"
        raise LoadError(
            f"{where}: its constant cannot be decompressed: {reason(error)}", "the program is damaged"
        ) from None
    return made


def _argument(parameter: Parameter, constant: Constant) -> Any:
    """Return a constant as an op takes it; LoadError where its type is not the one that the op declares."""
    if parameter.kind == "tensor":
        return constant.make()
    value = plain(constant.python())
    wanted = parameter.wants(value) if parameter.kind == "static" else None
    if wanted:
        raise LoadError(f"its input '{parameter.name}' is not {wanted}")
    return value


def _part(run: Callable[[], tuple[torch.Tensor, ...]], index: int) -> torch.Tensor:
    return run()[index]


def _python(make: Callable[[], torch.Tensor]) -> Any:
    return make().tolist()


def const_value(operation: Operation) -> Value:
    """Return the value of a ``const``; LoadError where it has none."""
    value = operation.attributes.get("val")
    if value is None or len(operation.outputs) != 1:
        raise LoadError("a const without a value", "the program is damaged")
    return value


def plain(value: Any) -> Any:
    """Return a constant's lists as tuples, which an fx graph can hold."""
    return tuple(plain(item) for item in value) if isinstance(value, list) else value


def constant(value: Value, cache: dict[Any, torch.Tensor], allowed: Allowance) -> Constant:
    """Return a constant of a program, made within what is ``allowed``; equal constants share a tensor in ``cache``."""
    # Compared as text, since 0.0 == -0.0 and True == 1.
    data = repr(value.data) if isinstance(value.data, tuple) else value.data
    return Constant(functools.partial(_carried, value, allowed), value.python, cache, (value.type, data), value)


def _carried(value: Value, allowed: Allowance) -> torch.Tensor:
    allowed.fill(value)
    return to_carrier(value)


def rounds(operation: Operation, rounding: bool) -> bool:
    """Whether the operation's result is to be rounded to f16: it declares so, and ``rounding`` asks for it."""
    types = (item.type for item in operation.outputs)
    return rounding and any(isinstance(t, TensorType) and t.dtype is DType.FP16 for t in types)


def expanded(
    definition: OpDef,
    constants: Mapping[Parameter, Constant],
    operation: Operation,
    rounding: bool,
    cache: dict[Any, torch.Tensor],
    allowed: Allowance,
) -> list[Constant]:
    """Return the outputs of a ``constexpr`` op as constants, computed when one of them is first needed."""
    target = definition.rounded if rounds(operation, rounding) else definition.function
    # One run serves all outputs.
    run = functools.cache(functools.partial(_constexpr, target, constants, operation, allowed.most))
    keys = tuple((parameter.name, item.key) for parameter, item in constants.items())
    makes = [functools.partial(_part, run, index) for index in range(len(operation.outputs))]
    return [
        Constant(make, functools.partial(_python, make), cache, (target, index, keys))
        for index, make in enumerate(makes)
    ]


_CHAIN = 8  # constexpr ops feed one another at most twice; a damaged program may name itself


def decompress(operation: Operation, makers: Mapping[str, Operation], opset: str) -> torch.Tensor:
    """Return the weight that a ``constexpr`` op expands to, in its carrier, rounded as it declares.

    ``makers`` maps the constants it names to their operations. LoadError where one of them is damaged, or where what
    they store does not warrant the size of the result (``host.budget``).
    """
    # By id, since an operation contains mappings and cannot be hashed.
    feeding: dict[int, Operation] = {}
    _collect(operation, makers, opset, feeding, _CHAIN)
    allowed = Allowance(budget.warranted(stored(feeding.values())))
    values: dict[str, Constant] = {}
    for part in feeding.values():
        made = (
            [constant(const_value(part), {}, allowed)] if part.type == "const" else _made(part, values, opset, allowed)
        )
        values |= {item.name: value for item, value in zip(part.outputs, made, strict=True)}
    return values[operation.outputs[0].name].make()


def _collect(
    operation: Operation, makers: Mapping[str, Operation], opset: str, found: dict[int, Operation], chain: int
) -> None:
    """Add an operation to ``found``, by its id, after those that make its constants; each once."""
    if id(operation) in found:
        return
    if operation.type != "const":
        definition = ops.lookup(operation.type, opset)
        if definition is None or not definition.constexpr or chain == 0:
            raise LoadError(f"op '{operation.name}' ({operation.type}): it makes no weight", "the program is damaged")
        for item in (item for items in operation.inputs.values() for item in items if isinstance(item, Ref)):
            if item.name not in makers:
                raise LoadError(f"op '{operation.name}': nothing defines '{item.name}'", "the program is damaged")
            _collect(makers[item.name], makers, opset, found, chain - 1)
    found[id(operation)] = operation


def _made(operation: Operation, values: Mapping[str, Constant], opset: str, allowed: Allowance) -> list[Constant]:
    if operation.type == "const":
        return [constant(const_value(operation), {}, allowed)]
    definition = ops.lookup(operation.type, opset)
    assert definition is not None  # _collect has refused the others

    def resolve(item: Argument) -> Constant:
        return constant(item, {}, allowed) if isinstance(item, Value) else values[item.name]

    constants = {parameter: resolve(found[0]) for parameter, found in given(definition, operation)}
    return expanded(definition, constants, operation, True, {}, allowed)
