"""The op registry: each MIL op is a typed Python function whose signature is the op's specification.

* The function's name is the op's (``@op("and")`` where Python forbids that name), its module is the op's family.
* Parameters are MIL's input names with MIL's defaults. A parameter's annotation decides how it is bound: ``Tensor`` and
  ``Tensors`` are passed at run time; ``int``, ``float``, ``bool``, ``str``, ``Ints``, ``Floats``, ``Bools`` are plain
  Python, read from the constant when the program is lowered (or from the tensor at each call, where the program
  computes them). ``Any`` takes either: Python for a constant, else the run-time value.
* Two parameters are not inputs: ``output_types``, a (MIL element type, shape) pair for each declared output, and
  ``blocks``, a (module, captured values) pair for each nested block. The module takes the block's inputs and then the
  captured values, and returns a tuple.
* ``since`` is the opset that added the op or changed its meaning; a program gets the newest up to its own opset.
* ``exact`` marks ops whose result needs no rounding to f16 when their inputs are f16 values (moves, selections,
  comparisons); every other op that declares fp16 outputs is rounded once, after computing in f32.
* ``aliases`` marks ops whose result may share an operand's memory; an exact one may, unless it says otherwise.
* ``constexpr`` ops have only constant inputs and run once, when the program is lowered.
* ``dialect`` registers an operation of tlkit's own, which MIL does not have and no package can hold (``mil/dialect``).
* ``measured`` registers what Core ML was measured to do where it departs from the specification: the same op at the
  same opset, with the row of ``docs/fidelity.md`` that holds the evidence. It is what runs, unless the caller asks for
  the specification (``strict``).

MIL types are carried by torch types as ``CARRIERS`` says: an fp16 value is an f32 tensor that holds f16 values.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import torch

from tlkit.errors import LoadError
from tlkit.mil.opsets import DIALECT, OPSETS
from tlkit.mil.types import DType

Tensor: TypeAlias = torch.Tensor
Tensors: TypeAlias = Sequence[torch.Tensor]
Ints: TypeAlias = Sequence[int]
Floats: TypeAlias = Sequence[float]
Bools: TypeAlias = Sequence[bool]
Op = TypeVar("Op", bound=Callable[..., Any])

CARRIERS: Mapping[DType, torch.dtype] = {
    dtype: getattr(torch, dtype.carrier) for dtype in DType if dtype is not DType.STRING
}

SPECIAL = ("output_types", "blocks")


def declared_carrier(output_types: Any) -> torch.dtype:
    """Return the torch type of the first output that an op's ``output_types`` declares."""
    return CARRIERS[DType.named(output_types[0][0])]


_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SINCE = {release.number for release in OPSETS.values()}


_SAID = {int: "whole number", float: "number", bool: "boolean", str: "string"}


def _is(kind: type, value: Any) -> bool:
    """Whether a constant's value has the type that an op declares; integers are accepted for floats."""
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    # Not isinstance, which accepts True as an int.
    return type(value) is kind


@dataclass(frozen=True, slots=True)
class Parameter:
    """One input of an op: ``kind`` is ``tensor``, ``tensors``, ``static`` or ``any`` (see the module's docstring).

    ``hint`` is its annotation without ``None``.
    """

    name: str
    kind: str
    required: bool
    hint: Any = None

    def wants(self, value: Any) -> str | None:
        """Return the type that a ``static`` input requires, in words, if ``value`` does not have it; None where it
        fits."""
        item = (typing.get_args(self.hint) or (self.hint,))[0]
        several = typing.get_origin(self.hint) is Sequence
        fits = isinstance(value, tuple | list) == several and all(
            _is(item, one) for one in (value if several else (value,))
        )
        return None if fits or item not in _SAID else f"{_SAID[item]}s" if several else f"one {_SAID[item]}"

    @property
    def single(self) -> bool:
        """Whether it takes one plain value, not a list of them."""
        return self.kind == "static" and self.hint in _SAID


@dataclass(frozen=True, slots=True)
class OpDef:
    """One op at one opset: what runs it (``function``; ``rounded`` also rounds floats to f16) and how to bind it.

    ``row`` names the row of ``docs/fidelity.md`` that it follows instead of the specification; empty for most. It
    follows it only where the input ``computed``, if one is named, is not a constant.
    """

    name: str
    family: str
    since: int
    function: Callable[..., Any]
    rounded: Callable[..., Any]
    parameters: Mapping[str, Parameter]
    special: tuple[str, ...]
    exact: bool
    aliases: bool
    constexpr: bool
    row: str = ""
    computed: str = ""


_OPS: dict[str, list[OpDef]] = {}
_DIALECT: dict[str, OpDef] = {}
_MEASURED: dict[tuple[str, int], OpDef] = {}


def op(
    name: str | None = None,
    *,
    since: int = 15,
    exact: bool = False,
    aliases: bool | None = None,
    constexpr: bool = False,
) -> Callable[[Op], Op]:
    """Register the decorated function as a MIL op (see the module's docstring); ValueError for a second one at an
    opset."""

    def register(function: Op) -> Op:
        title = name or function.__name__
        if not _NAME.fullmatch(title) or since not in _SINCE:
            raise ValueError(f"bad op registration: {title!r} since {since}")
        versions = _OPS.setdefault(title, [])
        if any(version.since == since for version in versions):
            raise ValueError(f"MIL op '{title}' is registered twice for iOS{since}")
        family = function.__module__.rpartition(".")[2].lstrip("_")
        parameters, special = _signature(function)
        rounded = function if exact else _rounded(function)
        shares = exact if aliases is None else aliases
        versions.append(OpDef(title, family, since, function, rounded, parameters, special, exact, shares, constexpr))
        # lookup() takes the last that fits.
        versions.sort(key=lambda version: version.since)
        return function

    return register


