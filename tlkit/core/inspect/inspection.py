"""The findings of ``tlkit inspect`` about one file, in order of cost: description, table, values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.core.inspect.which import which_format
from tlkit.errors import UsageError
from tlkit.formats.base.sniff import COREML
from tlkit.formats.base.tensors import TensorEntry, TensorFile
from tlkit.formats.describe import describe_tensors, find_format, open_tensors
from tlkit.formats.groups import Group, group
from tlkit.types import ModelInfo

if TYPE_CHECKING:
    from tlkit.core.compare.tensors import FileDifference
    from tlkit.core.inspect.costs import Costs
    from tlkit.core.inspect.measured import Beside
    from tlkit.core.inspect.stats import TensorStats
    from tlkit.core.inspect.totals import Totals
    from tlkit.formats.coreml.package import Package
    from tlkit.mil.risks.kit import Risk
    from tlkit.placement.predict import Prediction

_LONG = 64  # elements of an array that JSON gives by its length: a vocabulary


class Inspection(ModelInfo):
    """One model file: a :class:`~tlkit.types.ModelInfo`, and further findings.

    Tables and listings are made on request. ``stats``, ``hashes``, ``placement`` and ``difference`` are None unless
    requested.
    """

    # ModelInfo is a frozen dataclass with slots; what is added here lives in this class's own __dict__.
    def __init__(
        self,
        info: ModelInfo,
        entries: tuple[TensorEntry, ...],
        package: Package | None = None,
        opened: TensorFile | None = None,
        function: str | None = None,
        stage: int | str | None = None,
    ) -> None:
        super().__init__(**{field.name: getattr(info, field.name) for field in fields(info)})
        self.__dict__.update(entries=entries, package=package, opened=opened, function=function, stage=stage)
        self.__dict__.update(stats=None, hashes=None, placement=None, measured=None, difference=None)

    entries: tuple[TensorEntry, ...]
    """The stored tensors: name, type, shape, bytes, and where in which file."""
    package: Package | None
    """The opened Core ML model; None for other formats."""
    opened: TensorFile | None
    """The opened file of tensors; None for Core ML."""
    function: str | None
    stage: int | str | None
    stats: tuple[TensorStats, ...] | None
    """Of each tensor that was asked for: range, mean, standard deviation, zeros, NaN, infinities."""
    hashes: Mapping[str, Any] | None
    """SHA-256 by file (``files``), and one of the weights whatever file or order they are in (``weights``)."""
    measured: tuple[Beside, ...] | None
    """Core ML's own plan beside each prediction."""
    placement: tuple[Prediction, ...] | None
    """Where Core ML would run each operation, a prediction for each setting."""
    difference: FileDifference | None
    """What another file says differently."""

    @cached_property
    def source(self) -> TensorFile:
        """The tensors with their values."""
        return self.opened or open_tensors(Path(self.path), stage=self.stage)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The tensors grouped by block."""
        return group(self.entries)

    @cached_property
    def program(self) -> tuple[Mapping[str, Any], ...]:
        """The operations, constants left out, or the layers of older kinds: name, type, inputs and outputs."""
        return tuple(listed(self.package, self.function)) if self.package else ()

    @cached_property
    def risks(self) -> tuple[Risk, ...]:
        """Known problems of the model on Apple's units, most serious first."""
        if self.package is None:
            return ()
        from tlkit.core.inspect.risks import package_risks

        return package_risks(self.package, self.function, self)

    @cached_property
    def costs(self) -> Costs | None:
        """Multiply-accumulates, weights and memory of each operation; None for a file that holds no graph."""
        from tlkit.core.inspect.costs import onnx_costs, package_costs

        if self.package is not None:
            return package_costs(self.package, self.function)
        from tlkit.formats.onnx import OnnxFile

        return onnx_costs(self.opened) if isinstance(self.opened, OnnxFile) else None

    @cached_property
    def totals(self) -> Totals | None:
        """Multiply-accumulates and peak memory, of programs and ONNX; an old network's are in :attr:`costs` only."""
        if self.package is not None:
            from tlkit.core.inspect.totals import program_totals

            return program_totals(self.package, self.function)
        costs = self.costs
        if costs is None or not costs.per_op:
            return None
        from tlkit.core.inspect.totals import Totals

        peak = costs.activations.peak_bytes if costs.activations else 0
        return Totals(costs.macs, peak, costs.open or bool(costs.notes))

    @property
    def good_for(self) -> str:
        """What the file can be used for, in a sentence."""
        return which_format(self)[0]

    @property
    def conversion(self) -> str:
        """The command that converts it to the other kind of file; empty where none applies."""
        return which_format(self)[1]

    @property
    def file_metadata(self) -> dict[str, Any]:
        """The file's own metadata as plain data; a long array as its type and length."""
        return file_metadata(self.opened)

    def matching(self, pattern: str | None) -> tuple[TensorEntry, ...]:
        """Return the tensors whose names match ``pattern`` (with ``*?[]``, else any part of a name); all for None."""
        return _matching(self.entries, pattern, self.path)

    def readable(self, pattern: str | None) -> tuple[TensorEntry, ...]:
        """Return the same entries from the file that can read their values."""
        return _matching(self.source.entries(), pattern, self.path)


