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

    python benchmarks/load.py [PACKAGE] --memory [MB] --cuda

The same on a CUDA GPU: what PyTorch allocates there at most, held to 1.15 of the weights, and the peak of the process
above the interpreter and above one that has only started CUDA.
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
CUDA: dict[str, dict[str, object]] = {
    "cuda": {"engine": "eager", "unit": "gpu", "runs": 1},
    "cuda compile": {"engine": "compile", "unit": "gpu", "runs": 1},
}
LIMIT, LIMIT_CUDA = 2.2, 1.15
ONCE = """
import numpy as np
import tlkit
model = tlkit.load_model({path!r}, engine={engine!r}, unit={unit!r}, cache=False)
given = {{spec.name: np.zeros(spec.shape, spec.dtype) for spec in model.inputs}}
for _ in range({runs}):
    model.predict(given)
if {unit!r} == "gpu":
    import torch
    print(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())
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
import re, resource
told = re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())
print(1024 * int(told[1] if told else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
"""
STARTED = "import torch\ntorch.zeros(1, device='cuda')\n"
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
    parser.add_argument("--cuda", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.memory:
            package = options.package or packages.stack(
                Path(folder) / "stack.mlpackage", max(1, round(options.memory / 33.55)), 4096
            )
            if options.cuda:
                _memory_of_gpu(package)
            else:
                _memory(package, options.engine or [*ENGINES])
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


def _memory(package: Path, engines: list[str]) -> None:
    weights = _weights(package)
    empty = int(_run(PEAK))
    print(
        f"{weights / 1e6:.0f} MB of weights; the interpreter takes {empty / 1e6:.0f} MB, held to {LIMIT} of the weights"
    )
    for name in engines:
        found = _once(name, package, ENGINES[name])
        if found is not None:
            peak, seconds, said = found
            print(f"{name:12} {(peak - empty) / weights:6.2f} of the weights, {seconds:5.1f} s, {' '.join(said)}")


def _memory_of_gpu(package: Path) -> None:
    weights = _weights(package)
    empty, started = int(_run(PEAK)), int(_run(STARTED + PEAK))
    print(f"{weights / 1e6:.0f} MB of weights, held to {LIMIT_CUDA} of them on the GPU; the interpreter takes", end=" ")
    print(f"{empty / 1e6:.0f} MB, with CUDA {started / 1e6:.0f}")
    for name, settings in CUDA.items():
        found = _once(name, package, settings)
        if found is not None:
            peak, seconds, said = found
            allocated, reserved = (int(part) / weights for part in said[0].split())
            print(f"{name:12} GPU {allocated:.3f} of the weights ({reserved:.3f} reserved),", end=" ")
            print(
                f"process {(peak - empty) / weights:.2f}, {(peak - started) / weights:.2f} above CUDA, {seconds:.1f} s"
            )


def _weights(package: Path) -> int:
    return sum(path.stat().st_size for path in package.rglob("*.bin"))


def _once(name: str, package: Path, settings: dict[str, object]) -> tuple[int, float, list[str]] | None:
    """Return the peak in bytes of a process that runs the package, its seconds, and what it said."""
    code = ONCE.format(**{"path": str(package.resolve()), "unit": "cpu", **settings}) + PEAK
    start = time.perf_counter()
    try:
        *said, peak = _run(code).splitlines()
    except subprocess.CalledProcessError as error:
        print(f"{name:12} {error.stderr.strip().splitlines()[-1]}")
        return None
    return int(peak), time.perf_counter() - start, said


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
