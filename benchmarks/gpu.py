"""How fast is a package on a CUDA GPU? tlkit beside the PyTorch module that it came from, in fp16.

    python benchmarks/gpu.py --prepare FOLDER [NETWORK ...]   anywhere: packages without their weights, into FOLDER
    python benchmarks/gpu.py FOLDER [NETWORK ...]             on the CUDA machine: measure what lies in FOLDER

The CUDA machine needs PyTorch, numpy and the folder: coremltools' generated modules and protobuf are carried in it.
Weights are left out, since they are large and a kernel takes as long for any: random ones are drawn there, small enough
that nothing overflows.

Contenders, one after another on one device, for batch 1 and 32, by CUDA events, input and output on the device:

* ``reduce-overhead``  the module in fp16, channels-last, ``torch.compile(mode="reduce-overhead")``: the yardstick, 1.00
* ``pytorch``          the module in fp16, eager
* ``tlkit``            the package, ``--engine eager``: f16 tensors in a CUDA graph
* ``compile``          the package, ``--engine compile``

In a round each contender makes ``--calls`` calls, of which the median counts; shown are the medians of the rounds, and
the largest difference of tlkit's two outputs from its own f32 run on the same device, as a share of the largest value.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import lzma
import os
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

NAMES = ("resnet50", "mobilenet_v2", "transformer_encoder", "vit_b16")
BATCHES = (1, 32)


def main() -> int:
    """Prepare, or measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("networks", nargs="*", default=[])
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--packages", type=Path, help="with --prepare: where packages lie that were made before")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    options = parser.parse_args()
    options.networks = options.networks or list(NAMES)
    if options.prepare:
        _prepare(options)
        return 0
    os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    sys.path.insert(0, str(options.folder.resolve()))
    import torch

    if not torch.cuda.is_available():
        print("no CUDA GPU here: nothing measured")
        return 0
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    for name in options.networks:
        for batch in BATCHES:
            _measure(options, name, batch)
    return 0


def _inputs(name: str, batch: int) -> tuple[Any, tuple[Any, ...]]:
    from fixtures.networks import NETWORKS

    module, inputs = NETWORKS[name]()
    return module, tuple(x.repeat(batch, *(1,) * (x.ndim - 1)) for x in inputs)


def _prepare(options: argparse.Namespace) -> None:
    """Convert each network at each batch, and keep its package with weights of zeros, compressed."""
    from tlkit.core.convert.convert import convert

    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in options.networks:
        for batch in BATCHES:
            title = f"{name}_{batch}.mlpackage"
            made = (options.packages or folder) / title
            if not made.exists():
                module, inputs = _inputs(name, batch)
                kinds = ["f32" if x.is_floating_point() else "i32" for x in inputs]
                ports = {f"x{i}": f"{'x'.join(map(str, x.shape))}:{kinds[i]}" for i, x in enumerate(inputs)}
                convert(module, made, inputs=ports, verify=False)
            _hollow(made, folder / title)
            print(f"{title} is ready")
    for package in ("coremltools", "google"):
        _carry(package, folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 2**20:.1f} MiB to carry")


def _hollow(package: Path, goal: Path) -> None:
    from tlkit.core.model.load import load_model

    if goal != package:
        shutil.copytree(package, goal, dirs_exist_ok=True)
    records = _records(load_model(package, engine="eager").function())
    (weights,) = goal.rglob("weight.bin")
    data = bytearray(weights.read_bytes())
    for offset, size, half in records:
        if half:
            data[offset : offset + size] = bytes(size)
    weights.with_name("weight.xz").write_bytes(lzma.compress(bytes(data), preset=1))
    weights.with_name("halves.json").write_text(json.dumps([[o, n] for o, n, half in records if half]))
    weights.unlink()


