"""What this machine has, what can be measured on it, and what is missing for the rest; no heavy import."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tlkit.engines.onnx.store import Store
from tlkit.host.conditions import Conditions, watch
from tlkit.host.machine import Machine, describe_machine, gpu_expected, is_mac, sysctl, versions
from tlkit.host.power import Power
from tlkit.words import byte_text

_OPTIONAL = ("onnx", "onnxruntime", "openvino", "nvidia-ml-py", "zeus-apple-silicon")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to measure, or one way to run a model: whether it is here, details, and what to do if it is not."""

    what: str
    status: Literal["yes", "no", "limited"]
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What :func:`doctor` returns and ``tlkit doctor --json`` prints."""

    machine: Machine
    conditions: Conditions
    versions: dict[str, str | None]
    units: tuple[Finding, ...]
    engines: tuple[Finding, ...]
    measurable: tuple[Finding, ...]


def doctor(contribute: str | Path | None = None, force: bool = False) -> Diagnosis:
    """Look at this machine. Reads files and asks system tools; imports neither torch nor coremltools.

    ``contribute`` is a file to which Core ML's plans and latencies of a fixed set of probes are written, without
    anything that tells whose machine it is (on a Mac, minutes; UnavailableError elsewhere).
    """
    if contribute is not None:
        from tlkit.core.contribute import contribute as measure  # late: it imports what measures

        measure(Path(contribute), force)
    wanted = versions() | {name: _version(name) for name in _OPTIONAL}
    return Diagnosis(describe_machine(), watch()(), wanted, tuple(_units()), tuple(_engines()), tuple(_measurable()))


def _units() -> Iterator[Finding]:
    mac = is_mac()
    torch = importlib.util.find_spec("torch") is not None
    runs = "Core ML" if mac else "PyTorch, in place of Core ML"
    lacks = "" if mac or torch else "pip install torch"
    yield Finding("cpu", "yes" if mac or torch else "no", runs if mac or torch else "PyTorch is not installed", lacks)
    if mac:
        apple = (sysctl("hw.optional.arm64") or "0") == "1"
        yield Finding("gpu", "yes", runs)
        hint = "" if apple else "the Neural Engine came with Apple silicon (M1) and the A11"
        yield Finding("ane", "yes" if apple else "no", runs if apple else "an Intel Mac has no Neural Engine", hint)
        yield Finding("all", "yes", runs)
        return
    gpu = gpu_expected()
    detail = f"{_nvidia_names() or 'a GPU device'}: {runs}" if gpu else "no NVIDIA or AMD GPU device found"
    yield Finding("gpu", "yes" if gpu else "no", detail, "" if gpu else "measure on a machine with one")
    yield Finding("ane", "no", "it is reached through Core ML, only on a Mac", "measure on a Mac with Apple silicon")
    yield Finding("all", "limited", "what PyTorch would choose: a GPU where there is one, else the CPU")


def _engines() -> Iterator[Finding]:
    """What ``--engine`` may name, the one that ``auto`` prefers first; and what is kept of what they compile."""
    title = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
    for name, says in title.items():
        here = all(importlib.util.find_spec(item) is not None for item in (name, "onnx"))
        detail = f"{says} {_version(name)}, on the CPU" if here else f"{says} is not installed"
        yield Finding(name, "yes" if here else "no", detail, "" if here else f"pip install 'tlkit[{name}]'")
    torch = importlib.util.find_spec("torch") is not None
    detail = f"PyTorch {_version('torch')}" if torch else "PyTorch is not installed"
    yield Finding("eager, compile", "yes" if torch else "no", detail, "" if torch else "pip install torch")
    kept = Store().contents()
    size = f"{kept.entries} compiled models, {byte_text(kept.size)} of at most {byte_text(kept.limit)}"
    yield Finding("cache", "yes", f"{size}, in {kept.folder}")


def _measurable() -> Iterator[Finding]:
    yield Finding("latency, load time, memory", "yes", "of every unit that is here")
    power = Power()
    channels = power.channels if power.available else {}
    for channel in ("cpu", "gpu", "ane", "dram"):
        if channel in channels:
            yield Finding(f"power of the {channel}", "yes", channels[channel])
        elif channel in ("cpu", "gpu") or is_mac():
            none = channel == "gpu" and not is_mac() and not gpu_expected()
            detail, hint = ("there is no GPU", "") if none else ("no counter is readable", power.note)
            yield Finding(f"power of the {channel}", "no", detail, hint)
    where = "MLComputePlan (macOS 14.4 or newer)" if is_mac() else "Core ML's plan exists only on a Mac"
    mac = is_mac()
    yield Finding("which unit runs which operation", "yes" if mac else "no", where, "" if mac else "run on a Mac")
    seen = watch()()
    if sys.platform == "linux":
        proc = Path("/proc/stat").exists()
        yield Finding("other load", "yes" if proc else "no", "/proc/stat" if proc else "/proc/stat cannot be read")
    yield _seen("power source", seen.power_source)
    yield _seen("slowed down by heat", seen.throttled)
    virtual = "hypervisor" in _cpu_flags()
    if virtual:
        yield Finding("steady clocks", "limited", "a virtual machine: neighbours share its cores", "trust intervals")


def _seen(what: str, value: object) -> Finding:
    if value is None:
        return Finding(what, "no", "the system does not say")
    return Finding(what, "yes", str(value) if isinstance(value, str) else ("yes" if value else "not now"))


def _nvidia_names() -> str:
    folder = Path("/proc/driver/nvidia/gpus")
    names = []
    for file in sorted(folder.glob("*/information")) if folder.is_dir() else ():
        lines = file.read_text(errors="replace").splitlines()
        names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]
    return ", ".join(names)


def _cpu_flags() -> set[str]:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("flags"):
                return set(line.split())
    except OSError:
        pass
    return set()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
