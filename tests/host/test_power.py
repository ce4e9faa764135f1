"""Energy: counters read from a file system and from modules of the documented shape, arithmetic, and honest gaps."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.core.rows import row
from tlkit.core.bench.versus import over_cpu
from tlkit.host import power
from tlkit.host.power import Power, Rapl, Reading, energy, watts


def zone(folder: Path, name: str, microjoules: int, wraps_at: int = 10_000_000) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{wraps_at}\n")
    return folder


def test_packages_add_up_and_cores_are_inside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "POWERCAP", tmp_path)
    monkeypatch.setattr(power, "is_mac", lambda: False)
    zone(tmp_path / "intel-rapl:0", "package-0", 3_000_000)
    zone(tmp_path / "intel-rapl:1", "package-1", 4_000_000)
    zone(tmp_path / "intel-rapl:0:0", "core", 2_000_000)
    zone(tmp_path / "intel-rapl:0:1", "dram", 500_000)
    found, note = power._rapl()
    assert note == ""
    assert found.joules() == {"cpu": 7.0, "dram": 0.5}


def test_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    place = zone(tmp_path / "z", "package-0", 9_000_000)
    meter = Rapl({place: "cpu"})
    before = meter.joules()["cpu"]
    zone(place, "package-0", 1_000_000)
    assert meter.joules()["cpu"] - before == pytest.approx(2.0)


def test_no_counter_is_a_note_and_no_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "POWERCAP", tmp_path)
    found, note = power._rapl()
    assert found is None and "not expose RAPL" in note


def test_apple_silicons_counters_by_their_documented_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """zeus-apple-silicon 1.1: get_cumulative_energy() in mJ, None for what a chip does not have."""
    metrics = SimpleNamespace(cpu_total_mj=2500, gpu_mj=100, ane_mj=40, dram_mj=None)
    module = SimpleNamespace(AppleEnergyMonitor=lambda: SimpleNamespace(get_cumulative_energy=lambda: metrics))
    monkeypatch.setitem(sys.modules, "zeus_apple_silicon", module)
    found, note = power._apple()
    assert found.joules() == {"cpu": 2.5, "gpu": 0.1, "ane": 0.04}
    assert note == "this chip has no energy counter for dram"


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeus_apple_silicon", None)
    assert power._apple() == (None, "install zeus-apple-silicon to read Apple silicon's counters: "
                                    "pip install 'tlkit[power]'")  # fmt: skip


def test_watts_are_joules_over_seconds() -> None:
    used = watts(Reading(10.0, {"cpu": 5.0, "gpu": 1.0}), Reading(12.0, {"cpu": 25.0, "gpu": 1.0}))
    assert used == {"cpu": 10.0, "gpu": 0.0}


def test_idle_is_taken_off() -> None:
    found = energy({"cpu": 12.0, "dram": 3.0}, {"cpu": 4.0, "dram": 1.0}, seconds=2.0, count=50, device="cpu")
    assert found.millijoules == pytest.approx(1000 * (12 + 3 - 5) * 2 / 50)
    assert found.per_joule == pytest.approx(50 / 20)


def test_a_device_without_a_counter_has_no_energy() -> None:
    found = energy({"gpu": 70.0}, {"gpu": 60.0}, 2.0, 50, "cpu")
    assert (found.millijoules, found.per_joule) == (None, None)
    assert "CPU" in found.note


def test_a_part_of_the_energy_is_called_a_part() -> None:
    found = energy({"gpu": 160.0}, {"gpu": 60.0}, 2.0, 50, "gpu")
    assert found.millijoules == pytest.approx(4000) and "no energy counter covers the CPU" in found.note
    assert energy({"gpu": 160.0, "cpu": 9.0}, {"gpu": 60.0, "cpu": 9.0}, 2.0, 50, "gpu").note == ""


def test_what_does_not_rise_above_idle_is_not_zero() -> None:
    found = energy({"gpu": 60.1}, {"gpu": 60.0}, 2.0, 50, "gpu")
    assert found.millijoules is None and "idle" in found.note


def test_the_gain_is_over_the_cpu_row_of_the_same_model() -> None:
    def of(unit: str, per_joule: float | None, model: str = "net") -> object:
        return row(unit, model=model, energy=power.Energy(1, 1, {}, {}, None, per_joule))

    rows = [of("cpu", 2.0), of("gpu", 8.0), of("gpu", 8.0, "other"), of("ane", None)]
    assert [over_cpu(found, rows) for found in rows] == [1.0, 4.0, None, None]


@pytest.mark.macos
def test_on_a_mac_something_is_said() -> None:
    found = Power()
    assert found.available or found.note
