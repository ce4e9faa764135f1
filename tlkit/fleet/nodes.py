"""What a node has: cores, memory, and the compute units that Core ML's settings name."""

from __future__ import annotations

from typing import Any

from tlkit import __version__
from tlkit.core.model.engines import ENGINES
from tlkit.fleet.schedule import FleetNode
from tlkit.host.machine import describe_machine, gpu_expected, is_mac

SHARE = 0.9  # of a machine's memory: the rest is the system's and the workers' own


def about() -> dict[str, Any]:
    """Return what this machine has, as data that any process can send."""
    machine = describe_machine()
    # The Neural Engine is used through Core ML, which is a Mac's; a Mac with an Intel processor has none.
    apple = is_mac() and machine.architecture == "arm64"
    units = ["cpu", *(["ane", "gpu"] if apple else ["gpu"] if gpu_expected() else [])]
    return {
        "tlkit": __version__,
        "cores": machine.cores,
        "memory": machine.memory or 0,
        "units": units,
        "engines": [mode for kind in ENGINES if kind.available() for mode in kind.modes],
        "os": machine.os,
    }


def node_of(name: str, found: dict[str, Any], slots: int) -> FleetNode:
    """Return the node that :func:`about` described."""
    return FleetNode(name, slots, int(found["memory"] * SHARE), frozenset(found["units"]), frozenset(found["engines"]))


def this_node(slots: int) -> FleetNode:
    """Return this machine as a node for ``slots`` jobs at a time."""
    return node_of("this machine", about(), slots)
