"""What the machine is, against what the system itself says."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import numpy as np
import pytest

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
