"""``--activations int8``: what convolutions, products, sums and pools take and give as 8-bit integers.

coremltools measures the ranges by ``MLModel.predict``, for which it needs a Mac, and keeps those of the last sample
only (coremltools 9.0: each sample's range replaces the one before). Here tlkit runs the program on each sample,
operation by operation, and hands coremltools' own passes the ranges over all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.core.compare.difference import Tolerance
from tlkit.core.compare.models import Trial, Verification, compare
from tlkit.errors import ConversionError, UsageError, reason
from tlkit.mil.program import Function, Operation, Ref

if TYPE_CHECKING:
    from tlkit.core.convert.capture.cases import Case

Ranges = Mapping[str, tuple[float, float]]
"""The lowest and the highest number that a value of the program took, by its name."""
IOS17 = 8
"""Specification version: the first that quantizes what it computes."""
TYPES = ("conv", "linear", "add", "avg_pool", "max_pool")
"""The operations that coremltools puts between integers."""
_LARGEST = 65504.0


def check_activations(activations: str | None, calibrate: str | os.PathLike[str] | None) -> None:
    """Raise UsageError where the two options do not go together, or say something unknown."""
    if activations is None:
        if calibrate is not None:
            raise UsageError("--calibrate goes with --activations", "add --activations int8")
        return
    if activations != "int8":
        raise UsageError(f"--activations {activations}: unknown", "write int8")
    if calibrate is None:
        raise UsageError("--activations int8: which ranges do they have?", "name a folder of samples: --calibrate DIR")


def split_samples(model: Path, calibrate: str | os.PathLike[str]) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Return the samples to measure on, and those to check on: every other one, and of a single one the same.

    Raises LoadError and UsageError as reading the folder does.
    """
    from tlkit.core.convert.capture.cases import sample_cases  # late: these import torch
    from tlkit.core.model.load import load_model

    cases = sample_cases(Path(calibrate), load_model(model, engine="eager").inputs)
    return cases[::2], cases[1::2] or cases


@dataclass
class Watcher:
    """Is shown each operation of a run, and keeps the range of what it gives."""

    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __call__(self, operation: Operation, values: Callable[[], Mapping[str, Any]]) -> bool:
        """Note the ranges; never stop the run."""
        if operation.type != "const" and not operation.type.startswith("constexpr"):
            for name, array in values().items():
                self.add(name, array)
        return False

    def add(self, name: str, array: Any) -> None:
        """Widen a value's range by what it was once."""
        if isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.size:
            low, high = float(array.min()), float(array.max())
            before = self.ranges.get(name, (low, high))
            self.ranges[name] = (min(low, before[0]), max(high, before[1]))


def measured_ranges(package: Path, cases: Sequence[Case]) -> Ranges:
    """Run a package on each case; return the ranges of all its values, of finite ones that f16 holds.

    Values inside the blocks of loops and conditions have none. Imports torch.
    """
    from tlkit.core.judge.sides import package_values  # late: these import torch
    from tlkit.core.model.load import load_model
    from tlkit.engines.torch.engine import TorchEngine

    model, watcher = load_model(package, engine="eager"), Watcher()
    engine = TorchEngine(model.function())
    for case in cases:
        arrays = model.arrays(package_values(model, case))
        for name, array in arrays.items():
            watcher.add(name, np.asarray(array))
        engine.watch(arrays, watcher)
    found = _joined(model.function(), watcher.ranges)
    return {name: pair for name, pair in found.items() if max(map(abs, pair)) <= _LARGEST}


def _joined(function: Function, ranges: Ranges) -> Ranges:
    """Return the ranges with one for all that a concat joins and for what it gives: integers are joined as they are."""
    found = dict(ranges)
    groups: list[set[str]] = []
    for operation in function.block.operations:
        if operation.type == "concat":
            given = (item.name for item in operation.inputs.get("values", ()) if isinstance(item, Ref))
            names = {*given, *(item.name for item in operation.outputs)}
            touching = [group for group in groups if group & names]
            groups = [group for group in groups if not group & names] + [names.union(*touching)]
    for group in groups:
        pairs = [ranges[name] for name in group if name in ranges]
        for name in group & ranges.keys():
            found[name] = (min(low for low, _ in pairs), max(high for _, high in pairs))
    return found


def quantized(model: Any, tools: Any, ranges: Ranges, skip: Sequence[str]) -> tuple[Any, int]:
    """Return coremltools' model with integers around its operations, and how many operations those are.

    ``skip`` are patterns of names or types of operations to leave as they are; what has no range stays, too. Raises
    ConversionError where coremltools fails, UsageError where nothing is left.
    """
    from coremltools.converters.mil.frontend.milproto.load import load as load_program
    from coremltools.models.utils import _apply_graph_pass  # what linear_quantize_activations calls
    from coremltools.optimize.coreml import _post_training_quantization as theirs

    config = tools.OptimizationConfig(global_config=tools.OpLinearQuantizerConfig(mode="linear_symmetric"))
    taken = 0
    try:
        program = _apply_graph_pass(model, (), IOS17, True, load_program, True)
        for operation in (item for function in program.functions.values() for item in _walk(function)):
            names = (operation.name, operation.op_type)
            left = any(fnmatchcase(name, pattern) for name in names for pattern in skip)
            if operation.op_type in TYPES and not left and all(item.name in ranges for item in _values(operation)):
                taken += 1
            else:
                config.set_op_name(operation.name, None)
        if not taken:
            raise UsageError(
                f"no operation takes integers: of {', '.join(TYPES)} none has ranges and is not skipped",
                "leave --activations out",
            )
        stats = {name: {"rmin": low, "rmax": high} for name, (low, high) in ranges.items()}
        before = theirs._get_activation_calibration_stats
        theirs._get_activation_calibration_stats = lambda *_: stats
        try:
            return theirs.linear_quantize_activations(model, config, []), taken
        finally:
            theirs._get_activation_calibration_stats = before
    except UsageError:
        raise
    except Exception as error:
        said = f"coremltools cannot quantize its activations: {reason(error)}"
        raise ConversionError(said, "leave an operation out with --skip, or leave --activations out") from error


def _walk(block: Any) -> Any:
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _walk(inner)


def _values(operation: Any) -> list[Any]:
    """The values that would be quantized: what an operation takes that is not constant, and what it gives."""
    given = [operation.inputs[name] for name in ("x", "y") if name in operation.inputs]
    given = [item for item in given if item is not None and (item.op is None or item.op.op_type != "const")]
    return [*given, *operation.outputs]


def compared(original: Path, made: Path, cases: Sequence[Case], limits: Tolerance) -> Verification:
    """Compare the outputs of two packages on ``cases``: drawn values may lie outside the ranges."""
    from tlkit.core.judge.sides import package_values  # late: these import torch
    from tlkit.core.model.load import load_model

    old, new = (load_model(path, engine="eager") for path in (original, made))

    def run(model: Any, case: Case) -> Mapping[str, Any]:
        found: Mapping[str, Any] = model.predict(package_values(model, case), model.make_state() if states else None)
        return found

    states = bool(old.info.states)
    trials = [Trial(case.name, partial(run, old, case), partial(run, new, case)) for case in cases]
    return compare(trials, limits, named=lambda text: text.replace(str(made), made.name))
