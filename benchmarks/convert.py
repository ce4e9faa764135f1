"""What ``tlkit.convert`` costs beside a bare script that traces, calls coremltools and saves, for ResNet-50.

Each round runs both in fresh processes, in turn, so that imports count and a drift of the machine hits both.
Prints the times and their ratio (the aim is at most 1.1): ``python benchmarks/convert.py [ROUNDS]``.
"""

from __future__ import annotations

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


def seconds(script: str) -> float:
    """Return the wall time of ``script`` in a process of its own, which writes its package to a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-c", script, str(Path(folder) / "resnet50.mlpackage")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - start


def main() -> None:
    """Print one line a round and the medians' ratio."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    bare, ours = [], []
    for index in range(rounds):
        pair = {script: seconds(script) for script in ((BARE, TLKIT) if index % 2 else (TLKIT, BARE))}
        bare.append(pair[BARE])
        ours.append(pair[TLKIT])
        print(f"round {index + 1}: bare {bare[-1]:.2f} s, tlkit {ours[-1]:.2f} s")
    ratio = statistics.median(ours) / statistics.median(bare)
    print(f"median: bare {statistics.median(bare):.2f} s, tlkit {statistics.median(ours):.2f} s, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
