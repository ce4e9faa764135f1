"""The state of the machine during a measurement: other load, power source, low-power mode, heat; None if unreadable.

Sources: processor time from psutil; on Linux ``/sys`` (power_supply, cpufreq, thermal_throttle), as the kernel's
documentation describes it; on macOS ``pmset -g batt``, ``pmset -g`` and ``pmset -g therm``, which tell the power
source of Macs without a battery too.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tlkit.host.machine import is_mac

_CPU = Path("/sys/devices/system/cpu")
_SUPPLIES = Path("/sys/class/power_supply")
_BUSY = 1.5  # what wants a processor, for each that there is


@dataclass(frozen=True, slots=True)
class Conditions:
    """The machine's state during a measurement; a field is None where it cannot be read.

    ``load_average`` is the one-minute load average at the start, divided by the number of cores; ``other_load`` the
    share (0 to 1) of the machine's processor time used by other processes meanwhile; ``throttled`` whether heat slowed
    the CPU. ``governor`` is cpufreq's; ``governor_is_driver`` whether a driver with its own policy stands behind it.
    """

    load_average: float | None = None
    other_load: float | None = None
    power_source: str | None = None
    low_power: bool | None = None
    throttled: bool | None = None
    governor: str | None = None
    governor_is_driver: bool = False


def watch() -> Callable[[], Conditions]:
    """Start watching; call the result, once the child processes have ended, for the conditions in between."""
    average = _load_average()
    before, own, heat = _busy(), _own(), _throttles()

    def end() -> Conditions:
        after = _busy()
        others = None
        # The kernel counts in ticks of some milliseconds: none may have passed.
        if after[1] > before[1]:
            theirs = (after[0] - before[0]) - (_own() - own)
            # For the same reason the difference can come out slightly negative.
            others = min(1.0, max(0.0, theirs / (after[1] - before[1])))
        return _read(average, others, heat)

    return end


def _read(average: float | None, others: float | None, heat: int | None) -> Conditions:
    if is_mac():
        power, low, slowed = _mac_power(), _mac_low_power(), _mac_throttled()
        return Conditions(average, others, power, low, slowed)
    now = _throttles()
    return Conditions(
        load_average=average,
        other_load=others,
        power_source=_power_source(),
        throttled=None if heat is None or now is None else now > heat,
        governor=_text(_CPU / "cpu0/cpufreq/scaling_governor"),
        # The drivers of recent Intel and AMD chips call their normal, load-driven mode "powersave".
        governor_is_driver=(_text(_CPU / "cpu0/cpufreq/scaling_driver") or "").endswith(("_pstate", "pstate-epp")),
    )


def is_busy() -> bool:
    """Whether more runs here than the processors can take, over the last minute: what is timed now may mislead."""
    load = _load_average()
    return load is not None and load > _BUSY


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return None


def _busy() -> tuple[float, float]:
    """Return (busy, total) seconds of processor time since boot, over all cores; time stolen by a hypervisor is
    busy."""
    found = psutil.cpu_times()._asdict()
    # Guests' time is part of user and nice already.
    total = sum(seconds for name, seconds in found.items() if not name.startswith("guest"))
    return total - found["idle"] - found.get("iowait", 0.0), total


def _own() -> float:
    """Return the seconds of processor time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _throttles() -> int | None:
    counts = [_text(file) for file in _CPU.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    known = [int(count) for count in counts if count and count.isdigit()]
    return sum(known) if known else None


def _power_source() -> str | None:
    kinds = {}
    for supply in _SUPPLIES.glob("*") if _SUPPLIES.is_dir() else ():
        kinds[supply] = (_text(supply / "type"), _text(supply / "online"), _text(supply / "status"))
    if any(kind == "Mains" and online == "1" for kind, online, _ in kinds.values()):
        return "mains"
    if any(kind == "Battery" and status == "Discharging" for kind, _, status in kinds.values()):
        return "battery"
    return None


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _mac_power() -> str | None:
    said = _pmset("batt")
    if "'AC Power'" in said:
        return "mains"
    return "battery" if "'Battery Power'" in said else None


def _mac_low_power() -> bool | None:
    # Newer Macs have powermode (0 automatic, 1 low, 2 high), others lowpowermode (0 or 1).
    found = re.search(r"^\s*(?:lowpowermode|powermode)\s+(\d)", _pmset(), re.MULTILINE)
    return found[1] == "1" if found else None


def _mac_throttled() -> bool | None:
    found = re.search(r"CPU_Speed_Limit\s*=\s*(\d+)", _pmset("therm"))
    # A percentage of full speed: 100 is not throttled.
    return int(found[1]) < 100 if found else None


def _pmset(*what: str) -> str:
    try:
        done = subprocess.run(["pmset", "-g", *what], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
