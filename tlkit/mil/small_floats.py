"""Floats of 8 bits and fewer: the one table of their layouts and values. Does not need numpy.

Sources: OCP's OFP8 (E4M3, E5M2) and MX specifications (F6, F4, E8M0); ``ml_dtypes`` for the FNUZ types. Names are
SafeTensors'.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple


class SmallFloat(NamedTuple):
    """Bits of exponent and mantissa below the sign, and the bias. ``nans`` are codes; ``ieee``: the top exponent is
    infinity or NaN."""

    exponent: int
    mantissa: int
    bias: int
    ieee: bool = False
    nans: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """The number of bits."""
        return 1 + self.exponent + self.mantissa

    def number(self, code: int) -> float:
        """Return the exact value of sign, exponent and mantissa, ignoring codes reserved for NaN and infinity."""
        exponent = code >> self.mantissa & (1 << self.exponent) - 1
        fraction = code & (1 << self.mantissa) - 1
        if exponent:
            # Normal numbers have a hidden leading 1; exponent 0 is subnormal, on the scale of exponent 1.
            fraction |= 1 << self.mantissa
        magnitude = math.ldexp(fraction, max(exponent, 1) - self.bias - self.mantissa)
        return -magnitude if code >> self.width - 1 & 1 else magnitude

    def value(self, code: int) -> float:
        """Return the code's value."""
        top = code >> self.mantissa & (1 << self.exponent) - 1 == (1 << self.exponent) - 1
        if code in self.nans or (self.ieee and top and code & (1 << self.mantissa) - 1):
            return math.nan
        return math.copysign(math.inf, self.number(code)) if self.ieee and top else self.number(code)


SMALL_FLOATS = {
    "F8_E4M3": SmallFloat(4, 3, 7, nans=(0x7F, 0xFF)),
    # FNUZ: finite, unsigned zero. The code of -0 is the only NaN, and the bias is one higher.
    "F8_E4M3FNUZ": SmallFloat(4, 3, 8, nans=(0x80,)),
    "F8_E5M2": SmallFloat(5, 2, 15, ieee=True),
    "F8_E5M2FNUZ": SmallFloat(5, 2, 16, nans=(0x80,)),
    "F6_E2M3": SmallFloat(2, 3, 1),
    "F6_E3M2": SmallFloat(3, 2, 3),
    "F4": SmallFloat(2, 1, 1),
}
"""The layouts with a sign, by name. E8M0 has none: it is a power of two, see :func:`values`."""


@cache
def values(name: str) -> tuple[float, ...]:
    """Return the value of every code of ``name`` (one of :data:`SMALL_FLOATS`, or F8_E8M0); KeyError for others.

    >>> values("F4")[:8]
    (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    """
    if name == "F8_E8M0":
        return (*(math.ldexp(1.0, code - 127) for code in range(255)), math.nan)
    kind = SMALL_FLOATS[name]
    return tuple(kind.value(code) for code in range(1 << kind.width))
