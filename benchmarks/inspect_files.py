"""How long and how much memory ``tlkit inspect`` takes on big files, beside the tools people have for them.

    python benchmarks/inspect_files.py [--repeat 5]

The files are made in a temporary folder: their headers are real, their tensors are holes that take no room on the disk
(the Core ML package's weights are written, 1 GB of them). Times are the fastest of ``--repeat`` runs, each a process of
its own on files in the page cache; memory is the peak resident size of that process. They keep their bytecode, as an
installed package's are kept. Targets are the project's own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAYERS, WIDTH, FEED, VOCABULARY, MERGES = 22, 2048, 5632, 128_256, 280_147
TLKIT = [sys.executable, "-m", "tlkit"]


@dataclass(frozen=True)
class Cost:
    """A process: seconds of wall time and of processor time, and its peak resident size in MB."""

    wall: float
    cpu: float
    rss: float


def measure(command: list[str], repeat: int) -> Cost:
    """Run ``command`` in silence and return the fastest run's times and the largest run's memory."""
    runs = []
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(repeat):
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
        assert child.stderr is not None
        if status:
            sys.exit(f"{' '.join(command)}: {child.stderr.read().decode()[-500:]}")
        child.stderr.close()
        child.returncode = 0
        unit = 1e6 if sys.platform == "darwin" else 1e3
        runs.append(Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit))
    return Cost(min(r.wall for r in runs), min(r.cpu for r in runs), max(r.rss for r in runs))


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the tensors of a llama of 1.1 billion parameters, by Hugging Face's names."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    found["lm_head.weight"] = (VOCABULARY, WIDTH)
    block: dict[str, tuple[int, ...]] = {f"self_attn.{name}_proj": (WIDTH, WIDTH) for name in "qkvo"}
    block |= {"mlp.gate_proj": (FEED, WIDTH), "mlp.up_proj": (FEED, WIDTH), "mlp.down_proj": (WIDTH, FEED)}
    block |= {"input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,)}
    for layer in range(LAYERS):
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}
    return found


def make_safetensors(path: Path, wanted: int) -> None:
    """Write an f32 file of at least ``wanted`` bytes, all holes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset, copy = 0, 0
    while offset < wanted:
        for name, shape in shapes().items():
            size = 4
            for dim in shape:
                size *= dim
            header[f"{copy}.{name}"] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
            offset += size
        copy += 1
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)


def make_gguf(path: Path, wanted: int) -> None:
    """Write a Q8_0 file of at least ``wanted`` bytes: the vocabulary and merges of a llama 3, tensors as holes."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def array(key: str, kind: int, count: int, content: bytes) -> bytes:
        return text(key) + struct.pack("<IIQ", 9, kind, count) + content

    words = [f"token{index}" for index in range(VOCABULARY)]
    pairs = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("llama.context_length") + struct.pack("<II", 4, 131_072),
        text("llama.block_count") + struct.pack("<II", 4, LAYERS),
        text("llama.embedding_length") + struct.pack("<II", 4, WIDTH),
        text("llama.attention.head_count") + struct.pack("<II", 4, 32),
        text("llama.attention.head_count_kv") + struct.pack("<II", 4, 4),
        array("tokenizer.ggml.tokens", 8, VOCABULARY, b"".join(map(text, words))),
        array("tokenizer.ggml.token_type", 5, VOCABULARY, struct.pack("<i", 1) * VOCABULARY),
        array("tokenizer.ggml.merges", 8, MERGES, b"".join(text(f"to ken{index}") for index in range(MERGES))),
    ]
    records, offset, copy = [], 0, 0
    while offset < wanted:
        for name, shape in shapes().items():
            elements = 1
            for dim in shape:
                elements *= dim
            kind, size = (8, elements // 32 * 34) if len(shape) == 2 else (0, elements * 4)
            dims = struct.pack(f"<{len(shape)}Q", *reversed(shape))
            records.append(
                text(f"{copy}.{name}") + struct.pack("<I", len(shape)) + dims + struct.pack("<IQ", kind, offset)
            )
            offset += -(-size // 32) * 32
        copy += 1
    head = b"GGUF" + struct.pack("<IQQ", 3, len(records), len(pairs)) + b"".join(pairs) + b"".join(records)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(-(-len(head) // 32) * 32 + offset)


PACKAGE = """
import sys, coremltools as ct, numpy as np
from coremltools.converters.mil import Builder as mb
rng = np.random.default_rng(0)
@mb.program(input_specs=[mb.TensorSpec(shape=(1, 4096))], opset_version=ct.target.iOS17)
def program(x):
    for _ in range(32):
        x = mb.linear(x=x, weight=rng.standard_normal((4096, 4096), np.float32))
    return x
