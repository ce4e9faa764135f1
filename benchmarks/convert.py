"""What ``tlkit.convert`` costs beside a bare script that traces, calls coremltools and saves, for ResNet-50.

Each round runs both in fresh processes, in turn, so that imports count and a drift of the machine hits both.
Prints the times and their ratio (the aim is at most 1.1): ``python benchmarks/convert.py [ROUNDS]``.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BARE = """
import sys, torch, coremltools as ct
from tlkit.models import resnet50
model = resnet50()
with torch.no_grad():
    traced = torch.jit.trace(model, torch.randn(1, 3, 224, 224), check_trace=False)
image = ct.TensorType(name="image", shape=(1, 3, 224, 224))
made = ct.convert(traced, inputs=[image], convert_to="mlprogram", minimum_deployment_target=ct.target.iOS17,
                  skip_model_load=True)
made.save(sys.argv[1])
"""

TLKIT = """
import sys
from tlkit.core.convert import convert
convert("resnet50", sys.argv[1], verify=False)
"""


def cost(script: str) -> tuple[float, float]:
    """Return (wall, CPU) seconds of ``script`` in a process of its own, which writes to a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", script, str(Path(folder) / "resnet50.mlpackage")]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print one line a round, then the ratio of the medians, by wall clock and by CPU time (for a busy machine)."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    costs: dict[str, list[tuple[float, float]]] = {BARE: [], TLKIT: []}
    for index in range(rounds):
        for script in (BARE, TLKIT) if index % 2 else (TLKIT, BARE):
            costs[script].append(cost(script))
        (bare_wall, bare_cpu), (wall, cpu) = costs[BARE][-1], costs[TLKIT][-1]
        print(
            f"round {index + 1}: wall {wall:.2f} / {bare_wall:.2f} s, CPU {cpu:.2f} / {bare_cpu:.2f} s (tlkit / bare)"
        )
    for kind, name in enumerate(("wall", "CPU")):
        bare, ours = (statistics.median(pair[kind] for pair in costs[script]) for script in (BARE, TLKIT))
        print(f"median {name}: tlkit {ours:.2f} s, bare {bare:.2f} s, ratio {ours / bare:.3f}")


if __name__ == "__main__":
    main()
