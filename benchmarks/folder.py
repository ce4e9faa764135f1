"""How much of the engine's own throughput does ``tlkit run`` keep over a folder of images? And does memory grow?

    python benchmarks/folder.py [NETWORK] [--files 1000] [--rounds 3] [--engine auto]

A folder of JPEG files of the network's size is run by ``run_samples``, as ``tlkit run --input FOLDER --save-outputs``
does; before and after it the same engine is called on bound inputs (half as often each time, a thousand times at most).
Both run the package as it is, an image a call, and as many calls at once as the engine is the fastest with: larger
batches gained nothing over that on a CPU (see docs/engines.md). Shown are the medians of the rounds, their ratio, the
same by processor time, and how much memory the second half of the files added to the process's peak.
"""

from __future__ import annotations

import argparse
import io
import resource
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fixtures.networks import NETWORKS
from tlkit.core.convert.convert import convert
from tlkit.core.model.load import Model, load_model
from tlkit.core.run.data.samples import FolderSet
from tlkit.core.run.folder import run_samples
from tlkit.core.run.run import ran_by


def main() -> None:
    """Measure, and print the ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("network", nargs="?", default="mobilenet_v2", choices=["mobilenet_v2", "resnet50", "vit_b16"])
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = _model(options, folder)
        images = _images(folder / "images", options.files)
        image = model.inputs[0].name
        given = {image: images / "0.jpg"}
        calls = [model.bind(given) for _ in range(model.streams(given))]
        run_samples(model, FolderSet(_images(folder / "first", 20), image), {})  # whatever is done once
        share = min(options.files // 2, 1000)
        rounds = [_round(model, calls, image, images, options.files, share) for _ in range(options.rounds)]
    ours, engine, ratio, busy = (statistics.median(column) for column in list(zip(*rounds, strict=True))[:4])
    print(f"{options.network}, {options.files} files, {len(calls)} at once, {ran_by(model)}")
    print(f"folder {ours:.1f} a second, the engine by itself {engine:.1f}: {ratio:.2f}, held to 0.90")
    print(f"by processor time {busy:.2f}")
    print(f"memory that the second half of the files added: {max(item[4] for item in rounds) / 2**20:.1f} MiB")


def _round(
    model: Model, calls: list[Any], image: str, images: Path, files: int, share: int
) -> tuple[float, float, float, float, int]:
    """Return the folder's and the engine's files a second, the first over the second, the same by processor time, and
    what the folder's second half added to the peak of memory, in bytes."""
    first = _alone(calls, share)
    folder, grown = _folder(model, image, images, images.parent / "out.npz")
    alone = (first + _alone(calls, share)) / (2 * share)
    folder /= files
    return 1 / folder[0], 1 / alone[0], alone[0] / folder[0], alone[1] / folder[1], grown


def _times() -> Any:
    """Return the clock's and the processor's seconds."""
    return np.array([perf_counter(), process_time()])


def _model(options: argparse.Namespace, folder: Path) -> Model:
    module, (x,) = NETWORKS[options.network]()
    shape = "x".join(map(str, x.shape))
    package = folder / "network.mlpackage"
    convert(module, package, images=[f"image={shape}:RGB:scale=1/127.5"], verify=False)
    return load_model(package, engine=options.engine, cache=False, streams=0)


def _images(folder: Path, count: int) -> Path:
    """Write JPEG files of 224 x 224 pixels."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for place in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (14, 14, 3), np.uint8))
        written = io.BytesIO()
        coarse.resize((224, 224)).save(written, "JPEG", quality=90)
        (folder / f"{place}.jpg").write_bytes(written.getvalue())
    return folder


def _folder(model: Model, image: str, images: Path, goal: Path) -> tuple[Any, int]:
    """Return a folder's times, and what its second half added to the peak of memory, in bytes."""
    peaks: dict[bool, int] = {}

    def moved(done: int, total: int) -> None:
        peaks[done > total // 2] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    start = _times()
    run_samples(model, FolderSet(images, image), {}, save_outputs=str(goal), force=True, progress=moved)
    return _times() - start, peaks.get(True, 0) - peaks.get(False, 0)


def _alone(calls: list[Any], count: int) -> Any:
    def often(call: Any) -> None:
        for _ in range(count // len(calls)):
            call()

    start = _times()
    with ThreadPoolExecutor(len(calls)) as pool:
        list(pool.map(often, calls))
    return _times() - start


if __name__ == "__main__":
    main()
