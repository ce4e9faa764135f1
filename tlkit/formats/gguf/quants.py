"""Convert GGUF's block types to and from float32: bit for bit as the gguf package does, several times as fast.

The package decodes 16 rows at a time and joins the pieces; here blocks are decoded straight into the result, many at
once, and by several threads for large tensors (numpy releases Python's global lock while it computes). The memory of a
large result that is no longer used serves for the next one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.formats.base.dtypes import BLOCKS
from tlkit.formats.gguf import grids, kquants, legacy  # noqa: F401  (they register their decoders)
from tlkit.formats.gguf.bits import DECODERS, Floats
from tlkit.formats.gguf.encoders import fp4, low_bits, simple, tables, ternary
from tlkit.formats.gguf.encoders import kquants as k
from tlkit.formats.gguf.encoders.fits import first_zeros, total
from tlkit.formats.gguf.memory import floats

_AT_ONCE = 1 << 19  # elements: 2 MB of result and twice that of temporaries; with fewer, calls cost more than work
_THREADS = 4  # more have nothing to gain: memory is what they wait for

DEQUANTIZABLE = frozenset(DECODERS)
"""The block types whose values can be read."""

_Encoder = Callable[..., NDArray[np.uint8]]
_GRIDS: dict[str, _Encoder] = {"IQ3_S": low_bits.iq3_s, "IQ3_XXS": low_bits.iq3_xxs, "IQ2_S": low_bits.iq2_s}
_GRIDS |= {"IQ2_XS": low_bits.iq2_xs, "IQ2_XXS": low_bits.iq2_xxs, "IQ1_M": ternary.iq1_m, "IQ1_S": ternary.iq1_s}
_ENCODERS: dict[str, _Encoder] = {"Q2_K": k.q2_k, "Q3_K": k.q3_k, "Q4_K": k.q4_k, "Q5_K": k.q5_k, "Q6_K": k.q6_k}
_ENCODERS |= {"IQ4_NL": tables.iq4_nl, "IQ4_XS": tables.iq4_xs, **_GRIDS}
_BY_ROW = {"Q4_0": simple.q4_0, "Q4_1": simple.q4_1, "Q5_0": simple.q5_0, "Q5_1": simple.q5_1}

QUANTIZABLE = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "MXFP4", "NVFP4", "TQ2_0", "TQ1_0", *_ENCODERS)
"""The block types that can be written: by the gguf package, and others by tlkit."""
WEIGHABLE = frozenset({*_ENCODERS, *_BY_ROW})
"""The block types that an importance matrix changes."""
IMPORTANT = frozenset({"IQ2_XXS", "IQ2_XS", "IQ1_S"})
"""Those of them that are written with one only, as in ggml: without it the few bits go where they matter little."""


def dequantize(raw: Any, dtype: str, shape: tuple[int, ...], out: Floats | None = None) -> Floats:
    """Return the float32 values, in ``shape``, of the blocks in ``raw`` (bytes-like); KeyError for another ``dtype``.

    ``out``, contiguous and of as many elements, saves the allocation.
    """
    decode = DECODERS[dtype]
    elements, size = BLOCKS[dtype]
    blocks = np.frombuffer(raw, np.uint8).reshape(-1, size)
    if out is None:
        out = floats(math.prod(shape))
    rows, step = out.reshape(len(blocks), elements), _AT_ONCE // elements

    def work(start: int) -> None:
        with np.errstate(all="ignore"):  # scales may be infinite or NaN: so are the values, then
            decode(blocks[start : start + step], rows[start : start + step])

    _in_parallel(work, range(0, len(blocks), step))
    return out.reshape(shape)


def quantize(values: Floats, dtype: str, importance: Floats | None = None) -> NDArray[np.uint8]:
    """Return ``values``, a whole number of blocks, as blocks of ``dtype`` (one of QUANTIZABLE): (count, bytes each).

    The arithmetic is that of llama.cpp's reference quantizers. ``importance`` has a weight for each column; values are
    whole rows of that width, then. ValueError for one of IMPORTANT without it.
    """
    if dtype in IMPORTANT and importance is None:
        raise ValueError(f"{dtype} needs an importance matrix")
    elements, size = BLOCKS[dtype]
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, elements)
    out = np.empty((len(blocks), size), np.uint8)
    # The package tries all 16 codes of MXFP4 on every value: 16 times the memory. Types with a grid handle all values
    # that miss it in the same way at once, and need many to be fast.
    step = (1 << (18 if dtype in _GRIDS else 16)) // elements
    encode = _encoder(blocks, dtype, importance)

    def work(start: int) -> None:
        with np.errstate(all="ignore"):
            out[start : start + step] = encode(slice(start, start + step))

    _in_parallel(work, range(0, len(blocks), step))
    return out


def _encoder(blocks: Floats, dtype: str, importance: Floats | None) -> Callable[[slice], NDArray[np.uint8]]:
    """Return what encodes some of the blocks."""
    known = _ENCODERS.get(dtype)
    if importance is None or dtype not in WEIGHABLE:
        plain = known or (fp4.nvfp4 if dtype == "NVFP4" else _by_the_package(dtype))
        return lambda part: plain(blocks[part])
    weights = np.ascontiguousarray(importance, np.float32).reshape(-1, blocks.shape[1])
    places = np.arange(len(blocks)) % len(weights)
    if known is not None:
        return lambda part: known(blocks[part], weights[places[part]])
    columns = np.ascontiguousarray(blocks.reshape(-1, weights.size).T)
    with np.errstate(all="ignore"):
        variance = np.repeat(total(columns * columns) / np.float32(weights.size), len(weights))[:, None]
    encode = _BY_ROW[dtype]
    return lambda part: encode(blocks[part], weights[places[part]], variance[part])


def _by_the_package(dtype: str) -> Callable[[Floats], NDArray[np.uint8]]:
    from gguf import GGMLQuantizationType, quants

    kind, size = GGMLQuantizationType[dtype], BLOCKS[dtype][1]

    def encode(blocks: Floats) -> NDArray[np.uint8]:
        # ggml keeps the sign of the first 0 (of types without a minimum: none), the package that of any.
        signed = first_zeros(blocks.T).T if dtype in ("Q4_1", "Q5_1") else blocks + np.float32(0)
        # One row: the package would handle 16 at a time.
        return np.asarray(quants.quantize(signed.reshape(1, -1), kind).reshape(-1, size))

    return encode


def _in_parallel(work: Callable[[int], None], items: range) -> None:
    """Call ``work`` with each of ``items``, in threads where that is worthwhile."""
    # The processors that this process may use, which containers restrict.
    threads = min(_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    if threads < 2 or len(items) < 2:
        for item in items:
            work(item)
        return
    from concurrent.futures import ThreadPoolExecutor  # late: inspecting a GGUF file decodes nothing

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, items):  # a worker's exception is raised here
            pass
