"""The files of a conversion of weights: each complete before any of them gets its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tlkit.core.weights.metadata import Carried, for_gguf, for_safetensors
from tlkit.core.weights.plan import Job, shard_names
from tlkit.errors import WriteError
from tlkit.formats.base.planned import Planned
from tlkit.host.staging import Goal, staged, staged_set


def write_files(
    goal: Path,
    form: str,
    parts: list[list[Job]],
    carried: Carried,
    arch: str,
    reader: Callable[[Planned], Iterator[Any]],
    force: bool,
    inputs: Sequence[Path],
    notes: list[str],
    recipe: int | None = None,
) -> list[Path]:
    """Write the files; each is complete before any gets its name, the index (of GGUF splits: the first) last.

    ``recipe`` is GGUF's ``general.file_type``, where tensors were quantized by one.
    """
    jobs = [job for part in parts for job in part]
    plans = [[job.planned for job in part] for part in parts]
    files = shard_names(goal, len(parts))
    if form == "PyTorch":
        if carried:
            notes.append(f"{len(carried)} metadata entries are left out: a state_dict cannot hold them")
        return _write_torch(files, plans, reader, force, inputs)
    if form == "GGUF":
        said = for_gguf(carried, arch, _main_types(jobs), any(map(_changes, jobs)), recipe)
        return _write_gguf(goal, files, plans, said, reader, force, inputs)
    return _write_safetensors(goal, files, plans, for_safetensors(carried), reader, force, inputs)


def _changes(job: Job) -> bool:
    return job.entry.dtype != job.planned.dtype


def _main_types(jobs: Sequence[Job]) -> list[str]:
    elements: Counter[str] = Counter()
    for job in jobs:
        elements[job.planned.dtype] += job.planned.elements
    return [name for name, _ in elements.most_common()]


def _write_torch(
    files: list[Path], plans: list[list[Planned]], reader: Any, force: bool, inputs: Sequence[Path]
) -> list[Path]:
    from tlkit.formats.torch.write import write_torch

    with staged(files[0], partial(_read_again, plans), force=force, inputs=inputs) as path:
        write_torch(path, plans[0], reader)
    return files


def _write_gguf(
    goal: Path,
    files: list[Path],
    plans: list[list[Planned]],
    metadata: Carried,
    reader: Any,
    force: bool,
    inputs: Sequence[Path],
) -> list[Path]:
    from tlkit.formats.gguf.write import Typed, write_gguf

    total = sum(map(len, plans))
    with staged_set(_outputs(files, plans), called=goal, force=force, inputs=inputs) as paths:
        for index, (path, tensors) in enumerate(zip(paths, plans, strict=True)):
            split = {
                "split.no": Typed("u16", index),
                "split.count": Typed("u16", len(files)),
                "split.tensors.count": Typed("i32", total),
            }
            # All metadata are in the first file, where llama.cpp looks for them.
            said = metadata if len(files) == 1 else {**(metadata if index == 0 else {}), **split}
            write_gguf(path, tensors, said, reader)
    return files


def _write_safetensors(
    goal: Path,
    files: list[Path],
    plans: list[list[Planned]],
    metadata: Mapping[str, str],
    reader: Any,
    force: bool,
    inputs: Sequence[Path],
) -> list[Path]:
    from tlkit.formats.safetensors.write import write_index, write_safetensors

    several = len(files) > 1
    made = [goal.with_name(f"{goal.name}.index.json"), *files] if several else files
    with staged_set(_outputs(made, plans), called=goal, force=force, inputs=inputs) as paths:
        if several:
            write_index(paths[0], {file.name: tensors for file, tensors in zip(files, plans, strict=True)})
        for path, tensors in zip(paths[several:], plans, strict=True):
            # Each file has to name its framework; all other entries are in the first.
            said = metadata if path.name == files[0].name else {"format": metadata["format"]}
            write_safetensors(path, tensors, said, reader)
    return made


def _outputs(files: Sequence[Path], plans: list[list[Planned]]) -> list[Goal]:
    """Return the files as one set: the first, which leads to the others, is read for them all."""
    return [Goal(file, None if index else partial(_read_again, plans)) for index, file in enumerate(files)]


def _read_again(plans: list[list[Planned]], path: Path) -> None:
    """Open what was written; raise WriteError where it does not hold the tensors that were planned."""
    from tlkit.formats.describe import open_tensors

    wanted = {(tensor.name, tensor.shape) for tensors in plans for tensor in tensors}
    opened = open_tensors(path)
    if {(entry.name, entry.shape) for entry in opened.entries()} != wanted:
        raise WriteError(f"{path}: not all of its tensors can be read")
