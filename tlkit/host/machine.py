"""The machine and the versions that a figure was measured with: read from the system, never guessed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_GROUPS, _PROCESSORS = Path("/sys/fs/cgroup"), Path("/sys/devices/system/cpu")
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


def available_memory() -> int:
    """Return the bytes that this process may still take without swapping: a very large number where nothing says.

    On Linux that is ``MemAvailable`` and what is left of the control group (version 2 or 1); its page cache counts as
    free, as the kernel gives that up first. Elsewhere psutil says.
    """
    found = [number for number in (_free(), _group(_GROUPS)) if number is not None]
    return min(found, default=sys.maxsize)


def threads() -> int:
    """Return PyTorch's number of threads where it is imported, else :func:`expected_threads`."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        found: int = torch.get_num_threads()
        return found
    return expected_threads()


def expected_threads() -> int:
    """Return what PyTorch's number would be: a thread for each core that this process may use (two threads of one core
    count once), or fewer where OMP_NUM_THREADS says so. It is the same before and after PyTorch is imported."""
    cores = _whole_cores(_PROCESSORS)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        with suppress(ValueError):
            said = int(os.environ.get(name, "").partition(",")[0])
            if said > 0:
                return min(said, cores)
    return cores


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


def _free() -> int | None:
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    import psutil  # not on Linux, where every command asks for this and the line above is quicker

    return int(psutil.virtual_memory().available)


def _group(root: Path) -> int | None:
    """Return what a control group mounted at ``root`` leaves; None where there is no limit."""
    for folder, most, used in (
        (root, "memory.max", "memory.current"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # "max" is not a number
            left = int((folder / most).read_text()) - int((folder / used).read_text())
            return max(0, left + _cached(folder))
    return None


def _cached(folder: Path) -> int:
    with suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text().splitlines():
            name, _, number = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(number)
    return 0


def _whole_cores(root: Path) -> int:
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    mine = os.sched_getaffinity(0)
    found = set()
    for number in mine:
        try:
            found.add((root / f"cpu{number}" / "topology" / "thread_siblings_list").read_text())
        except OSError:
            found.add(str(number))
    return len(found) or 1


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
