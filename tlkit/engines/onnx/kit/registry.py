"""The table of lowerings: what an operation of ``mil/ops`` becomes in ONNX.

A lowering has the signature of the operation's own function, after the graph: tensors are :class:`GraphValue`,
everything else is plain Python. It returns the result, or a tuple of them. What it cannot take it refuses with
UnsupportedGraph.

``monotone`` marks operations that may be done before the rounding to f16 instead of after it, with the same result:
moves and selections, and functions that never decrease and give f16 values for f16 values. Then a convolution and what
follows it share one rounding. Such an operation may come before a clamp, too. One that is ``bounding`` is a clamp
itself, or does not commute with one, and has to take care of ``GraphValue.clamp``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

Lowering = TypeVar("Lowering", bound=Callable[..., Any])
Monotone = bool | Callable[[Mapping[str, Any]], bool]
"""Whether, or with which arguments."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A lowering: the function, and whether it may come before a rounding."""

    function: Callable[..., Any]
    monotone: Monotone
    bounding: bool = False

    def commutes(self, arguments: Mapping[str, Any]) -> bool:
        """Whether it may come before a rounding, with these arguments."""
        return self.monotone(arguments) if callable(self.monotone) else self.monotone


_TABLE: dict[Callable[..., Any], Entry] = {}


def lowers(
    *operations: Callable[..., Any], monotone: Monotone = False, bounding: bool = False
) -> Callable[[Lowering], Lowering]:
    """Register the decorated function for operations of ``mil/ops``; ValueError for a second one."""

    def register(function: Lowering) -> Lowering:
        for operation in operations:
            if operation in _TABLE:
                raise ValueError(f"'{operation.__name__}' is lowered twice")
            _TABLE[operation] = Entry(function, monotone, bounding)
        return function

    return register


def lowering(operation: Callable[..., Any]) -> Entry | None:
    """Return the lowering of a function of ``mil/ops``, rounded or not; None where there is none."""
    return _TABLE.get(getattr(operation, "__wrapped__", operation)) or _TABLE.get(operation)


def table() -> Mapping[Callable[..., Any], Entry]:
    """Return every lowering by the function of ``mil/ops`` that it stands for."""
    return _TABLE
