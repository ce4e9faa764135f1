"""Lowering by a unit's profile: which function each operation becomes, and what that rested on.

An operation without a rule in its profile runs by MIL's, with the unit's rounding; both kinds are counted, so that an
answer can say what it rests on. f32 operations run by MIL's rule whatever the profile: no unit was measured on them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from tlkit.mil.ops.kit.registry import OpDef
from tlkit.mil.program import BlobRef, NamedType, Operation, Ref, TensorType, Type, Value
from tlkit.mil.types import DType
from tlkit.mil.units import products
from tlkit.mil.units.accumulators import Accumulator
from tlkit.mil.units.functions import accumulator, functions, quantize, whole_sums, wide_log
from tlkit.mil.units.profiles import DEFAULT, Profile, rules
from tlkit.mil.units.rounding import no_nan, read, to_away, to_even

_MOVES = frozenset(("transformation", "tensor", "scatter_gather", "control_flow", "state", "image", "classify"))
"""Families whose exact operations only move elements: no unit does that otherwise."""
_QUANTIZED = ("constexpr_affine_dequantize", "constexpr_blockwise_shift_scale", "dequantize")
_SUMMED: Mapping[str, Callable[..., Any]] = {
    "conv": products.conv,
    "linear": products.linear,
    "matmul": products.matmul,
}
_WEIGHTS = {"conv": "weight", "linear": "weight", "matmul": "y"}
Target = tuple[Callable[..., Any], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class RuleUse:
    """One rule, with the names of the operations that it changed."""

    profile: str
    rule: str
    operations: tuple[str, ...]


@dataclass
class Emulation:
    """How one program is run by profiles: ``choose`` says which for an operation. Made anew for each lowering."""

    choose: Callable[[Operation], Profile]
    makers: dict[str, Operation] = field(default_factory=dict)
    kinds: dict[str, Type] = field(default_factory=dict)
    sums: dict[str, Accumulator] = field(default_factory=dict)
    applied: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    plain: dict[str, int] = field(default_factory=dict)
    _own: dict[str, Mapping[str, Callable[..., Any]]] = field(default_factory=dict)

    def begin(self, inputs: Sequence[NamedType]) -> None:
        """Note the types of a block's inputs."""
        self.kinds |= {item.name: item.type for item in inputs}

    def see(self, operation: Operation) -> None:
        """Note what makes which value; called for every operation, constants included, in order."""
        self.makers |= {item.name: operation for item in operation.outputs}
        self.begin(operation.outputs)

    def used(self) -> tuple[RuleUse, ...]:
        """Return the rules that changed anything, and what."""
        return tuple(RuleUse(*key, tuple(names)) for key, names in self.applied.items())

    def target(self, operation: Operation, definition: OpDef, arguments: dict[str, Any], rounded: bool) -> Target:
        """Return what runs the operation and its arguments; ``rounded``: its result is f16."""
        profile = self.choose(operation)
        specified = definition.rounded if rounded else definition.function
        if profile.name == DEFAULT or not (rounded or self._reads_half(operation)):
            return specified, arguments
        if definition.exact and definition.family in _MOVES and operation.type not in self._functions(profile):
            return specified, arguments
        return self._emulated(profile, operation, definition, arguments, rounded)

    def _emulated(
        self, profile: Profile, operation: Operation, definition: OpDef, arguments: dict[str, Any], rounded: bool
    ) -> Target:
        own = self._functions(profile)
        function = own.get(operation.type, definition.function)
        found = [rules()[name] for name in profile.rules if operation.type in rules()[name].ops]
        names = [rule.id for rule in found if rule.id not in _MATCHED]
        special = self._matched(profile, operation, arguments)
        if special:
            rule, function, arguments = special
            names = [name for name in names if name not in ("fixed-point",)] + [rule]
        if not names:
            self.plain[operation.type] = self.plain.get(operation.type, 0) + 1
        if "ties-away" in profile.rules and rounded and not definition.exact:
            names.append("ties-away")
        for name in (*names, *(["no-nan"] if "no-nan" in profile.rules else [])):
            self.applied.setdefault((profile.name, name), []).append(operation.name)
        if not special and "fixed-point" in names and operation.type in _SUMMED and rounded:
            return _AsUnit(function, _as_is, False).call, arguments  # its sums read NaN and round by themselves
        rounds = _as_is if not rounded else _in_range if definition.exact else _narrow(profile)
        return _AsUnit(function, rounds, "no-nan" in profile.rules).call, arguments

    def _functions(self, profile: Profile) -> Mapping[str, Callable[..., Any]]:
        if profile.name not in self._own:
            self.sums[profile.name] = sums = accumulator(profile)
            self._own[profile.name] = functions(profile, sums, _narrow(profile))
        return self._own[profile.name]

    def _reads_half(self, operation: Operation) -> bool:
        kinds = (self.kinds.get(item.name) for item in _refs(operation))
        return any(isinstance(kind, TensorType) and kind.dtype is DType.FP16 for kind in kinds)

    def _matched(
        self, profile: Profile, operation: Operation, arguments: dict[str, Any]
    ) -> tuple[str, Callable[..., Any], dict[str, Any]] | None:
        """A rule about several operations together, where its pattern is here."""
        wanted = [name for name in profile.rules if name in _MATCHED and operation.type in rules()[name].ops]
        for name in wanted:
            found = _MATCHED[name](self, profile, operation, arguments)
            if found is not None:
                return name, *found
        return None

    def _scaled_product(
        self, profile: Profile, operation: Operation, arguments: dict[str, Any]
    ) -> tuple[Callable[..., Any], dict[str, Any]] | None:
        product = _made_by(arguments.get("input"), "mul")
        sides = [_made_by(product.kwargs.get(side), "dequantize") for side in ("x", "y")] if product else [None]
        first = sides[0]
        if product is None or first is None or None in sides:
            return None
        if self.choose(product.meta["mil"]).name != profile.name:
            return None
        return quantize, arguments | {"scale": first.kwargs["scale"], "axis": first.kwargs.get("axis")}

    def _wide_softmax(
        self, profile: Profile, operation: Operation, arguments: dict[str, Any]
    ) -> tuple[Callable[..., Any], dict[str, Any]] | None:
        made = _made_by(arguments.get("x"), "softmax")
        if made is None or self.choose(made.meta["mil"]).name != profile.name:
            return None
        return wide_log, arguments | {"x": made.kwargs["x"], "axis": made.kwargs.get("axis", -1)}

    def _int8_sums(
        self, profile: Profile, operation: Operation, arguments: dict[str, Any]
    ) -> tuple[Callable[..., Any], dict[str, Any]] | None:
        """Products of two quantized operands whose scales are known: sums of whole numbers."""
        x, weight = (self._maker(operation, name) for name in ("x", _WEIGHTS[operation.type]))
        if x is None or weight is None or x.type not in _QUANTIZED or weight.type not in _QUANTIZED:
            return None
        mine, other = self._scale(x), self._scale(weight)
        if mine is None or other is None or mine.numel() != 1:
            return None
        unit = mine.reshape(()) * (other.flatten() if other.numel() > 1 else other.reshape(()))
        return functools.partial(whole_sums, unit, _SUMMED[operation.type]), arguments

    def _maker(self, operation: Operation, name: str) -> Operation | None:
        given = operation.inputs.get(name, ())
        return self.makers.get(given[0].name) if len(given) == 1 and isinstance(given[0], Ref) else None

    def _scale(self, operation: Operation) -> torch.Tensor | None:
        """A quantized value's scale, where it is a constant."""
        given = operation.inputs.get("scale", ())
        value: Any = operation.attributes.get("scale") or (given[0] if given else None)
        if isinstance(value, Ref):
            maker = self.makers.get(value.name)
            value = maker.attributes.get("val") if maker is not None and maker.type == "const" else None
        known = isinstance(value, Value) and not (isinstance(value.data, BlobRef) and value.data.file is None)
        return torch.from_numpy(value.numpy().astype("float64")) if known else None


