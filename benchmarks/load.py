"""Program to runnable: tlkit loading and preparing, beside coremltools with ``skip_model_load=True``, which only reads.

    python benchmarks/load.py [PACKAGE] [--rounds 9]

First whole processes, imports and all, which take turns; the share is to be at most 0.5. Then the same calls again and
again in a process that has everything imported: there coremltools parses a message, and tlkit makes the model run
(weights widened, graph lowered). Medians and least wall times. Without PACKAGE, ResNet-50 is converted first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOADS = {
    "coremltools": "from coremltools.models import MLModel\ndef load(): MLModel({path!r}, skip_model_load=True)",
    "tlkit": "import tlkit\ndef load(): tlkit.load_model({path!r}).prepare()",
}
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        package = options.package or _resnet50(Path(folder))
        scripts = {name: text.format(path=str(package.resolve())) for name, text in LOADS.items()}
        _show("whole process", _whole(scripts, options.rounds))
        _show("warm process", {name: _warm(text, options.rounds) for name, text in scripts.items()})


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


def _run(script: str) -> str:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


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
