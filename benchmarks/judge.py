"""What a comparison costs in runs and in memory: ``python benchmarks/judge.py runs vit_b16`` and ``... memory 1``; and
what it finds: ``... planted 0-29``.

``runs`` makes a package of a network (fixtures/networks.py, seeded weights) in which one product in the middle is made
so large that f16 overflows, has ``compare --bisect`` find it beside the module, and counts every run of either side,
those for tracing among them. ``memory`` makes two packages of that many GB (4096 x 4096 matrices) and prints
the most memory that a process took to run one of them, to compare both, and to bisect; expanded to f32 each takes twice
its size. ``planted`` takes networks with one to three faults among some 150 operations (fixtures/signals.py) by their
seeds, and prints for each which operation ``compare --bisect`` names, how many ``--precision auto`` keeps in f32, and
the signal to noise on an input that neither saw.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tlkit  # noqa: E402
from fixtures.networks import NETWORKS, vit_tiny  # noqa: E402
from fixtures.signals import INPUTS, Signals  # noqa: E402
from tests.core.precision import test_planted  # noqa: E402
from tests.formats import packages  # noqa: E402
from tlkit.core.compare.difference import snr_db  # noqa: E402
from tlkit.core.model.load import Model  # noqa: E402

WIDTH = 4096
PEAK = r"""
import re
print(int(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1]) / 1e6)
"""


def counted(owner: Any, name: str, seen: list[str]) -> None:
    """Have each call of a method recorded in ``seen``."""
    plain = getattr(owner, name)

    def call(*given: Any, **more: Any) -> Any:
        seen.append(name)
        return plain(*given, **more)

    setattr(owner, name, call)


def runs(name: str, folder: Path) -> None:
    """Print how often each side of a bisection ran, what was found, and the memory it took."""
    module, examples = {**NETWORKS, "vit_tiny": vit_tiny}[name]()
    products = [item for item in module.modules() if isinstance(item, torch.nn.Linear)]
    with torch.no_grad():
        products[len(products) // 2].weight.mul_(3e4)
    ports = ["x0=" + "x".join(map(str, item.shape)) for item in examples]
    tlkit.convert(module, folder / "net.mlpackage", inputs=ports, verify=False)
    ours: list[str] = []
    theirs: list[str] = []
    module.register_forward_hook(lambda *_: ours.append("forward"))
    counted(Model, "predict", theirs)
    counted(Model, "watch", theirs)
    start = time.process_time()
    found = tlkit.compare(module, folder / "net.mlpackage", ports=ports, bisect=True)
    took = time.process_time() - start
    assert found.bisection is not None
    print(
        f"{name}: {len(ours)} runs of the module, {len(theirs)} of the package ({', '.join(theirs)}), {took:.0f} CPU s"
    )
    for label, text in found.bisection.lines():
        print(f"  {label:14} {text}")


def memory(gigabytes: float, folder: Path) -> None:
    """Print the peak memory of a process that runs one model, compares two, or bisects."""
    layers = max(1, round(gigabytes * 1e9 / (2 * WIDTH * WIDTH)))
    a, b = (str(packages.stack(folder / f"{name}.mlpackage", layers, WIDTH)) for name in "ab")
    size = layers * 2 * WIDTH * WIDTH / 1e9
    one = f"import numpy as np\nm = tlkit.load_model({a!r}, engine='eager')\nfor _ in range(3): m.predict("
    one += "{s.name: np.zeros(s.shape, s.dtype) for s in m.inputs})"
    codes = {"nothing": "", "one": one, "two": f"assert tlkit.compare({a!r}, {b!r}).ok"}
    codes["bisect"] = f"assert tlkit.compare({a!r}, {b!r}, bisect=True).ok"
    for label, code in codes.items():
        program = f"import torch, tlkit\n{code}\n{PEAK}"
        told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
        print(f"{label:8} of {size:.2f} GB in f16: {float(told.stdout):.2f} GB at the peak", flush=True)


def planted(seed: int, folder: Path) -> str:
    """Return a row for one network with faults."""
    net = Signals(seed).eval()
    half, wide, mixed = (folder / f"{name}.mlpackage" for name in ("half", "wide", "mixed"))
    tlkit.convert(net, half, inputs=INPUTS, verify=False, auto=False, force=True)
    found = tlkit.compare(net, half, bisect=True, count=1).bisection
    assert found is not None
    place = "" if found.first is None else found.first.place.partition(",")[0]
    told = "right" if place in test_planted.firsts(net) else "WRONG"
    tlkit.convert(net, wide, inputs=INPUTS, verify=False, auto=False, precision="f32", force=True)
    made = tlkit.edit(wide, mixed, precision="auto", min_snr=40, force=True)
    assert isinstance(made, tlkit.MixedPrecision)
    with torch.no_grad():
        want = net(test_planted.signal(2)).numpy()
    (got,) = tlkit.load_model(mixed).predict({"x": test_planted.signal(2).numpy()}).values()
    planted = test_planted.planted(wide, net.truth)
    few = "few" if len(made.kept) <= 2 * planted else "MANY"
    faults = ", ".join(
        f"{net.get_submodule(name).name} {net.harm(name, test_planted.signal(1)):.0f} dB" for name in net.truth
    )
    named = "none" if found.first is None else f"{found.first.type} in {found.first.place}: {found.first.why}"
    return (
        f"{seed:3} {told} {few} kept {len(made.kept)} of {made.operations}, {planted} planted; {made.half_db:.1f} dB in"
        f" f16, {snr_db(want, got):.1f} dB mixed | {faults} | {named}"
    )


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("what", choices=("runs", "memory", "planted"))
    parser.add_argument("of", help="a network, gigabytes, or seeds such as 0-29")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.what == "runs":
            runs(given.of, Path(folder))
        elif given.what == "planted":
            low, _, high = given.of.partition("-")
            for seed in range(int(low), int(high or low) + 1):
                print(planted(seed, Path(folder)), flush=True)
        else:
            memory(float(given.of), Path(folder))


if __name__ == "__main__":
    main()
