"""The op library: importing it registers every family. ``lookup`` and ``library`` are how the rest of tlkit asks."""

from tlkit.mil.ops import activation
from tlkit.mil.ops._registry import CARRIERS, OPSETS, OpDef, host, library, lookup, release, round_f16

__all__ = ["CARRIERS", "OPSETS", "OpDef", "activation", "host", "library", "lookup", "release", "round_f16"]
