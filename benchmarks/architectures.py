"""The architectures of fixtures/architectures.py, converted: how long it takes, how large it is, how far it is off.

    python benchmarks/architectures.py [NAME ...] [--export] [--precision f16]

Prints a Markdown table, a line a model: seconds to convert (verification left out), size of the package, and the worst
output's largest absolute error and cosine beside PyTorch. The first line bears the imports.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Convert each and print its line; what cannot be converted says why."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from fixtures.architectures import ARCHITECTURES

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*ARCHITECTURES, []], metavar="NAME")
    parser.add_argument("--export", action="store_true")
    parser.add_argument("--precision", default="f16", choices=["f16", "f32"])
    options = parser.parse_args()
    print("| architecture | parameters | time | size | max abs error | cosine |\n|---|---|---|---|---|---|")
    for name in options.names or ARCHITECTURES:
        print(line(name, options.export, options.precision), flush=True)


def line(name: str, export: bool, precision: str) -> str:
    """Return the table's line for the architecture ``name``."""
    import tlkit
    from fixtures.architectures import ARCHITECTURES, build
    from tlkit.core.convert.convert import convert

    module = build(name)
    count = sum(parameter.numel() for parameter in module.parameters())
    with tempfile.TemporaryDirectory() as folder:
        start, goal = time.perf_counter(), Path(folder) / "made.mlpackage"
        inputs = ARCHITECTURES[name].inputs
        try:
            made = convert(module, goal, inputs=inputs, export=export, precision=precision)
        except tlkit.TlkitError as error:
            return f"| {name} | {count / 1e3:.0f}k | {error.message} | | | |"
    found = made.verification
    if found is None or found.passed is None:
        return f"| {name} | {count / 1e3:.0f}k | not verified: {found and found.reasons} | | | |"
    seconds, size = time.perf_counter() - start - made.timings["verify"], made.size / 1e3
    worst, cosine = max(d.max_abs for d in found.outputs.values()), min(d.cosine for d in found.outputs.values())
    remark = "" if found.passed else " (differs)"
    return f"| {name} | {count / 1e3:.0f}k | {seconds:.1f} s | {size:.0f} kB | {worst:.1e} | {cosine:.6f}{remark} |"


if __name__ == "__main__":
    main()
