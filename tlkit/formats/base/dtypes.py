"""The names of all stored types, and the bytes that each takes.

``F32 F16 BF16 F64 I8 … U64 BOOL`` are SafeTensors' names, the block types (``Q8_0``, ``Q4_K``, ``IQ4_XS``, …) GGUF's;
``INT4 INT8 PAL4 SPARSE …`` are Core ML's compressed weights, whose size depends on their parts. Does not need numpy.
"""

from __future__ import annotations

PLAIN = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "U16": 2,
    "I16": 2,
    "U32": 4,
    "I32": 4,
    "U64": 8,
    "I64": 8,
    "F16": 2,
    "BF16": 2,
    "F32": 4,
    "F64": 8,
    "C32": 4,
    "C64": 8,
    "C128": 16,
    "F8_E4M3": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E5M2": 1,
    "F8_E5M2FNUZ": 1,
    "F8_E8M0": 1,
}
"""Bytes of one element."""

NUMPY_CODES = {
    "b1": "BOOL",
    "u1": "U8",
    "i1": "I8",
    "u2": "U16",
    "i2": "I16",
    "u4": "U32",
    "i4": "I32",
    "u8": "U64",
    "i8": "I64",
    "f2": "F16",
    "f4": "F32",
    "f8": "F64",
    "c8": "C64",
    "c16": "C128",
}
"""Stored types by numpy's codes for kind and size."""

PACKED = {"F4": (2, 1), "F6_E2M3": (4, 3), "F6_E3M2": (4, 3)}
"""SafeTensors' types below a byte: (elements, bytes) of the smallest whole number of bytes."""

# The numbers between are of types that ggml has removed: 4, 5, 31 to 33, 36 to 38.
GGML: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""GGUF's tensor types by number: (name, elements of a block, bytes of a block), as the gguf package lists them."""

BLOCKS: dict[str, tuple[int, int]] = {
    **{name: (elements, size) for name, elements, size in GGML.values()},
    **{name: (1, size) for name, size in PLAIN.items()},
    **PACKED,
}
"""(elements, bytes) of the smallest piece of each stored type whose size is fixed."""

QUANTIZED = frozenset(name for name, elements, _ in GGML.values() if elements > 1)
"""GGUF's block types: each block holds scales beside its values."""


def stored_bytes(dtype: str, elements: int) -> int | None:
    """Return the bytes that ``elements`` of ``dtype`` take; None where that is not a whole number of blocks.

    >>> stored_bytes("Q8_0", 64)
    68
    """
    block, size = BLOCKS[dtype]
    return None if elements % block else elements // block * size
