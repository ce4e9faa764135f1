"""What the cheap commands cost beside ``python -c "import typer, rich"``: at most 1.5 times that plus 100 ms.

    python benchmarks/startup.py [PACKAGE] [--rounds 15]

The contenders take turns, each a process of its own; shown are the median and least wall times in milliseconds. Without
PACKAGE the digits fixture is converted first, into a temporary folder. The processes may write bytecode, as pip does
when it installs: with PYTHONDONTWRITEBYTECODE an editable tlkit would be compiled at each start, typer and rich not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Time the commands and print each one's share of the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("package", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        package = options.package or _digits(Path(folder))
        tlkit = [sys.executable, "-m", "tlkit"]
        commands = {
            "import typer, rich": [sys.executable, "-c", "import typer, rich"],
            "tlkit --help": [*tlkit, "--help"],
            "tlkit inspect": [*tlkit, "inspect", str(package)],
        }
        for command in commands.values():
            _run(command)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                times[name].append(_run(command))
    limit = 1.5 * statistics.median(times["import typer, rich"]) + 100
    for name, taken in times.items():
        print(f"{name:20} median {statistics.median(taken):6.0f} ms, least {min(taken):6.0f} ms")
    print(f"{'limit':20} {limit:13.0f} ms")


def _run(command: list[str]) -> float:
    start = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=environment)
    return (time.perf_counter() - start) * 1e3


def _digits(folder: Path) -> Path:
    import tlkit

    goal = folder / "digits.mlpackage"
    tlkit.convert(str(ROOT / "fixtures/digits.py") + ":model", goal, images=["image=1x1x8x8:GRAYSCALE:scale=1/255"])
    return goal


if __name__ == "__main__":
    main()
