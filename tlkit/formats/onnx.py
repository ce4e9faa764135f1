"""Describe ONNX models: graph, ports and initializers, read from the protobuf's wire format.

Field numbers are those of ONNX's ``onnx.proto3``. Weights are skipped, and mapped on request.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.errors import LoadError
from tlkit.formats.base import sniff
from tlkit.formats.base.dtypes import PLAIN
from tlkit.formats.base.ledger import Ledger
from tlkit.formats.base.mapped_tensors import MappedTensors
from tlkit.formats.base.tensors import FormatName, TensorEntry
from tlkit.formats.files.mapped import Mapped
from tlkit.formats.files.paths import inside
from tlkit.formats.files.wire import Field, WireError, fields, varints
from tlkit.types import LeftOut

if TYPE_CHECKING:
    from numpy.typing import NDArray

TYPES = {
    1: "F32",
    2: "U8",
    3: "I8",
    4: "U16",
    5: "I16",
    6: "I32",
    7: "I64",
    8: "STRING",
    9: "BOOL",
    10: "F16",
    11: "F64",
    12: "U32",
    13: "U64",
    14: "C64",
    15: "C128",
    16: "BF16",
    17: "F8_E4M3",
    18: "F8_E4M3FNUZ",
    19: "F8_E5M2",
    20: "F8_E5M2FNUZ",
    21: "U4",
    22: "I4",
    23: "F4",
    24: "F8_E8M0",
    25: "U2",
    26: "I2",
}
_BITS = {"U4": 4, "I4": 4, "U2": 2, "I2": 2, "F4": 4}
_NUMBERS = (5, 7, 11)  # int32_data, int64_data, uint64_data: numbers of any width, of as many bytes as each needs
_IN_PLACE = {4: "F32", 10: "F64"}  # float_data and double_data, whose packed form is the raw one
_CONSTANTS = {"value_float": (2, 1), "value_floats": (7, 1), "value_int": (3, 7), "value_ints": (8, 7)}
"""Attributes of a Constant node by name: the field that holds the values, and their type."""
_FIELDS = 1_000_000  # a graph of 50,000 nodes has some 600,000
_RANK = 64
_ALIGNED = 1 << 16  # bytes: writers align external weights to pages, on Windows to 64 KiB
_NESTED = 16  # graphs in the attributes of nodes: If, Loop, Scan


class OnnxFile(MappedTensors):
    """A described ONNX model. ``inputs`` and ``outputs`` are (name, type, shape), a named dimension as text."""

    format: FormatName = "ONNX"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.opsets: dict[str, int] = {}
        self.producer = ""
        self.ir_version = 0
        self.operations: Counter[str] = Counter()
        self.inputs: list[tuple[str, str, tuple[int | str, ...]]] = []
        self.outputs: list[tuple[str, str, tuple[int | str, ...]]] = []
        self._file = Mapped(path)
        self._files[str(path)] = self._file
        self._data = self._file.view
        self._seen = 0
        self._found: dict[str, TensorEntry] = {}
        self._typed: dict[str, list[Field]] = {}
        self._left: list[LeftOut] = []
        self._absent: dict[str, str] = {}  # why files of external weights cannot be read
        self._role = ""
        try:
            self._model()
        except WireError as error:
            raise self._file.broken(error.message) from None
        self._entries = tuple(self._found.values())
        self.left_out = (*self._left, *self._beside())
        # Before IR version 4 the initializers had to be listed among the inputs.
        self.inputs = [port for port in self.inputs if port[0] not in self._found]

    def _fields(self, start: int, end: int) -> Iterator[Field]:
        """Yield a message's fields and count them: each takes a microsecond, but only a few bytes of the file."""
        for found in fields(self._data, start, end):
            self._seen += 1
            if self._seen > _FIELDS:
                raise WireError(f"it has over {_FIELDS:,} fields beside its weights, more than any model")
            yield found

    def _text(self, start: int, end: int) -> str:
        return str(self._data[start:end], "utf-8", "replace")

    def _model(self) -> None:
        names = {2: "", 3: ""}
        # ModelProto: 1 ir_version, 2 and 3 producer, 6 doc, 7 graph, 8 opset_import, 14 metadata_props,
        # 20 training_info, 25 functions.
        for number, wire, start, end in self._fields(0, self._file.size):
            if number == 1 and wire == 0:
                self.ir_version = start
            elif number in names and wire == 2:
                names[number] = self._text(start, end)
            elif number == 6 and wire == 2 and end - start < 1 << 20:
                self.metadata["doc"] = self._text(start, end)
            elif number == 7 and wire == 2:
                self._graph(start, end, 0)
            elif number == 20 and wire == 2:
                self._training(start, end)
            elif number == 25 and wire == 2:  # a function: its nodes may hold constants
                for inner, inner_wire, first, last in self._fields(start, end):
                    if inner == 7 and inner_wire == 2:
                        self._node(first, last, 1)
            elif number == 8 and wire == 2:
                domain, version = self._pair(start, end)
                self.opsets[domain or "ai.onnx"] = version if isinstance(version, int) else 0
            elif number == 14 and wire == 2:
                key, value = self._pair(start, end)
                self.metadata[key] = value
        self.producer = " ".join(name for name in names.values() if name)

    def _training(self, start: int, end: int) -> None:
        """Collect the tensors of a TrainingInfo: of the graphs that set the weights up, and that change them."""
        self._role = "training"
        for number, wire, begin, stop in self._fields(start, end):
            if number in (1, 2) and wire == 2:
                self._graph(begin, stop, 1)
        self._role = ""

    def _pair(self, start: int, end: int) -> tuple[str, Any]:
        """Return fields 1 (text) and 2 (text or number) of a message."""
        key, value = "", None
        # OperatorSetIdProto and StringStringEntryProto: a key and its value, in one form.
        for number, wire, begin, stop in self._fields(start, end):
            if number == 1 and wire == 2:
                key = self._text(begin, stop)
            elif number == 2:
                value = self._text(begin, stop) if wire == 2 else begin
        return key, value

    def _graph(self, start: int, end: int, depth: int) -> None:
        if depth > _NESTED:
            raise WireError(f"graphs nested over {_NESTED} deep")
        # GraphProto: 1 node, 2 name, 5 initializer, 11 input, 12 output, 15 sparse_initializer.
        for number, wire, begin, stop in self._fields(start, end):
            if wire != 2:
                continue
            if number == 1:
                self._node(begin, stop, depth)
            elif number == 5:
                self._initializer(begin, stop)
            elif number == 15:
                self._sparse(begin, stop)
            elif depth == 0 and number == 2:
                self.metadata["graph"] = self._text(begin, stop)
            elif depth == 0 and number in (11, 12):
                (self.inputs if number == 11 else self.outputs).append(self.port(begin, stop))

    def _node(self, start: int, end: int, depth: int) -> None:
        self._seen += 2  # what an empty one takes
        kind = domain = output = ""
        attributes = []
        # NodeProto: 2 output, 4 op_type, 5 attribute, 7 domain.
        for number, wire, begin, stop in self._fields(start, end):
            if number == 2 and wire == 2:
                output = output or self._text(begin, stop)
            elif number == 4 and wire == 2:
                kind = self._text(begin, stop)
            elif number == 7 and wire == 2:
                domain = self._text(begin, stop)
            elif number == 5 and wire == 2:
                attributes.append((begin, stop))
        self.operations[f"{domain}.{kind}" if domain not in ("", "ai.onnx") else kind] += 1
        for begin, stop in attributes:
            self._attribute(begin, stop, depth, output, kind)

    def _attribute(self, start: int, end: int, depth: int, output: str, kind: str) -> None:
        """Collect the graphs and tensors in a node's attribute, and a Constant node's numbers."""
        called, numbers = "", list[Field]()
        for number, wire, begin, stop in self._fields(start, end):
            if number in (6, 11) and wire == 2:  # an attribute's graph, or graphs
                self._graph(begin, stop, depth + 1)
            elif number in (5, 10) and wire == 2:  # its tensor, or tensors
                self._initializer(begin, stop, output or kind)
            elif number in (22, 23) and wire == 2:
                self._sparse(begin, stop, output)
            elif number == 1 and wire == 2 and kind == "Constant":
                called = self._text(begin, stop)
            elif number in (2, 3, 7, 8):  # f, i, floats, ints
                numbers.append((number, wire, begin, stop))
        if called in _CONSTANTS:
            own, dtype = _CONSTANTS[called]
            # Numbered as TensorProto's float_data (4) and int64_data (7).
            values = [(4 if dtype == 1 else 7, *field[1:]) for field in numbers if field[0] == own]
            count = sum(self._count(field, dtype) for field in values)
            shape = (count,) if called.endswith("s") else ()
            self._take(output or kind, dtype, shape, (0, 0), {}, values, end - start)

    def _count(self, field: Field, dtype: int) -> int:
        """Return how many numbers a field holds: one, or several packed."""
        _, wire, begin, stop = field
        if wire != 2:
            return 1
        return (stop - begin) // 4 if dtype == 1 else sum(1 for _ in varints(self._data, begin, stop))

    @property
    def data(self) -> memoryview:
        """The file's bytes, mapped."""
        return self._data

    def port(self, start: int, end: int) -> tuple[str, str, tuple[int | str, ...]]:
        """Return the name, type and shape of the ValueInfoProto at ``data[start:end]``."""
        name, dtype = "", ""
        shape: list[int | str] = []
        # ValueInfoProto: 1 name, 2 type.
        for number, wire, begin, stop in self._fields(start, end):
            if number == 1 and wire == 2:
                name = self._text(begin, stop)
            elif number == 2 and wire == 2:
                for kind, kind_wire, first, last in self._fields(begin, stop):
                    if kind == 1 and kind_wire == 2:  # a tensor; sequences and maps keep an empty type
                        dtype, shape = self._type(first, last)
        return name, dtype, tuple(shape)

    def _type(self, start: int, end: int) -> tuple[str, list[int | str]]:
        dtype, shape = "", []
        # TypeProto.Tensor: 1 elem_type, 2 shape.
        for number, wire, begin, stop in self._fields(start, end):
            if number == 1 and wire == 0:
                dtype = TYPES.get(begin, f"type {begin}")
            elif number == 2 and wire == 2:
                shape = [self._dim(first, last) for _, kind, first, last in self._fields(begin, stop) if kind == 2]
        return dtype, shape

    def _dim(self, start: int, end: int) -> int | str:
        # Dimension: 1 dim_value, 2 dim_param.
        for number, wire, begin, stop in self._fields(start, end):
            if number == 1 and wire == 0:
                return begin
            if number == 2 and wire == 2:
                return self._text(begin, stop)
        return "?"

    def _sparse(self, start: int, end: int, name: str = "") -> None:
        """Report a sparse tensor by name; its values, the first field, carry the name of the whole."""
        # SparseTensorProto: 1 values, a TensorProto, whose field 8 is the name.
        for number, wire, begin, stop in self._fields(start, end):
            if number == 1 and wire == 2 and not name:
                named = (field for field in self._fields(begin, stop) if field[0] == 8 and field[1] == 2)
                name = next((self._text(first, last) for _, _, first, last in named), "")
        self._left.append(LeftOut(name, "a sparse tensor; store it as a dense one", end - start))

    def _initializer(self, start: int, end: int, called: str = "") -> None:
        name, dtype, dims, place = "", 0, list[int](), (0, 0)
        external: dict[str, Any] = {}
        typed: list[Field] = []
        # TensorProto: 1 dims, 2 data_type, 8 name, 9 raw_data, 13 external_data; the others hold typed numbers.
        for number, wire, begin, stop in self._fields(start, end):
            if number == 1:
                dims += [begin] if wire == 0 else islice(varints(self._data, begin, stop), _RANK + 1)
            elif number == 2 and wire == 0:
                dtype = begin
            elif number == 8 and wire == 2:
                name = self._text(begin, stop)
            elif (number == 9 or TYPES.get(dtype) == _IN_PLACE.get(number)) and wire == 2:
                place = (begin, stop)
            elif number in (*_NUMBERS, 4, 6, 10):
                typed.append((number, wire, begin, stop))
            elif number == 13 and wire == 2:
                key, value = self._pair(begin, stop)
                external[key] = value
        if len(dims) > _RANK or any(dim >= 1 << 63 for dim in dims):
            raise WireError(f"'{name[:100]}' has a shape that is not a size")
        self._take(called or name, dtype, tuple(dims), place, external, typed, end - start)

    def _take(
        self,
        name: str,
        dtype: int,
        dims: tuple[int, ...],
        place: tuple[int, int],
        external: dict[str, Any],
        typed: list[Field],
        nbytes: int,
    ) -> None:
        """Add a tensor under a unique name; a Constant node's tensor has the name of the node's output."""
        if name in self._found:
            name = self._other_name(name)
        if TYPES.get(dtype) == "STRING":
            self._left.append(LeftOut(name, "text, not numbers", nbytes, "other"))
            return
        if typed and place == (0, 0):
            self._typed[name] = typed
        self._add(name, TYPES.get(dtype, f"type {dtype}"), dims, place, external)

    def _other_name(self, name: str) -> str:
        """Return a free name for a tensor whose name another graph (a branch of an If) uses already."""
        turn = 2
        while f"{name}#{turn}" in self._found:
            turn += 1
        said = f"several graphs have a tensor '{name[:100]}': one is named '{name[:100]}#{turn}' here"
        self.notes.append(f"{self.path}: {said}")
        return f"{name}#{turn}"

    def raw(self, entry: TensorEntry) -> memoryview:
        """Return the tensor's stored bytes; numbers in typed fields are packed as in raw data."""
        if entry.file in self._absent:
            hint = "run `git lfs pull`, or fetch the file that belongs beside the model"
            raise LoadError(f"{entry.file}: {self._absent[entry.file]}", hint)
        if entry.name not in self._typed:
            return super().raw(entry)
        from tlkit.formats.onnx_values import packed

        return packed(self._data, entry, self._typed[entry.name], _BITS.get(entry.dtype))

    def _beside(self) -> Iterator[LeftOut]:
        """Yield the bytes of files of external weights that no tensor names, except padding of zeros."""
        ledger = Ledger()
        placed = (entry for entry in self._found.values() if entry.file != str(self.path) and entry.offset is not None)
        ends: dict[str, int] = {}
        for entry in sorted(placed, key=lambda entry: (entry.file, entry.offset)):
            if entry.file in self._absent:
                continue
            file = self._files.setdefault(entry.file, Mapped(Path(entry.file)))
            start, end = entry.offset or 0, ends.get(entry.file, 0)
            ledger.enter(entry.file, file.size, file.path.name)
            ledger.claim(entry.file, start, start + entry.nbytes)
            if 0 < start - end < _ALIGNED and not bytes(file.view[end:start]).strip(b"\0"):
                ledger.claim(entry.file, end, start)
            ends[entry.file] = max(end, start + entry.nbytes)
        yield from ledger.rest("no tensor of the model names these bytes")

    def is_compressed(self, entry: TensorEntry) -> bool:
        """Whether several values share a byte, in ONNX's own packing."""
        return entry.dtype in ("U4", "I4", "U2", "I2")

    def decoded_type(self, entry: TensorEntry) -> str:
        """Return the type of what :meth:`array` gives: whole bytes for integers of 4 and 2 bits."""
        return f"{entry.dtype[0]}8" if self.is_compressed(entry) else super().decoded_type(entry)

    def array(self, entry: TensorEntry) -> NDArray[Any]:
        """Return the tensor's values."""
        from tlkit.formats.onnx_values import unpacked

        if not self.is_compressed(entry):
            return super().array(entry)
        return unpacked(self.raw(entry), entry, _BITS[entry.dtype])

    def _add(
        self, name: str, dtype: str, shape: tuple[int, ...], place: tuple[int, int], external: dict[str, Any]
    ) -> None:
        bits = _BITS.get(dtype, 8 * PLAIN.get(dtype, 0))
        size = -(-math.prod(shape) * bits // 8)
        start, end = place
        if external:
            entry = self._external(name, dtype, shape, size, external)
        else:
            inside = start if end > start and end - start == size else None
            if end > start and size and end - start != size:
                raise WireError(f"'{name[:100]}' should have {size:,} bytes and has {end - start:,}")
            entry = TensorEntry(name, dtype, shape, (end - start) or size, str(self.path), inside)
        self._found[name] = replace(entry, role=self._role) if self._role else entry

    def _external(
        self, name: str, dtype: str, shape: tuple[int, ...], size: int, external: dict[str, Any]
    ) -> TensorEntry:
        """Return the place of external weights, in a file that must lie in the model's folder."""
        target = inside(self.path.parent, self.path.parent, str(external.get("location", "")))
        numbers = [str(external.get(key, default)) for key, default in (("offset", 0), ("length", size))]
        if not all(number.isdecimal() and len(number) < 20 for number in numbers):
            raise WireError(f"'{name[:100]}' lies at no readable place in {target.name}")
        offset, length = map(int, numbers)
        if not target.is_file() or sniff.is_pointer(target):
            why = sniff.lfs_text(target) if target.is_file() else "the file of external weights is missing"
            if str(target) not in self._absent:
                self.notes.append(f"{target}: {why}")
            self._absent[str(target)] = why
        elif offset + length > target.stat().st_size or (size and length != size):
            raise Mapped(target).broken(f"'{name[:100]}' is not in it whole")
        return TensorEntry(name, dtype, shape, length, str(target), offset)