_MATCHED = {
    "scaled-product": Emulation._scaled_product,
    "wide-softmax": Emulation._wide_softmax,
    "int8-sums": Emulation._int8_sums,
}
"""Rules about a pattern of operations, not about one."""


def _refs(operation: Operation) -> list[Ref]:
    return [item for given in operation.inputs.values() for item in given if isinstance(item, Ref)]


def _made_by(node: Any, kind: str) -> fx.Node | None:
    """A node of the graph that an operation of this type is, or None."""
    operation = node.meta.get("mil") if isinstance(node, fx.Node) else None
    return node if operation is not None and operation.type == kind else None


def _as_is(x: Any) -> Any:
    return x


def _in_range(x: Any) -> Any:
    """What an exact operation makes of a NaN, which is read as more than f16 holds."""
    if isinstance(x, torch.Tensor) and x.is_floating_point():
        return torch.where(x.abs() > 65504.0, torch.copysign(torch.full_like(x, torch.inf), x), x)
    return type(x)(_in_range(item) for item in x) if isinstance(x, tuple | list) else x


def _narrow(profile: Profile) -> Callable[[Any], Any]:
    return to_away if "ties-away" in profile.rules else to_even


class _AsUnit:
    """One operation as a unit runs it: operands as it reads them, its function, its rounding."""

    def __init__(self, function: Callable[..., Any], rounds: Callable[[Any], Any], never_nan: bool) -> None:
        self._function, self._rounds, self._never_nan = function, rounds, never_nan

    def call(self, **given: Any) -> Any:
        """Run it on an operation's arguments, by name."""
        if not self._never_nan:
            return self._rounds(self._function(**given))
        operands = {name: read(value) for name, value in given.items()}
        made = self._function(**operands)
        if self._rounds is _in_range and all(operands[name] is value for name, value in given.items()):
            return made  # of elements that were numbers
        return self._rounds(no_nan(made))
