"""Plan what a conversion of weights will write, before a byte is read: names, types, shards."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tlkit.errors import UsageError
from tlkit.formats.base.dtypes import BLOCKS, QUANTIZED
from tlkit.formats.base.planned import Planned
from tlkit.formats.base.tensors import TensorEntry, TensorFile
from tlkit.formats.encode import is_float
from tlkit.formats.gguf import write as write_gguf
from tlkit.formats.gguf.mixtures import Mixture
from tlkit.formats.gguf.model.changes import Change
from tlkit.formats.gguf.model.folder import is_full
from tlkit.formats.safetensors import write as write_safetensors
from tlkit.formats.torch import write as write_torch
from tlkit.mil.types import TensorType
from tlkit.words import BYTES, quantity

FORMATS = {
    ".safetensors": "SafeTensors",
    ".gguf": "GGUF",
    ".pth": "PyTorch",
    ".pt": "PyTorch",
    ".bin": "PyTorch",
}
"""The formats of weights that can be written, by the ending of the output's name."""

TYPES = {"SafeTensors": write_safetensors.TYPES, "GGUF": write_gguf.TYPES, "PyTorch": write_torch.TYPES}
"""The stored types that each of them holds."""

# For a type that a format has not, one that holds every value of it.
_WIDER = {
    "BOOL": "I8",
    "U8": "I16",
    "U16": "I32",
    "U32": "I64",
    "U64": "I64",
    "C32": "C64",
    "F8_E8M0": "F32",
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4", "F6_E2M3", "F6_E3M2"), "F16"),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One tensor to write and where it comes from; ``part`` names the part of a compressed Core ML weight.

    ``change`` is done to its values; ``others`` follow it in the same tensor (experts, one after the other); ``made``
    are the values of a tensor that the source has none of.
    """

    planned: Planned
    entry: TensorEntry
    values: str
    as_stored: bool
    part: str = ""
    change: Change | None = None
    others: tuple[TensorEntry, ...] = ()
    made: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Shaping:
    """What becomes of tensors beside their names and types: changes by the source's name, tensors that are stacked by
    the name of what they become (``joined``: one below the other), tensors to make, and whether llama.cpp's rules of
    what stays float32 hold."""

    changes: Mapping[str, Change] = field(default_factory=dict)
    stacks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    made: Mapping[str, Sequence[float]] = field(default_factory=dict)
    joined: Collection[str] = ()
    whole: bool = False


NONE = Shaping()
"""Names and types only."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was requested: the output format, a type for real numbers, a block type, whether to keep Core ML's parts."""

    format: str
    dtype: str | None = None
    quantize: str | None = None
    raw: bool = False
    mixture: Mixture | None = None
    """What ``quantize`` means for each tensor, once these are known; without it, none is quantized."""


def plan(
    source: TensorFile,
    entries: Sequence[TensorEntry],
    wishes: Wishes,
    names: Mapping[str, str],
    shaping: Shaping = NONE,
) -> list[Job]:
    """Return the jobs for ``entries``, in their order; UsageError where the goal cannot hold one of the tensors."""
    jobs = [
        job
        for entry in _stacked(entries, shaping)
        for job in _jobs(source, entry, wishes, names.get(entry.name, entry.name), shaping)
    ]
    jobs = _with_others(jobs, entries, shaping) + _made(shaping)
    seen: set[str] = set()
    for job in jobs:
        if job.planned.name in seen:
            raise UsageError(f"two tensors would be called '{job.planned.name}'", "keep the names: --names keep")
        seen.add(job.planned.name)
    if wishes.format == "GGUF":
        long = [job.planned.name for job in jobs if len(job.planned.name.encode("utf-8", "replace")) > write_gguf.NAME]
        if long:
            more = f" (and {len(long) - 1} more)" if len(long) > 1 else ""
            raise UsageError(
                f"'{long[0]}'{more} has more bytes than the {write_gguf.NAME} that GGUF's readers take",
                "write .safetensors, or cut a prefix that the names share with --strip-prefix",
            )
        deep = [job.planned.name for job in jobs if len(job.planned.shape) > write_gguf.RANK]
        if deep:
            more = f" (and {len(deep) - 1} more)" if len(deep) > 1 else ""
            raise UsageError(
                f"'{deep[0]}'{more} has more dimensions than the {write_gguf.RANK} that GGUF knows",
                "write .safetensors",
            )
    return jobs


def _stacked(entries: Sequence[TensorEntry], shaping: Shaping) -> list[TensorEntry]:
    """Return the entries without those that follow another one in its tensor."""
    following = {name for members in shaping.stacks.values() for name in members[1:]}
    return [entry for entry in entries if entry.name not in following]


def _with_others(jobs: list[Job], entries: Sequence[TensorEntry], shaping: Shaping) -> list[Job]:
    """Return the jobs with tensors that are stacked along a new first axis."""
    by_name = {entry.name: entry for entry in entries}
    members = {names[0]: [by_name[name] for name in names] for names in shaping.stacks.values()}
    found = []
    for job in jobs:
        stack = members.get(job.entry.name)
        if stack:
            first, *rest = job.planned.shape
            joined = job.planned.name in shaping.joined
            planned = replace(job.planned, shape=(len(stack) * first, *rest) if joined else (len(stack), first, *rest))
            same = job.as_stored and all(entry.dtype == planned.dtype for entry in stack)
            job = replace(job, planned=planned, others=tuple(stack[1:]), as_stored=same)
        found.append(job)
    return found


def _made(shaping: Shaping) -> list[Job]:
    """Return the jobs for tensors that the source has none of."""
    found = []
    for name, row in shaping.made.items():
        shape = (len(row),)
        entry = TensorEntry(name, "F32", shape, 4 * len(row))
        found.append(Job(Planned(name, "F32", shape), entry, "F32", False, made=tuple(row)))
    return found


def _jobs(source: TensorFile, entry: TensorEntry, wishes: Wishes, name: str, shaping: Shaping) -> Iterator[Job]:
    compressed = source.is_compressed(entry)
    parts = source.parts(entry) if compressed and wishes.raw else {}
    if parts:
        for key, value in parts.items():
            kind = value.type
            stored = _numpy_type(kind.dtype.numpy_name) if isinstance(kind, TensorType) else None
            if stored and isinstance(kind, TensorType) and kind.size is not None:
                shape = tuple(length or 0 for length in kind.shape or ())
                yield _job(entry, wishes, f"{name}.{key}", shape, stored, part=key)
        return
    # What the goal holds as it is need not be decodable.
    kept = entry.dtype in TYPES[wishes.format] and not compressed and not entry.big_endian
    values = entry.dtype if kept else source.decoded_type(entry)
    change = shaping.changes.get(entry.name)
    shape = change.shape(entry.shape) if change else entry.shape
    full = shaping.whole and is_full(name, shape)
    yield _job(entry, wishes, name, shape, values, compressed=compressed, change=change, full=full)


def _job(
    entry: TensorEntry,
    wishes: Wishes,
    name: str,
    shape: tuple[int, ...],
    values: str,
    part: str = "",
    compressed: bool = False,
    change: Change | None = None,
    full: bool = False,
) -> Job:
    # A type without a fixed size counts as what it decodes to.
    stored = entry.dtype if not part and not compressed and entry.dtype in BLOCKS else values
    goal = "F32" if full and is_float(stored) else _goal(name, stored, values, shape, wishes, plain=bool(part))
    if goal is None:
        raise UsageError(f"'{name}' is {stored}, which {wishes.format} cannot hold", "write another format")
    same = not part and not compressed and goal == entry.dtype and not entry.big_endian and change is None
    return Job(Planned(name, goal, shape), entry, values, same, part, change)


def _goal(name: str, stored: str, values: str, shape: tuple[int, ...], wishes: Wishes, plain: bool) -> str | None:
    """Return the type to write, None where there is none.

    Vectors (norms, biases) are never quantized, and are F32 beside quantized matrices, as llama.cpp requires.
    """
    able = TYPES[wishes.format]
    if is_float(stored) and not plain:
        quantized = wishes.mixture.of(name, shape) if wishes.mixture and len(shape) > 1 else None
        if quantized:
            return quantized
        if wishes.format == "GGUF" and len(shape) < 2 and (wishes.dtype or wishes.quantize):
            return "F32"
        if wishes.dtype:
            return wishes.dtype
    # A block type needs whole blocks in each row.
    if stored in able and (stored not in QUANTIZED or write_gguf.fits(stored, shape)):
        return stored
    while values not in able and values in _WIDER:
        values = _WIDER[values]
    return values if values in able else None


def _numpy_type(name: str | None) -> str | None:
    found = {"float16": "F16", "float32": "F32", "float64": "F64", "bool": "BOOL"}
    return found.get(name or "") or (name.replace("uint", "U").replace("int", "I") if name else None)


def shards(jobs: Sequence[Job], limit: int | None) -> list[list[Job]]:
    """Return the jobs in files of at most ``limit`` bytes of tensors; a larger tensor has a file of its own."""
    found: list[list[Job]] = [[]]
    size = 0
    for job in jobs:
        if limit is not None and found[-1] and size + job.planned.nbytes > limit:
            found.append([])
            size = 0
        found[-1].append(job)
        size += job.planned.nbytes
    return found


def shard_names(goal: Path, count: int) -> list[Path]:
    """Return the files' paths: ``goal`` itself, or numbered as Hugging Face and llama.cpp number them."""
    if count == 1:
        return [goal]
    return [goal.with_name(f"{goal.stem}-{index + 1:05}-of-{count:05}{goal.suffix}") for index in range(count)]


def parse_size(text: str | int | None) -> int | None:
    """Return the number of bytes in ``5GB``, ``500MB``, ``2GiB`` or a plain number.

    >>> parse_size("2kB")
    2000
    """
    if text is None or isinstance(text, int):
        found = text
    else:
        size = quantity(text, BYTES | {"": 1.0})
        if size is None:
            raise UsageError(f"'{text}' is not a size", "write 5GB, 500MB or 2GiB")
        found = int(size)
    if found is not None and found < 1:
        raise UsageError(f"'{text}' is not a size for a file", "write 5GB, 500MB or 2GiB")
    return found
