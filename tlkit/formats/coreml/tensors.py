"""The weights of a Core ML model as tensors: blobs are mapped in place, compressed ones expanded on request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.errors import LoadError
from tlkit.formats.base.tensors import FormatName, TensorEntry
from tlkit.formats.coreml import legacy
from tlkit.formats.coreml.espresso.weights import EspressoTensor, EspressoWeights
from tlkit.formats.coreml.mlmodelc import CompiledPackage
from tlkit.formats.coreml.package import Package, blamed_on
from tlkit.formats.coreml.weights import Weight, program_weights
from tlkit.mil.program import BlobRef, Operation, TensorType, Value, walk
from tlkit.mil.types import DType
from tlkit.types import LeftOut

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHAIN = 8  # constexpr ops feed one another at most twice; a damaged program may name itself
_TYPES = {"float32": DType.FP32, "float16": DType.FP16, "int8": DType.INT8, "uint8": DType.UINT8}
_DECODED = {
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign.upper() or 'I'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class CoreMLTensors:
    """The weights of an opened Core ML model. A name that several functions use gets ``#2`` and so on appended."""

    format: FormatName = "CoreML"
    shards: Sequence[Path] = ()

    def __init__(self, package: Package, keep: Any = None) -> None:
        self.package = package
        self._keep = keep  # what the package's files live as long as: the archive they were unpacked from
        self.path: Path = package.root
        self.notes: Sequence[str] = ()
        self.left_out: Sequence[LeftOut] = package.left_out
        self.metadata: Mapping[str, Any] = dict(package.model.description.metadata.userDefined)
        self._rows: dict[str, tuple[Weight, Any]] = {}
        self._stage_of: dict[str, CoreMLTensors] = {}  # the stage of a pipeline that each weight is from
        seen: Counter[str] = Counter()
        entries = []
        with blamed_on(package.file):
            for leaf in package.leaves():
                stage = self if leaf is package else CoreMLTensors(leaf)
                for weight, holder in stage._weights():
                    seen[weight.name] += 1
                    name = weight.name if seen[weight.name] == 1 else f"{weight.name}#{seen[weight.name]}"
                    self._rows[name] = (weight, holder)
                    self._stage_of[name] = stage
                    entries.append(stage._entry(name, weight, holder))
        self._entries = tuple(entries)

    def carried(self) -> Mapping[str, tuple[str, Any]]:
        """Return the texts of the description: author, license, the user's own entries, ..."""
        said = self.package.model.description.metadata
        named = {
            "author": said.author,
            "description": said.shortDescription,
            "license": said.license,
            "version": said.versionString,
        }
        return {key: ("str", value) for key, value in {**named, **said.userDefined}.items() if value}

    def entries(self) -> Sequence[TensorEntry]:
        """Return the weights; a compressed one has its stored type (``PAL4``) and its expanded shape."""
        return self._entries

    def raw(self, entry: TensorEntry) -> memoryview:
        """Return the stored bytes of an uncompressed weight; LoadError for a compressed one, which has
        :meth:`parts`."""
        _, holder = self._rows[entry.name]
        if isinstance(holder, Value):
            if isinstance(holder.data, BlobRef):
                file = holder.data.file
                if file is None:
                    # This says which file is missing, where that is known; the next line, where it is not.
                    self.package.require_weights()
                    raise LoadError(f"{self.path}: the weights of '{entry.name}' are missing")
                return file.data(file.record(holder.data.offset))
            return memoryview(self._values(entry, holder).tobytes())
        if isinstance(holder, Operation):
            raise LoadError(f"{self.path}: '{entry.name}' is compressed ({entry.dtype}): it has parts, not one run")
        return (
            self._blobs(entry).raw(holder) if isinstance(holder, EspressoTensor) else memoryview(legacy.stored(holder))
        )

    def parts(self, entry: TensorEntry) -> Mapping[str, Value]:
        """Return a compressed weight's parts by the names of its op's inputs: indices, lut, scale, mask …

        Where one such op feeds another, the parts of the first have both names: ``nonzero_data.lut``.
        """
        _, holder = self._rows[entry.name]
        if isinstance(holder, Operation):
            return self._stage_of[entry.name]._parts(holder)
        if isinstance(holder, Value):
            return {"data": holder}
        arrays = self._blobs(entry).parts(holder) if isinstance(holder, EspressoTensor) else legacy.parts(holder)
        return {key: Value(TensorType(_TYPES[a.dtype.name], a.shape), a.tobytes()) for key, a in arrays.items()}

    def _parts(self, op: Operation, depth: int = 0) -> dict[str, Value]:
        found = {key: value for key, value in op.attributes.items() if key not in ("name",)}
        for key, arguments in op.inputs.items():
            for argument in arguments:
                value = argument if isinstance(argument, Value) else self._constants.get(argument.name)
                maker = None if isinstance(argument, Value) else self._makers.get(argument.name)
                if value is not None:
                    found[key] = value
                elif maker is not None and depth < _CHAIN:
                    found |= {f"{key}.{inner}": part for inner, part in self._parts(maker, depth + 1).items()}
        return found

    def is_compressed(self, entry: TensorEntry) -> bool:
        """Whether a weight's values must be computed from what is stored."""
        _, holder = self._rows[entry.name]
        return isinstance(holder, Operation) or entry.dtype.startswith(("PAL", "INT"))

    def decoded_type(self, entry: TensorEntry) -> str:
        """Return the type, by SafeTensors' name, of what :meth:`array` gives."""
        _, holder = self._rows[entry.name]
        if isinstance(holder, EspressoTensor) and not holder.scale:
            return holder.dtype
        kind = holder.outputs[0].type if isinstance(holder, Operation) else getattr(holder, "type", None)
        if not isinstance(kind, TensorType):
            return "F16" if entry.dtype == "F16" else "F32"
        return _DECODED.get(kind.dtype.numpy_name or kind.dtype.mil, kind.dtype.mil.upper())

    def release(self, entry: TensorEntry, nbytes: int) -> None:
        """Release the mapped pages of the weight files, so that reading all weights needs little memory."""
        _, holder = self._rows[entry.name]
        if isinstance(holder, EspressoTensor):
            self._blobs(entry).release()
        for value in self.parts(entry).values() if isinstance(holder, Value | Operation) else ():
            if isinstance(value.data, BlobRef) and value.data.file is not None:
                value.data.file.release()

    def decode(self, entry: TensorEntry, raw: memoryview) -> NDArray[Any]:
        """Return the values that stored bytes hold."""
        from tlkit.formats.base.arrays import decode

        return decode(entry, raw)

    def array(self, entry: TensorEntry) -> NDArray[Any]:
        """Return the values; compressed weights are expanded, which needs torch. LoadError for a damaged weight."""
        _, holder = self._rows[entry.name]
        if isinstance(holder, Value):
            if isinstance(holder.data, BlobRef) and holder.data.file is None:
                self.package.require_weights()
            return self._values(entry, holder)
        if isinstance(holder, Operation):
            return self._stage_of[entry.name]._expand(holder)
        return self._blobs(entry).values(holder) if isinstance(holder, EspressoTensor) else legacy.values(holder)

    def _blobs(self, entry: TensorEntry) -> EspressoWeights:
        """Return the weights of the Espresso network that ``entry`` is from; LoadError where its file is missing."""
        package = self._stage_of[entry.name].package
        package.require_weights()
        assert isinstance(package, CompiledPackage) and package.espresso
        return package.espresso

    def _values(self, entry: TensorEntry, value: Value) -> NDArray[Any]:
        try:
            return value.numpy()
        except LoadError as error:
            raise LoadError(f"{self.path}: '{entry.name}': {error.message}", error.hint) from None

    def _weights(self) -> Iterator[tuple[Weight, Any]]:
        """Yield each weight and its holder: a constant, the op that expands it, a WeightParams message or a blob."""
        program = self.package.program
        if program is None:
            yield from self.package.held_weights()
            return
        for weight in program_weights(program):
            yield weight, self._holders.get((weight.name, weight.file, weight.offset)) or self._holders[weight.name]

    @cached_property
    def _operations(self) -> list[Operation]:
        program = self.package.program
        functions = program.functions.values() if program else ()
        return [op for function in functions for op in walk(function.block.operations) if op.outputs]

    @cached_property
    def _holders(self) -> dict[Any, Value | Operation]:
        """Return each weight's holders by name and place; a name used by several functions has several places."""
        found: dict[Any, Value | Operation] = {}
        for op in self._operations:
            name = op.outputs[0].name
            if op.type.startswith("constexpr_"):
                found.setdefault(name, op)
                for part in self._leaves(op):
                    if isinstance(part.data, BlobRef):
                        found.setdefault((name, part.data.file_name, part.data.offset), op)
                continue
            for key, value in _values(op):
                if key == "name":
                    continue
                title = name if op.type == "const" else f"{name}.{key}"
                if isinstance(value.data, BlobRef):
                    found.setdefault((title, value.data.file_name, value.data.offset), value)
                found.setdefault(title, value)
        return found

    @cached_property
    def _makers(self) -> dict[str, Operation]:
        # Reversed, so that of equal names in several functions the first counts.
        return {out.name: op for op in reversed(self._operations) for out in op.outputs}

    @cached_property
    def _constants(self) -> dict[str, Value]:
        return {name: op.attributes["val"] for name, op in self._makers.items() if "val" in op.attributes}

    def _leaves(self, op: Operation, depth: int = 0) -> Iterator[Value]:
        yield from op.attributes.values()
        for arguments in op.inputs.values():
            for argument in arguments:
                if isinstance(argument, Value):
                    yield argument
                elif argument.name in self._makers and depth < _CHAIN:
                    yield from self._leaves(self._makers[argument.name], depth + 1)

    def _expand(self, op: Operation) -> NDArray[Any]:
        """Run the op, with the ops that feed it."""
        from tlkit.mil.lower.constants import decompress  # late: it imports torch

        self.package.require_weights()
        program = self.package.program
        opset = next(iter(program.functions.values())).opset if program else ""
        with blamed_on(self.package.file):
            return decompress(op, self._makers, opset).numpy()

    def _entry(self, name: str, weight: Weight, holder: Any) -> TensorEntry:
        file = self.package.file
        offset = weight.offset
        if weight.file:
            try:
                file = self.package.blob_path(weight.file)
            except LoadError:
                offset = None
        if isinstance(holder, Value) and isinstance(holder.data, BlobRef) and holder.data.file is not None:
            try:
                offset = holder.data.file.record(holder.data.offset).offset
            except LoadError:
                offset = None
        elif isinstance(holder, Operation):
            offset = None
        return TensorEntry(name, weight.dtype, weight.shape, weight.bytes, str(file), offset)


def _values(op: Operation) -> Iterator[tuple[str, Value]]:
    yield from op.attributes.items()
    for key, arguments in op.inputs.items():
        yield from ((key, argument) for argument in arguments if isinstance(argument, Value))
