"""A stateful model's memory between two calls."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tlkit.errors import LoadError, UsageError
from tlkit.mil import ops
from tlkit.mil.program import TensorType


class State:
    """The tensors of a stateful model, by name: they outlive a call and belong to whoever made them.

    ``halves`` names those whose values are f16 values, carried in f32.
    """

    def __init__(self, tensors: dict[str, torch.Tensor], halves: Collection[str] = ()) -> None:
        self.tensors = tensors
        self._halves = frozenset(halves)

    def read(self, name: str) -> np.ndarray[Any, Any]:
        """Return a copy of the state ``name``."""
        return self._tensor(name).cpu().numpy().copy()

    def write(self, name: str, value: npt.ArrayLike) -> None:
        """Overwrite the state ``name``, in its type (an f16 state rounds); the shape must be its own."""
        tensor = self._tensor(name)
        try:
            given = torch.from_numpy(np.array(value).astype(np.float64, casting="safe")).to(tensor.dtype)
        except (ValueError, TypeError):
            raise UsageError(f"the state '{name}' takes an array of numbers", "real ones, rows of one length") from None
        if tensor.shape != given.shape:
            raise UsageError(f"the state '{name}' has shape {tuple(tensor.shape)}, not {tuple(given.shape)}")
        tensor.copy_(ops.round_f16(given) if name in self._halves else given)

    def _tensor(self, name: str) -> torch.Tensor:
        if name not in self.tensors:
            raise UsageError(f"no state is named '{name}'", f"states: {', '.join(self.tensors) or 'none'}")
        return self.tensors[name]


def held(state: State, name: str, kind: TensorType) -> torch.Tensor:
    """One of a state's tensors; UsageError where it is another model's."""
    tensor = state.tensors.get(name)
    if tensor is None or tuple(tensor.shape) != fixed(kind) or tensor.dtype is not ops.CARRIERS[kind.dtype]:
        there = "none" if tensor is None else f"one of shape {tuple(tensor.shape)}"
        raise UsageError(
            f"the state given is another model's: '{name}' has shape {fixed(kind)} here, and there is {there}",
            "make one with this model's make_state()",
        )
    return tensor


def fixed(kind: TensorType) -> tuple[int, ...]:
    """Return a state's shape; LoadError where it is open."""
    if kind.shape is None or None in kind.shape:
        raise LoadError("a state without a fixed shape", "the program is damaged")
    return tuple(int(d or 0) for d in kind.shape)
