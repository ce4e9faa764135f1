"""tlkit's own operations: what old models compute and MIL cannot say. Their names begin with ``tlkit.``, which no
Core ML has, so a program that holds one can be run and is never written to a package."""

from tlkit.mil.dialect import custom, recurrent
from tlkit.mil.ops.kit.registry import own

__all__ = ["custom", "own", "recurrent"]
