"""The systems that a package can target (``iOS17``, ``macOS14`` and the like), and the opset of each."""

from __future__ import annotations

from dataclasses import dataclass

from tlkit.errors import UsageError
from tlkit.mil.opsets import OPSETS
from tlkit.ports.port import OutputPort
from tlkit.types import TensorSpec

_TARGETS = {name.lower(): (name, release.version) for release in OPSETS.values() for name in release.systems}
_FLOAT_IMAGE = "GRAYSCALE_FLOAT16"
DEFAULT = "iOS17"
"""Runs on every device in support, and has the ops that today's models want."""


@dataclass(frozen=True, slots=True)
class Target:
    """The oldest system that must run the package: its name in coremltools.target, its specification version."""

    name: str
    version: int


def choose_target(name: str | None, ports: tuple[TensorSpec, ...] = (), outputs: tuple[OutputPort, ...] = ()) -> Target:
    """Return the target called ``name`` (any case), or the first that the ports need; refuse one too old for them."""
    found = _TARGETS.get((name or DEFAULT).lower().replace(" ", ""))
    if found is None:
        names = ", ".join(release.system for release in OPSETS.values())
        raise UsageError(f"unknown target '{name}'", f"targets are {names}, and macOS12, macOS13, ... for the same")
    target = Target(*found)
    half = [f"input '{port.name}'" for port in ports if port.dtype == "float16" or _float_image(port)]
    half += [f"output '{port.name}'" for port in outputs if port.dtype == "float16" or port.layout == _FLOAT_IMAGE]
    # iOS16's specification version.
    if half and target.version < 7:
        raise UsageError(f"{half[0]} is f16, which {target.name} does not take", "use --target iOS16 or later")
    choices = [port.name for port in ports if port.listed]
    if len(choices) > 1:
        return _with_ios18(target, name is not None, f"{' and '.join(choices)} have a choice of shapes each")
    return target


def target_of_version(version: int) -> Target:
    """Return the target that a specification version stands for; of one before mlprograms, or unknown, the nearest."""
    nearest = min(OPSETS.values(), key=lambda release: abs(release.version - version))
    return Target(nearest.system, nearest.version)


def _float_image(port: TensorSpec) -> bool:
    return port.image is not None and port.image.layout == _FLOAT_IMAGE


def target_for_states(target: Target, chosen: bool) -> Target:
    """Return ``target`` or, if the user did not choose it, the first with states; UsageError for one without."""
    return _with_ios18(target, chosen, "the model has states")


def _with_ios18(target: Target, chosen: bool, what: str) -> Target:
    # iOS18's specification version.
    if target.version >= 9:
        return target
    if chosen:
        raise UsageError(f"{what}, which {target.name} does not have", "use --target iOS18 or later")
    return Target("iOS18", 9)
