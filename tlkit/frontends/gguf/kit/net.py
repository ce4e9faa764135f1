"""The program of a language model as it is made: operations by short names, weights by GGUF's names.

Values are :class:`~tlkit.frontends.network.kit.blob.Blob`; every shape is fixed. Rows of a matrix are outputs, as in
GGUF, so that ``linear`` takes weights as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tlkit.errors import LoadError
from tlkit.frontends.gguf.kit.block_types import BlockType
from tlkit.frontends.gguf.kit.blocks import BlockPart, Part, Way, of_blocks, way_of_tensor
from tlkit.frontends.gguf.kit.family import Family
from tlkit.frontends.gguf.kit.packaged import Laid, PackagedTensor
from tlkit.frontends.gguf.kit.rounding import ChannelPart, HalfWeight, Kind, RoundedPart, Rounding, stored_type
from tlkit.frontends.gguf.kit.source import LanguageSource, StoredTensor
from tlkit.frontends.network.kit.blob import Blob
from tlkit.frontends.network.kit.graph import Graph
from tlkit.mil.blob import Deferred
from tlkit.mil.program import TensorType, Value
from tlkit.mil.types import DType

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class DecodedWeight(Deferred):
    """A stored tensor's values, decoded when they are needed, as ``dtype`` (f32, or f16: rounded once)."""

    tensor: StoredTensor
    dtype: DType

    @property
    def stored(self) -> int:
        """The bytes that the file stores of it."""
        return self.tensor.stored

    def whole(self) -> memoryview:
        """Return the values' bytes, in memory of their own."""
        with np.errstate(over="ignore"):  # what f16 cannot hold becomes infinite, and is found when it is run
            made = np.require(self.tensor.array(), self.dtype.numpy_like, ["C", "W"])
        return made.data.cast("B")

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the values in pieces of some megabytes."""
        for rows in self.tensor.pieces():
            with np.errstate(over="ignore"):
                yield np.ascontiguousarray(rows, self.dtype.numpy_like).data.cast("B")


@dataclass(frozen=True, slots=True)
class ArrayData(Deferred):
    """An array's bytes, which are to lie in a package's weight file."""

    data: bytes

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield them."""
        yield self.data


_INLINE = 9
"""Elements of a constant of floats that lies in the program, as in what coremltools writes: Core ML refuses larger
ones of f16 there."""
_WRITTEN: dict[str, dict[str, Any]] = {"gather": {"batch_dims": 0, "validate_indices": False}}


