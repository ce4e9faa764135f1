"""The program as it is made, an operation at a time; layers are written in terms of :meth:`Graph.op`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeAlias

from tlkit.errors import LoadError
from tlkit.frontends.network.kit.blob import Blob, Shape, product
from tlkit.mil.program import Argument, NamedType, Operation, Ref, TensorType, Value
from tlkit.mil.program import Block as Body
from tlkit.mil.types import DType

Input: TypeAlias = Blob | Value | bool | int | float | str | Sequence[Any]
"""What an operation is given: a blob, a constant, a Python scalar or list of them, or a list of blobs."""

_WIDEST = 1 << 31  # Core ML's dimensions are below it


class Graph:
    """One block of operations; :meth:`inner` opens a block inside it. Names are unique in the whole function."""

    def __init__(self, taken: set[str]) -> None:
        self.operations: list[Operation] = []
        self._taken = taken
        self._laid: dict[tuple[str, int, int], Blob] = {}
        self._constants: dict[tuple[str, str], Ref] = {}
        self._known: dict[str, tuple[float, ...]] = {}
        self.title = ""

    @contextmanager
    def inner(self) -> Iterator[Graph]:
        """Open a block whose operations see what this one has made."""
        graph = Graph(self._taken)
        # Copies, because what is made in a block is not visible outside it.
        graph._laid, graph._constants, graph._known = dict(self._laid), dict(self._constants), dict(self._known)
        graph.title = self.title
        yield graph

    def fresh(self, wanted: str) -> str:
        """Return a name that nothing has, as close to ``wanted`` as can be."""
        name, count = wanted or "value", 0
        while name in self._taken:
            count += 1
            name = f"{wanted or 'value'}_{count}"
        self._taken.add(name)
        return name

    def reserve(self, name: str) -> None:
        """Keep ``name`` from being given to a value."""
        self._taken.add(name)

    def op(
        self, kind: str, shape: Shape, /, *, like: Blob | None = None, out: DType = DType.FP32, **given: Any
    ) -> Blob:
        """Add an operation with one output of ``shape``, seen with the ones around ``like``; None is left out."""
        (name,) = self.emit(kind, [(shape, out)], **given)
        return Blob(name, shape, like.lead if like else 0, like.trail if like else 0)

    def emit(
        self, kind: str, outputs: Sequence[tuple[Shape, DType]], blocks: tuple[Body, ...] = (), /, **given: Any
    ) -> tuple[str, ...]:
        """Add an operation; return the names of its outputs."""
        for shape, _ in outputs:
            if any(length is not None and not 0 <= length < _WIDEST for length in shape):
                raise LoadError(f"{kind} would make {shape}", "the network is damaged")
        inputs = {key: self._arguments(key, value) for key, value in given.items() if value is not None}
        names = tuple(self.fresh(f"{self.title}_{kind}") for _ in outputs)
        made = tuple(NamedType(name, TensorType(d, s)) for name, (s, d) in zip(names, outputs, strict=True))
        self.operations.append(Operation(kind, inputs, made, {}, blocks))
        return names

    def settle(self, start: int, wanted: Mapping[str, str], title: str = "") -> None:
        """Give values that operations from ``start`` on have made the names that are ``wanted``, by what they have, and
        the operation that makes the last of them a ``title``."""
        last = max((i for i in range(start, len(self.operations)) if _makes(self.operations[i], wanted)), default=-1)
        for index in range(start, len(self.operations)):
            operation = self.operations[index]
            inputs = {key: tuple(_renamed(item, wanted) for item in items) for key, items in operation.inputs.items()}
            outputs = tuple(replace(item, name=wanted.get(item.name, item.name)) for item in operation.outputs)
            blocks = tuple(_renamed_block(block, wanted) for block in operation.blocks)
            attributes = {"name": text(title)} if title and index == last else operation.attributes
            made = replace(operation, inputs=inputs, outputs=outputs, blocks=blocks, attributes=attributes)
            self.operations[index] = made
        # What is remembered of values goes with their new names.
        for old, new in wanted.items():
            if old in self._known:
                self._known[new] = self._known[old]
        for key, blob in list(self._laid.items()):
            if blob.name in wanted or key[0] in wanted:
                self._laid[wanted.get(key[0], key[0]), key[1], key[2]] = replace(
                    blob, name=wanted.get(blob.name, blob.name)
                )

    def _arguments(self, key: str, value: Input) -> tuple[Argument, ...]:
        if isinstance(value, Blob):
            return (Ref(value.name),)
        if isinstance(value, list | tuple) and value and isinstance(value[0], Blob):
            return tuple(Ref(item.name) for item in value)
        return (self.constant(key, value if isinstance(value, Value) else scalar(value)),)

    def constant(self, hint: str, value: Value) -> Ref:
        """Add a constant once; return where it is."""
        # Scalars as text, since 0.0 == -0.0 and True == 1; tensors by identity, so that none is decoded.
        key = (repr(value.type), repr(value.data) if isinstance(value.data, tuple) else str(id(value.data)))
        if key not in self._constants:
            name = self.fresh(f"{self.title}_{hint}" if self.title else hint)
            output = NamedType(name, value.type)
            self.operations.append(Operation("const", {}, (output,), {"name": text(name), "val": value}))
            self._constants[key] = Ref(name)
        return self._constants[key]

    def tensor(self, value: Value, hint: str = "constant") -> Blob:
        """Return a tensor constant as a blob."""
        assert isinstance(value.type, TensorType)
        return Blob(self.constant(hint, value).name, value.type.shape or ())

    def know(self, x: Blob, numbers: Sequence[float]) -> Blob:
        """Remember the numbers that a small value has whatever the inputs are; return the value."""
        self._known[x.name] = tuple(numbers)
        return x

    def known(self, x: Blob) -> tuple[float, ...] | None:
        """Return the numbers of a value that does not depend on inputs, None for any other."""
        return self._known.get(x.name)

    def lay(self, x: Blob, lead: int = 0, trail: int = 0) -> Blob:
        """Return ``x`` with just so many of its ones outside the program; LoadError where these are not ones."""
        if (x.lead, x.trail) == (lead, trail):
            return x
        key = (x.name, lead, trail)
        if key not in self._laid:
            self._laid[key] = self._relaid(x, lead, trail)
        return self._laid[key]

    def _relaid(self, x: Blob, lead: int, trail: int) -> Blob:
        logical, end = x.logical, x.rank - trail
        if lead > end or any(length != 1 for length in (*logical[:lead], *logical[end:])):
            raise LoadError(f"an operation does not take the shape {logical}", "the network is damaged")
        shape, made = logical[lead:end], x
        # `gone` counts axes of x.shape, `added` those of the result.
        added = [*range(max(x.lead - lead, 0)), *range(len(shape) - max(x.trail - trail, 0), len(shape))]
        gone = [*range(max(lead - x.lead, 0)), *range(len(x.shape) - max(trail - x.trail, 0), len(x.shape))]
        if gone:
            kept = tuple(length for axis, length in enumerate(x.shape) if axis not in gone)
            made = self.op("squeeze", kept, x=made, axes=gone)
        if added:
            made = self.op("expand_dims", shape, x=made, axes=added)
        return Blob(made.name, shape, lead, trail)

    def images(self, x: Blob) -> Blob:
        """Return ``x`` as [batch, C, H, W] in the program: what stands before is one batch (see :meth:`restored`)."""
        if x.rank < 3:
            return self._refused(x)
        if x.rank == 3:
            full = self.lay(x)
            return self.op("expand_dims", (1, *full.shape), x=full, axes=[0])
        return self.lay(x, x.rank - 4, 0) if all(d == 1 for d in x.logical[: x.rank - 4]) else self._merged(x)

    def _merged(self, x: Blob) -> Blob:
        full = self.lay(x)
        count = product(full.shape[:-3])
        sides = full.shape[-3:]
        if None in sides:
            raise LoadError(f"an operation does not take the open shape {full.shape}", "the network is damaged")
        return self.op("reshape", (count, *sides), x=full, shape=[-1, *sides])

    def restored(self, made: Blob, x: Blob) -> Blob:
        """Return a result [batch, C, H, W] with what :meth:`images` put together in ``x`` apart again."""
        if x.rank == 3:
            return self.op("squeeze", made.shape[1:], x=made, axes=[0])
        before = x.logical[: x.rank - 3]
        if all(d == 1 for d in before[:-1]):
            return Blob(made.name, made.shape, x.rank - 4)
        if sum(d is None for d in (*before, *made.shape[1:])) > 1:
            raise LoadError(f"an operation does not take the open shape {x.logical}", "the network is damaged")
        shape = (*before, *made.shape[1:])
        return self.op("reshape", shape, x=made, shape=[-1 if d is None else d for d in shape])

    def _refused(self, x: Blob) -> Blob:
        raise LoadError(f"an operation on images does not take the shape {x.logical}", "the network is damaged")

    def reshape(self, x: Blob, shape: Shape) -> Blob:
        """Return ``x``'s elements in ``shape``, of which one length may be open."""
        full = self.lay(x) if x.trail == 0 and x.lead else x
        if full.shape == shape:
            return Blob(full.name, shape)
        if sum(d is None for d in shape) > 1:
            raise LoadError(f"two open lengths in a reshape to {shape}", "the network is damaged")
        count, wanted = product(x.shape), product(shape)
        if None not in (count, wanted) and count != wanted:
            raise LoadError(f"a reshape of {x.logical} to {shape}", "the network is damaged")
        return self.op("reshape", shape, x=x, shape=[-1 if d is None else d for d in shape])

    def cast(self, x: Blob, dtype: DType, source: DType = DType.FP32) -> Blob:
        """Return ``x`` in another element type."""
        if dtype is source:
            return x
        return self.op("cast", x.shape, like=x, out=dtype, x=x, dtype=dtype.mil)


