"""The architectures of fixtures/, converted: how, how long it takes, how large it is, how far it is off.

    python benchmarks/architectures.py [NAME ...] [--export | --trace] [--precision f16]

Prints a Markdown table, a line a model: how it was captured (traced; exported where that does not convert or differs),
seconds to convert (verification left out), size of the package, and the worst output's largest absolute error and
cosine beside PyTorch; last, how many converted and agreed. The first line bears the imports.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
WAYS = ("trace", "export")


def main() -> None:
    """Convert each and print its line; what cannot be converted says why."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from fixtures.architectures import every

    known = every()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*known, []], metavar="NAME")
    parser.add_argument("--export", action="store_const", const=("export",), dest="ways", default=WAYS)
    parser.add_argument("--trace", action="store_const", const=("trace",), dest="ways")
    parser.add_argument("--precision", default="f16", choices=["f16", "f32"])
    options = parser.parse_args()
    print(
        "| architecture | parameters | captured | time | size | max abs error | cosine |\n|---|---|---|---|---|---|---|"
    )
    names = options.names or list(known)
    agreed = 0
    for name in names:
        fine, text = line(name, options.ways, options.precision)
        agreed += fine
        print(text, flush=True)
    print(f"\n{agreed} of {len(names)} convert and agree")


def line(name: str, ways: tuple[str, ...], precision: str) -> tuple[bool, str]:
    """Return whether the architecture ``name`` converts and agrees, captured the first of ``ways`` in which it does,
    and the table's line for that, or for the first one.
    """
    from fixtures.architectures import build

    try:
        module = build(name)
    except Exception as error:  # another version of transformers may want another config
        return False, f"| {name} | | | not built: {type(error).__name__}: {error} | | | |"
    count = sum(parameter.numel() for parameter in module.parameters())
    lines = []
    for way in ways:
        fine, text = _converted(name, module, way, precision)
        lines.append(f"| {name} | {count / 1e3:.0f}k | {way} | {text} |")
        if fine:
            return True, lines[-1]
    return False, lines[0]


def _converted(name: str, module: nn.Module, way: str, precision: str) -> tuple[bool, str]:
    import tlkit
    from fixtures.architectures import every
    from tlkit.core.convert.convert import convert

    with tempfile.TemporaryDirectory() as folder:
        start, goal = time.perf_counter(), Path(folder) / "made.mlpackage"
        inputs = every()[name].inputs
        try:
            made = convert(module, goal, inputs=inputs, export=way == "export", precision=precision)
        except tlkit.TlkitError as error:
            return False, f"{error.message} | | | "
        except Exception as error:
            return False, f"a fault: {type(error).__name__}: {str(error).partition(chr(10))[0]} | | | "
    found = made.verification
    if found is None or found.passed is None:
        return False, f"not verified: {found and found.reasons} | | | "
    seconds, size = time.perf_counter() - start - made.timings["verify"], made.size / 1e3
    worst, cosine = max(d.max_abs for d in found.outputs.values()), min(d.cosine for d in found.outputs.values())
    remark = "" if found.passed else " (differs)"
    return bool(found.passed), f"{seconds:.1f} s | {size:.0f} kB | {worst:.1e} | {cosine:.6f}{remark}"


if __name__ == "__main__":
    main()
