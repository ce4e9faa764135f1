"""Readings of a machine's own energy counters: Apple silicon, NVIDIA and Intel/AMD; none is ever estimated.

Counters are cumulative: the energy of a window is the difference of two readings. They cover the whole machine, which
is why idle power is subtracted and why nothing else should run. Sources:

* Apple silicon: ``zeus_apple_silicon.AppleEnergyMonitor().get_cumulative_energy()``, millijoules by subsystem, no sudo
  (IOReport's "Energy Model": Apple's own estimates, resolution 1 mJ).
* NVIDIA: NVML's ``nvmlDeviceGetTotalEnergyConsumption``, millijoules since the driver was loaded (Volta or newer).
* Linux on Intel and AMD: powercap's ``energy_uj`` (RAPL), microjoules that wrap at ``max_energy_range_uj``; since 2020
  (CVE-2020-8694) readable only by root unless the machine's owner allows it.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tlkit.errors import reason
from tlkit.host.machine import is_mac

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows RAPL's zones."""

_APPLE = {"cpu": "cpu_total_mj", "gpu": "gpu_mj", "ane": "ane_mj", "dram": "dram_mj"}  # zeus's field names
_NOISE = 0.02  # energy above idle by less than this share of idle cannot be told from idle


@dataclass(frozen=True, slots=True)
class Energy:
    """The energy of ``count`` inferences in ``seconds``, with the idle machine's power subtracted.

    ``watts`` and ``idle_watts`` are average power by channel (``cpu``, ``gpu``, ``ane``, ``dram``); ``millijoules`` is
    the energy of one inference over all channels, None where no channel covers the device that ran it or where power
    does not rise above idle; ``note`` says which. ``per_joule`` is inferences per joule.
    """

    seconds: float
    count: int
    watts: Mapping[str, float]
    idle_watts: Mapping[str, float]
    millijoules: float | None = None
    per_joule: float | None = None
    note: str = ""


class Meter(Protocol):
    """A set of cumulative counters."""

    name: str

    def joules(self) -> dict[str, float]:
        """Return joules since some fixed moment, by channel."""


@dataclass(frozen=True, slots=True)
class Reading:
    """All counters at one moment: ``at`` in seconds of the monotonic clock, joules by channel."""

    at: float
    joules: Mapping[str, float]


class Power:
    """The counters of this machine, and a note for each missing kind."""

    def __init__(self) -> None:
        self.meters: list[Meter] = []
        self.notes: list[str] = []
        for find in (_apple,) if is_mac() else (_nvidia, _rapl):
            found, note = find()
            if found is not None:
                self.meters.append(found)
            if note:
                self.notes.append(note)

    @property
    def available(self) -> bool:
        """Whether there is any counter."""
        return bool(self.meters)

    @property
    def note(self) -> str:
        """Why some or all counters are missing, on one line; empty if none is."""
        return "; ".join(self.notes)

    @property
    def channels(self) -> dict[str, str]:
        """The channels that can be read now, each with its meter's name."""
        return {channel: meter.name for meter in self.meters for channel in meter.joules()}

    def read(self) -> Reading:
        """Read every counter."""
        before = time.monotonic()
        joules = {channel: value for meter in self.meters for channel, value in meter.joules().items()}
        # Reading takes time itself (NVML some milliseconds): the middle is the fairest moment.
        return Reading((before + time.monotonic()) / 2, joules)


def watts(before: Reading, after: Reading) -> dict[str, float]:
    """Return average watts by channel between two readings."""
    seconds = after.at - before.at
    return {
        channel: (value - before.joules[channel]) / seconds
        for channel, value in after.joules.items()
        if channel in before.joules
    }


def energy(used: Mapping[str, float], idle: Mapping[str, float], seconds: float, count: int, device: str) -> Energy:
    """Return the energy of ``count`` inferences that took ``seconds`` at ``used`` watts, on a machine idling at
    ``idle``.

    ``device`` is what ran them: ``cpu``, ``gpu``, or a Core ML setting, which may use all of a chip.
    """
    # A Core ML setting may use every part of a chip; its counters come with the CPU's.
    needed = device if device in ("cpu", "gpu") else "cpu"
    if needed not in used:
        return Energy(
            seconds, count, dict(used), dict(idle), note=f"no energy counter covers the {needed.upper()} here"
        )
    above = sum(value - idle.get(channel, 0.0) for channel, value in used.items())
    if above <= _NOISE * sum(idle.values()) or above <= 0:
        return Energy(seconds, count, dict(used), dict(idle), note="cannot be told from the idle machine")
    millijoules = 1000 * above * seconds / count
    note = "" if "cpu" in used else "the GPU's share only: no energy counter covers the CPU here"
    return Energy(seconds, count, dict(used), dict(idle), millijoules, 1000 / millijoules, note)


