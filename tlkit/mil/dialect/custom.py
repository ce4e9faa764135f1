"""Custom layers: what they compute is in the app they were made for, and here in a function that the user names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tlkit.errors import ExecutionError, reason
from tlkit.mil.ops.kit.registry import Tensors, dialect


@dataclass(frozen=True, slots=True)
class Custom:
    """What runs custom layers of one class, and what the file holds for one of them."""

    title: str
    function: Callable[..., Any]
    parameters: Mapping[str, Any]
    weights: Sequence[np.ndarray[Any, Any]]

    def run(self, inputs: Sequence[np.ndarray[Any, Any]], count: int) -> tuple[np.ndarray[Any, Any], ...]:
        """Call the user's function; ExecutionError says what it raised, or that it did not give ``count`` arrays."""
        try:
            made = self.function(*inputs, parameters=dict(self.parameters), weights=list(self.weights))
        except Exception as error:
            raise ExecutionError(f"the custom layer '{self.title}' failed: {reason(error)}") from error
        several = tuple(made) if isinstance(made, tuple | list) else (made,)
        if len(several) != count:
            raise ExecutionError(f"the custom layer '{self.title}' gave {len(several)} arrays, not {count}")
        return tuple(np.asarray(item, np.float32) for item in several)


# A program can hold text, but not a Python function.
_HELD: dict[str, Custom] = {}


def hold(custom: Custom) -> str:
    """Keep a custom layer for as long as the process lives; return the name under which a program asks for it."""
    handle = f"{custom.title}#{len(_HELD)}"
    _HELD[handle] = custom
    return handle


@dialect("custom")
def custom_layer(values: Tensors, handle: str, output_types: Any) -> Any:
    """What the user's function makes of the inputs."""
    arrays = [value.detach().cpu().numpy() for value in values]
    made = _HELD[handle].run(arrays, len(output_types))
    device = values[0].device if values else torch.get_default_device()
    tensors = tuple(torch.from_numpy(np.ascontiguousarray(item)).to(device) for item in made)
    return tensors if len(tensors) > 1 else tensors[0]
