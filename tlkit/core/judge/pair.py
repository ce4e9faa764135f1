"""The two sides of a comparison, and the inputs that both run on."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.core.judge.side import HowToOpen, Side, meeting, paired_inputs, side_error
from tlkit.core.judge.sides import Saved, open_side
from tlkit.errors import TlkitError, UsageError
from tlkit.mil.units.profiles import DEFAULT
from tlkit.ports.shapes import shape_text

if TYPE_CHECKING:
    from tlkit.core.convert.capture.cases import Case
    from tlkit.types import TensorSpec

Outputs = Mapping[str, Any]


class TwoSides:
    """The two sides, opened when they are needed and let go when they have run; and what they gave."""

    def __init__(self, texts: tuple[Any, Any], hows: tuple[HowToOpen, HowToOpen]) -> None:
        self.texts, self.hows = texts, hows
        self._open: dict[int, Side] = {}
        self.outputs: dict[int, list[Outputs]] = {}
        self.told: dict[int, tuple[str, str, bool]] = {}
        self.rests_on: dict[int, str] = {}
        self._names: list[str] = []

    def side(self, index: int) -> Side:
        """Return side 0 or 1, opening it if it is not."""
        if index not in self._open:
            self._open[index] = open_side(self.texts[index], self.hows[index])
        side = self._open[index]
        self.told[index] = (side.text, side.told, side.half)
        return side

    def cases(
        self,
        ports: tuple[TensorSpec, ...],
        inputs: Sequence[str],
        shapes: Sequence[str],
        samples: str | os.PathLike[str] | None,
        count: int,
        seed: int,
        note: Callable[[str], None],
    ) -> tuple[Case, ...]:
        """Return the inputs to run on, for the ports of the first side that has some (``ports`` before both)."""
        from tlkit.core.judge.inputs import given_cases, source_ports  # late: it imports torch

        found = ports or self.side(0).inputs or self.side(1).inputs or self.side(0).ports() or self.side(1).ports()
        found = source_ports(found or (), self.side(0).text)
        sides = [self.side(index) for index in (0, 1)]
        for side in sides if not ports else ():
            found = meeting(found, side.inputs or ())
        pixels = [port for port in found if port.image is not None] if not ports else []
        for side in sides:
            if side.inputs is None and pixels and not isinstance(side, Saved):
                note(_raw(side.text, pixels[0]))
        folder = None if samples is None else Path(samples)
        cases = given_cases(
            found, sides, inputs=inputs, shapes=shapes, samples=folder, count=count, seed=seed, note=note
        )
        for side in sides:
            if side.inputs is not None:
                paired_inputs(cases[0], side.inputs, side.text)  # before either is loaded
        return cases

    def run(self, cases: Sequence[Case]) -> tuple[list[Outputs], list[Outputs]]:
        """Run each side on all cases; the first is let go before the second is loaded."""
        self._names = [case.name for case in cases]
        # A source is loaded once it is open: it runs first, and goes.
        order = sorted((0, 1), key=lambda index: self.side(index).inputs is not None)
        if self.side(order[1]).inputs is None:
            del self._open[order[1]]  # of two sources the second is opened again, when the first is gone
        for index in order:
            side = self.side(index)
            try:
                self.outputs[index] = [side.run(case) for case in cases]
                self.rests_on[index] = side.rests_on
            except TlkitError as error:
                raise side_error(side, error) from error
            finally:
                del side
                self._open.pop(index, None)
                gc.collect()  # a lowered graph refers to itself: its expanded weights would stay beside the other's
        return self.outputs[0], self.outputs[1]

    def place(self, case: Case) -> int:
        """Return the number of a case that has run."""
        return self._names.index(case.name)


def _raw(text: str, port: TensorSpec) -> str:
    assert port.image is not None
    said = f"--image {port.name}={shape_text(port.shape)}:{port.image.layout}:scale=1/255"
    return f"{text} is given pixels as they are, 0 to 255; say otherwise with {said}"


def two_ways(precision: str, engine: str, emulate: str, both: HowToOpen) -> tuple[HowToOpen, HowToOpen]:
    """Return how each side is opened: ``both``, with what the texts say of one or of each (``"f32,f16"``)."""

    def two(text: str, flag: str) -> tuple[str, str]:
        parts = [part.strip() for part in text.split(",")]
        if len(parts) > 2 or not all(parts):
            raise UsageError(f"{flag} {text}: one for both sides, or two with a comma", f"such as {flag} f32,f16")
        return parts[0], parts[-1]

    pairs = zip(two(precision, "--precision"), two(engine, "--engine"), two(emulate, "--emulate"), strict=True)
    first, second = (
        replace(both, precision=exact, engine=how, emulate=None if name == DEFAULT else name)
        for exact, how, name in pairs
    )
    return first, second
