"""Floats to and from MIL text, exactly: in hexadecimal where Python has the type, as bits for 8 and 16 bits."""

from __future__ import annotations

import math
import re
import struct
from functools import cache

from tlkit.mil.types import SMALL, DType

_NAN_BITS = r"nan\(0x([0-9a-f]+)\)"


def hex_float(value: float) -> str:
    """Format a float as C's ``%a`` does (``0x1.8p-3``, ``inf``, ``nan``): exactly, and as ``coremlc`` prints it."""
    if value != value:
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    mantissa, exponent = float(value).hex().split("p")
    # Python writes all 13 digits of the mantissa, %a none of the zeros at its end.
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}p{exponent}"


def read_float(token: str) -> float:
    """Parse a number as MIL text writes it; ValueError where it is not a number, or does not fit in a double."""
    # An f32's or f64's NaN payload is not kept: Python's floats would not compare equal.
    if token.lstrip("+-") == "nan" or token.startswith("nan("):
        return math.nan
    try:
        value = float.fromhex(token) if "x" in token.lower() else float(token)
    except ValueError:
        raise ValueError("expected a number") from None
    except OverflowError:
        value = math.inf
    if math.isinf(value) and token.lstrip("+-") != "inf":
        raise ValueError("the number is too large")
    return value


def round_float(value: float, dtype: DType) -> float:
    """Round to the nearest fp32 unless ``dtype`` is fp64; ValueError where it would overflow."""
    if dtype is DType.FP64 or value != value:
        return value
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        raise ValueError("the number does not fit in fp32") from None


def read_bits(token: str, dtype: DType) -> int:
    """Parse a number, or a NaN's payload, to the bits of an 8- or 16-bit float; ValueError where it does not fit."""
    given = re.fullmatch(_NAN_BITS, token)
    if given:
        bits = int(given[1], 16)
        if bits >> dtype.bits or not _is_nan(bits, dtype):
            raise ValueError(f"these bits are not a NaN of {dtype.mil}")
        return bits
    value = read_float(token)
    if value != value:
        return canonical_nan(dtype)
    return bits_of(value, dtype)


def bits_of(value: float, dtype: DType) -> int:
    """Round to the nearest value of an 8- or 16-bit float, ties to even; ValueError where it would overflow."""
    problem = ValueError(f"the number does not fit in {dtype.mil}")
    if dtype is DType.BF16:
        word = int.from_bytes(struct.pack("<f", round_float(value, DType.FP32)), "little")
        # Round to nearest, ties to even: add just under half a unit, and the last kept bit.
        bits = word + 0x7FFF + (word >> 16 & 1) >> 16
        # 0x7F80 is infinity: a finite number that rounds up to it does not fit.
        if bits & 0x7FFF == 0x7F80 and not math.isinf(value):
            raise problem
        return bits
    try:
        # Beyond f16 is beyond every 8-bit float too (E5M2 has f16's exponent), so this check serves all.
        half = int.from_bytes(struct.pack("<e", value), "little")
    except OverflowError:
        raise problem from None
    if dtype is DType.FP16:
        return half
    return _nearest_fp8(value, dtype, problem)


def clamped_bits(value: float, dtype: DType) -> int:
    """Round as :func:`bits_of`, with infinity in place of an overflow."""
    if value != value:
        return canonical_nan(dtype)
    try:
        return bits_of(value, dtype)
    except ValueError:
        # For formats without infinity, such as E4M3FN, this raises: there is nothing to clamp to.
        return bits_of(math.copysign(math.inf, value), dtype)


def canonical_nan(dtype: DType) -> int:
    """Return the bits of ``nan`` without a payload."""
    return {DType.FP16: 0x7E00, DType.BF16: 0x7FC0, DType.FP8E5M2: 0x7E, DType.FP8E4M3FN: 0x7F}[dtype]


def spell_bits(bits: int, dtype: DType) -> str:
    """Format the bits of an 8- or 16-bit float so that :func:`read_bits` returns them."""
    if not _is_nan(bits, dtype):
        return hex_float(_value_of(bits, dtype))
    return "nan" if bits == canonical_nan(dtype) else f"nan({bits:#x})"


def _nearest_fp8(value: float, dtype: DType, problem: ValueError) -> int:
    sign = 0x80 if math.copysign(1.0, value) < 0 else 0
    magnitude = abs(value)
    table = _fp8_values(dtype)
    exact = table.get(magnitude)
    if exact is not None:
        return sign | exact
    finite = [entry for entry in table.items() if not math.isinf(entry[0])]
    if magnitude > finite[-1][0]:
        raise problem
    # Of two codes equally near, the one whose last bit is 0: ties to even.
    return sign | min(finite, key=lambda entry: (abs(entry[0] - magnitude), entry[1] & 1))[1]


@cache
def _fp8_values(dtype: DType) -> dict[float, int]:
    """The non-negative values of an 8-bit float and their bits, ascending (infinity, if any, last)."""
    return {_value_of(bits, dtype): bits for bits in range(128) if not _is_nan(bits, dtype)}


def _value_of(bits: int, dtype: DType) -> float:
    if dtype is DType.FP16:
        return float(struct.unpack("<e", bits.to_bytes(2, "little"))[0])
    if dtype is DType.BF16:
        return float(struct.unpack("<f", (bits << 16).to_bytes(4, "little"))[0])
    from tlkit.mil.small_floats import values  # late: few programs have such floats

    return values(SMALL[dtype])[bits]


def _is_nan(bits: int, dtype: DType) -> bool:
    if dtype is DType.FP8E4M3FN:  # OFP8: no infinity, and one NaN per sign
        return bits & 0x7F == 0x7F
    infinity = {DType.FP16: 0x7C00, DType.BF16: 0x7F80, DType.FP8E5M2: 0x7C}[dtype]
    # In IEEE formats a code above infinity's, the sign bit aside, is a NaN.
    return bits & ~(1 << dtype.bits - 1) > infinity
