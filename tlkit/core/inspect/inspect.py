"""``tlkit.inspect``: describe a model file, in as much detail as requested, without loading it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tlkit.core.inspect.inspection import Inspection, examine
from tlkit.errors import UsageError
from tlkit.formats.fetch import local
from tlkit.types import Unit

Report = Callable[[str, float], None]


def inspect(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    function: str | None = None,
    stage: int | str | None = None,
    tensors: str | None = None,
    stats: bool = False,
    hashes: bool = False,
    placement: bool = False,
    units: Sequence[str | Unit] = (Unit.ANE,),
    chip: str | None = None,
    measured: bool = False,
    diff: str | os.PathLike[str] | None = None,
    inputs: Sequence[str] = (),
    seed: int = 0,
    report: Report = lambda what, share: None,
) -> Inspection:
    """Describe the model file at ``path`` without loading its weights; imports neither torch nor coremltools but for
    ``inputs``.

    ``path`` may be an address: ``hf://org/name[@revision][/file]`` (huggingface_hub's cache), ``https://...`` or ``-``.

    ``format`` (coreml, safetensors, gguf, pytorch, onnx, numpy) overrides what the content says; ``function`` is one of
    a multifunction package's, ``stage`` one of a pipeline's, by its number (from 0) or name. ``stats`` reads every
    value of the tensors that match ``tensors`` (all of them for None), ``hashes`` every byte. ``placement`` predicts
    the unit of each operation for each of ``units`` on ``chip``, and ``measured`` asks Core ML for its own plans as
    well (on a Mac). ``inputs`` (``NAME=VALUE``; those left out are drawn by ``seed``) are what ``risks`` are looked for
    on, too: the model is run once, with torch. ``diff`` is another file, of any format, to compare with: tensors are
    matched by name. ``report`` is called with what is being done and the share that is finished.

    Raises LoadError for a file that cannot be read, UsageError for options that do not go together.
    """
    found = examine(local(path), format, function, stage)
    if placement:
        # The dataclass beneath is frozen: what is found is added past it.
        found.__dict__["placement"] = _placement(found, units, chip)
    if measured:
        found.__dict__["measured"] = _measured(found)
    if inputs:
        found.__dict__["risks"] = _sampled(found, inputs, seed)
    if stats:
        found.__dict__["stats"] = _stats(found, tensors, report)
    if hashes:
        found.__dict__["hashes"] = _hashes(found, report)
    if diff is not None:
        found.__dict__["difference"] = _difference(found, Path(diff), report)
    return found


def _placement(found: Inspection, units: Sequence[str | Unit], chip: str | None) -> Any:
    from tlkit.core.inspect.placement import placements

    if found.package is None:
        raise UsageError(f"{found.path}: --placement is for Core ML models", "convert it first: tlkit convert")
    wanted = [unit if isinstance(unit, Unit) else Unit.parse(unit) for unit in units]
    return placements(found.package, wanted, chip, found.function)


def _sampled(found: Inspection, inputs: Sequence[str], seed: int) -> Any:
    """The risks of the program and of the values that it meets."""
    from tlkit.core.inspect.risks import sampled_risks
    from tlkit.mil.risks.find import merged

    if found.package is None or found.stage is not None:
        raise UsageError(f"{found.path}: --input is for whole Core ML models", "leave it out")
    return merged([found.risks, sampled_risks(found.package, inputs, seed, found.function)])


def _measured(found: Inspection) -> Any:
    from tlkit.core.inspect.measured import measured

    if found.placement is None or found.package is None:
        raise UsageError("--measured goes with --placement", "add --placement")
    if found.stage is not None:
        raise UsageError("--measured asks Core ML about whole models", "leave --stage out")
    return measured(found.package.root, found.placement, found.function)


class _Share:
    """Adds up bytes, and reports their share of a total."""

    def __init__(self, report: Report, what: str, total: float) -> None:
        self._report, self._what, self._total, self._done = report, what, total or 1.0, 0.0

    def __call__(self, count: float) -> None:
        self._done += count
        self._report(self._what, min(self._done / self._total, 1.0))


def _stats(found: Inspection, pattern: str | None, report: Report) -> Any:
    from tlkit.core.inspect.stats import tensor_stats

    entries = found.readable(pattern)
    share = _Share(report, "reading values", sum(entry.nbytes for entry in entries))
    return tuple(tensor_stats(found.source, entry, share) for entry in entries)


def _hashes(found: Inspection, report: Report) -> dict[str, Any]:
    from tlkit.formats.hashes import file_hashes, files_of, weights_hash

    # Of a model in several files, one may have been named.
    files = sorted({*files_of(Path(found.path)), *(getattr(found.opened, "shards", None) or ())})
    total = sum(file.stat().st_size for file in files) + sum(entry.nbytes for entry in found.entries)
    share = _Share(report, "hashing", total)
    shown: dict[str, Any] = {"files": file_hashes(files, share)}
    return shown | ({"weights": weights_hash(found.source, share)} if found.entries else {})


def _difference(found: Inspection, other: Path, report: Report) -> Any:
    from tlkit.core.compare.tensors import FileDifference, diff_infos, diff_tensors

    second = examine(other)
    share = _Share(report, "comparing", sum(entry.nbytes for entry in found.entries))
    return FileDifference(diff_infos(found, second), tuple(diff_tensors(found.source, second.source, share)), second)
