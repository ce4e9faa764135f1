"""Keys and values of earlier tokens: as states of the program, or as inputs that are outputs with more rows.

States are Core ML's way, of a fixed size; PyTorch updates them in place. Rows that grow are what runtimes for language
models know: they attend to as many as there are.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from tlkit.frontends.gguf.kit.hyperparameters import Hyperparameters
from tlkit.frontends.gguf.kit.net import Net
from tlkit.frontends.network.kit.blob import Blob
from tlkit.mil.program import NamedType, Operation, Ref, StateType, TensorType
from tlkit.mil.types import DType

Part = tuple[Blob, Blob]
"""Keys [1, groups, S, key size] and values [1, groups, S, value size]."""


class Cache(Protocol):
    """What attention asks for."""

    @property
    def inputs(self) -> list[NamedType]:
        """What holds earlier rows when a call begins."""

    @property
    def outputs(self) -> list[str]:
        """What is handed on to the next call, if not as states."""


class StateCache:
    """States ``keys_N`` and ``values_N`` [1, groups, context, size], of which the first ``rows`` are attended to."""

    def __init__(
        self, net: Net, sizes: Hyperparameters, context: int, rows: int, tokens: int, position: Blob, dtype: DType
    ) -> None:
        self._net, self._sizes, self._context, self._rows, self._tokens = net, sizes, context, rows, tokens
        self._dtype = dtype
        self.inputs: list[NamedType] = []
        self.outputs: list[str] = []
        whole = net.graph
        net.title("cache")
        self._begin = whole.op("concat", (4,), out=DType.INT32, values=self._places(position), axis=0, interleave=False)
        length = net.constant("tokens", _array([0, 0, tokens, 0]))
        self._end = whole.op("add", (4,), out=DType.INT32, x=self._begin, y=length)

    def _places(self, position: Blob) -> list[Blob]:
        zeros = self._net.constant("zeros", _array([0, 0]))
        return [zeros, position, self._net.constant("zero", _array([0]))]

    def key_positions(self) -> Blob:
        """Return 0, 1, 2 ...: what is not written yet lies behind every token."""
        return self._net.constant("places", _array(list(range(self._rows))))

    def update(self, layer: int, keys: Blob, values: Blob) -> Part:
        """Write the rows into the states; return the first rows of both."""
        made = [self._written(f"{name}_{layer}", new) for name, new in (("keys", keys), ("values", values))]
        return made[0], made[1]

    def _written(self, name: str, new: Blob) -> Blob:
        net, size = self._net, new.shape[-1] or 0
        kind = TensorType(self._dtype, (1, self._sizes.groups, self._context, size))
        self.inputs.append(NamedType(name, StateType(kind)))
        self._net.taken.add(name)
        shape = (1, self._sizes.groups, self._context, size)
        state = Blob(name, shape)
        stored = new if self._dtype is net.dtype else net.graph.cast(new, self._dtype, net.dtype)
        before = net.op("read_state", shape, out=self._dtype, input=state)
        # The third axis begins at the position; of the others everything is replaced.
        whole = [True, True, False, True]
        given = {"begin": self._begin, "end": self._end, "begin_mask": whole, "end_mask": whole}
        after = net.op("slice_update", shape, out=self._dtype, x=before, update=stored, **given)
        inputs = {"input": (Ref(name),), "data": (Ref(after.name),)}
        net.graph.operations.append(Operation("write_state", inputs, ()))
        read = net.op("read_state", shape, out=self._dtype, input=state)
        if self._rows < self._context:
            end = [1, self._sizes.groups, self._rows, size]
            read = net.op("slice_by_index", end, out=self._dtype, x=read, begin=[0, 0, 0, 0], end=end)
        return read if self._dtype is net.dtype else net.graph.cast(read, net.dtype, self._dtype)


class GrowingCache:
    """Rows that grow, for two ways of calling one function.

    Few tokens attend to caches that stay with the engine: inputs ``keys_N`` and ``values_N`` [1, groups, P, size],
    which are outputs with this call's rows behind them. Many tokens attend to rows that are handed in,
    ``before_keys_N`` and ``before_values_N``, and this call's rows are outputs. A call has tokens of one way only.
    Engines have fast kernels for one token on caches of their own, and for many on keys that are values like others.
    """

    def __init__(self, net: Net, sizes: Hyperparameters, dtype: DType) -> None:
        """Rows are rounded to ``dtype``."""
        self._net, self._sizes, self._dtype = net, sizes, dtype
        self._kept: list[NamedType] = []
        self._given: list[NamedType] = []
        self._whole: list[str] = []
        self._new: list[str] = []

    @property
    def inputs(self) -> list[NamedType]:
        """What is handed in, and as many caches that are kept."""
        return self._given + self._kept

    @property
    def outputs(self) -> list[str]:
        """The caches with this call's rows, and as many times the new rows of many tokens."""
        return self._whole + self._new

    def update(self, layer: int, keys: Blob, values: Blob, *, many: bool) -> Part:
        """Return earlier and new rows, for one of both ways."""
        made = []
        for name, new in ((f"keys_{layer}", keys), (f"values_{layer}", values)):
            if self._dtype is not self._net.dtype:
                narrow = self._net.graph.cast(new, self._dtype, self._net.dtype)
                new = self._net.graph.cast(narrow, self._net.dtype, self._dtype)
            name = f"before_{name}" if many else name
            shape = (1, self._sizes.groups, None, new.shape[3])
            (self._given if many else self._kept).append(NamedType(name, TensorType(self._net.dtype, shape)))
            self._net.taken.add(name)
            made.append(self._net.concat([Blob(name, shape), new], 2))
            (self._new if many else self._whole).append(new.name if many else made[-1].name)
        return made[0], made[1]


def _array(values: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    return np.array(values, np.int32)
