"""``--compress auto``: for each weight the choice with which the model is smallest and still good enough.

Each weight is stored at each choice by itself and the outputs are looked at (``sweep.py``); from these errors follows,
for every budget, the best choice for all (``select.py``); such candidates are run whole, on the samples that the search
saw and on others, and what is written is run once more as a package.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from tlkit.core.compress.compress import open_to_compress
from tlkit.core.compress.wish import AutoCompressed, Wish
from tlkit.core.convert.tools.build import check_versions
from tlkit.errors import TlkitError, UsageError
from tlkit.formats.coreml.written import PACKAGE, read_package
from tlkit.host.staging import prepare, staged

if TYPE_CHECKING:
    from tlkit.core.compress.sensitivity import Truth
    from tlkit.core.convert.capture.cases import Case

_LABELLED = (64, 256)
_SEEN, _UNSEEN = 4, 4
"""Seeded inputs to search on and to check on, where there are no samples."""


def check_wish(
    max_size: int | None, min_snr: float | None, min_top1: float | None, jobs: int, labels: object = None
) -> Wish:
    """Return what is to be reached; UsageError where nothing is, or what cannot be."""
    wish = Wish(max_size, min_snr, min_top1, labels is not None)
    if labels is not None and min_top1 is None:
        raise UsageError("--labels: how often is it to be right?", "add --min-top1 0.95")
    if wish == Wish():
        raise UsageError("--compress auto: what is it to reach?", "add --max-size 5MB, --min-snr 30 or --min-top1 0.99")
    if min_top1 is not None and not 0 < min_top1 <= 1:
        raise UsageError(f"--min-top1 {min_top1:g}: not a share from 0 to 1", "write 0.99")
    if jobs < 1:
        raise UsageError(f"--jobs {jobs}: at least 1 process computes", "give a count from 1 on")
    return wish


class _MissedError(TlkitError):
    """Leaves the staging, so that nothing is written."""

    def __init__(self, made: AutoCompressed) -> None:
        super().__init__("no candidate meets the target")
        self.made = made


def _labelled(source: Path, labels: str | os.PathLike[str]) -> tuple[tuple[tuple[Case, ...], tuple[Case, ...]], Truth]:
    """Return labelled samples to search on and to check on, and what all of them are."""
    from tlkit.core.accuracy.accuracy import labelled_cases
    from tlkit.core.compress.sensitivity import Truth  # late: these import torch

    found = labelled_cases(source, labels, sum(_LABELLED))
    count = len(found.cases)
    step = max(2, -(-count // _LABELLED[0]))
    seen = range(0, count, step)
    order = [*seen, *(place for place in range(count) if place not in seen)]
    if len(order) < 2:
        raise UsageError(f"{labels}: one sample", "give one to search on and one to check on at least")
    cases = tuple(found.cases[place] for place in order)
    truth = Truth(tuple(found.truth[place] for place in order), found.scores)
    return (cases[: len(seen)], cases[len(seen) :]), truth


def compress_auto(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    max_size: int | None = None,
    min_snr: float | None = None,
    min_top1: float | None = None,
    samples: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    skip: Sequence[str] = (),
    threshold: int | None = None,
    target: str | None = None,
    resume: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    seed: int = 0,
    force: bool = False,
    report: Callable[[str, float], None] = lambda what, share: None,
) -> AutoCompressed:
    """Write the ``.mlpackage`` ``model`` to ``output`` with each weight stored as suits it; return what was made.

    With ``min_snr`` (dB) or ``min_top1`` (the share of equal top classes) it is the smallest package that keeps them
    beside the original, with ``max_size`` (bytes, of the whole package) the best of those that are no larger, and with
    both one that does both. It is searched on every second file of the folder ``samples``, or on seeded inputs, and has
    to hold on the others. With ``labels`` (samples with their classes: a folder or a table, as
    :func:`~tlkit.accuracy` takes them) ``min_top1`` is how often it is right, on up to 64 of them and on up to 256
    others. Choices are those of the package's own system, or of ``target``. ``skip`` names weights to
    leave as they are. ``resume`` is a file in which the sweep is kept, to go on with; ``jobs`` processes share it.

    Where nothing meets the target, nothing is written unless ``force`` (``result.ok`` is False either way).
    """
    wish = check_wish(max_size, min_snr, min_top1, jobs, labels)
    source, goal = Path(model), Path(output)
    if goal.suffix != ".mlpackage":
        raise UsageError(f"{goal}: a Core ML package's name ends in .mlpackage", f"write -o {goal.stem}.mlpackage")
    prepare(goal, force=force, kind=PACKAGE, inputs=[source])
    package = open_to_compress(source)
    check_versions()
    from tlkit.core.compress.maker import Maker  # late: these import torch
    from tlkit.core.compress.search import prepared
    from tlkit.core.judge.inputs import split_cases

    truth = None
    if labels is None:
        cases = split_cases(source, samples, seed, (_SEEN, _UNSEEN))
    elif samples is not None:
        raise UsageError("--labels and --samples both say what to run on", "give one of them")
    else:
        cases, truth = _labelled(source, labels)
    start = perf_counter()
    try:
        with staged(goal, read_package, force=force, kind=PACKAGE, inputs=[source]) as path, ExitStack() as stack:
            search = prepared(package, source, path, cases, tuple(skip), threshold, target, report, truth)
            found = search.swept(resume, jobs, stack)
            made = Maker(search, found, wish, goal, start).made()
            if not made.met and not force:
                raise _MissedError(replace(made, compressed=None))
    except _MissedError as missed:
        return missed.made
    return made
