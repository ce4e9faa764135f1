"""How fast are GGUF's block types read and written? tlkit beside the gguf package's numpy.

    python benchmarks/gguf_quants.py [TYPE ...] [--rounds 7] [--rows 4096] [--columns 4096] [--ggml LIBRARY] [--json]

A matrix of random blocks (scales of usual size) is decoded to float32 by both, in turns, in one process; then random
values are encoded in the types that can be written: beside the package in those that it writes, or with ``--ggml`` (a
path of libggml-base) beside ggml in all, each column as important as the others. Each result is let go of before the
next, as by one who goes from tensor to tensor; tlkit then uses its memory again, where the kernel hands the package
fresh pages each time. A ratio is taken within a round, so that a busy moment of the machine hits both sides: shown are
the median of the rounds' ratios and the fastest call of each. tlkit uses up to four threads where the machine has them
(the package uses one): ``--threads 1`` compares one with one.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from time import perf_counter

import numpy as np
from gguf import GGMLQuantizationType, quants
from rich.console import Console
from rich.table import Table

from tlkit.formats.base.dtypes import BLOCKS
from tlkit.formats.gguf import quants as ours

GOALS = {"Q8_0": 5.0, "Q4_K": 5.0}
"""How many times as fast as the package reading should be; 2 for all others, nothing for writing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One type, one direction: the fastest calls in nanoseconds an element, the median ratio, whether bits agree."""

    type: str
    direction: str
    gguf: float
    tlkit: float
    ratio: float
    same: bool


def main() -> None:
    """Measure the types asked for, and print them as a table or as JSON."""
    options = _options()
    ours._THREADS = options.threads
    rows = list(_rows(options))
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    table = Table("type", "direction", "gguf ns", "tlkit ns", "times as fast", "goal", "same bits", box=None)
    for row in rows:
        goal = f"{GOALS.get(row.type, 2.0):g}" if row.direction == "read" else ""
        figures = (f"{row.gguf:.2f}", f"{row.tlkit:.2f}", f"{row.ratio:.1f}")
        table.add_row(row.type, row.direction, *figures, goal, "yes" if row.same else "NO")
    Console().print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("types", nargs="*", metavar="TYPE", help="Q8_0, Q4_K ...; all by default")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=ours._THREADS)
    parser.add_argument("--ggml", metavar="LIBRARY", help="libggml-base, which writes all types")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    random = np.random.default_rng(0)
    shape = (options.rows, options.columns)
    wanted = {name.upper() for name in options.types}
    for name in sorted(ours.DEQUANTIZABLE):
        if wanted and name not in wanted:
            continue
        stored = _blocks(random, name, shape)
        kind = GGMLQuantizationType[name]
        mine = partial(ours.dequantize, stored.reshape(-1), name, shape)
        yield _row(name, "read", partial(quants.dequantize, stored, kind), mine, options)
    values = random.standard_normal(shape, np.float32)
    for name in ours.QUANTIZABLE:
        importance = np.ones(options.columns, np.float32) if options.ggml and name in ours.WEIGHABLE else None
        if options.ggml:
            theirs = partial(_by_ggml, ctypes.CDLL(options.ggml), name, values, importance)
        else:
            theirs = partial(quants.quantize, values, GGMLQuantizationType[name])
        if (not wanted or name in wanted) and (options.ggml or (name not in ours._ENCODERS and name != "NVFP4")):
            yield _row(name, "write", theirs, partial(ours.quantize, values, name, importance), options)


def _by_ggml(library: ctypes.CDLL, name: str, values: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    elements, size = BLOCKS[name]
    found = np.empty(values.size // elements * size, np.uint8)
    numbers = [ctypes.c_int64(number) for number in (0, *values.shape)]
    weights = None if importance is None else ctypes.c_void_p(importance.ctypes.data)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (values, found)]
    library.ggml_quantize_chunk(int(GGMLQuantizationType[name]), *pointers, *numbers, weights)
    return found


def _blocks(random: np.random.Generator, name: str, shape: tuple[int, int]) -> np.ndarray:
    """Return random blocks; every byte pair that could be a float16 scale is a finite one."""
    elements, size = BLOCKS[name]
    found = random.integers(0, 256, (shape[0], shape[1] // elements * size), dtype=np.uint8)
    blocks = found.reshape(-1, size)
    for places in ((0, 2), (2, 4), (size - 4, size - 2), (size - 2, size)):
        blocks[:, places[0] : places[1]] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
    return found


def _row(
    name: str,
    direction: str,
    theirs: Callable[[], np.ndarray],
    mine: Callable[[], np.ndarray],
    options: argparse.Namespace,
) -> Row:
    same = _same(theirs(), mine())
    times = [(_time(theirs), _time(mine)) for _ in range(options.rounds)]
    count = options.rows * options.columns / 1e9
    slow, fast = (min(side) / count for side in zip(*times, strict=True))
    return Row(name, direction, slow, fast, statistics.median(a / b for a, b in times), same)


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.array_equal(first.reshape(-1).view(np.uint8), second.reshape(-1).view(np.uint8)))


def _time(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


if __name__ == "__main__":
    main()
