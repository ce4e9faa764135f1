"""What ``tlkit convert`` costs beside a bare script that traces, calls coremltools and saves: time and peak memory.

    python benchmarks/convert.py [--network resnet50|vit_b16|decoder] [--rounds 5]

Each round runs the contenders in fresh processes, in turn, so that imports count and a drift of the machine hits all.
The aims: at most 1.1 times the time without verification, at most 1.15 times the memory with it and without. Memory is
the process's peak resident set as the kernel counts it, mapped files included.
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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).resolve().parent.parent

BARE = """
import sys, numpy as np, torch, coremltools as ct
from benchmarks.convert import INPUTS, network
if sys.argv[1] == "decoder":  # GPT-2 needs an op that coremltools lacks
    from tlkit.core.convert.tools.teach import install
    install()
name, shape, dtype = INPUTS[sys.argv[1]]
example = torch.randn(shape) if dtype == "f32" else torch.zeros(shape, dtype=torch.int32)
with torch.no_grad():
    traced = torch.jit.trace(network(sys.argv[1]), example, check_trace=False)
port = ct.TensorType(name=name, shape=shape, dtype=np.float32 if dtype == "f32" else np.int32)
made = ct.convert(traced, inputs=[port], convert_to="mlprogram", minimum_deployment_target=ct.target.iOS17,
                  skip_model_load=True)
made.save(sys.argv[2])
"""

INPUTS = {
    "resnet50": ("image", (1, 3, 224, 224), "f32"),
    "vit_b16": ("image", (1, 3, 224, 224), "f32"),
    "decoder": ("ids", (1, 64), "i32"),
}
"""Name, shape and type of each network's input: ResNet-50 (26 M parameters), ViT-B/16 (86 M), GPT-2 (124 M)."""


def network(name: str) -> nn.Module:
    """Return the network called ``name``, its weights seeded."""
    if name == "decoder":
        return _gpt2()
    from fixtures.networks import NETWORKS

    return NETWORKS[name]()[0]


def _gpt2() -> nn.Module:
    import torch
    import transformers

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformers.GPT2LMHeadModel(transformers.GPT2Config(use_cache=False))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(input_ids=ids).logits
            return logits

    torch.manual_seed(0)
    return Logits().eval()


def contenders(name: str) -> dict[str, list[str]]:
    """Return the command lines to compare, each without the package that it is to write."""
    port, shape, dtype = INPUTS[name]
    source = [f"{ROOT / 'benchmarks/convert.py'}:network", "--kwargs", json.dumps({"name": name})]
    given = f"{port}={'x'.join(map(str, shape))}:{dtype}"
    tlkit = [sys.executable, "-m", "tlkit", "convert", *source, "--input", given]
    return {
        "bare": [sys.executable, "-c", BARE, name],
        "tlkit": [*tlkit, "--no-verify", "-o"],
        "tlkit, verified": [*tlkit, "-o"],
    }


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds by the clock, seconds of CPU time, and peak resident bytes of a process."""

    wall: float
    cpu: float
    memory: int


def cost(command: list[str]) -> Cost:
    """Return what ``command`` costs in a process of its own; it is given a package's name in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as told:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        goal = str(Path(folder) / "made.mlpackage")
        start = time.perf_counter()
        process = subprocess.Popen([*command, goal], stdout=told, stderr=told, env=environment)
        _, status, usage = os.wait4(process.pid, 0)  # what this process alone took
        wall = time.perf_counter() - start
        if status:
            told.seek(0)
            sys.exit(told.read().decode(errors="replace"))
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def main() -> None:
    """Print one line a process, then each contender's medians and their ratios to the bare script's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", default="resnet50", choices=list(INPUTS))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    commands = contenders(options.network)
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for index in range(options.rounds):
        for name in list(commands)[:: -1 if index % 2 else 1]:
            costs[name].append(cost(commands[name]))
            print(f"round {index + 1}: {name:16} {_line(costs[name][-1])}", flush=True)
    medians = {name: _median(found) for name, found in costs.items()}
    bare = medians["bare"]
    for name, found in medians.items():
        ratios = f"{found.wall / bare.wall:.3f}, {found.cpu / bare.cpu:.3f}, {found.memory / bare.memory:.3f}"
        print(f"median:  {name:16} {_line(found)}; over bare {ratios}")


def _median(costs: list[Cost]) -> Cost:
    wall, cpu, memory = (statistics.median(getattr(cost, key) for cost in costs) for key in ("wall", "cpu", "memory"))
    return Cost(wall, cpu, int(memory))


def _line(cost: Cost) -> str:
    return f"wall {cost.wall:6.2f} s, CPU {cost.cpu:6.2f} s, memory {cost.memory / 1e6:5.0f} MB"


if __name__ == "__main__":
    main()
