"""Rows, and runs of them, as a measurement would leave them: for tests of what is made of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tlkit.core.bench.bench import BenchModel, BenchResult
from tlkit.core.bench.rows import BenchInput, Method, Row
from tlkit.core.bench.stats import summarize
from tlkit.core.bench.versus import comparisons
from tlkit.host.conditions import Conditions
from tlkit.host.machine import describe_machine


def row(unit: str = "cpu", median: float = 1e6, count: int = 100, seed: int = 0, **fields: Any) -> Row:
    """A measured row: ``count`` samples around ``median`` ns with 2 % jitter, in ten turns of five processes."""
    samples = tuple(int(v) for v in median * np.random.default_rng(seed).lognormal(0, 0.02, count))
    common: dict[str, Any] = {
        "backend": "test",
        "device": "cpu",
        "threads": 1,
        "load_first_ns": 5_000_000,
        "peak_bytes": 2**28,
        "turns": ((count // 10,) * 2,) * 5,
        "inputs": (BenchInput("x", "float32", (1, 4), "random"),),
    }
    return Row(unit, summary=summarize(samples), samples_ns=samples, **(common | fields))


def run(*rows: Row, **fields: Any) -> BenchResult:
    """A run with these rows."""
    models = (BenchModel("net", "net.mlpackage", "net.mlpackage", "coreml"),)
    common: dict[str, Any] = {"comparisons": comparisons(rows, None), "power_note": "no counter"}
    return BenchResult(
        models=models,
        started="2026-01-02T03:04:05+00:00",
        method=Method(),
        machine=describe_machine(),
        conditions=Conditions(),
        versions={"torch": "2"},
        rows=tuple(rows),
        **(common | fields),
    )
