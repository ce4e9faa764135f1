"""The machine and the versions that a figure was measured with: read from the system, never guessed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_REPORTED = ("tlkit", "torch", "coremltools", "numpy")


def is_mac() -> bool:
    """Whether this is macOS, the one system here that has Core ML."""
    return sys.platform == "darwin"


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine. ``cores`` counts those this process may use; ``memory`` is in bytes, None where it cannot be read.

    Sources: ``/proc/cpuinfo`` and sysconf on Linux, ``sysctl`` on macOS.
    """

    cpu: str
    architecture: str
    cores: int
    memory: int | None
    os: str
    python: str


def describe_machine() -> Machine:
    """Return a description of this machine; takes a few milliseconds, without heavy imports."""
    return Machine(
        cpu=_cpu(),
        architecture=platform.machine(),
        cores=available_cpus(),
        memory=_memory(),
        os=_os(),
        python=platform.python_version(),
    )


def versions() -> dict[str, str | None]:
    """Return the installed versions of the packages that a measurement depends on, None if absent; imports none of
    them."""
    return {name: _version(name) for name in _REPORTED}


def cache_folder() -> Path:
    """Return tlkit's cache folder: ``~/Library/Caches/tlkit`` on a Mac, elsewhere ``tlkit`` in XDG_CACHE_HOME."""
    if is_mac():
        return Path.home() / "Library" / "Caches" / "tlkit"
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a path that is not absolute is to be ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "tlkit"


def gpu_expected() -> bool:
    """Whether this machine, not a Mac, has a GPU device node that PyTorch may support (NVIDIA, AMD, WSL)."""
    return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def available_cpus() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> str:
    if is_mac():
        return sysctl("machdep.cpu.brand_string") or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    # x86 says "model name"; many ARM kernels say only "Hardware" or "Model", some nothing at all.
    for key in ("model name", "Hardware", "Model"):
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == key and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        text = sysctl("hw.memsize")
        return int(text) if text.isdigit() else None


def _os() -> str:
    if is_mac():
        return f"macOS {platform.mac_ver()[0]}"
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        name = ""
    kernel = f"{platform.system()} {platform.release()}"
    return f"{name} ({kernel})" if name else kernel


def sysctl(name: str) -> str:
    """Return macOS's sysctl value ``name``, or an empty string."""
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
