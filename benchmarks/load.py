"""Program to runnable: tlkit loading and preparing, beside coremltools with ``skip_model_load=True``, which only reads.

    python benchmarks/load.py [PACKAGE] [--rounds 9]

First whole processes, imports and all, which take turns; the share is to be at most 0.5. Then the same calls again and
again in a process that has everything imported: there coremltools parses a message, and tlkit makes the model run
(weights widened, graph lowered). Medians and least wall times. Without PACKAGE, ResNet-50 is converted first.

    python benchmarks/load.py [PACKAGE] --cold [--engine auto] [--rounds 9]

How long until the first result of a process, once the model was compiled before? Held to 1 s more than ``import torch``
(which such a process may do without). Before that: how long the first compilation takes, held to 15 s.

    python benchmarks/load.py [PACKAGE] --memory [MB] [--engine NAME ...]

How much memory does it take to load a package of so many megabytes of f16 weights (1000) and to run it once? Printed is
the peak of a process of its own for each engine, above the interpreter, over the bytes of the weights: held to 2.2.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.formats import packages

ROOT = Path(__file__).resolve().parent.parent
LOADS = {
    "coremltools": "from coremltools.models import MLModel\ndef load(): MLModel({path!r}, skip_model_load=True)",
    "tlkit": "import tlkit\ndef load(): tlkit.load_model({path!r}).prepare()",
}
ENGINES: dict[str, dict[str, object]] = {
    "auto": {"engine": "auto", "runs": 1},
    "auto, often": {"engine": "auto", "runs": 4},
    "eager": {"engine": "eager", "runs": 1},
    "openvino": {"engine": "openvino", "runs": 1},
    "onnxruntime": {"engine": "onnxruntime", "runs": 1},
}
LIMIT = 2.2
ONCE = """
import numpy as np
import tlkit
model = tlkit.load_model({path!r}, engine={engine!r}, cache=False)
given = {{spec.name: np.zeros(spec.shape, spec.dtype) for spec in model.inputs}}
for _ in range({runs}):
    model.predict(given)
print(getattr(model.engine, "why", ""))
"""
FIRST = """
import sys
import numpy as np
from tlkit.core.model.load import load_model
model = load_model({path!r}, engine={engine!r})
given = {{spec.name: np.ones(spec.shape, spec.dtype) for spec in model.inputs}}
model.{how}
print(getattr(model.engine, "why", ""), "; torch was imported" if "torch" in sys.modules else "; without torch")
"""
PEAK = """
import re
print(1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]))
"""
WARM = """
import json, time
load()
taken = []
for _ in range({rounds}):
    start = time.perf_counter()
    load()
    taken.append((time.perf_counter() - start) * 1e3)
print(json.dumps(taken))
"""


def main() -> None:
    """Time both contenders, cold and warm, and print tlkit's share of coremltools' time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("package", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory", type=int, nargs="?", const=1000, metavar="MB")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--engine", action="append", choices=[*ENGINES])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.memory:
            _memory(options.package, Path(folder), options.memory, options.engine or [*ENGINES])
            return
        package = options.package or _resnet50(Path(folder))
        if options.cold:
            _cold(package, Path(folder), (options.engine or ["auto"])[0], options.rounds)
            return
        scripts = {name: text.format(path=str(package.resolve())) for name, text in LOADS.items()}
        _show("whole process", _whole(scripts, options.rounds))
        _show("warm process", {name: _warm(text, options.rounds) for name, text in scripts.items()})


def _cold(package: Path, folder: Path, engine: str, rounds: int) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    environment.pop("TLKIT_NO_CACHE", None)
    code = {
        "import torch": "import torch",
        "compile": FIRST.format(path=str(package.resolve()), engine=engine, how="bind(given)()"),
        "first result": FIRST.format(path=str(package.resolve()), engine=engine, how="predict(given)"),
    }
    start = time.perf_counter()
    _run(code["compile"], environment)
    compiling = time.perf_counter() - start
    times: dict[str, list[float]] = {"import torch": [], "first result": []}
    for turn in range(rounds + 1):
        for name, taken in times.items():
            start = time.perf_counter()
            said = _run(code[name], environment)
            if turn:  # the first one fills the caches of files
                taken.append(time.perf_counter() - start)
    torch, first = (statistics.median(taken) for taken in times.values())
    print(said.strip())
    print(f"the process that compiled  {compiling:6.2f} s, held to {15 + torch:.2f} (15 s after importing torch)")
    print(f"import torch               {torch:6.2f} s")
    print(f"first result               {first:6.2f} s, held to {torch + 1:.2f}")


def _memory(package: Path | None, folder: Path, size: int, engines: list[str]) -> None:
    package = package or packages.stack(folder / "stack.mlpackage", max(1, round(size / 33.55)), 4096)
    weights = sum(path.stat().st_size for path in package.rglob("*.bin"))
    empty = int(_run(PEAK))
    print(
        f"{weights / 1e6:.0f} MB of weights; the interpreter takes {empty / 1e6:.0f} MB, held to {LIMIT} of the weights"
    )
    for name in engines:
        code = ONCE.format(path=str(package.resolve()), **ENGINES[name]) + PEAK
        start = time.perf_counter()
        try:
            *said, peak = _run(code).splitlines()
        except subprocess.CalledProcessError as error:
            print(f"{name:12} {error.stderr.strip().splitlines()[-1]}")
            continue
        share = (int(peak) - empty) / weights
        print(f"{name:12} {share:6.2f} of the weights, {time.perf_counter() - start:5.1f} s, {' '.join(said)}")


def _whole(scripts: dict[str, str], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in scripts}
    for turn in range(rounds + 1):
        for name, text in scripts.items():
            start = time.perf_counter()
            _run(f"{text}\nload()")
            if turn:  # the first one fills the caches of files
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


def _warm(script: str, rounds: int) -> list[float]:
    taken: list[float] = json.loads(_run(script + WARM.format(rounds=rounds)))
    return taken


def _run(script: str, environment: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env=environment).stdout


def _show(title: str, times: dict[str, list[float]]) -> None:
    for name, taken in times.items():
        print(f"{title:14} {name:12} median {statistics.median(taken):8.1f} ms, least {min(taken):8.1f} ms")
    share = statistics.median(times["tlkit"]) / statistics.median(times["coremltools"])
    print(f"{title:14} {'share':12} {share:15.2f}")


def _resnet50(folder: Path) -> Path:
    import tlkit

    tlkit.convert("resnet50", folder / "resnet50.mlpackage")
    return folder / "resnet50.mlpackage"


if __name__ == "__main__":
    main()
