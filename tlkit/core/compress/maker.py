"""Chooses among candidates by running them whole, and writes the one that is taken.

Importing this module imports torch.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from tlkit.core.compress.choices import parse_choice
from tlkit.core.compress.compress import Compressed, measured, package_bytes, weight_bytes, write_packed
from tlkit.core.compress.search import AutoSearch
from tlkit.core.compress.select import Candidate, Option, frontier
from tlkit.core.compress.sensitivity import Apart, package_apart
from tlkit.core.compress.sweep import Key
from tlkit.core.compress.wish import AS_IT_IS, AutoCompressed, FrontierPoint, SensitivityRow, Wish
from tlkit.formats.coreml.describe import describe

_SHOWN = 9
"""Candidates of the frontier that are run whole, so that it can be told and drawn."""
_TRIES = 6
"""Candidates that are written where the package itself turns out to miss the wish."""
_FEW = 3


@dataclass
class Maker:
    """Chooses among the candidates, runs them whole, and writes the one that is taken."""

    search: AutoSearch
    found: Mapping[Key, Apart]
    wish: Wish
    goal: Path
    start: float

    def __post_init__(self) -> None:
        search = self.search
        self.others = package_bytes(search.base) - sum(search.plain[name] for name in self._names)
        options = {
            name: [
                Option(AS_IT_IS, search.plain[name], 0.0),
                *(
                    Option(text, search.nbytes[key], self.found[key].error)
                    for key in self._keys(name)
                    for text in key[1:]
                ),
            ]
            for name in self._names
        }
        mixed = frontier(options)
        uniform = {text: self._uniform(text) for text in search.variants}
        # The least error first; what changes nothing is no candidate.
        self.candidates = [item for item in mixed if set(item.choices.values()) != {AS_IT_IS}]
        self.uniform = {text: item for text, item in uniform.items() if item is not None}
        self._whole: dict[tuple[int, bool], Apart] = {}

    @property
    def _names(self) -> list[str]:
        return sorted({name for name, _ in self.found})

    def _keys(self, name: str) -> list[Key]:
        return [key for key in self.found if key[0] == name]

    def _uniform(self, text: str) -> Candidate | None:
        """Return all weights at one choice, where they can be; None where one of them makes an output not finite."""
        search, choices, total, error = self.search, {}, 0, 0.0
        for name in self._names:
            packed_here = (name, text) in self.found
            choices[name] = text if packed_here else AS_IT_IS
            total += search.nbytes[name, text] if packed_here else search.plain[name]
            error += self.found[name, text].error if packed_here else 0.0
        return Candidate(choices, total, error) if math.isfinite(error) else None

    def whole(self, candidate: Candidate, unseen: bool) -> Apart:
        """Run a candidate on the samples searched on, or on the others; each once."""
        key = (id(candidate), unseen)
        if key not in self._whole:
            count = len(self.search.inputs[0])
            part = slice(count, None) if unseen else slice(0, count)
            self._whole[key] = self.search.model.whole(candidate.choices, part)
        return self._whole[key]

    def size(self, candidate: Candidate) -> int:
        """Return the bytes of a candidate's package; what its program gains is known when it is written."""
        return candidate.nbytes + self.others

    def made(self) -> AutoCompressed:
        """Choose, write and check, with what the check showed, until the package itself meets the wish."""
        wish, refused = self.wish, set[int]()
        for _ in range(_TRIES):
            chosen, met = self.choose(wish, refused)
            compressed, real = self.written(chosen)
            over = self.wish.max_size is not None and compressed.after > self.wish.max_size
            good = self.wish.good(real.snr, real.top1)
            if not met or (good and not over):
                break
            refused.add(id(chosen))
            if over and wish.max_size is not None:
                # The program of a compressed package is longer than was counted with.
                wish = replace(wish, max_size=wish.max_size - (compressed.after - self.size(chosen)))
        met = met and good and not over
        return self.result(chosen, compressed, real, met)

    def choose(self, wish: Wish, refused: set[int]) -> tuple[Candidate, bool]:
        """Return the candidate that meets the wish on all samples, or the one that comes closest, and which it is."""
        every = [item for item in (*self.candidates, *self.uniform.values()) if id(item) not in refused]
        if not every:
            return self.candidates[0], False
        small = [item for item in every if wish.max_size is None or self.size(item) <= wish.max_size]
        if not small:
            return min(every, key=self.size), False
        if wish.min_snr is None and wish.min_top1 is None:
            few = sorted(small, key=lambda item: item.error)[:_FEW]
            few += [item for item in small if item in self.uniform.values()]
            return min(few, key=lambda item: self.whole(item, False).error), True
        return self._smallest_good(small, wish)

    def _smallest_good(self, small: list[Candidate], wish: Wish) -> tuple[Candidate, bool]:
        """Return the smallest candidate that is good enough on all samples: by bisection, then step by step."""

        def good(item: Candidate) -> bool:
            return all(wish.good(apart.snr, apart.top1) for apart in (self.whole(item, False), self.whole(item, True)))

        mixed = sorted((item for item in small if item not in self.uniform.values()), key=lambda item: item.error)
        low, high = 0, len(mixed)  # those before ``low`` are good
        while low < high:
            middle = (low + high) // 2
            if good(mixed[middle]):
                low = middle + 1
            else:
                high = middle
        # Top classes do not get worse at every step.
        fits = [item for item in mixed[low : low + _FEW] if good(item)][-1:] or mixed[low - 1 : low]
        smaller = sorted((item for item in small if item in self.uniform.values()), key=self.size)
        fits += [item for item in smaller if (not fits or self.size(item) < self.size(fits[0])) and good(item)][:1]
        if fits:
            return min(fits, key=self.size), True
        return max(small, key=lambda item: self._quality(item, wish)), False

    def _quality(self, item: Candidate, wish: Wish) -> tuple[float, float]:
        if item not in (*sorted(self.candidates, key=lambda one: one.error)[:_FEW], *self.uniform.values()):
            return (-1.0, -math.inf)
        apart = self.whole(item, True)
        return (apart.top1 or 0.0 if wish.min_top1 is not None else 0.0, apart.snr)

    def written(self, chosen: Candidate) -> tuple[Compressed, Apart]:
        """Write a candidate's package and run it, as packages run, on the samples that the search did not see."""
        search = self.search
        choices = {name: parse_choice(text) for name, text in chosen.choices.items() if text != AS_IT_IS}
        shutil.rmtree(search.path, ignore_errors=True)
        scratch = search.path.with_name("scratch.mlpackage")
        shutil.copytree(search.base, scratch)
        search.report(f"storing {len(choices)} weights", 1.0)
        stored = write_packed(scratch, search.path, choices)
        shutil.rmtree(scratch)
        search.report("verifying", 1.0)
        truth, first = search.model.truth, len(search.inputs[0])
        apart = package_apart(search.source, search.path, search.inputs[1], truth, first)
        weights = tuple(measured(search.path, search.uses, stored))
        info = replace(describe(search.path), path=str(self.goal))
        before, after = package_bytes(search.source), package_bytes(search.path)
        found = Compressed(
            self.goal, str(search.source), before, after, weights, search.system, (), str(self.wish), None, info,
            weight_bytes=(weight_bytes(search.source), weight_bytes(search.path)),
        )  # fmt: skip
        return found, apart

    def result(self, chosen: Candidate, compressed: Compressed, real: Apart, met: bool) -> AutoCompressed:
        """Return what was found, with the frontier run whole at a few sizes."""
        search = self.search
        point = FrontierPoint(
            compressed.after, _db(chosen.error), self.whole(chosen, False).snr, real.snr, real.top1,
            next((text for text, item in self.uniform.items() if item is chosen), ""), True,
        )  # fmt: skip
        rows = (
            SensitivityRow(name, text, search.nbytes[name, text], apart.snr)
            for (name, text), apart in self.found.items()
        )
        return AutoCompressed(
            compressed, str(search.source), str(self.wish), met, compressed.before, self.points(chosen, point), point,
            dict(chosen.choices), tuple(sorted(rows, key=lambda row: (row.weight, row.choice))),
            tuple(case.name for case in search.cases[0]), tuple(case.name for case in search.cases[1]),
            search.model.runs, perf_counter() - self.start, _notes(chosen, search),
        )  # fmt: skip

    def points(self, chosen: Candidate, point: FrontierPoint) -> tuple[FrontierPoint, ...]:
        """Return the frontier: candidates at a few sizes, all uniform ones, and the one that was taken."""
        ordered = sorted(self.candidates, key=lambda item: -item.nbytes)
        others = [item.choices for item in self.uniform.values()]
        ordered = [item for item in ordered if item is chosen or item.choices not in others] or ordered
        few = [ordered[round(place * (len(ordered) - 1) / (_SHOWN - 1))] for place in range(_SHOWN)]
        shown = {id(item): (item, "") for item in few if item is not chosen}
        shown |= {id(item): (item, text) for text, item in self.uniform.items() if item is not chosen}
        found = [point]
        for item, text in shown.values():
            seen, unseen = self.whole(item, False), self.whole(item, True)
            found.append(FrontierPoint(self.size(item), _db(item.error), seen.snr, unseen.snr, unseen.top1, text))
        return tuple(sorted(found, key=lambda one: -one.nbytes))


def _db(error: float) -> float:
    return -10 * math.log10(error) if error else math.inf


def _notes(chosen: Candidate, search: AutoSearch) -> tuple[str, ...]:
    counts: dict[str, int] = {}
    for text in chosen.choices.values():
        counts[text] = counts.get(text, 0) + 1
    told = ", ".join(
        f"{count} as {text}" if text != AS_IT_IS else f"{count} as they are" for text, count in counts.items()
    )
    notes = [f"{sum(counts.values())} weights: {told}"]
    left = len(search.uses) - len({name for name, _ in search.nbytes})
    if search.model.truth is not None:
        before = search.model.whole({}, slice(len(search.inputs[0]), None)).top1 or 0.0
        notes.append(f"the original is right on {before:.2%} of the samples not searched on")
    return (*notes, *([f"{left} weights get smaller by no choice"] if left else []))
