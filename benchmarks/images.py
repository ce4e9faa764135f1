"""What do a set's images cost when workers share it, and does any worker's memory grow?

    python benchmarks/images.py [--images 100000] [--workers 4] [--ray] [--parquet] [--engine auto]

Runs a small network on made images (JPEG files of a folder, or encoded in a Parquet file) by ``tlkit run --jobs``, on
this machine's processes or on a Ray cluster that is started first: one worker on its share of them, then all workers on
all. A worker computes with one thread. The one worker is held to its share of the cores, as it has no more beside the
others: otherwise two cores would run it faster than half of them do. Printed are both rates, what is kept of workers x
one worker, the processor time that an image costs, whether the rows are the same, and what the largest worker holds as
time goes on.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import psutil
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.fleet import local_cluster

_SIDE = 96
_DISTINCT = 500  # images; the others are the same again
_NET = """import torch
from torch import nn
def net():
    torch.manual_seed(0)
    parts = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        parts += [nn.Conv2d(before, after, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
"""


@dataclass
class Watched:
    """A command that ended: its seconds, and of the largest worker the bytes it held as time went on."""

    seconds: float = 0.0
    workers: list[tuple[float, int]] = field(default_factory=list)
    head: int = 0
    busy: float = 0.0
    """Seconds of processor time, of the whole machine."""

    def largest(self) -> list[float]:
        """The most MiB that a worker held, in each tenth of the time."""
        tenths = [0] * 10
        for at, size in self.workers:
            tenth = min(9, int(10 * at / self.seconds))
            tenths[tenth] = max(tenths[tenth], size)
        return [size / 2**20 for size in tenths]


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--parquet", action="store_true")
    parser.add_argument("--engine", default="auto")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    share = options.images // options.workers
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "net.py").write_text(_NET)
        port = f"image=1x3x{_SIDE}x{_SIDE}:scale=1/255"
        _tlkit(folder, "convert", "net.py:net", "--image", port, "-o", "net.mlpackage", "--quiet")
        _images(folder, "part", share, options.parquet)
        _images(folder, "all", options.images, options.parquet)
        ending = ".parquet" if options.parquet else ""
        with local_cluster(options.ray, options.workers) as cluster:
            words = ["run", "net.mlpackage", "--engine", options.engine, *cluster, "--quiet", "--input"]
            _tlkit(folder, *words, "part" + ending, "--jobs", str(options.workers), "--rows", "warm.jsonl")
            cores = sorted(os.sched_getaffinity(0))
            held = set(cores[: max(1, len(cores) // options.workers)])
            one = _watched(folder, held, *words, "part" + ending, "--jobs", "1", "--rows", "one.jsonl")
            jobs = ("--jobs", str(options.workers))
            every = _watched(folder, set(cores), *words, "all" + ending, *jobs, "--rows", "all.jsonl")
        _tell(options, share, one, every)
        same = _same(folder / "one.jsonl", folder / "all.jsonl")
        print(f"rows: {same} of one worker's {share} are the same, and in the same place")


def _tell(options: argparse.Namespace, share: int, one: Watched, every: Watched) -> None:
    alone, together = share / one.seconds, options.images / every.seconds
    print(f"one worker: {share} images in {one.seconds:.1f} s, {alone:.1f} a second")
    print(f"{options.workers} workers: {options.images} images in {every.seconds:.1f} s, {together:.1f} a second")
    kept = together / (alone * options.workers)
    print(f"of workers x one worker: {kept:.3f}, held to at least 0.85")
    each = [1e3 * found.busy / count for found, count in ((one, share), (every, options.images))]
    print(f"processor time an image, of the whole machine: {each[0]:.2f} ms with one worker, {each[1]:.2f} ms with all")
    print("largest worker in each tenth of the time:", *(f"{size:.0f}" for size in every.largest()), "MiB")
    print(f"command that gives out the parts: {every.head / 2**20:.0f} MiB at the most")


def _tlkit(folder: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "tlkit", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def _watched(folder: Path, cores: set[int], *words: str) -> Watched:
    """Run a command, and look twice a second at what workers hold; the cluster's are not below this process.

    Workers are held to ``cores``, and what they start after that with them.
    """
    found, begun, before = Watched(), monotonic(), psutil.cpu_times()
    process = subprocess.Popen([sys.executable, "-m", "tlkit", *words], cwd=folder, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        now = monotonic() - begun
        for pid in _workers():
            found.workers.append((now, _resident(pid)))
            with suppress(OSError):
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), cores)
        found.head = max(found.head, _resident(process.pid))
        sleep(0.5)
    found.seconds = monotonic() - begun
    after = psutil.cpu_times()
    found.busy = after.user + after.system - before.user - before.system
    if process.returncode:
        raise SystemExit(f"tlkit {' '.join(words)}: exit code {process.returncode}")
    return found


def _workers() -> list[int]:
    """Return the processes of workers: themselves, and the forks that run their jobs."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and b"tlkit.fleet.worker" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def _resident(pid: int) -> int:
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return 0


def _images(folder: Path, name: str, count: int, parquet: bool) -> None:
    """Make a set of ``count`` images, 500 different ones."""
    encoded = list(map(_encoded, range(min(_DISTINCT, count))))
    if parquet:
        import pyarrow  # an extra
        import pyarrow.parquet

        column = pyarrow.array([encoded[at % len(encoded)] for at in range(count)])
        pyarrow.parquet.write_table(pyarrow.table({"image": column}), folder / f"{name}.parquet", row_group_size=1000)
        return
    (folder / name).mkdir()
    for at in range(count):  # the same content under many names: links
        place = folder / name / f"{at:06d}.jpg"
        if at < len(encoded):
            place.write_bytes(encoded[at])
        else:
            os.link(folder / name / f"{at % len(encoded):06d}.jpg", place)


def _encoded(seed: int) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    held = io.BytesIO()
    Image.fromarray(small).resize((_SIDE, _SIDE)).save(held, "JPEG", quality=80)
    return held.getvalue()


def _same(one: Path, every: Path) -> int:
    with one.open() as first, every.open() as second:
        return sum(a == b for a, b in zip(first, second, strict=False))


if __name__ == "__main__":
    main()