ct.convert(program, minimum_deployment_target=ct.target.iOS17, skip_model_load=True).save(sys.argv[1])
"""
LOAD_SPEC = "import sys, coremltools as ct; print(len(str(ct.utils.load_spec(sys.argv[1]))))"
SAFE_OPEN = """
import sys, safetensors
with safetensors.safe_open(sys.argv[1], "np") as file:
    for name in file.keys():
        print(name, file.get_slice(name).get_dtype(), file.get_slice(name).get_shape())
"""


def row(what: str, cost: Cost, beside: Cost | None = None) -> None:
    """Print one line; ``beside`` is tlkit's own cost on the same file."""
    shown = f"{what:<42} {cost.wall:7.3f} s {cost.cpu:7.3f} s cpu {cost.rss:6.1f} MB"
    if beside:
        wall, cpu, rss = cost.wall / beside.wall, cost.cpu / beside.cpu, cost.rss / beside.rss
        shown += f"  {wall:.1f}x the time, {cpu:.1f}x the cpu, {rss:.1f}x the memory"
    print(shown, flush=True)


def main() -> None:
    """Make the files, run everything, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    with tempfile.TemporaryDirectory(prefix="tlkit-bench-") as name:
        folder = Path(name)
        gguf, tensors, package = folder / "llama.gguf", folder / "llama.safetensors", folder / "linear.mlpackage"
        # Made by processes of their own: a child's peak memory counts what its parent had when it was made.
        make(make_gguf, gguf, 2 * 10**9)
        make(make_safetensors, tensors, 4 * 10**9)
        subprocess.run([sys.executable, "-c", PACKAGE, str(package)], check=True, capture_output=True)
        base = measure([*TLKIT, "--help"], repeat)
        row("tlkit --help", base)
        for what, path in (("GGUF", gguf), ("SafeTensors", tensors), ("Core ML", package)):
            files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
            size = sum(item.stat().st_size for item in files) / 1e9
            ours = measure([*TLKIT, "inspect", str(path)], repeat)
            row(f"tlkit inspect, {what}, {size:.1f} GB", ours)
            print(f"{'':<44} {1000 * (ours.wall - base.wall):8.0f} ms over --help (target: 150 ms and 120 MB)")
            if path is gguf:
                dump = measure([sys.executable, "-c", "from gguf.scripts.gguf_dump import main; main()", str(path)], 1)
                row("  gguf-dump", dump, ours)
            elif path is tensors:
                row(
                    "  safetensors.safe_open, a line a tensor",
                    measure([sys.executable, "-c", SAFE_OPEN, str(path)], repeat),
                    ours,
                )
            else:
                row("  coremltools load_spec, printed", measure([sys.executable, "-c", LOAD_SPEC, str(path)], 2), ours)
        values = folder / "values.safetensors"
        make(write_values, values, 10**9)
        stats = measure([*TLKIT, "inspect", str(values), "--stats"], repeat)
        nothing = measure([*TLKIT, "inspect", str(values)], repeat)
        row("tlkit inspect --stats, 1 GB of f32", stats)
        speed = values.stat().st_size / 1e9 / (stats.cpu - nothing.cpu)
        print(f"{'':<44} {speed:8.2f} GB/s of processor time (target: 1)")


def make(maker: Callable[[Path, int], None], path: Path, size: int) -> None:
    """Have ``maker`` write ``path`` in a process of its own."""
    child = multiprocessing.get_context("spawn").Process(target=maker, args=(path, size))
    child.start()
    child.join()
    if child.exitcode:
        sys.exit(f"{path}: could not be made")


def write_values(path: Path, wanted: int) -> None:
    """Write an f32 file of random values, in the page cache afterwards."""
    import numpy as np

    piece = np.random.default_rng(0).standard_normal(wanted // 64, np.float32)
    count = wanted // piece.nbytes
    size = count * piece.nbytes
    text = json.dumps({"x": {"dtype": "F32", "shape": [count, piece.size], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _ in range(count):
            file.write(piece.tobytes())


if __name__ == "__main__":
    main()
