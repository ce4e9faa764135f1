"""What several layer families are written with: operations of one or two values, with the ones around them in step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlkit.frontends.network.kit.blob import Blob, broadcast
from tlkit.frontends.network.kit.graph import Graph, scalar
from tlkit.mil.types import DType


def unary(g: Graph, kind: str, x: Blob, *, out: DType = DType.FP32, **given: Any) -> Blob:
    """Apply an operation that keeps shapes."""
    return g.op(kind, x.shape, like=x, out=out, x=x, **given)


def binary(g: Graph, kind: str, x: Blob, y: Blob | float, *, out: DType = DType.FP32) -> Blob:
    """Apply an operation to two values that broadcast, or to one and a number."""
    if not isinstance(y, Blob):
        return g.op(kind, x.shape, like=x, out=out, x=x, y=float(y))
    x, y = aligned(g, (x, y))
    shape = broadcast(x.shape, y.shape)
    # The rest of the rank are ones in front.
    lead = max(x.rank, y.rank) - len(shape) - x.trail
    made = g.op(kind, shape, out=out, x=x, y=y)
    return Blob(made.name, shape, lead, x.trail)


def aligned(g: Graph, several: Sequence[Blob]) -> tuple[Blob, ...]:
    """Return values with as many ones after each, so that they broadcast in the program as the network means it."""
    trail = min(x.trail for x in several)
    # For a value that is only ones, those in front and behind must not overlap.
    return tuple(g.lay(x, min(x.lead, x.rank - trail), trail) for x in several)


def folded(g: Graph, kind: str, several: Sequence[Blob]) -> Blob:
    """Apply an operation to the first two of several values, to the result and the third, and so on."""
    made = several[0]
    for other in several[1:]:
        made = binary(g, kind, made, other)
    return made


def truth(g: Graph, x: Blob) -> Blob:
    """Return whether each number is not 0, as booleans."""
    return g.op("not_equal", x.shape, like=x, out=DType.BOOL, x=x, y=0.0)


def number(g: Graph, x: Blob, source: DType = DType.BOOL) -> Blob:
    """Return booleans or integers as the floats that networks know."""
    return g.cast(x, DType.FP32, source)


def integers(g: Graph, x: Blob) -> Blob:
    """Return floats as int32."""
    return g.cast(x, DType.INT32)


def filled(g: Graph, x: Blob, value: float) -> Blob:
    """Return a value of ``x``'s shape, the same number everywhere."""
    full = g.lay(x)
    if None in full.shape:
        place: Any = g.op("shape", (len(full.shape),), out=DType.INT32, x=full)
    else:
        place = list(full.shape)
    return g.op("fill", full.shape, shape=place, value=scalar(float(value)))