def examine(
    path: Path, format: str | None = None, function: str | None = None, stage: int | str | None = None
) -> Inspection:
    """Open and describe the model file at ``path``; LoadError says what is wrong with it.

    Ports are those of ``function``, of a Core ML package that has several; of the default one where none is named.
    ``stage`` is one of a pipeline's, which is then all that is described.
    """
    if find_format(path, format) in COREML:
        from tlkit.formats.coreml.describe import describe_package, weight_table
        from tlkit.formats.coreml.open import open_package

        package = open_package(path)
        package = package if stage is None else package.stage(stage)
        info = describe_package(package, function)
        rows = tuple(TensorEntry(w.name, w.dtype, w.shape, w.bytes, w.file, w.offset) for w in weight_table(package))
        return Inspection(info, rows, package, function=function, stage=stage)
    if stage is not None:
        raise UsageError(f"{path}: not a Core ML model, so it has no stages", "leave --stage out")
    if function is not None:
        raise UsageError(f"{path}: not a Core ML model, so it has no functions", "leave --function out")
    source = open_tensors(path, format)
    return Inspection(describe_tensors(source), tuple(source.entries()), opened=source)


def listed(package: Package, wanted: str | None) -> Iterator[dict[str, Any]]:
    """Yield each operation as data: name, type, inputs (by name) and outputs; constants are left out."""
    if package.program is None:
        keys = ("name", "type", "inputs", "outputs")
        yield from (dict(zip(keys, layer, strict=True)) for layer in package.layers())
        return
    from tlkit.mil.program import Ref, walk

    for name, function in package.program.functions.items():
        if wanted not in (None, name):
            continue
        for op in walk(function.block.operations):
            if op.type != "const":
                # A constant has no name.
                given = {key: [a.name if isinstance(a, Ref) else None for a in args] for key, args in op.inputs.items()}
                made = [out.name for out in op.outputs]
                yield {"function": name, "name": op.name, "type": op.type, "inputs": given, "outputs": made}


def file_metadata(source: TensorFile | None) -> dict[str, Any]:
    """Return a file's own metadata as plain data; a long array as its type and length."""
    return {key: _plain(value) for key, value in (source.metadata if source else {}).items()}


def _plain(value: Any) -> Any:
    if not hasattr(value, "type"):  # an array of GGUF's has one, and is read when it is looped over
        return value
    return [_plain(item) for item in value] if len(value) <= _LONG else {"array": value.type, "length": len(value)}


def _matching(entries: Sequence[TensorEntry], pattern: str | None, where: str) -> tuple[TensorEntry, ...]:
    if pattern is None:
        return tuple(entries)
    from fnmatch import fnmatchcase

    shape = pattern if any(mark in pattern for mark in "*?[") else f"*{pattern}*"
    found = tuple(entry for entry in entries if entry.name == pattern or fnmatchcase(entry.name, shape))
    if not found:
        raise UsageError(f"{where}: none of its {len(entries)} tensors matches '{pattern}'", "list them with --weights")
    return found
