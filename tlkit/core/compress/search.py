"""What a search for compressed weights works on: the package, all its weights at each choice, and the samples.

Importing this module imports torch.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.core.compress import sweep
from tlkit.core.compress.choices import IOS16, IOS18, Rules, WeightChoice, parse_choice
from tlkit.core.compress.compress import chosen_uses
from tlkit.core.compress.sensitivity import Apart, Swappable, Truth
from tlkit.core.compress.sweep import Key
from tlkit.core.compress.tools import WeightUse
from tlkit.core.compress.variants import Variant, WeightPlace, make_variants, places, sizes
from tlkit.core.convert.tools.rebuild import TIDY, rebuild
from tlkit.core.convert.tools.targets import choose_target, target_of_version
from tlkit.core.judge.sides import package_values
from tlkit.core.model.load import load_model
from tlkit.errors import UsageError
from tlkit.formats.coreml.package import Package

if TYPE_CHECKING:
    from tlkit.core.convert.capture.cases import Case

OLD = ("int8", "palette6", "palette4", "palette2")
"""Choices for iOS16 and 17."""
NEW = ("int8", "palette6:group=16", "palette4:group=16", "int4:per-block=32", "palette3:group=16", "palette2:group=16")
"""Choices for iOS18 and later."""


@dataclass(frozen=True)
class AutoSearch:
    """All that the search works on: the package ``base`` and the same with all weights at each choice (``variants``).

    ``at`` says where weights go in, ``nbytes`` what each takes at each choice that makes it smaller, ``plain`` as
    it is.
    """

    source: Path
    package: Package
    path: Path
    base: Path
    variants: Mapping[str, Path]
    uses: tuple[WeightUse, ...]
    at: Mapping[str, WeightPlace]
    nbytes: Mapping[Key, int]
    plain: Mapping[str, int]
    cases: tuple[tuple[Case, ...], tuple[Case, ...]]
    inputs: tuple[tuple[Mapping[str, Any], ...], tuple[Mapping[str, Any], ...]]
    model: Swappable
    system: str
    report: Callable[[str, float], None]

    def swept(self, resume: str | os.PathLike[str] | None, jobs: int, stack: ExitStack) -> dict[Key, Apart]:
        """Return how far each weight at each choice by itself moves the outputs."""
        tasks = sorted(key for key in self.nbytes if key[0] in self.model.weights)
        if not tasks:
            raise UsageError(f"{self.source}: no weight gets smaller by any choice", "lower --weight-threshold")
        journal: sweep.SweepJournal | None = None
        if resume is not None:
            head = sweep.fingerprint(self.base, self.inputs[0], self.model.truth) | {"choices": ",".join(self.variants)}
            journal = sweep.SweepJournal(Path(resume), head)
            stack.callback(journal.close)
        runner: sweep.SweepRunner = sweep.Here(self.model, len(self.inputs[0]))
        if jobs > 1:
            threads, truth = sweep.threads_for(jobs), self.model.truth
            setting = sweep.SweepSetting(self.base, self.variants, self.at, self.inputs[0], threads, truth)
            runner = sweep.Processes(setting, jobs)
        return sweep.sweep(runner, tasks, journal, self.report)


def prepared(
    package: Package, source: Path, path: Path, cases: tuple[tuple[Case, ...], tuple[Case, ...]],
    skip: tuple[str, ...], threshold: int | None, target: str | None, report: Callable[[str, float], None],
    truth: Truth | None = None,
) -> AutoSearch:  # fmt: skip
    """Return the search over ``package``, the file at ``source``, raised to the system that it needs or ``target``.

    ``path`` is where the result goes, in a folder of its own for scratch; ``truth`` is of all ``cases``, those searched
    on first. UsageError as ``compress`` raises it.
    """
    base = path.with_name("base.mlpackage")
    report("reading the weights", 0.0)
    version = package.model.specificationVersion
    wanted = choose_target(target) if target is not None else target_of_version(max(version, IOS16))
    if wanted.version < version:
        raise UsageError(f"the package is for {target_of_version(version).name} already", "leave --target out")
    if wanted.version < IOS16:
        raise UsageError(f"compressed weights need iOS16; --target {target} is older", "leave --target out")
    if wanted.version > version:
        rebuild(package, wanted, base, TIDY, report)
    else:
        shutil.copytree(source, base)
    choices = [parse_choice(text) for text in (NEW if wanted.version >= IOS18 else OLD)]
    rules = Rules(choices[0], tuple((pattern, WeightChoice()) for pattern in skip))
    every, kept = chosen_uses(base, rules, threshold)
    uses = tuple(use for use in every if use.name in kept)
    folder = path.with_name("variants")
    folder.mkdir()
    made = make_variants(base, folder, uses, choices, report)
    plain, variants = Variant(base), {text: Variant(found) for text, found in made.items()}
    at = places(plain, uses)
    model = load_model(source, engine="eager", precision="f32")
    seen, unseen = (tuple(model.arrays(package_values(model, case)) for case in part) for part in cases)
    return AutoSearch(
        source, package, path, base, made, uses, at, sizes(plain, variants, at),
        {name: plain.nbytes(place) for name, place in at.items()}, cases, (seen, unseen),
        Swappable(plain, variants, at, (*seen, *unseen), truth), wanted.name, report,
    )  # fmt: skip
