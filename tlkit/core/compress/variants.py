"""Every weight of a package at every choice: made once for all weights by coremltools, then read weight by weight.

Importing this module imports torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from tlkit.core.compress.choices import WeightChoice
from tlkit.core.compress.compress import package_bytes
from tlkit.core.compress.tools import WeightUse, opened, packed, save
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.weights import program_weights
from tlkit.mil.lower.constants import const_value, decompress, to_carrier
from tlkit.mil.program import Function, Operation, Program, Ref, walk


@dataclass(frozen=True, slots=True)
class WeightPlace:
    """Where a weight goes in: the operation and the parameter that takes it."""

    operation: str
    parameter: str


class Variant:
    """A package with all of its weights at one choice, or as they are."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _program(self) -> Program:
        program = open_package(self.path).program
        assert program is not None
        return program

    @cached_property
    def function(self) -> Function:
        """The package's only function."""
        return self._program.function()

    @cached_property
    def _operations(self) -> dict[str, Operation]:
        return {item.name: item for item in walk(self.function.block.operations)}

    @cached_property
    def _makers(self) -> dict[str, Operation]:
        found = self._operations.values()
        return {output.name: item for item in found for output in item.outputs}

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return {weight.name: weight.bytes for weight in program_weights(self._program)}

    def maker(self, place: WeightPlace) -> Operation | None:
        """Return the operation that makes the weight at ``place``: a const, or one that expands what is packed."""
        taker = self._operations.get(place.operation)
        if taker is None:
            return None
        given = taker.inputs.get(place.parameter, ())
        if len(given) != 1 or not isinstance(given[0], Ref):
            return None
        found = self._makers.get(given[0].name)
        packed_here = found is not None and (found.type == "const" or found.type.startswith("constexpr"))
        return found if packed_here else None

    def nbytes(self, place: WeightPlace) -> int:
        """Return the bytes in the file of the weight at ``place``, all of its parts."""
        maker = self.maker(place)
        return self._sizes.get(maker.outputs[0].name, 0) if maker is not None else 0

    def changed(self, place: WeightPlace) -> bool:
        """Whether the weight at ``place`` is packed in some way."""
        maker = self.maker(place)
        return maker is not None and maker.type != "const"

    def tensor(self, place: WeightPlace) -> torch.Tensor:
        """Return the weight at ``place`` as the program computes with it, expanded."""
        maker = self.maker(place)
        assert maker is not None
        if maker.type == "const":
            return to_carrier(const_value(maker))
        return decompress(maker, self._makers, self.function.opset)


def places(variant: Variant, uses: Sequence[WeightUse]) -> dict[str, WeightPlace]:
    """Return where each weight goes in, by its name; weights that only nested blocks take are left out."""
    wanted = {use.name for use in uses}
    found: dict[str, WeightPlace] = {}
    for operation in variant.function.block.operations:
        if operation.type.startswith("constexpr"):
            continue
        for parameter, given in operation.inputs.items():
            if len(given) == 1 and isinstance(given[0], Ref) and given[0].name in wanted:
                found.setdefault(given[0].name, WeightPlace(operation.name, parameter))
    return found


def make_variants(
    base: Path,
    folder: Path,
    uses: Sequence[WeightUse],
    choices: Sequence[WeightChoice],
    report: Callable[[str, float], None],
) -> dict[str, Path]:
    """Write ``base`` with all weights at each of ``choices`` into ``folder``; return the packages by the choice's text.

    Raises ConversionError where coremltools fails.
    """
    made: dict[str, Path] = {}
    for place, choice in enumerate(choices):
        report(f"storing all weights as {choice}", place / len(choices))
        path, scratch = folder / f"{place}.mlpackage", folder / "scratch.mlpackage"
        shutil.copytree(base, scratch)
        with opened(scratch) as (model, _, tools):
            save(packed(model, tools, {use.name: choice for use in uses})[0], path)
        shutil.rmtree(scratch)
        made[str(choice)] = path
    return made


def sizes(base: Variant, variants: Mapping[str, Variant], at: Mapping[str, WeightPlace]) -> dict[tuple[str, str], int]:
    """Return the bytes of each weight at each choice that makes it smaller: (weight, choice's text) to bytes.

    What a package gains beside its weights, for the operations that expand them, counts among these, in equal parts.
    """
    found: dict[tuple[str, str], int] = {}
    for text, variant in variants.items():
        stored = {name: variant.nbytes(place) for name, place in at.items() if variant.changed(place)}
        saved = sum(base.nbytes(at[name]) - nbytes for name, nbytes in stored.items())
        gained = package_bytes(variant.path) - (package_bytes(base.path) - saved)
        more = max(0, -(-gained // max(1, len(stored))))
        smaller = {name: nbytes + more for name, nbytes in stored.items() if nbytes + more < base.nbytes(at[name])}
        found |= {(name, text): nbytes for name, nbytes in smaller.items()}
    return found