def _makes(operation: Operation, wanted: Mapping[str, str]) -> bool:
    return any(item.name in wanted for item in operation.outputs)


def _renamed(item: Argument, wanted: Mapping[str, str]) -> Argument:
    return Ref(wanted[item.name]) if isinstance(item, Ref) and item.name in wanted else item


def _renamed_block(block: Body, wanted: Mapping[str, str]) -> Body:
    operations = []
    for operation in block.operations:
        inputs = {key: tuple(_renamed(item, wanted) for item in items) for key, items in operation.inputs.items()}
        inner = tuple(_renamed_block(nested, wanted) for nested in operation.blocks)
        operations.append(replace(operation, inputs=inputs, blocks=inner))
    outputs = tuple(wanted.get(name, name) for name in block.outputs)
    return replace(block, operations=tuple(operations), outputs=outputs)


def text(value: str) -> Value:
    """Return a string constant."""
    return Value(TensorType(DType.STRING), (value,))


def scalar(value: Any) -> Value:
    """Return Python scalars, or lists of them, as a constant: f32, int32, booleans or strings."""
    items = value if isinstance(value, list | tuple) else (value,)
    first = items[0] if items else 0
    kind = DType.FP32
    # bool first: a bool is an int too.
    for python, found in ((bool, DType.BOOL), (int, DType.INT32), (str, DType.STRING)):
        if isinstance(first, python):
            kind = found
            break
    shape = (len(items),) if isinstance(value, list | tuple) else ()
    return Value(TensorType(kind, shape), tuple(items))