def dialect(name: str | None = None) -> Callable[[Op], Op]:
    """Register the decorated function as an operation of tlkit's own, ``tlkit.name``, in every opset."""

    def register(function: Op) -> Op:
        title = name or function.__name__
        if not _NAME.fullmatch(title) or DIALECT + title in _DIALECT:
            raise ValueError(f"bad dialect registration: {title!r}")
        family = function.__module__.rpartition(".")[2]
        parameters, special = _signature(function)
        definition = OpDef(
            DIALECT + title, family, min(_SINCE), function, _rounded(function), parameters, special, False, False, False
        )
        _DIALECT[DIALECT + title] = definition
        return function

    return register


def measured(row: str, name: str, *, since: int = 15, computed: str = "") -> Callable[[Op], Op]:
    """Register the decorated function as Core ML's measured behaviour for the op ``name`` of the opset ``since``.

    Its inputs are those of the specified op, which must be registered before it. ``row`` is the row of
    ``docs/fidelity.md`` with the evidence. ``computed`` names an input: where that is a constant, Core ML does what the
    specification says.
    """

    def register(function: Op) -> Op:
        specified = next((version for version in _OPS.get(name, ()) if version.since == since), None)
        parameters, special = _signature(function)
        if specified is None or (parameters, special) != (specified.parameters, specified.special):
            raise ValueError(f"bad measured op: {name!r} since {since} is not registered with these inputs")
        if (name, since) in _MEASURED:
            raise ValueError(f"MIL op '{name}' is measured twice for iOS{since}")
        rounded = function if specified.exact else _rounded(function)
        _MEASURED[name, since] = replace(specified, function=function, rounded=rounded, row=row, computed=computed)
        return function

    return register


def lookup(name: str, opset: str, *, strict: bool = False) -> OpDef | None:
    """Return the op ``name`` as ``opset`` (``"CoreML7"``) defines it, or None if tlkit or the opset lacks it.

    ``strict`` chooses the specification where Core ML was measured to do something else.
    """
    if name.startswith(DIALECT):
        return _DIALECT.get(name)
    found = None
    for version in _OPS.get(name, ()):
        if version.since <= release(opset):
            found = version
    if found is None or strict:
        return found
    return _MEASURED.get((name, found.since), found)


def measurements() -> Sequence[OpDef]:
    """Return every registered deviation from the specification, by op and opset."""
    return [_MEASURED[key] for key in sorted(_MEASURED)]


def release(opset: str) -> int:
    """Return the iOS release of an opset name; LoadError if tlkit does not know it."""
    number = OPSETS[opset].number if opset in OPSETS else None
    if number is None:
        raise LoadError(f"unknown opset '{opset}'", f"tlkit knows {', '.join(OPSETS)}")
    return number


def library() -> Mapping[str, Sequence[OpDef]]:
    """Return every registered op by name, its versions oldest first."""
    return _OPS


def own() -> Mapping[str, OpDef]:
    """Return the operations of tlkit's own by name."""
    return _DIALECT


def round_f16(x: Any) -> Any:
    """Round a float tensor, or each one of a tuple or list, to the nearest f16 value, carried in f32.

    Overflow becomes infinity and ties go to even, as in IEEE 754 and on Apple's hardware.
    """
    if isinstance(x, torch.Tensor):
        return x.to(torch.float16).to(torch.float32) if x.is_floating_point() else x
    if isinstance(x, (tuple, list)):
        return type(x)(round_f16(item) for item in x)
    return x


def _rounded(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def rounded(*args: Any, **kwargs: Any) -> Any:
        return round_f16(function(*args, **kwargs))

    rounded.__name__ = rounded.__qualname__ = f"{function.__name__}_f16"
    return rounded


def host(x: Any, single: bool = False) -> Any:
    """Return a tensor as Python: a scalar for rank 0 or where there has to be a ``single`` value, else a (nested) list.

    LoadError where there are several: Python multiplies a list by repeating it.
    """
    if single and isinstance(x, torch.Tensor | tuple | list):
        x = torch.as_tensor(x)
        if x.numel() != 1:
            raise LoadError(f"an input that takes one value is given {x.numel()}", "the program is damaged")
        return x.item()
    if isinstance(x, torch.Tensor):
        return x.item() if x.ndim == 0 else x.tolist()
    return x


def _signature(function: Callable[..., Any]) -> tuple[dict[str, Parameter], tuple[str, ...]]:
    hints = typing.get_type_hints(function)
    parameters, special = {}, []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in SPECIAL:
            special.append(parameter.name)
            continue
        # A name that Python reserves is written with an underscore at its end.
        name, hint = parameter.name.rstrip("_"), hints[parameter.name]
        required = parameter.default is parameter.empty
        parameters[name] = Parameter(parameter.name, _kind(hint), required, _present(hint))
    return parameters, tuple(special)


def _present(hint: Any) -> Any:
    """Return ``X`` for the annotation ``X | None``, any other as it is."""
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    return options[0] if type(None) in typing.get_args(hint) and len(options) == 1 else hint


def _kind(hint: Any) -> str:
    hint = _present(hint)
    if hint is Any:
        return "any"
    if hint == Tensor:
        return "tensor"
    return "tensors" if hint == Tensors else "static"