class _Apple:
    name = "IOReport (zeus-apple-silicon)"

    def __init__(self, monitor: Any) -> None:
        self._monitor = monitor

    def joules(self) -> dict[str, float]:
        metrics = self._monitor.get_cumulative_energy()
        found = {channel: getattr(metrics, field, None) for channel, field in _APPLE.items()}
        return {channel: value / 1e3 for channel, value in found.items() if value is not None}


class _Nvidia:
    name = "NVML"

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle

    def joules(self) -> dict[str, float]:
        return {"gpu": self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3}


class Rapl:
    """RAPL's packages (channel ``cpu``) and memory controllers (``dram``); counters that wrap are continued."""

    name = "RAPL"

    def __init__(self, zones: Mapping[Path, str]) -> None:
        """``zones`` maps each zone's folder to the channel that it adds to."""
        self._zones = dict(zones)
        self._last: dict[Path, int] = {}
        self._wrapped: dict[Path, int] = dict.fromkeys(zones, 0)

    def joules(self) -> dict[str, float]:
        """Return joules by channel."""
        found: dict[str, float] = {}
        for zone, channel in self._zones.items():
            now = int((zone / "energy_uj").read_text())
            # The counter has wrapped since the last reading.
            if now < self._last.get(zone, 0):
                self._wrapped[zone] += int((zone / "max_energy_range_uj").read_text())
            self._last[zone] = now
            found[channel] = found.get(channel, 0.0) + (now + self._wrapped[zone]) / 1e6
        return found


def _apple() -> tuple[Meter | None, str]:
    try:
        monitor = importlib.import_module("zeus_apple_silicon").AppleEnergyMonitor()
    except ImportError:
        return None, "install zeus-apple-silicon to read Apple silicon's counters: pip install 'tlkit[power]'"
    except Exception as error:
        return None, f"Apple silicon's energy counters cannot be read: {reason(error)}"
    meter = _Apple(monitor)
    missing = sorted(set(_APPLE) - meter.joules().keys())
    return meter, f"this chip has no energy counter for {', '.join(missing)}" if missing else ""


def _nvidia() -> tuple[Meter | None, str]:
    if not Path("/dev/nvidiactl").exists():
        return None, ""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None, "install nvidia-ml-py to read the GPU's counter: pip install 'tlkit[power]'"
    try:
        nvml.nvmlInit()
        meter = _Nvidia(nvml, nvml.nvmlDeviceGetHandleByIndex(_first_gpu()))
        # Older GPUs have no such counter, and say so only when asked.
        meter.joules()
    except Exception as error:
        return None, f"NVML shows no energy counter: {reason(error)}"
    return meter, ""


def _first_gpu() -> int:
    """Return NVML's index of PyTorch's first GPU: NVML ignores CUDA_VISIBLE_DEVICES."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    # It may list UUIDs instead; then the first GPU is taken.
    return int(first) if first.isdigit() else 0


def _rapl() -> tuple[Meter | None, str]:
    # AMD's zones have this name too.
    zones = {zone: channel for zone in sorted(POWERCAP.glob("intel-rapl:*")) if (channel := _zone(zone))}
    if "cpu" not in zones.values():
        return None, "no CPU energy counter: this machine does not expose RAPL (virtual machines rarely do)"
    try:
        meter = Rapl(zones)
        # A trial: everybody sees the files, but often only root may read them.
        meter.joules()
    except PermissionError:
        return None, f"RAPL is readable only by root here: sudo chmod a+r {POWERCAP}/intel-rapl:*/energy_uj"
    except (OSError, ValueError) as error:
        return None, f"RAPL cannot be read: {reason(error)}"
    return meter, ""


def _zone(zone: Path) -> str:
    """Return a zone's channel; a package contains its cores and uncore, but not its memory."""
    try:
        name = (zone / "name").read_text().strip()
    except OSError:
        return ""
    return "cpu" if name.startswith("package") else "dram" if name == "dram" else ""
