"""Read and print MIL as text: ``model.mil`` as ``coremlc`` writes it.

Both spellings, and mixtures of them, are read: ``program(1.0)`` writes a scalar as ``tensor<fp16, []>(0x1p+0)``,
``program(1.3)`` (from iOS 18's opset on) as ``fp16(0x1p+0)``. Printing uses the spelling of the program's opset, sorts
inputs and attributes by name, and writes floats in hexadecimal, so that nothing is rounded:
``parse_program(format_program(p), open_blob) == p`` for every program that tlkit has read (see ``immediate`` for the
form of its constants).

Where no published ``model.mil`` shows a spelling, tlkit's is: nested blocks in braces after the operation, each
``block0(type name, …) { … } -> (names);``; a function with several opsets lists ``block<opset>(…)`` in braces after
``specializations``; unknown rank is ``tensor<fp16, *>``; a name that is not an identifier is quoted; a NaN with unusual
bits is ``nan(0x7e01)``.
"""

from __future__ import annotations

from collections.abc import Callable

from tlkit.mil.blob import BlobFile
from tlkit.mil.collector import uncollected
from tlkit.mil.opsets import OPSETS
from tlkit.mil.program import Program
from tlkit.mil.text._parser import Parser
from tlkit.mil.text.printer import Printer

_CLASSIC = tuple(name for name, release in OPSETS.items() if release.number < 18)


@uncollected()
def parse_program(text: str, open_blob: Callable[[str], BlobFile | None], name: str = "model.mil") -> Program:
    """Return the program that ``text`` contains.

    ``open_blob`` maps a weight file by the path the text gives it (``@model_path/weights/weight.bin``), once each, and
    returns None for a missing one. Raises LoadError with ``name:line:column`` where the text is damaged, nests
    deeper than 100 levels or holds a number that does not fit its type; time and memory are linear in the text.
    """
    return Parser(text, open_blob, name).program()


def format_program(program: Program) -> str:
    """Return ``program`` as text, with a line end after its last brace."""
    return "\n".join(Printer(_modern(program)).program(program))


def _modern(program: Program) -> bool:
    return any(function.opset not in _CLASSIC for function in program.functions.values())
