"""Contributions: probes that coremltools takes, and a document that the fit reads and that names nobody."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.latency import Figure, contributed
from tests.core.edit.test_edit import coremltools_program
from tlkit.core.bench.rows import OpCost, Placement, Row
from tlkit.core.bench.stats import summarize
from tlkit.core.contribute import contribute, contribution, write_probes
from tlkit.core.doctor import doctor
from tlkit.core.model.load import load_model
from tlkit.errors import UnavailableError


def test_probes_are_packages_that_coremltools_and_tlkit_read(tmp_path: Path) -> None:
    found = write_probes(tmp_path)
    assert len(found) >= 6
    for path in found.values():
        coremltools_program(path)  # which infers every type again
    x = np.full((1, 64, 32, 32), 0.5, np.float32)
    (y,) = load_model(found["conv-64x32"]).predict({"x": x}).values()
    # Far from the edges each convolution sums 64 channels of nine times 2**-10.
    assert y[0, 0, 16, 16] == pytest.approx(0.5 * (64 * 9 / 1024) ** 4, rel=5e-3)


def test_the_document_has_rows_that_the_fit_reads_and_nobody_s_name(tmp_path: Path) -> None:
    plan = Placement("MLComputePlan", {"ane": 1}, {"ane": 1.0}, (OpCost("y", "conv", "ane", 1.0),))
    rows = [
        Row("ane", summary=summarize([2_000_000, 3_000_000, 2_500_000]), placement=plan),
        Row("all", summary=summarize([2_000_000])),
        Row("gpu", status="absent", reason="not here"),
    ]
    document = contribution({"conv-64x32": rows})
    assert document["rows"][0] == {
        "probe": "conv-64x32", "setting": "ane", "median_ms": 2.5, "plan": "MLComputePlan",
        "operations": [["y", "conv", "ane", 1.0]],
    }  # fmt: skip
    assert platform.node() not in json.dumps(document) and str(Path.home()) not in json.dumps(document)
    path = tmp_path / "m4.json"
    path.write_text(json.dumps(document | {"chip": "M4"}))
    figures, networks = contributed(path)
    assert figures == [Figure("conv-64x32", "M4", "ane", 2.5)]  # all is no unit
    assert networks["conv-64x32"].macs.tolist() == [64 * 64 * 9 * 32 * 32] * 4


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac can contribute")
def test_off_a_mac_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="on a Mac"):
        doctor(contribute=tmp_path / "m4.json")
    assert not (tmp_path / "m4.json").exists()


@pytest.mark.macos
def test_a_mac_contributes(tmp_path: Path) -> None:
    contribute(tmp_path / "mac.json")
    figures, _ = contributed(tmp_path / "mac.json")
    assert {figure.unit for figure in figures} >= {"cpu", "gpu"}
