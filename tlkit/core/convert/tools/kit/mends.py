"""The registry of torch ops that coremltools lacks or gets wrong, and how tlkit translates them.

A mend is written in one of two ways. In torch's terms (:func:`composed`): a function that computes the op by other
torch ops, which coremltools then translates; it serves both captures, keeps torch's rules of types and broadcasting,
and can be checked without Core ML. In MIL's terms (:func:`mend`): a function that builds the operations, where no torch
ops convert correctly. The mends themselves are in ``ops/``, one module per family. Importing this module imports
neither torch nor coremltools.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Translate = Callable[[Any, Any], Any]
"""(coremltools' context, its node): reads the node's inputs, adds the value of its output to the context.

A mend with ``applies`` returns NotImplemented for a use that the others are right for.
"""
Applies = Callable[[Sequence[Any]], bool]
"""Whether a mend has anything to say of what a trace's op was given (coremltools' values): the rest is not recorded."""
Compose = Callable[..., Any]
"""Takes what the torch op takes, by its schema; NotImplemented for a use that coremltools gets right."""


@dataclass(frozen=True, slots=True)
class Mend:
    """A torch op as coremltools names it (lower case, no namespace) and why tlkit translates it.

    ``torch`` is the version whose models brought it up, ``coremltools`` the last version known to need it, ``replaces``
    whether that version has the op and translates some of its uses only. One of ``translate`` and ``compose`` is there;
    ``traced`` is whether a trace needs it too.
    """

    op: str
    torch: str
    coremltools: str
    why: str
    translate: Translate | None = None
    compose: Compose | None = None
    replaces: bool = False
    applies: Applies | None = None
    traced: bool = True


MENDS: dict[str, Mend] = {}
REPLACED: dict[str, Translate] = {}
"""coremltools' own translations of the ops replaced, for the uses that they are right for."""


def mend(
    op: str, why: str, *, replaces: bool = False, applies: Applies | None = None
) -> Callable[[Translate], Translate]:
    """Register a translation of ``op`` into MIL and why it is needed; ``replaces`` as in :class:`Mend`.

    One with ``applies`` stands before the other translations of the op, coremltools' and mends, for some of its uses.
    """

    def register(translate: Translate) -> Translate:
        _add(Mend(op, "2.13", "9.0", why, translate=translate, replaces=replaces, applies=applies))
        return translate

    return register


def composed(
    op: str, why: str, *, replaces: bool = False, applies: Applies | None = None, traced: bool = True
) -> Callable[[Compose], Compose]:
    """Register a way to compute ``op``, an op of aten's with all its overloads, by others, and why it is needed."""

    def register(compose: Compose) -> Compose:
        _add(Mend(op, "2.13", "9.0", why, compose=compose, replaces=replaces, applies=applies, traced=traced))
        return compose

    return register


def _add(entry: Mend) -> None:
    # Several may stand before one op, each for some of its uses.
    key = f"{entry.op}: {entry.why}" if entry.translate and entry.applies else entry.op
    if key in MENDS:
        raise ValueError(f"two translations of {key}")
    MENDS[key] = entry
