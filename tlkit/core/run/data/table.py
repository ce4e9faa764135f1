"""Outputs of many inferences as the rows of a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.core.run.data.columns import arrays_of, differs
from tlkit.core.run.data.parquet import pyarrow

_GROUP = 32 << 20  # bytes of outputs in a row group
_MOST = 65536  # rows in a row group


class ParquetWriter:
    """A row per sample: ``file`` (its name) and a column per output, Arrow's tensors of one shape (a list of numbers
    to who does not know them), texts, or numbers of one element.

    The labels of a classifier's probabilities are in the schema's metadata, as JSON under ``NAME.labels``.
    """

    def __init__(self, path: Path) -> None:
        self._arrow, self._path = pyarrow(), path
        self._file: Any = None
        self._schema: Any = None
        self._waiting: dict[str, list[Any]] = {}
        self._shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._bytes = 0

    def add(self, name: str, outputs: Mapping[str, Any]) -> None:
        """Append a sample's outputs; UsageError where they do not fit those of the first."""
        arrays, texts, labels = arrays_of(outputs)
        if self._file is None:
            self._open(arrays, texts, labels)
        self._waiting["file"].append(name)
        for key, text in texts.items():
            self._waiting[key].append(text)
        for key, array in arrays.items():
            kind = (array.dtype.str, array.shape)
            if kind != self._shapes.get(key, kind):
                raise differs(key, array.shape, self._shapes[key][1])
            self._waiting[key].append(array)
            self._bytes += array.nbytes
        if self._bytes >= _GROUP or len(self._waiting["file"]) >= _MOST:
            self._write()

    def _open(self, arrays: Mapping[str, Any], texts: Mapping[str, str], labels: Mapping[str, Any]) -> None:
        arrow = self._arrow
        fields = [arrow.field("file", arrow.string()), *(arrow.field(key, arrow.string()) for key in texts)]
        for key, array in arrays.items():
            self._shapes[key] = (array.dtype.str, array.shape)
            kind = arrow.from_numpy_dtype(array.dtype)
            fields.append(arrow.field(key, arrow.fixed_shape_tensor(kind, array.shape) if array.shape else kind))
        self._schema = arrow.schema(fields, {key: json.dumps(value) for key, value in labels.items()})
        self._waiting = {field.name: [] for field in fields}
        # A dictionary of floats is as large as the floats, and costs more than to write them.
        self._file = arrow.parquet.ParquetWriter(self._path, self._schema, use_dictionary=["file", *texts])

    def _write(self) -> None:
        columns = [self._column(field, self._waiting[field.name]) for field in self._schema]
        self._file.write_table(self._arrow.Table.from_arrays(columns, schema=self._schema))
        self._waiting = {name: [] for name in self._waiting}
        self._bytes = 0

    def _column(self, field: Any, values: list[Any]) -> Any:
        arrow = self._arrow
        if field.name not in self._shapes:
            return arrow.array(values, arrow.string())
        flat = arrow.array(np.stack(values).reshape(-1))
        if not self._shapes[field.name][1]:
            return flat
        storage = arrow.FixedSizeListArray.from_arrays(flat, values[0].size)
        return arrow.ExtensionArray.from_storage(field.type, storage)

    def close(self) -> None:
        """Write what is left."""
        if self._file is None:
            return
        if self._waiting["file"]:
            self._write()
        self._file.close()
