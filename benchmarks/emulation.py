"""ResNet-50 by MIL's rule and under the Neural Engine's arithmetic, in turns: how long each takes.

    python benchmarks/emulation.py [PACKAGE] [--units cpu|gpu] [--rounds 5] [--profiles mil,ane,ane:exact]

Without PACKAGE, ResNet-50 is converted first. Printed are the least wall and CPU times, and whether ``ane`` and
``ane:exact`` give the same bits. Held to: exact 60 s on two cores and 2 s on an H100; ``ane`` 3 times the plain run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import tlkit


def main() -> None:
    """Print one line for each profile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", nargs="?", type=Path)
    parser.add_argument("--units", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profiles", default="mil,ane,ane:exact")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        package = options.package or Path(folder) / "resnet50.mlpackage"
        if options.package is None:
            tlkit.convert("resnet50", package)
        measured(package, options.profiles.split(","), options.units, options.rounds)


def measured(package: Path, profiles: list[str], units: str, rounds: int) -> None:
    """Run all profiles in turns, and print the least times."""
    models = {name: tlkit.load_model(package, engine="eager", unit=units, emulate=name) for name in profiles}
    some = next(iter(models.values()))
    rng = np.random.default_rng(0)
    given = {spec.name: rng.standard_normal(spec.shape).astype(np.float32) for spec in some.inputs}
    results: dict[str, Any] = {name: model.predict(given) for name, model in models.items()}  # the first also prepares
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            wall, cpu = time.perf_counter(), time.process_time()
            model.predict(given)
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    plain = min(wall for wall, _ in taken[profiles[0]])
    for name, pairs in taken.items():
        wall, cpu = (min(part) for part in zip(*pairs, strict=True))
        print(f"{name:10} {wall:7.3f} s, {cpu:7.3f} CPU s, {wall / plain:5.2f} of {profiles[0]}")
    if {"ane", "ane:exact"} <= set(results):
        one, other = results["ane"], results["ane:exact"]
        same = all(np.array_equal(one[key], other[key], equal_nan=True) for key in one)
        print(f"ane and ane:exact: {'the same bits' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
