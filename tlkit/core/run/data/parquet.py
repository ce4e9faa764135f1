"""Samples from Parquet, a row each, read by row groups: memory is that of a few rows, however many there are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.core.run.data.sample import Sample
from tlkit.errors import LoadError, UnavailableError, UsageError, reason
from tlkit.ports.images import EncodedPicture
from tlkit.ports.shapes import allows
from tlkit.types import TensorSpec

_BATCH = 32  # rows that are decoded at a time


def pyarrow() -> Any:
    """Return the module ``pyarrow``; UnavailableError names the extra where it is not there."""
    try:
        # An extra, and large.
        import pyarrow.compute
        import pyarrow.parquet  # and these are not there with the package itself
    except ImportError:
        raise UnavailableError("pyarrow is not installed, which reads .parquet", "pip install 'tlkit[data]'") from None
    return pyarrow


class ParquetSet:
    """The rows of Parquet ``files`` in ``place``, for the input ``name`` (empty: as columns are called).

    A column is numbers, lists of them (nested: an array; flat, of an array's size: that array), Arrow's tensors,
    encoded pictures (bytes, or a struct with ``bytes`` as Hugging Face writes it), or texts: of an input that takes no
    text the path of a file, relative to the Parquet file's folder. An array may lack a leading axis of 1.

    Raises UsageError where columns and inputs do not go together, LoadError for a damaged file, UnavailableError
    without pyarrow.
    """

    def __init__(self, place: Path, files: Sequence[Path], ports: Sequence[TensorSpec], name: str, column: str) -> None:
        self.place, self._files = place, files
        pyarrow()
        heads = [_opened(file) for file in files]
        try:
            self._sizes = [head.metadata.num_rows for head in heads]
            names = list(heads[0].schema_arrow.names)
            for file, head in zip(files, heads, strict=True):
                if list(head.schema_arrow.names) != names:
                    raise UsageError(f"{file}: other columns than {files[0]}", "give shards of one table")
        finally:
            for head in heads:
                head.close()
        self.count = sum(self._sizes)
        if not self.count:
            raise UsageError(f"{place}: no row in it to run on", "give a table with rows")
        self._columns = _columns(place, names, ports, name, column)
        self._ports = {spec.name: spec for spec in ports}
        self.inputs = tuple(self._columns)

    def samples(self, start: int, stop: int) -> Iterator[Sample]:
        """See :class:`~tlkit.core.run.data.sample.SampleSet`."""
        first = 0
        for file, size in zip(self._files, self._sizes, strict=True):
            if first < stop and first + size > start:
                yield from self._of(file, max(0, start - first), min(size, stop - first))
            first += size

    def _of(self, file: Path, start: int, stop: int) -> Iterator[Sample]:
        """Yield rows of one file; of a row group only what is asked for is decoded."""
        head = _opened(file)
        try:
            first = 0
            for group in range(head.metadata.num_row_groups):
                size = head.metadata.row_group(group).num_rows
                if first < stop and first + size > start:
                    yield from self._group(head, file, group, first, start, stop)
                first += size
        finally:
            head.close()

    def _group(self, head: Any, file: Path, group: int, first: int, start: int, stop: int) -> Iterator[Sample]:
        wanted = list(dict.fromkeys(self._columns.values()))
        try:
            for batch in head.iter_batches(_BATCH, row_groups=[group], columns=wanted):
                for row in range(max(0, start - first), min(len(batch), stop - first)):
                    yield self._sample(file, first + row, batch, row)
                first += len(batch)
        except OSError as error:  # as Arrow's own errors are
            raise LoadError(f"{file}: {reason(error)}", "give a sound Parquet file") from None

    def _sample(self, file: Path, number: int, batch: Any, row: int) -> Sample:
        name = f"{file.name}:{number}"
        values = {}
        for port, column in self._columns.items():
            try:
                values[port] = _value(self._ports[port], batch.column(column).slice(row, 1), file, name)
            except ValueError as error:
                message = f"{file.parent / name}: column '{column}': {reason(error)}"
                raise UsageError(message, f"give a column of values for the input '{port}'") from None
        return Sample(name, values)


def _opened(file: Path) -> Any:
    arrow = pyarrow()
    try:
        return arrow.parquet.ParquetFile(file, memory_map=True)
    except (OSError, arrow.ArrowException) as error:
        raise LoadError(f"{file}: {reason(error)}", "give a sound Parquet file") from None


def _columns(
    place: Path, names: Sequence[str], ports: Sequence[TensorSpec], name: str, column: str
) -> Mapping[str, str]:
    """Return the column of each input that is read."""
    listed = f"columns: {', '.join(names)}; inputs: {', '.join(spec.name for spec in ports)}"
    if column and column not in names:
        raise UsageError(f"{place}: there is no column '{column}'", listed)
    same = [spec.name for spec in ports if spec.name in names]
    if not name and not column and same:
        return {found: found for found in same}
    if not name and len(ports) != 1:
        raise UsageError(f"{place}: which input is it for?", f"write --input NAME={place}:COLUMN; {listed}")
    goal = name or ports[0].name
    if column or goal in names:
        return {goal: column or goal}
    if len(names) > 1:
        raise UsageError(f"{place}: which column is the input '{goal}'?", f"write {place}:COLUMN; {listed}")
    return {goal: names[0]}


def _value(spec: TensorSpec, cell: Any, file: Path, name: str) -> Any:
    """Return what a column of one row holds; ValueError where it is nothing that an input takes."""
    types = pyarrow().types
    if cell.null_count:
        raise ValueError("there is no value in this row")
    if types.is_struct(cell.type):
        fields = [cell.type.field(at).name for at in range(cell.type.num_fields)]
        if "bytes" not in fields:
            raise ValueError(f"a struct of {', '.join(fields)}, and not of bytes")
        kept = cell.field(fields.index("bytes"))
        cell = cell.field(fields.index("path")) if kept.null_count and "path" in fields else kept
        return _value(spec, cell, file, name)
    if types.is_binary(cell.type) or types.is_large_binary(cell.type):
        return EncodedPicture(str(file.parent / name), cell[0].as_py())
    if types.is_string(cell.type) or types.is_large_string(cell.type):
        text = cell[0].as_py()
        return text if spec.kind == "string" else file.parent / text
    if spec.kind in ("dictionary", "sequence"):
        found = cell[0].as_py()
        return dict(found) if types.is_map(cell.type) else found
    return _fitted(spec, _array(cell))


def _array(cell: Any) -> np.ndarray[Any, Any]:
    """Return the numbers of one row as an array of its lists' shape."""
    arrow = pyarrow()
    types = arrow.types
    shape: tuple[int, ...] = ()
    if isinstance(cell.type, arrow.BaseExtensionType):
        shape = tuple(getattr(cell.type, "shape", None) or ())
        cell = cell.storage
    sizes: list[int] = []
    while types.is_list(cell.type) or types.is_large_list(cell.type) or types.is_fixed_size_list(cell.type):
        lengths = arrow.compute.list_value_length(cell).unique().to_pylist()
        if len(lengths) > 1 or None in lengths:
            raise ValueError("lists of different lengths")
        sizes.append(lengths[0] if lengths else 0)
        cell = cell.flatten()
    if cell.null_count:
        raise ValueError("there are empty values in its lists")
    found: np.ndarray[Any, Any] = cell.to_numpy(zero_copy_only=False)
    if found.dtype.kind not in "biuf":
        raise ValueError(f"{cell.type} is not numbers")
    return found.reshape(shape or sizes)


def _fitted(spec: TensorSpec, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array in a shape that its input allows, where only a leading 1 or the shape of a flat list is missing;
    any other is told by who takes it."""
    if array.ndim and not allows(spec, array.shape):
        if allows(spec, (1, *array.shape)):
            return array[None]
        if array.ndim == 1 and spec.shape and math.prod(spec.shape) == array.size:
            return array.reshape(spec.shape)
    return array
