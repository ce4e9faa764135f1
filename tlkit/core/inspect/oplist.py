"""The op library as a list: each MIL operation, its family, the opsets that define it, and whether tlkit runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tlkit.errors import UsageError

_REASONS = {
    "custom_layer": "its code belongs to the app that ships the model",
}
_IN_LOWERING = {"const": "control_flow"}
"""What needs no op of its own: a constant is a value of the lowered program. (Family as in the MIL reference.)"""


@dataclass(frozen=True, slots=True)
class OpEntry:
    """One MIL operation.

    ``opsets`` are the iOS releases that added it or changed its meaning; ``inputs`` its inputs' names, optional ones
    with a question mark. ``reason`` says why an op is not ``covered``.
    """

    name: str
    family: str
    opsets: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    covered: bool = True
    reason: str = ""


def list_ops(pattern: str = "*", *, dialect: bool = False) -> tuple[OpEntry, ...]:
    """Return the operations whose name or family matches ``pattern`` (``conv*``, ``recurrent``), by name: MIL's, or
    those of tlkit's own ``dialect``.

    UsageError where none does.
    """
    from tlkit.mil import ops
    from tlkit.mil.dialect import own
    from tlkit.mil.ops.kit.spec import VERSIONS

    if dialect:
        entries = [_entry(name, (), [found]) for name, found in sorted(own().items())]
    else:
        names = sorted(VERSIONS.keys() | ops.library().keys())
        entries = [_entry(name, VERSIONS.get(name, ()), ops.library().get(name, ())) for name in names]
    found = tuple(e for e in entries if fnmatchcase(e.name, pattern) or fnmatchcase(e.family, pattern))
    if not found:
        raise UsageError(f"no operation and no family is named '{pattern}'", "`tlkit ops` lists all of them")
    return found


def _entry(name: str, releases: Sequence[int], versions: Sequence[object]) -> OpEntry:
    from tlkit.mil.ops import OpDef

    known = [version for version in versions if isinstance(version, OpDef)]
    opsets = tuple(f"iOS{release}" for release in releases or [version.since for version in known])
    if known:
        # Those of the newest version.
        inputs = tuple(f"{key}{'' if item.required else '?'}" for key, item in known[-1].parameters.items())
        return OpEntry(name, known[-1].family, opsets, inputs)
    if name in _IN_LOWERING:
        return OpEntry(name, _IN_LOWERING[name], opsets)
    return OpEntry(name, "", opsets, covered=False, reason=_REASONS.get(name, "not in the library"))
