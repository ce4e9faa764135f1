"""The page on paper: a browser prints it, and its pages are counted."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.core.rows import row, run
from tlkit.cli.views.bench.report import page
from tlkit.core.bench.rows import OpCost, Placement
from tlkit.core.bench.trust import judge
from tlkit.core.bench.versus import comparisons
from tlkit.host.power import Energy

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here to print with")

OPS = tuple(OpCost(f"layer_{index}_conv_cast_fp16", "conv", "cpu", 0.04) for index in range(24))
PLAN = Placement("MLComputePlan", {"ane": 60, "cpu": 4}, {"ane": 0.9, "cpu": 0.1}, OPS)
ENERGY = Energy(2, 100, {"cpu": 30.0, "ane": 3.0}, {"cpu": 10.0, "ane": 0.1}, 50.0, 20.0)


def full(count: int) -> str:
    """Return the page of ``count`` rows that have all there is: energy, operations, trust, speed-ups."""
    rows = [row("cpu", 1e6 * (1 + index), seed=index, placement=PLAN, energy=ENERGY) for index in range(count)]
    rows = [replace(found, label=f"network/cpu/batch={index}") for index, found in enumerate(rows)]
    rows = [replace(found, trust=judge(found)) for found in rows]
    return page(replace(run(*rows, power_channels=("cpu", "ane")), comparisons=comparisons(rows, None)))


@pytest.mark.parametrize("count", [4, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 2, 6, 12))])
def test_the_page_prints_on_one_page(count: int, tmp_path: Path) -> None:
    written, printed = tmp_path / "page.html", tmp_path / "page.pdf"
    written.write_text(full(count))
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--no-pdf-header-footer", f"--print-to-pdf={printed}", written.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes())) == 1
