"""`tlkit bench --units gpu,cpu` on a CUDA machine, and its joules beside nvidia-smi's.

    python benchmarks/gpu_power.py --prepare FOLDER    anywhere: the ResNet-50 package, and what reads it, into FOLDER
    python benchmarks/gpu_power.py --carried FOLDER    on the CUDA machine: measure what lies in FOLDER
    python benchmarks/gpu_power.py [MODEL]             on a CUDA machine that has coremltools

The CUDA machine needs PyTorch, numpy, protobuf and nvidia-ml-py, and the folder: coremltools itself need not be there,
only its generated protobuf modules, which --prepare puts beside the package. Prints the table (latency by the host's
clock and by device events, watts, millijoules, inferences a joule) and then runs for --seconds between two readings of
NVML's energy counter while nvidia-smi prints its power reading every 20 ms: the joules of the two are held to 5 %.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tlkit.core.convert import builtin
from tlkit.host.power import Power


def main() -> int:
    """Prepare, or measure; the exit code says whether the joules agree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", default="resnet50")
    parser.add_argument("--prepare", metavar="FOLDER", type=Path)
    parser.add_argument("--carried", metavar="FOLDER", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("-n", "--iterations", type=int, default=300)
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    if options.prepare:
        _prepare(options.prepare)
        return 0
    if options.carried:
        sys.path.insert(0, str(options.carried.resolve()))
        options.model = str(next(options.carried.glob("*.mlpackage")))
    if not Path("/dev/nvidiactl").exists():
        print("no NVIDIA GPU here: nothing measured")
        return 0
    _table(options)
    return _joules(options)


def _prepare(folder: Path) -> None:
    """Put the built-in package into ``folder``, and coremltools' generated modules (and nothing else of it)."""
    import importlib.util

    package = builtin.package("resnet50")
    spec = importlib.util.find_spec("coremltools")
    assert spec is not None and spec.submodule_search_locations
    shutil.copytree(package, folder / "resnet50.mlpackage", dirs_exist_ok=True)
    shutil.copytree(Path(spec.submodule_search_locations[0]) / "proto", folder / "coremltools" / "proto",
                    ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)  # fmt: skip
    (folder / "coremltools" / "__init__.py").write_text('"""Core ML\'s generated protobuf modules alone."""\n')
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 2**20:.1f} MiB to carry")


def _table(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from tlkit.cli.sink.console import PlainConsole
    from tlkit.cli.views.bench.table import render
    from tlkit.core.bench.bench import bench

    result = bench(options.model, units=["gpu", "cpu"], iterations=options.iterations, against="cpu", per_op=True)
    PlainConsole(sys.stdout).print(render(result))
    if options.json:
        options.json.write_text(json.dumps(asdict(result), default=str) + "\n")


def _joules(options: argparse.Namespace) -> int:
    """Run between two readings of the counter while nvidia-smi watches; compare joules over the same window."""
    import numpy as np

    from tlkit.core.model.inputs import draw
    from tlkit.core.model.load import load_model

    model = load_model(options.model, unit="gpu")
    rng = np.random.default_rng(0)
    call = model.bind({spec.name: draw(spec, "random", rng) for spec in model.inputs})
    power = Power()
    if "gpu" not in power.channels:
        print(f"no GPU energy counter: {power.note}")
        return 1
    for _ in range(50):
        call()
    with _watching() as readings:
        warm_end = time.monotonic() + 2.0  # nvidia-smi takes a while to start, and power to settle
        while time.monotonic() < warm_end:
            call()
        before = power.read()
        count, end = 0, time.monotonic() + options.seconds
        while time.monotonic() < end:
            call()
            count += 1
        after = power.read()
    inside = [watts for at, watts in readings if before.at <= at <= after.at]
    if not inside:
        print("nvidia-smi said nothing in the window")
        return 1
    seconds = after.at - before.at
    ours, theirs = after.joules["gpu"] - before.joules["gpu"], fmean(inside) * seconds
    print(f"{count} inferences in {seconds:.2f} s: NVML counter {ours:.1f} J ({ours / seconds:.1f} W), ", end="")
    print(
        f"nvidia-smi {theirs:.1f} J (mean of {len(inside)} readings), ratio {ours / theirs:.3f}, held to 0.95 to 1.05"
    )
    return 0 if abs(ours / theirs - 1) <= 0.05 else 1


@contextmanager
def _watching() -> Iterator[list[tuple[float, float]]]:
    """Collect (seconds, watts) from nvidia-smi while the body runs; a terminal makes it print each line at once."""
    master, slave = pty.openpty()
    query = ["nvidia-smi", "-i", "0", "--query-gpu=power.draw.instant", "--format=csv,noheader,nounits", "-lms", "20"]
    readings: list[tuple[float, float]] = []

    def listen() -> None:
        with suppress(OSError), os.fdopen(master, "rb", buffering=0) as lines:  # OSError: the terminal is gone
            rest = b""
            while chunk := lines.read(1024):
                *whole, rest = (rest + chunk).split(b"\n")
                now = time.monotonic()
                for line in whole:
                    with suppress(ValueError):
                        readings.append((now, float(line)))

    watcher = subprocess.Popen(query, stdout=slave)
    os.close(slave)
    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield readings
    finally:
        watcher.terminate()
        watcher.wait()
        listener.join(2.0)


if __name__ == "__main__":
    sys.exit(main())
