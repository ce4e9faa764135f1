"""What an old neural network costs as it is, against the same network as an mlprogram, in one process and in turns.

    PYTHONPATH=. python benchmarks/old_networks.py [model.mlmodel ...] [--turns 40]

Without models: a network of MobileNet's blocks that this script writes, and PoseNet where the collection of models is
beside the project. The mlprogram is the network's own, in f32, without the passes of a conversion: what differs is the
way in (shapes looked up, an engine for each) and what enters and leaves. Prints the median of the ratios of neighbours,
which is to be within 5 % of 1, and both medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tlkit import load_model
from tlkit.core.model.inputs import draw
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.write import write_package
from tlkit.frontends.network.mlprogram import as_mlprogram
from tlkit.mil import coreml_proto

POSENET = Path(__file__).resolve().parents[2] / "shared/models/mlmodel/PoseNetMobileNet075S16FP16.mlmodel"
BLOCKS = ((32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1))


def mobilenet(path: Path) -> Path:
    """Write MobileNet's first blocks at 224 x 224 as a network with drawn weights; return the path."""
    rng = np.random.default_rng(0)
    model = coreml_proto.module("Model_pb2").Model(specificationVersion=1)
    network, last = model.neuralNetwork, "x"
    port = model.description.input.add(name="x").type.multiArrayType
    port.shape.extend([3, 224, 224])
    port.dataType = 65568
    model.description.output.add(name="y").type.multiArrayType.dataType = 65568

    def conv(inside: int, outside: int, kernel: int, stride: int, groups: int = 1) -> None:
        nonlocal last
        number = len(network.layers)
        layer = network.layers.add(name=f"conv{number}", input=[last], output=[f"c{number}"])
        params = layer.convolution
        params.outputChannels, params.kernelChannels, params.nGroups = outside, inside // groups, groups
        params.kernelSize.extend([kernel, kernel])
        params.stride.extend([stride, stride])
        params.same.SetInParent()
        shape = (outside, inside // groups, kernel, kernel)
        params.weights.floatValue.extend((rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).ravel().tolist())
        relu = network.layers.add(name=f"relu{number}", input=[f"c{number}"], output=[f"r{number}"])
        relu.activation.ReLU.SetInParent()
        last = f"r{number}"

    conv(3, 32, 3, 2)
    for inside, outside, stride in BLOCKS:
        conv(inside, inside, 3, stride, inside)
        conv(inside, outside, 1, 1)
    network.layers[-1].output[0] = "y"
    path.write_bytes(model.SerializeToString())
    return path


def timed(call: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def compare(path: Path, turns: int) -> tuple[float, float, float]:
    """Return the median ratio of neighbours (old over new), and the medians in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        message, program = as_mlprogram(open_package(path).model)
        write_package(Path(folder) / "new.mlpackage", message, program)
        old, new = load_model(path), load_model(Path(folder) / "new.mlpackage")
        rng = np.random.default_rng(0)
        inputs = {spec.name: draw(spec, "random", rng, spec.shape, stored=old.stored) for spec in old.inputs}
        calls: list[Callable[[], object]] = [lambda: old.predict(inputs), lambda: new.predict(inputs)]
        for call in calls * 3:
            call()
        pairs = []
        for turn in range(turns):
            first = turn % 2
            found = {which: timed(calls[which]) for which in (first, 1 - first)}
            pairs.append((found[0], found[1]))
    ratios = [old / new for old, new in pairs]
    return statistics.median(ratios), *(statistics.median(side) for side in zip(*pairs, strict=True))


def main() -> int:
    """Print a line for each network; exit 1 where one is more than 5 % slower than its mlprogram."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--turns", type=int, default=40)
    options = parser.parse_args()
    slow = False
    with tempfile.TemporaryDirectory() as folder:
        models = options.models or [mobilenet(Path(folder) / "mobilenet.mlmodel"), *filter(Path.is_file, [POSENET])]
        for path in models:
            ratio, old, new = compare(path, options.turns)
            slow = slow or ratio > 1.05
            print(f"{path.name}: {1000 * old:.2f} ms as it is, {1000 * new:.2f} ms as mlprogram, ratio {ratio:.3f}")
    return int(slow)


if __name__ == "__main__":
    raise SystemExit(main())
