"""Risks that only values show, found by inspecting one inference operation by operation.

Each check (``value_checks``) is for a row of ``docs/fidelity.md`` whose condition is about values; the rows whose
condition is about shapes are rules of ``mil/risks``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tlkit.core.run.value_checks import Array, Moment, ValueCheck, checks
from tlkit.mil.program import Function, Operation, Ref, TensorType, Value
from tlkit.mil.risks.kit import Level, Risk, Span, Survey
from tlkit.mil.types import DType

if TYPE_CHECKING:
    from tlkit.core.model.load import Model

_READ = 1 << 20  # elements of a constant operand that are read for a check


def sampled_risks(function: Function, arrays: Mapping[str, Array]) -> tuple[Risk, ...]:
    """Run ``function`` once, with torch, and return the risks that its values show, in the checks' order.

    ``arrays`` are the inputs by name; states begin at zero. Raises what the engine raises.
    """
    from tlkit.engines.torch.engine import TorchEngine

    watcher = _Watcher(Survey(function), dict(arrays))
    TorchEngine(function).watch(arrays, watcher)
    return tuple(
        Risk(
            item.row,
            Level.WRONG,
            item.units,
            item.text,
            item.mend,
            tuple(watcher.found[item]),
            tuple(span for place in watcher.found[item] for span in watcher.spans[place]),
        )
        for item in checks()
        if item in watcher.found
    )


def given_arrays(loaded: Model, texts: Sequence[str], seed: int = 0) -> dict[str, Array]:
    """Return a model's inputs as its engine takes them: of ``texts`` (``NAME=VALUE``), the others drawn by ``seed``."""
    from tlkit.core.model.values import collect  # late: convert needs no files of inputs

    return loaded.arrays(collect(loaded.inputs, texts, (), seed, lambda _: None, loaded.stored))


def given_cases(loaded: Model, texts: Sequence[str], seed: int = 0) -> Iterator[dict[str, Array]]:
    """Yield the inputs of :func:`given_arrays`, where a text names a folder or Parquet those of each sample in it.

    Raises UsageError for two of them, or one without files.
    """
    from tlkit.core.model.values import collect  # late: convert needs no files of inputs
    from tlkit.core.run.data.samples import samples_of  # late, for the same reason

    found = samples_of(loaded.inputs, texts)
    if found is None:
        yield given_arrays(loaded, texts, seed)
        return
    samples, rest = found
    others = collect(loaded.inputs, rest, (), seed, lambda _: None, loaded.stored)
    for sample in samples.samples(0, samples.count):
        yield loaded.arrays({**others, **sample.values})


@dataclass
class _Watcher:
    """Is shown each operation, keeps what later checks need, and records where checks hold."""

    survey: Survey
    kept: dict[str, Array]
    found: dict[ValueCheck, list[str]] = field(default_factory=dict)
    spans: dict[str, list[Span]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        types = {kind for item in checks() for kind in item.types}
        # How many operations that are checked still take a value: after the last it is let go.
        self._users: dict[str, int] = {}
        for operation in self.survey.of(*types):
            for name in _names(operation):
                self._users[name] = self._users.get(name, 0) + 1
        self._types = types

    def __call__(self, operation: Operation, values: Callable[[], Mapping[str, Array]]) -> bool:
        wanted = [output.name for output in operation.outputs if output.name in self._users]
        # Values that no check looks at are not even read.
        if operation.type not in self._types and not wanted:
            return False
        results = values()
        self.kept |= {name: results[name] for name in wanted if name in results}
        first = results.get(operation.outputs[0].name) if operation.outputs else None
        if operation.type in self._types and first is not None:
            self._check(Moment(operation, self.survey, self._operands(operation), first))
        return False

    def _operands(self, operation: Operation) -> dict[str, Array]:
        found = {name: array for name in operation.inputs if (array := self._operand(operation, name)) is not None}
        for name in _names(operation):
            self._users[name] -= 1
            if not self._users[name]:
                self.kept.pop(name, None)
        return found

    def _operand(self, operation: Operation, name: str) -> Array | None:
        given = self.survey.given(operation, name)
        if isinstance(given, Ref) and given.name in self.kept:
            return self.kept[given.name]
        value = self.survey.constants.get(given.name) if isinstance(given, Ref) else given
        if not isinstance(value, Value) or not isinstance(value.type, TensorType) or value.type.dtype is DType.STRING:
            return None
        return value.numpy() if value.type.size is not None and value.type.size <= _READ else None

    def _check(self, moment: Moment) -> None:
        for item in checks():
            if moment.operation.type in item.types:
                with np.errstate(all="ignore"):
                    if item.holds(moment):
                        self.found.setdefault(item, []).append(moment.operation.name)
                        self.spans[moment.operation.name] = _spans(moment)


_TOLD = ("x", "y", "a", "b", "weight", "indices")  # operands whose ranges are told


def _spans(moment: Moment) -> list[Span]:
    """The ranges of what an operation was given and made: of finite values, where there are any."""
    values = {name: moment.given[name] for name in _TOLD if name in moment.given} | {"result": moment.made}
    found = []
    for name, value in values.items():
        wide = value.astype(np.float64)
        finite = wide[np.isfinite(wide)]
        if finite.size:
            # An infinity is an end of a range, too: what has become of a value that was too large.
            least, largest = (np.nanmin(wide), np.nanmax(wide)) if name == "result" else (finite.min(), finite.max())
            found.append(Span(moment.operation.name, name, float(least), float(largest)))
    return found


def _names(operation: Operation) -> set[str]:
    return {arg.name for given in operation.inputs.values() for arg in given if isinstance(arg, Ref)}
