"""The result that ``tlkit.convert`` returns, and the clock that times the stages of a conversion."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit.core.convert.advice import advise
from tlkit.core.convert.tools.build import Recipe, Report, version_notes
from tlkit.core.inspect.risks import package_risks
from tlkit.formats.coreml.describe import describe_package
from tlkit.formats.coreml.open import open_package
from tlkit.host.interrupt import check
from tlkit.mil.risks.find import merged
from tlkit.types import ModelInfo
from tlkit.words import Told, byte_text

if TYPE_CHECKING:
    from tlkit.core.compare.models import Verification
    from tlkit.core.compress.compress import Compressed
    from tlkit.core.compress.wish import AutoCompressed
    from tlkit.core.edit.ane import Rewrite
    from tlkit.core.precision.mixed import MixedPrecision
    from tlkit.mil.risks.kit import Risk


@dataclass(frozen=True, slots=True, repr=False)
class ConversionResult(Told):
    """What was made: sizes in bytes, timings in seconds (load, trace, convert, verify, total).

    ``verification`` is None where it was not asked for; ``notes`` are about this conversion, ``version_notes`` about
    the versions in use, ``risks`` are known problems of such a program on Apple's units, ``rewrites`` what ``ane``
    tried and made, ``parts`` what was done to the package that was verified: its precision, then its weights.
    """

    path: Path
    source: str
    precision: str
    target: str
    size: int
    info: ModelInfo
    verification: Verification | None
    advice: tuple[str, ...]
    notes: tuple[str, ...]
    version_notes: tuple[str, ...]
    timings: Mapping[str, float]
    risks: tuple[Risk, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()
    parts: tuple[Compressed | MixedPrecision | AutoCompressed, ...] = ()

    def facts(self) -> list[tuple[str, object]]:
        """See :class:`~tlkit.words.Told`: what was made of what, and whether it agrees."""
        verified = "not checked" if self.verification is None else "agrees" if self.ok else "differs or not checked"
        made = [("package", self.path), ("source", self.source), ("size", byte_text(self.size))]
        return [*made, ("precision", self.precision), ("target", self.target), ("verified", verified)]

    @property
    def ok(self) -> bool:
        """Whether the package agrees with its source, or was not checked (see :class:`Verification`)."""
        verified = self.verification is None or self.verification.ok
        return verified and all(part.ok for part in self.parts)


def result(
    path: Path,
    goal: Path,
    source: str,
    recipe: Recipe,
    verification: Verification | None,
    clock: Clock,
    notes: tuple[str, ...],
    sampled: tuple[Risk, ...] = (),
) -> ConversionResult:
    """Describe the package at ``path``, which is about to lie at ``goal``; ``sampled``: the risks its values showed."""
    package = open_package(path)  # once: its program is read from the file each time
    info = replace(describe_package(package), path=str(goal))
    return ConversionResult(
        path=goal,
        source=source,
        precision=recipe.precision,
        target=recipe.target.name,
        size=sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        info=info,
        verification=verification,
        advice=advise(info),
        notes=notes,
        version_notes=version_notes(),
        timings=clock.timings(),
        risks=merged([package_risks(package, info=info), sampled]),
    )


class Clock:
    """Seconds by stage, and the caller's report of where things stand."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._start = time.perf_counter()
        self._stages: dict[str, float] = {}
        self._inside = 0.0  # seconds of the stages inside the current one

    def report(self, what: str, share: float) -> None:
        """Report progress, and raise an interrupt that a library swallowed."""
        check()
        self._report(what, share)

    @contextmanager
    def stage(self, key: str, what: str) -> Iterator[None]:
        """Time the body as ``key``; nested stages are not counted twice, repeated ones are added."""
        self.report(what, 0.0)
        self._stages.setdefault(key, 0.0)
        start, outer, self._inside = time.perf_counter(), self._inside, 0.0
        yield
        check()
        spent = time.perf_counter() - start
        self._stages[key] += spent - self._inside
        self._inside = outer + spent

    def timings(self) -> dict[str, float]:
        """Return the seconds of each stage so far, and in all."""
        return {**self._stages, "total": time.perf_counter() - self._start}