class Net:
    """One function's body. ``dtype`` is what it computes in: f32, or f16 for packages."""

    def __init__(
        self,
        source: LanguageSource,
        family: Family,
        dtype: DType = DType.FP32,
        compressed: bool = False,
        nested: bool = False,
        rounding: Rounding | None = None,
    ) -> None:
        """``compressed`` keeps weights in the file's blocks where that is exact, ``nested`` with one inside another;
        ``rounding`` says what is not kept exactly."""
        self.compressed, self.nested, self.rounding = compressed, nested, rounding
        self.source = source
        self.family = family
        self.dtype = dtype
        self.taken: set[str] = set()
        self.graph = Graph(self.taken)
        self._weights: dict[tuple[str, bool], Blob] = {}
        self._used: set[str] = set()

    def title(self, text: str) -> None:
        """Name what follows after ``text``."""
        self.graph.title = text

    def op(self, kind: str, shape: Sequence[int | None], /, *, out: DType | None = None, **given: Any) -> Blob:
        """Add an operation with one output of ``shape``; ``out`` is its type where that is not the net's own.

        What MIL may leave out and Core ML's runtime asks for is written out."""
        given = _WRITTEN.get(kind, {}) | given
        inputs: dict[str, Any] = {
            key: self.number(value) if isinstance(value, float) else value for key, value in given.items()
        }
        return self.graph.op(kind, tuple(shape), out=out or self.dtype, **inputs)

    def number(self, value: float) -> Value:
        """Return a scalar of the net's type."""
        return Value(TensorType(self.dtype), (value,))

    def constant(self, hint: str, values: NDArray[Any], dtype: DType | None = None) -> Blob:
        """Return an array as a constant; floats become the net's type."""
        kind = dtype or (self.dtype if values.dtype.kind == "f" else DType.INT32)
        stored = values.astype(kind.numpy_like)
        apart = values.dtype.kind == "f" and values.size > _INLINE
        data = ArrayData(stored.tobytes()) if apart else stored.tobytes()
        return self.graph.tensor(Value(TensorType(kind, stored.shape), data), hint)

    def has(self, name: str) -> bool:
        """Whether the model has a tensor."""
        return name in self.source.tensors

    def is_biased(self, name: str) -> bool:
        """Whether a linear layer has a bias. In families that have one a bias that is not there is an error, unless no
        layer has any: Qwen's may be made without."""
        short = name.rpartition(".")[2]
        others = (other for other in self.source.tensors if other.endswith(f".{short}.bias"))
        return self.has(f"{name}.bias") or (short in self.family.biased and any(others))

    def weight(self, tensor: StoredTensor, *, exact: bool = False) -> Blob:
        """Return a stored tensor as a constant; ``exact`` keeps f32 in an f16 net."""
        key = (f"{tensor.name} {tensor.changes}", exact)
        self._used.add(tensor.name)
        if key not in self._weights:
            title, self.graph.title = self.graph.title, tensor.name.replace(".", "_")
            self._weights[key] = self._made(tensor, DType.FP32 if exact else self.dtype)
            self.graph.title = title
        return self._weights[key]

    def _made(self, tensor: StoredTensor, dtype: DType) -> Blob:
        """Return a stored tensor in the form that is wanted."""
        if isinstance(tensor, PackagedTensor):
            return self._laid(tensor.laid)
        kind = self.rounding.kind(tensor) if self.rounding is not None else "keep"
        if self.rounding is not None and kind in ("int8", "int4-channel"):
            return self._by_channel(tensor, "int8" if kind == "int8" else "int4", dtype, self.rounding)
        if self.rounding is not None and kind == "f16":
            return self._half(tensor, dtype, HalfWeight(tensor, self.rounding))
        way = way_of_tensor(tensor, dtype, nested=self.nested) if self.compressed else None
        blocks = of_blocks(tensor) if self.compressed else None
        if way is not None and blocks is not None:
            return self._in_blocks(tensor, blocks, way, dtype)
        if self.rounding is not None and blocks is not None:
            return self._in_rounded(tensor, blocks, dtype, self.rounding)
        if self.compressed and dtype is DType.FP32 and len(tensor.shape) > 1 and stored_type(tensor) == "F16":
            return self._half(tensor, dtype, DecodedWeight(tensor, DType.FP16))
        return self._dense(Value(TensorType(dtype, tensor.shape), DecodedWeight(tensor, dtype)))

    def _laid(self, item: Laid | Value) -> Blob:
        """Return a weight of a package by the operations that it has there."""
        if isinstance(item, Value):
            return self._dense(item)
        inputs = {name: self._laid(part) if isinstance(part, Laid) else part for name, part in item.inputs.items()}
        return self.op(item.type, item.shape, out=item.dtype, **inputs)

    def _dense(self, value: Value) -> Blob:
        title, self.graph.title = self.graph.title, ""
        made = self.graph.tensor(value, title)
        self.graph.title = title
        return made

    def _half(self, tensor: StoredTensor, dtype: DType, values: Deferred) -> Blob:
        """Return values that are stored as f16; in an f32 program they become f32 when it is loaded."""
        value = Value(TensorType(DType.FP16, tensor.shape), values)
        if dtype is DType.FP16:
            return self._dense(value)
        return self.op("constexpr_cast", tensor.shape, out=dtype, source_val=value, output_dtype="fp32")

    def _scaled(self, data: Value | Blob, dtype: DType, shape: Sequence[int], **given: Value | None) -> Blob:
        return self.op("constexpr_blockwise_shift_scale", shape, out=dtype, data=data, **given)

    def _in_blocks(self, tensor: StoredTensor, blocks: BlockType, way: Way, dtype: DType) -> Blob:
        """Return a tensor as compressed constants: scale * code, a second one that takes the minimum away, and a last
        one that rounds to f16."""
        shape = tensor.shape
        narrow = (*shape[:-1], shape[-1] // blocks.size)
        inner = DType.FP32 if way == "cast" else dtype

        def part(which: Part, kind: DType, wide: Sequence[int]) -> Value:
            return Value(TensorType(kind, tuple(wide)), BlockPart(tensor, which, kind))

        made = self._scaled(part("codes", blocks.codes, shape), inner, shape, scale=part("scales", inner, narrow))
        if blocks.minima is not None:
            given = {"scale": part("ones", inner, narrow), "offset": part("minima", inner, narrow)}
            made = self._scaled(made, inner, shape, **given)
        if way == "cast":
            one = np.ones([1] * len(shape), np.float16)
            made = self._scaled(made, dtype, shape, scale=Value(TensorType(dtype, one.shape), one.tobytes()))
        return made

    def _in_rounded(self, tensor: StoredTensor, blocks: BlockType, dtype: DType, rounding: Rounding) -> Blob:
        """Return a tensor's codes under scales and offsets that are rounded to the program's type."""
        shape = tensor.shape
        narrow = TensorType(dtype, (*shape[:-1], shape[-1] // blocks.size))
        codes = Value(TensorType(blocks.codes, shape), RoundedPart(tensor, blocks, "codes", dtype, rounding))
        scales = Value(narrow, RoundedPart(tensor, blocks, "scales", dtype, rounding))
        offsets = Value(narrow, RoundedPart(tensor, blocks, "offsets", dtype, rounding))
        return self._scaled(codes, dtype, shape, scale=scales, offset=offsets if blocks.minima is not None else None)

    def _by_channel(self, tensor: StoredTensor, kind: Kind, dtype: DType, rounding: Rounding) -> Blob:
        """Return a tensor as codes with one scale per output channel."""
        shape, stored = tensor.shape, DType.INT4 if kind == "int4" else DType.INT8
        codes = Value(TensorType(stored, shape), ChannelPart(tensor, kind, "codes", dtype, rounding))
        wide = TensorType(dtype, (*shape[:-1], 1))
        return self._scaled(
            codes, dtype, shape, scale=Value(wide, ChannelPart(tensor, kind, "scales", dtype, rounding))
        )

    def use(self, name: str) -> None:
        """Remember that a tensor has its place, though not in the program."""
        self._used.add(name)

    def check_used(self) -> None:
        """LoadError where the model has tensors that nothing used: it is not what the architecture's name says."""
        left = [name for name in self.source.tensors if name not in self._used and not self.family.ignores(name)]
        if left:
            said = f"{self.source.path}: {len(left)} of its tensors have no place in {self.family.name}: {left[0][:80]}"
            raise LoadError(said, "tlkit does not know this variant: run the model with llama.cpp")

    def linear(self, x: Blob, name: str, rows: int, columns: int) -> Blob:
        """Return x [T, columns] times the weight ``name`` [rows, columns], plus its bias where there is one."""
        weight = self.source.tensor(f"{name}.weight", (rows, columns))
        bias = self.source.tensor(f"{name}.bias", (rows,)) if self.is_biased(name) else None
        return self.product(x, weight, bias)

    def product(self, x: Blob, weight: StoredTensor, bias: StoredTensor | None = None) -> Blob:
        """Return x [T, in] times a weight [out, in], plus a bias."""
        shape = (*x.shape[:-1], weight.shape[0])
        added = self.weight(bias) if bias is not None else None
        return self.op("linear", shape, x=x, weight=self.weight(weight), bias=added)

    def add(self, x: Blob, y: Blob | float) -> Blob:
        """x + y, of x's shape."""
        return self.op("add", x.shape, x=x, y=y)

    def multiply(self, x: Blob, y: Blob | float) -> Blob:
        """x * y, of x's shape."""
        return self.op("mul", x.shape, x=x, y=y)

    def reshape(self, x: Blob, *shape: int | None) -> Blob:
        """The elements in another shape, of which one length may be open."""
        if x.shape == shape and None not in shape:
            return x
        return self.op("reshape", shape, x=x, shape=[-1 if length is None else length for length in shape])

    def transpose(self, x: Blob, *axes: int) -> Blob:
        """The axes in another order."""
        return self.op("transpose", [x.shape[axis] for axis in axes], x=x, perm=list(axes))

    def slice(self, x: Blob, axis: int, begin: int, end: int) -> Blob:
        """The elements from ``begin`` to ``end`` along an axis."""
        shape = list(x.shape)
        if (begin, end) == (0, shape[axis]):
            return x
        first, last = [0] * len(shape), [length or 0 for length in shape]
        first[axis], last[axis] = begin, end
        shape[axis] = end - begin
        # The other axes are whole: a GPU was seen to crash where one of length 1 is cut, if only from 0 to 1.
        whole = [place != axis for place in range(len(shape))]
        return self.op("slice_by_index", shape, x=x, begin=first, end=last, begin_mask=whole, end_mask=whole)

    def concat(self, values: Sequence[Blob], axis: int) -> Blob:
        """Values one after another along an axis."""
        shape = list(values[0].shape)
        lengths = [value.shape[axis] for value in values]
        shape[axis] = None if None in lengths else sum(length or 0 for length in lengths)
        return self.op("concat", shape, values=list(values), axis=axis, interleave=False)

    def capped(self, x: Blob, cap: float) -> Blob:
        """cap * tanh(x / cap); x where the cap is 0."""
        if not cap:
            return x
        return self.multiply(self.op("tanh", x.shape, x=self.multiply(x, 1 / cap)), cap)
