"""The files of a conversion of weights: each complete before any of them gets its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tlkit.core.weights.metadata import Carried, for_gguf, for_safetensors
from tlkit.core.weights.plan import Job, shard_names
from tlkit.formats.base.planned import Planned
from tlkit.host.staging import staged


def write_files(
    goal: Path,
    form: str,
    parts: list[list[Job]],
    carried: Carried,
    arch: str,
    reader: Callable[[Planned], Iterator[Any]],
    force: bool,
    notes: list[str],
) -> list[Path]:
    """Write the files; each is complete before any gets its name, the index last."""
    jobs = [job for part in parts for job in part]
    plans = [[job.planned for job in part] for part in parts]
    files = shard_names(goal, len(parts))
    if form == "PyTorch":
        if carried:
            notes.append(f"{len(carried)} metadata entries are left out: a state_dict has no place for them")
        return _write_torch(files, plans, reader, force)
    if form == "GGUF":
        return _write_gguf(
            files, plans, for_gguf(carried, arch, _main_types(jobs), any(map(_changes, jobs))), reader, force
        )
    return _write_safetensors(goal, files, plans, for_safetensors(carried), reader, force)


def _changes(job: Job) -> bool:
    return job.entry.dtype != job.planned.dtype


def _main_types(jobs: Sequence[Job]) -> list[str]:
    elements: Counter[str] = Counter()
    for job in jobs:
        elements[job.planned.dtype] += job.planned.elements
    return [name for name, _ in elements.most_common()]


def _write_torch(files: list[Path], plans: list[list[Planned]], reader: Any, force: bool) -> list[Path]:
    from tlkit.formats.torch.write import write_torch

    with staged(files[0], force=force) as path:
        write_torch(path, plans[0], reader)
    return files


def _write_gguf(
    files: list[Path], plans: list[list[Planned]], metadata: Carried, reader: Any, force: bool
) -> list[Path]:
    from tlkit.formats.gguf.write import Typed, write_gguf

    total = sum(map(len, plans))
    with ExitStack() as stack:
        for index, (file, tensors) in enumerate(zip(files, plans, strict=True)):
            split = {
                "split.no": Typed("u16", index),
                "split.count": Typed("u16", len(files)),
                "split.tensors.count": Typed("i32", total),
            }
            said = metadata if len(files) == 1 else {**(metadata if index == 0 else {}), **split}
            write_gguf(stack.enter_context(staged(file, force=force)), tensors, said, reader)
    return files


def _write_safetensors(
    goal: Path, files: list[Path], plans: list[list[Planned]], metadata: Mapping[str, str], reader: Any, force: bool
) -> list[Path]:
    from tlkit.formats.safetensors.write import write_index, write_safetensors

    index = goal.with_name(f"{goal.name}.index.json")
    with ExitStack() as stack:
        if len(files) > 1:
            by_name = {file.name: tensors for file, tensors in zip(files, plans, strict=True)}
            write_index(stack.enter_context(staged(index, force=force)), by_name)
        for file, tensors in zip(files, plans, strict=True):
            said = metadata if file == files[0] else {"format": metadata["format"]}
            write_safetensors(stack.enter_context(staged(file, force=force)), tensors, said, reader)
    return files if len(files) == 1 else [index, *files]
