"""Keys and values of earlier tokens: as states of the program, or as inputs whose new rows are outputs.

States are Core ML's way, and PyTorch updates them in place. A graph runtime would copy them in and out; for it the
caller keeps the rows: it gives what there is, and gets the rows to add.
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

    inputs: list[NamedType]
    outputs: list[str]

    def key_positions(self) -> Blob:
        """Return the position of each key, int32 [S]: one that no token reaches where there is no key."""

    def update(self, layer: int, keys: Blob, values: Blob) -> list[Part]:
        """Add this call's rows; return all keys and values, in parts along S."""


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

    def update(self, layer: int, keys: Blob, values: Blob) -> list[Part]:
        """Write the rows into the states; return the first rows of both."""
        made = [self._written(f"{name}_{layer}", new) for name, new in (("keys", keys), ("values", values))]
        return [(made[0], made[1])]

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


class RowCache:
    """Inputs ``keys_N`` and ``values_N`` [1, groups, rows, size], and outputs ``new_keys_N`` and ``new_values_N``
    [1, groups, tokens, size]; inputs hold as many rows as the position says."""

    def __init__(self, net: Net, sizes: Hyperparameters, rows: int, tokens: int, position: Blob) -> None:
        self._net, self._sizes, self._rows, self._tokens, self._position = net, sizes, rows, tokens, position
        self.inputs: list[NamedType] = []
        self.outputs: list[str] = []

    def key_positions(self) -> Blob:
        """Return the positions of the given rows, and of this call's tokens."""
        net, whole = self._net, self._net.graph
        net.title("cache")
        places = net.constant("places", _array(list(range(self._rows))))
        late = whole.op("greater_equal", (self._rows,), out=DType.BOOL, x=places, y=self._position)
        far = whole.op("cast", (self._rows,), out=DType.INT32, x=late, dtype="int32")
        away = whole.op("mul", (self._rows,), out=DType.INT32, x=far, y=net.constant("far", _array([1 << 29])))
        old = whole.op("add", (self._rows,), out=DType.INT32, x=places, y=away)
        steps = net.constant("steps", _array(list(range(self._tokens))))
        new = whole.op("add", (self._tokens,), out=DType.INT32, x=steps, y=self._position)
        count = self._rows + self._tokens
        return whole.op("concat", (count,), out=DType.INT32, values=[old, new], axis=0, interleave=False)

    def update(self, layer: int, keys: Blob, values: Blob) -> list[Part]:
        """Return the given rows, and the new ones."""
        given = []
        for name, new in (("keys", keys), ("values", values)):
            shape = (1, self._sizes.groups, self._rows, new.shape[-1] or 0)
            self.inputs.append(NamedType(f"{name}_{layer}", TensorType(self._net.dtype, shape)))
            self._net.taken.add(f"{name}_{layer}")
            self.outputs.append(new.name)
            given.append(Blob(f"{name}_{layer}", shape))
        return [(given[0], given[1]), (keys, values)]


def _array(values: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    return np.array(values, np.int32)
