"""The allocator: what an engine frees stays in the process, unless somebody set it up otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tlkit.host import allocator

pytestmark = pytest.mark.skipif(allocator._glibc("mallopt") is None, reason="glibc's allocator alone is told anything")

FAULTS = """
import resource
from tlkit.host.allocator import keep_freed
keep_freed()
def work():  # as an inference does: what it takes, it frees
    return sum(len(bytearray(size)) for size in (3 << 20, 40 << 20, 5 << 20))
for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(code: str = FAULTS, /, **environment: str) -> int:
    """Return how many fresh pages ten rounds of work cost in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_what_is_freed_is_used_again() -> None:
    """Ten rounds of 40 MB take 100,000 pages of 4 kB, if each has to be handed out anew."""
    assert faults() < 1000
    # As long as nobody asked for the opposite.
    parted = "from tlkit.host.allocator import part_with_freed; part_with_freed()"
    assert faults(FAULTS.replace("keep_freed()\ndef", f"keep_freed()\n{parted}\ndef")) > 50_000
    assert faults(f"{parted}\n{FAULTS}") < 1000


@pytest.mark.parametrize("own", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}])
def test_who_has_set_up_the_allocator_is_left_alone(own: dict[str, str]) -> None:
    assert faults(**own) > 50_000
