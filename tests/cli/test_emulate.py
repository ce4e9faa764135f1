"""``--emulate``: every output says that it is an emulation."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commands import Shell
from tests.formats import packages


def test_run_prints_that_it_is_an_emulation(tlkit: Shell, tmp_path: Path) -> None:
    path = packages.linear(tmp_path / "net.mlpackage")
    done = tlkit("run", path, "--emulate", "ane", "--json")
    assert done.code == 0 and "not a measurement" in done.err
    assert done.json()["emulated"]["profile"] == "ane-m4"
    assert "emulated: the Neural Engine of an M4" in tlkit("run", path, "--emulate", "ane").out
    assert tlkit("run", path, "--json").json()["emulated"] is None
    wrong = tlkit("run", path, "--emulate", "tpu")
    assert wrong.code == 2 and "ane-m1" in wrong.err
