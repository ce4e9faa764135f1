"""``--mend-risks``: what goes wrong under the Neural Engine's arithmetic, found by running and written otherwise.

A run by MIL's rule on each of the given inputs, or on seeded ones, measures the sums, products and operands of each
operation. What leaves the accumulator's range, or is lost below its step, gets a form that is equal in exact
arithmetic; then both programs run under the emulation, and both by MIL's rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from tlkit.core.emulate.choose import emulator
from tlkit.core.run.value_checks import NOTICED, lost
from tlkit.engines.torch.engine import TorchEngine
from tlkit.mil import ops
from tlkit.mil.lower.interpreter import Interpreter
from tlkit.mil.passes.ane.mend import ATTENTION, LEAST, MASKED, SUMS, MendRisks
from tlkit.mil.passes.base import run_passes
from tlkit.mil.program import Function, Operation, Program, TensorType
from tlkit.mil.risks.kit import Survey
from tlkit.mil.risks.numbers import reaches_softmax
from tlkit.mil.types import DType
from tlkit.mil.units.accumulators import LIMIT

Arrays = Mapping[str, NDArray[Any]]
_ROOM = LIMIT / 4  # where a sum of magnitudes is moved to: samples are not all there is
_LARGEST_SOFTPLUS = 10.3
_LONG = 1024  # keys of an attention: of its many results the worst are off by some four times what is typical
_NOT_SHOWN = ("O9", "P9", "R7")  # no profile computes them otherwise, or MIL's own result is not finite
_MOST = 14  # f16's largest power of two with room


@dataclass(frozen=True, slots=True)
class Mended:
    """One operation in another form: the row of docs/fidelity.md, why (with what was measured), and what was done."""

    operation: str
    type: str
    row: str
    why: str
    change: str


@dataclass(frozen=True, slots=True)
class Mending:
    """What ``--mend-risks`` did to one function, and what came of it: the largest differences of any output, on any of
    the inputs, from the original run by MIL's rule, relative to the output's largest value: the original's under the
    Neural Engine's arithmetic (``before``), the new one's (``after``), and the new one's by MIL's rule (``mil``).

    ``kept``: whether the new form was taken, which it is not where it is no better.
    """

    function: str
    profile: str
    mended: tuple[Mended, ...]
    before: float
    after: float
    mil: float
    kept: bool


def mend(program: Program, name: str, cases: Sequence[Arrays], profile: str = "ane") -> tuple[Program, Mending]:
    """Return ``program`` with the risky operations of function ``name`` in other forms, where that helps under
    ``profile`` on the worst of ``cases`` (inputs by name)."""
    function = program.functions[name]
    found = judged(function, cases)
    if not found:
        return program, Mending(name, profile, (), 0.0, 0.0, 0.0, False)
    mended = tuple(item for item, _ in found)
    plan = {item.operation: power for item, power in found}
    masks = frozenset(item.operation for item in mended if item.row == "R7")
    made = run_passes(program, [MendRisks(name, plan, masks)]).program
    new, how, plain = made.functions[name], emulator(profile), TorchEngine(function)
    wanted = [plain.run(arrays) for arrays in cases]
    before, after, mil = (
        max(_off(right, engine.run(arrays)) for right, arrays in zip(wanted, cases, strict=True))
        for engine in (TorchEngine(function, emulate=how), TorchEngine(new, emulate=how), TorchEngine(new))
    )
    # What the comparison cannot show cannot be better there: it is enough not to be worse.
    kept = after < before or (after <= before and any(item.row in _NOT_SHOWN for item in mended))
    return (made if kept else program), Mending(name, profile, mended, before, after, mil, kept)


def _off(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> float:
    """The largest difference of any output, relative to its largest value; infinite where one is not finite."""
    worst = 0.0
    for name, value in wanted.items():
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or not value.size:
            continue
        one, other = value.astype(np.float64), found[name].astype(np.float64)
        sound = np.isfinite(one)
        if not np.isfinite(other[sound]).all():
            return math.inf
        size = float(np.abs(one[sound]).max(initial=0.0)) or 1.0
        worst = max(worst, float(np.abs(one - other)[sound].max(initial=0.0)) / size)
    return worst


def judged(function: Function, cases: Sequence[Arrays]) -> list[tuple[Mended, int]]:
    """Return what is at risk on any of ``cases`` and can be mended, each with its power of two (0 for what is no sum):
    one that all of them bear."""
    engine = TorchEngine(function)
    seen = _Ranges(engine.module, Survey(function))
    for arrays in cases:
        engine.through(seen, arrays)
    return seen.results()


@dataclass(frozen=True, slots=True)
class _Node:
    operation: Operation
    node: fx.Node
    given: Mapping[str, Any]
    made: torch.Tensor
    survey: Survey
    room: dict[str, int]


class _Ranges(Interpreter):
    """Runs a lowered program and judges each operation by its values."""

    def __init__(self, module: fx.GraphModule, survey: Survey) -> None:
        super().__init__(module)
        self._survey = survey
        self._found: dict[tuple[str, str], tuple[Mended, int]] = {}
        self._room: dict[str, int] = {}

    def results(self) -> list[tuple[Mended, int]]:
        """What was found in all runs."""
        made = []
        for item, power in self._found.values():
            both = min(power, self._room.get(item.operation, power))
            if both == power:
                made.append((item, power))
            elif both > 0:
                made.append((replace(item, change=_scaled(both)), both))
        return made

    def _add(self, item: Mended, power: int) -> None:
        """Of several runs' findings of one operation, the one that leaves most room."""
        before = self._found.get((item.operation, item.row))
        if before is None or power < before[1]:
            self._found[item.operation, item.row] = item, power

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, and judge it where its type is one that is mended."""
        made = super().run_node(n)
        operation = n.meta.get("mil")
        judge = _JUDGES.get(operation.type) if operation is not None else None
        if operation is not None and judge is not None and isinstance(made, torch.Tensor) and _is_half(operation):
            _, given = self.fetch_args_kwargs_from_env(n)
            found = judge(_Node(operation, n, given, made, self._survey, self._room))
            if found is not None:
                self._add(*found)
        return made


def _is_half(operation: Operation) -> bool:
    kind = operation.outputs[0].type
    return isinstance(kind, TensorType) and kind.dtype is DType.FP16


def _sum(item: _Node) -> tuple[Mended, int] | None:
    """A sum that may reach the limit, or whose products are lost below the step."""
    weight = item.given.get("weight", item.given.get("y"))
    x = item.given["x"]
    if not isinstance(weight, torch.Tensor) or not x.numel() or not bool(x.isfinite().all()):
        return None
    definition = ops.lookup(item.operation.type, "CoreML8")
    assert definition is not None
    sizes = {name: value.abs() if isinstance(value, torch.Tensor) else value for name, value in item.given.items()}
    most = float(definition.function(**sizes).max())
    if not math.isfinite(most):
        return None
    name, kind = item.operation.name, item.operation.type
    if most >= LIMIT / 2:
        power = -math.ceil(math.log2(most / _ROOM))
        why = f"magnitudes add to {most:.4g}, and {LIMIT:.0f} is infinite there"
        return Mended(name, kind, "P4", why, _scaled(power)), power
    tops = ((_ROOM, most), (LIMIT, float(x.abs().max())))  # of the sums, and of the operand that is scaled
    power = min([_MOST, *(math.floor(math.log2(top / size)) for top, size in tops if size)])
    item.room[name] = min(power, item.room.get(name, power))
    terms = x.shape[-2 if item.given.get("transpose_x") else -1] if kind in ("linear", "matmul") else weight[0].numel()
    off = lost(x.numpy(), weight.numpy(), terms)
    typical = float(item.made.square().mean().sqrt())
    long = kind == "matmul" and terms >= _LONG and not item.survey.is_constant(item.operation, "y")
    if typical and off > (NOTICED / 4 if long else NOTICED) * typical and power > 0:
        why = f"the step of its sums loses about {off / typical:.2g} of a typical result"
        return Mended(name, kind, "P4", why, _scaled(power)), power
    return None


def _attention(item: _Node) -> tuple[Mended, int] | None:
    """An attention whose products of weights and values are lost below the step."""
    (query, key, value), mask = (item.given[name] for name in ("query", "key", "value")), item.given.get("attn_mask")
    most, keys = float(value.abs().max()) if value.numel() else math.nan, key.shape[-2]
    typical = float(item.made.square().mean().sqrt())
    if not 0 < most < LIMIT or not typical or not math.isfinite(typical):
        return None
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype is torch.bool else scores + mask
    off = lost(torch.softmax(scores, -1).nan_to_num().numpy(), value.numpy(), keys)
    # A mean of the values is not larger than they are.
    name, power = item.operation.name, min(_MOST, math.floor(math.log2(_ROOM / most)))
    power = item.room[name] = min(power, item.room.get(name, power))
    if off <= (NOTICED / 4 if keys >= _LONG else NOTICED) * typical or power <= 0:
        return None
    why = f"the step of its sums loses about {off / typical:.2g} of a typical result of {keys} keys"
    return Mended(name, item.operation.type, "P4", why, _scaled(power)), power


def _scaled(power: int) -> str:
    return f"scaled by 2^{power} and back"


def _softplus(item: _Node) -> tuple[Mended, int] | None:
    x, beta = item.given["x"], item.given.get("beta")
    most = float((x if beta is None else x * beta.reshape(-1, *(1,) * (x.ndim - 2))).max())
    if most <= _LARGEST_SOFTPLUS:
        return None
    why = f"its operand reaches {most:.4g}, and above 10.4 it is 0 there"
    return Mended(item.operation.name, item.operation.type, "R1", why, "max(x, 0) + softplus(-abs(x))"), 0


def _log_sum_exp(item: _Node) -> tuple[Mended, int] | None:
    x = item.given["x"]
    terms = max(1, x.numel() // max(1, item.made.numel()))
    most = float(x.max())
    if most <= math.log(65504.0 / terms):
        return None
    why = f"its operand reaches {most:.4g}: the sum of {terms} exponentials leaves f16"
    return Mended(item.operation.name, "reduce_log_sum_exp", "R2", why, "the maximum is taken out first"), 0


def _log(item: _Node) -> tuple[Mended, int] | None:
    """The logarithm of a softmax of which some are 0."""
    maker, zeros = item.survey.maker(item.operation, "x"), int((item.given["x"] == 0).sum())
    if maker is None or maker.type != "softmax" or not zeros:
        return None
    why = f"{zeros} of its {item.made.numel()} operands are 0: -infinity, or -45440 there"
    return Mended(item.operation.name, "log", "P9", why, "x - max - log(sum(exp(x - max)))"), 0


def _round(item: _Node) -> tuple[Mended, int] | None:
    x = item.given["x"]
    ties = int(((x - x.trunc()).abs() == 0.5).sum())
    if not ties or not bool(x.isfinite().all()):
        return None
    why = f"{ties} of its {x.numel()} operands are ties, which round away from zero there"
    return Mended(item.operation.name, "round", "R9", why, "by floor and ceil, ties to even"), 0


def _remainder(item: _Node) -> tuple[Mended, int] | None:
    most = float(item.given["x"].abs().max()) if item.given["x"].numel() else 0.0
    if not 1024 < most < math.inf:
        return None
    why = f"its operand reaches {most:.4g}, and f16 mod is poor above 1024"
    return Mended(item.operation.name, "mod", "O9", why, "x - y * floor(x / y) in f32"), 0


def _mask(item: _Node) -> tuple[Mended, int] | None:
    """A mask that is filled with less than -6e4 by a constant."""
    operation, survey = item.operation, item.survey
    constant = {name: item.given.get(name) for name in operation.inputs if survey.is_constant(operation, name)}
    fills = [value for value in constant.values() if isinstance(value, torch.Tensor) and value.is_floating_point()]
    low = min((float(fill.min()) for fill in fills if fill.numel()), default=0.0)
    if low >= LEAST or not reaches_softmax(survey, operation):
        return None
    why = f"it is filled with {low:.4g}: what is added to it makes it -infinity, and a row of it NaN"
    return Mended(operation.name, operation.type, "R7", why, f"filled with {LEAST:.0f}"), 0


def _mul(item: _Node) -> tuple[Mended, int] | None:
    return _mask(item) or _product(item)


def _product(item: _Node) -> tuple[Mended, int] | None:
    """A product of two dequantized values that is quantized."""

    def kinds(nodes: Sequence[Any]) -> list[str]:
        found = [node.meta.get("mil") for node in nodes if isinstance(node, fx.Node)]
        return [operation.type for operation in found if operation is not None]

    before = kinds([item.node.kwargs.get(side) for side in ("x", "y")])
    if before != ["dequantize"] * 2 or "quantize" not in kinds(list(item.node.users)):
        return None
    why = "a quantized product of two dequantized values takes the wrong scale there"
    return Mended(item.operation.name, "mul", "O13", why, "the product is clipped to f16's range"), 0


_JUDGES: Mapping[str, Callable[[_Node], tuple[Mended, int] | None]] = {
    **dict.fromkeys(SUMS, _sum),
    ATTENTION: _attention,
    "softplus": _softplus,
    "softplus_parametric": _softplus,
    "reduce_log_sum_exp": _log_sum_exp,
    "log": _log,
    "round": _round,
    "mod": _remainder,
    **dict.fromkeys(MASKED, _mask),
    "mul": _mul,
}
