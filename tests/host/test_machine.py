"""What the machine is, against what the system itself says."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tlkit.host import machine
from tlkit.host.machine import describe_machine, versions


def test_versions_are_those_that_would_be_imported() -> None:
    assert versions()["numpy"] == np.__version__
    assert set(versions()) == {"tlkit", "torch", "coremltools", "numpy"}


def test_the_machine_is_this_one() -> None:
    found = describe_machine()
    assert found.python == platform.python_version()
    assert found.architecture == platform.machine()
    assert 1 <= found.cores <= os.cpu_count()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_and_processor_are_what_proc_says() -> None:
    found = describe_machine()
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert found.memory == int(total.split()[1]) * 1024
    assert found.cpu in Path("/proc/cpuinfo").read_text() + platform.machine() + platform.processor()
    assert len(os.sched_getaffinity(0)) == found.cores


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_there_is_memory_and_no_more_than_the_machine_has() -> None:
    assert 0 < machine.available_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize("version", [1, 2])
def test_a_control_group_leaves_less(tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "memory" if version == 1 else tmp_path
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    folder.mkdir(exist_ok=True)
    for name, value in zip(names, (1000, 700), strict=True):
        (folder / name).write_text(f"{value}\n")
    monkeypatch.setattr(machine, "_GROUPS", tmp_path)
    assert machine.available_memory() == 300
    prefix = "total_" if version == 1 else ""
    (folder / "memory.stat").write_text(f"anon 1\n{prefix}inactive_file 50\n")
    assert machine.available_memory() == 350
    (folder / names[0]).write_text("max\n")
    assert machine.available_memory() > 1000


_THREADS = """
from tlkit.host.machine import expected_threads, threads
before = threads()
import torch
print(before, expected_threads(), threads(), torch.get_num_threads())
"""


def test_the_number_of_threads_is_pytorchs_before_and_after_its_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = subprocess.run([sys.executable, "-c", _THREADS], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["1"] * 4


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity")
def test_two_threads_of_a_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        place = tmp_path / f"cpu{number}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(siblings)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 7})
    assert machine._whole_cores(tmp_path) == 3  # 0 and 2 are one; of 7 nothing is known