def _records(function: Any) -> list[tuple[int, int, bool]]:
    """Return (offset, bytes, whether f16) of each constant in the weight file."""
    from tlkit.mil.blob import BlobRef
    from tlkit.mil.program import walk

    found = []
    for operation in walk(function.block.operations):
        value = operation.attributes.get("val")
        if value is not None and isinstance(value.data, BlobRef) and value.data.file is not None:
            record = value.data.file.record(value.data.offset)
            found.append((record.offset, record.nbytes, record.dtype.mil == "fp16"))
    return found


def _carry(package: str, folder: Path) -> None:
    """Copy what reading a package needs: coremltools' generated modules, or protobuf itself."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    source, part = (
        Path(next(iter(spec.submodule_search_locations))),
        "proto" if package == "coremltools" else "protobuf",
    )
    ignore = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(source / part, folder / package / part, ignore=ignore, dirs_exist_ok=True)
    if package == "google":
        shutil.copytree(source / "_upb", folder / package / "_upb", ignore=ignore, dirs_exist_ok=True)
    (folder / package / "__init__.py").write_text('"""Carried along."""\n')


def _filled(package: Path) -> None:
    """Draw the weights of a hollow package."""
    import numpy as np

    for packed in package.rglob("weight.xz"):
        data = bytearray(lzma.decompress(packed.read_bytes()))
        rng = np.random.default_rng(0)
        for offset, size in json.loads(packed.with_name("halves.json").read_text()):
            drawn = rng.standard_normal(size // 2, np.float32) * 0.02
            data[offset : offset + size] = drawn.astype(np.float16).tobytes()
        packed.with_name("weight.bin").write_bytes(data)


def _measure(options: argparse.Namespace, name: str, batch: int) -> None:
    import numpy as np
    import torch

    from tlkit.engines.torch.engine import TorchEngine
    from tlkit.formats.coreml.open import open_package
    from tlkit.types import Unit

    package = options.folder / f"{name}_{batch}.mlpackage"
    _filled(package)
    module, inputs = _inputs(name, batch)
    program = open_package(package).program
    assert program is not None
    function = program.function()
    arrays = {item.name: x.numpy() for item, x in zip(function.inputs, inputs, strict=True)}
    module = module.half().cuda().to(memory_format=torch.channels_last)
    given = tuple(x.half().cuda() if x.is_floating_point() else x.cuda() for x in inputs)
    given = tuple(x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in given)
    exact = TorchEngine(function, precision="f32", unit=Unit.GPU).run(arrays)
    contenders: dict[str, Callable[[], object]] = {}
    contenders["reduce-overhead"] = _timed(torch.compile(module, mode="reduce-overhead"), given)
    contenders["pytorch"] = _timed(module, given)
    apart = {}
    for title, engine in (("tlkit", "eager"), *((("compile", "compile"),) if options.compile else ())):
        made = TorchEngine(function, engine=engine, unit=Unit.GPU)
        found = made.run(arrays)
        differences = [np.abs(found[key] - exact[key]).max() / np.abs(exact[key]).max() for key in exact]
        apart[title] = f"{max(map(float, differences)):.1e}" + ("" if made.halved else " (not in f16 tensors)")
        contenders[title] = made.bind(arrays)
    rounds = [{key: _median(call, options.calls) for key, call in contenders.items()} for _ in range(options.rounds)]
    best = statistics.median(taken["reduce-overhead"] for taken in rounds)
    for key in contenders:
        ms = statistics.median(taken[key] for taken in rounds)
        print(f"{name:20} batch {batch:2} {key:16} {ms:8.3f} ms {ms / best:6.2f} {apart.get(key, '')}", flush=True)


def _timed(module: Any, given: tuple[Any, ...]) -> Callable[[], object]:
    from tlkit.engines.torch.device import DeviceCall

    call = DeviceCall(module, given)
    for _ in range(5):
        call()
    return call


def _median(call: Any, calls: int) -> float:
    """Return the median of calls in milliseconds, by the device's clock."""
    for _ in range(5):
        call()
    taken = []
    for _ in range(calls):
        call()
        taken.append(call.device_ns / 1e6)
    return float(statistics.median(taken))


if __name__ == "__main__":
    sys.exit(main())
