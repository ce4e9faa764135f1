"""What goes on around a measurement, against work that this test does itself."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tlkit.host import conditions
from tlkit.host.conditions import watch

SPIN = "import time; end = time.process_time() + 0.4\nwhile time.process_time() < end: pass"


def test_own_children_are_not_other_load() -> None:
    """While a child spins, the machine is busy with us: others' share does not contain it."""
    before, own = conditions._busy(), conditions._own()
    subprocess.run([sys.executable, "-c", SPIN], check=True)
    busy = conditions._busy()[0] - before[0]
    mine = conditions._own() - own
    assert mine >= 0.4
    assert busy >= mine - 0.1  # counted in hundredths of a second


def test_shares_are_shares() -> None:
    found = watch()()
    assert found.other_load is None or 0 <= found.other_load <= 1
    assert found.load_average is None or found.load_average >= 0


def test_what_pmset_says(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        (): "Currently in use:\n standby 1\n lowpowermode         1\n",
        ("batt",): "Now drawing from 'Battery Power'\n -InternalBattery-0 95%; discharging\n",
        ("therm",): "Note: No thermal warning level\n CPU_Scheduler_Limit = 100\n CPU_Speed_Limit = 70\n",
    }
    monkeypatch.setattr(conditions, "_pmset", lambda *what: said[what])
    monkeypatch.setattr(conditions, "is_mac", lambda: True)
    found = conditions._read(None, None, None)
    assert (found.power_source, found.low_power, found.throttled) == ("battery", True, True)


@pytest.mark.parametrize(("average", "busy"), [(0.1, False), (1.4, False), (1.6, True), (9.0, True)])
def test_a_machine_is_busy_by_its_load_average(monkeypatch: pytest.MonkeyPatch, average: float, busy: bool) -> None:
    cores = os.cpu_count() or 1
    monkeypatch.setattr(os, "getloadavg", lambda: (average * cores, 0.0, 0.0))
    assert conditions.is_busy() == busy
