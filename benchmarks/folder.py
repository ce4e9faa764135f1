"""How much of the engine's own throughput does ``tlkit run`` keep over a folder of images? And does memory grow?

    python benchmarks/folder.py [NETWORK] [--files 1000] [--rounds 3] [--engine auto]

A folder of JPEG files of the network's size is run by ``run_samples``, as ``tlkit run --input FOLDER --save-outputs``
does; before and after it the same engine is called on bound inputs (half as often each time, a thousand times at most). Both run the package as it is, an image a call,
and as many calls at once as the engine is the fastest with: larger batches gained nothing over that on a CPU (see
docs/engines.md). Shown are the medians of the rounds, their ratio, and how much memory the second half of the files
added to the process's peak.
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
from time import perf_counter
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
        rounds, peaks, share = [], [], min(options.files // 2, 1000)
        for _ in range(options.rounds):
            before = _alone(calls, share)
            seconds, grown = _folder(model, image, images, folder / "out.npz")
            rounds.append((options.files / seconds, 2 * share / (before + _alone(calls, share))))
            peaks.append(grown)
    ours, alone = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(folder / engine for folder, engine in rounds)
    print(f"{options.network}, {options.files} files, {len(calls)} at once, {ran_by(model)}")
    print(f"folder {ours:.1f} a second, the engine by itself {alone:.1f}: {ratio:.2f}, held to 0.90")
    print(f"memory that the second half of the files added: {max(peaks) / 2**20:.1f} MiB")


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


def _folder(model: Model, image: str, images: Path, goal: Path) -> tuple[float, int]:
    """Return the seconds of a folder's run, and what its second half added to the peak of memory, in bytes."""
    peaks: dict[bool, int] = {}

    def moved(done: int, total: int) -> None:
        peaks[done > total // 2] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    start = perf_counter()
    run_samples(model, FolderSet(images, image), {}, save_outputs=str(goal), force=True, progress=moved)
    return perf_counter() - start, peaks.get(True, 0) - peaks.get(False, 0)


def _alone(calls: list[Any], count: int) -> float:
    def often(call: Any) -> None:
        for _ in range(count // len(calls)):
            call()

    start = perf_counter()
    with ThreadPoolExecutor(len(calls)) as pool:
        list(pool.map(often, calls))
    return perf_counter() - start


if __name__ == "__main__":
    main()
