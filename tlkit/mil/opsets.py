"""Core ML's releases: the one table of specification versions, the systems that introduced them, and MIL's opsets.

Source: coremltools, where ``ct.target`` pairs systems with specification versions (``_SPECIFICATION_VERSION_*`` and
``_OPSET`` in its ``__init__``). Opset names count from CoreML5, the first of mlprograms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Release(NamedTuple):
    """One release: its specification version, its systems (iOS first), and its opset (empty before mlprograms)."""

    version: int
    systems: tuple[str, ...]
    opset: str = ""

    @property
    def system(self) -> str:
        """Return the iOS release, after which people name the opset."""
        return self.systems[0]

    @property
    def number(self) -> int:
        """Return the iOS release's number: 17 for iOS17."""
        return int(self.system.removeprefix("iOS").split(".")[0])


RELEASES = (
    Release(1, ("iOS11", "macOS10.13", "watchOS4", "tvOS11")),
    Release(2, ("iOS11.2", "macOS10.13.2", "watchOS4.2", "tvOS11.2")),
    Release(3, ("iOS12", "macOS10.14", "watchOS5", "tvOS12")),
    Release(4, ("iOS13", "macOS10.15", "watchOS6", "tvOS13")),
    Release(5, ("iOS14", "macOS11", "watchOS7", "tvOS14")),
    Release(6, ("iOS15", "macOS12", "watchOS8", "tvOS15"), "CoreML5"),
    Release(7, ("iOS16", "macOS13", "watchOS9", "tvOS16"), "CoreML6"),
    Release(8, ("iOS17", "macOS14", "watchOS10", "tvOS17"), "CoreML7"),
    Release(9, ("iOS18", "macOS15", "watchOS11", "tvOS18"), "CoreML8"),
    # Apple numbers all its systems alike from here on: 26 follows iOS 18 and macOS 15.
    Release(10, ("iOS26", "macOS26", "watchOS26", "tvOS26"), "CoreML9"),
)
"""Every release that Core ML has had, oldest first."""

OPSETS: Mapping[str, Release] = {release.opset: release for release in RELEASES if release.opset}
"""The releases that mlprograms run on, by the opset's name in a program."""

VERSIONS: Mapping[int, Release] = {release.version: release for release in RELEASES}
"""The releases by specification version."""

NEWEST = RELEASES[-1]


def system_of(opset: str) -> str:
    """Return the system that introduced an opset (``iOS17`` for ``CoreML7``); an unknown name is returned unchanged."""
    return OPSETS[opset].system if opset in OPSETS else opset


def version_of(opset: str) -> int:
    """Return the specification version that an opset needs; for an unknown opset, the newest."""
    return OPSETS.get(opset, NEWEST).version


DIALECT = "tlkit."
"""How the names of tlkit's own operations begin; no opset has them, and no package can hold them."""
