"""``tlkit convert`` between files of weights: SafeTensors, GGUF, PyTorch state_dicts, and out of Core ML.

Everything is decided from the source's header first; then one tensor after another is read, converted to its new type
in pieces, and written. So memory does not grow with the file. Losses on the way are counted and reported.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tlkit.core.weights.choose import choose
from tlkit.core.weights.data import JobReader
from tlkit.core.weights.files import write_files
from tlkit.core.weights.metadata import Carried, edit_metadata, read_metadata
from tlkit.core.weights.model import Naming, naming
from tlkit.core.weights.plan import FORMATS, TYPES, Job, Wishes, parse_size, plan, shards
from tlkit.errors import LoadError, UsageError
from tlkit.formats.base.ledger import sentences
from tlkit.formats.base.tensors import TensorFile
from tlkit.formats.describe import open_tensors
from tlkit.formats.encode import FLOATS
from tlkit.formats.gguf.imatrix import Importance, read_imatrix
from tlkit.formats.gguf.mixtures import MIXTURES, PURE, Mixture, mixture
from tlkit.formats.gguf.quants import QUANTIZABLE, WEIGHABLE
from tlkit.host import budget
from tlkit.host.goals import files_named
from tlkit.host.interrupt import check
from tlkit.host.staging import prepare
from tlkit.types import LeftOut

_DTYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16"}
_WEIGHTS_ONLY = "weights only: it lacks hyperparameters or a tokenizer, and will not load in llama.cpp"

Report = Callable[[str, float], None]
"""Called with what is being done and how much of it is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class WeightsResult:
    """What was written. ``types`` counts tensors by stored type, ``changed`` by (from, to); sizes are bytes.

    ``lost`` counts elements: ``overflow`` (finite, now infinite), ``underflow`` (not zero before), ``not_finite`` (NaN
    or infinite, in blocks that cannot hold it), ``out_of_range``. ``renamed`` counts tensors with a new name.
    ``left_out`` names the source's tensor data that are not in what was written.
    """

    path: Path
    files: tuple[Path, ...]
    source: str
    format: str
    tensors: int
    parameters: int
    size: int
    types: Mapping[str, int]
    changed: Mapping[tuple[str, str], int]
    lost: Mapping[str, int]
    renamed: int
    notes: tuple[str, ...]
    seconds: float
    left_out: tuple[LeftOut, ...] = ()


def convert_weights(
    source: str | Path,
    output: str | Path,
    *,
    dtype: str | None = None,
    quantize: str | None = None,
    max_shard_size: str | int | None = None,
    metadata: Mapping[str, str] | Sequence[str] = (),
    names: str = "auto",
    raw: bool = False,
    all_tensors: bool = False,
    allow_missing: bool = False,
    strip_prefix: str | None = None,
    imatrix: str | Path | None = None,
    force: bool = False,
    report: Report | None = None,
) -> WeightsResult:
    """Write the weights of ``source`` (any format) to ``output``: ``.safetensors``, ``.gguf``, or ``.pth .pt .bin``.

    Types stay as they are where the new format has them (block types become F32 outside GGUF), unless ``dtype`` (f32,
    f16, bf16) or, for GGUF, ``quantize`` (q8_0, q4_k_m …) says otherwise: the first for all real numbers, the second
    for matrices whose rows are whole blocks; GGUF's vectors are F32 then, as llama.cpp wants them. Of a language model
    ``quantize`` is llama.cpp's mixture of that name, which gives some matrices more bits, and ``q4_0:pure`` all the
    same. ``names="auto"`` maps Hugging Face's names to GGUF's and back where the architecture is known, and takes off
    what coremltools appended; ``"keep"`` leaves them. ``raw`` writes compressed Core ML weights as their parts
    (indices, look-up tables, scales) and not expanded. ``metadata`` edits what the file says of itself: ``KEY=VALUE``,
    or ``KEY=`` to take an entry out. ``max_shard_size`` (``5GB``) splits the output. ``all_tensors`` takes along what
    only training needs (an optimizer's state). A tensor that cannot be read is an IncompleteError that names it, and
    nothing is written, unless ``allow_missing``. ``strip_prefix`` is cut from names; one that a wrapper put before all
    is cut by itself. ``imatrix`` is a file of llama.cpp's imatrix: errors of columns that matter count more where
    blocks are fitted.
    """
    start, goal = time.perf_counter(), Path(output)
    if imatrix is not None and quantize is None:
        raise UsageError(f"--imatrix {imatrix}: nothing is quantized", "add --quantize q4_k_m, or leave it out")
    wishes = _wishes(goal, dtype, quantize, raw)
    limit = parse_size(max_shard_size)
    if names not in ("auto", "keep"):
        raise UsageError(f"unknown names '{names}'", "they are auto or keep")
    if limit is not None and wishes.format == "PyTorch":
        raise UsageError("a PyTorch state_dict is one file", "write .safetensors to split it")
    prepare(goal, force=force, inputs=files_named(source))
    opened = _open(Path(source))
    # What no output may replace.
    inputs = (Path(source), *_files(opened))
    choice = choose(
        opened,
        everything=all_tensors,
        allow_missing=allow_missing,
        prefix=strip_prefix,
        cut=names == "auto",
        able=TYPES[wishes.format],
    )
    _check_elements(opened, sum(entry.elements for entry in choice.entries))
    notes: list[str] = [*opened.notes, *choice.notes, *sentences(choice.left_out)]
    carried = read_metadata(opened)
    current = {choice.renamed.get(entry.name, entry.name): entry for entry in choice.entries}
    given = naming(opened, current, wishes.format, carried) if names == "auto" else Naming()
    notes += [*given.notes, *sentences(given.left_out)]
    # What a file says of itself comes before what its folder's config does.
    carried = edit_metadata({**given.metadata, **carried}, metadata)
    arch = given.architecture
    renamed = {entry.name: given.names.get(entry.name, name) for name, entry in current.items()}
    dropped = {item.name for item in given.left_out}
    entries = [entry for entry in choice.entries if entry.name not in dropped]
    if wishes.quantize:
        named = {renamed.get(entry.name, entry.name) for entry in entries}
        wishes = replace(wishes, mixture=mixture(wishes.quantize, named, carried, weighed=imatrix is not None))
    jobs = plan(opened, entries, wishes, renamed, given.shaping)
    notes += _not_quantized(jobs, wishes.mixture.name if wishes.mixture else None)
    if wishes.format == "GGUF" and not _is_whole(carried):
        notes.append(_WEIGHTS_ONLY)

    weights = _importance(Path(imatrix), jobs, notes) if imatrix is not None else {}
    if wishes.mixture:
        _check_important(wishes.mixture, imatrix, jobs, weights)
    reader = JobReader(opened, jobs, report or (lambda what, share: None), check, weights)
    recipe = wishes.mixture.file_type if wishes.mixture else None
    files = write_files(goal, wishes.format, shards(jobs, limit), carried, arch, reader, force, inputs, notes, recipe)
    return WeightsResult(
        path=goal,
        files=tuple(files),
        source=str(source),
        format=wishes.format,
        tensors=len(jobs),
        parameters=sum(entry.elements for entry in entries),
        size=sum(file.stat().st_size for file in files),
        types=dict(Counter(job.planned.dtype for job in jobs).most_common()),
        changed=_changed(jobs),
        lost=reader.lost(),
        renamed=sum(1 for old, new in renamed.items() if old != new),
        notes=tuple(notes),
        seconds=time.perf_counter() - start,
        left_out=(*choice.left_out, *given.left_out),
    )


def _wishes(goal: Path, dtype: str | None, quantize: str | None, raw: bool) -> Wishes:
    form = FORMATS.get(goal.suffix.lower())
    if form is None:
        raise UsageError(f"{goal}: no format of weights ends in '{goal.suffix}'", f"name it {', '.join(FORMATS)}")
    if dtype is not None and dtype.lower() not in _DTYPES:
        raise UsageError(f"unknown type '{dtype}'", f"--dtype is one of {', '.join(_DTYPES)}")
    if quantize is None:
        return Wishes(form, _DTYPES[dtype.lower()] if dtype else None, None, raw)

    if form != "GGUF":
        raise UsageError(f"{goal}: --quantize is only for GGUF", "write .gguf, or choose --dtype f16 or bf16")
    if quantize.upper() not in MIXTURES and quantize.upper().removesuffix(PURE) not in QUANTIZABLE:
        able = ", ".join(name.lower() for name in dict.fromkeys((*QUANTIZABLE, *MIXTURES)))
        hint = f"--quantize is one of {able}; a block type with :pure is for all matrices (q4_0:pure)"
        raise UsageError(f"{quantize}: not a block type that can be written", hint)
    return Wishes(form, _DTYPES[dtype.lower()] if dtype else None, quantize.upper(), raw)


def _importance(path: Path, jobs: Sequence[Job], notes: list[str]) -> Importance:
    """Return an importance matrix's weights for the jobs, and say which matrices have none; UsageError where it is one
    of another model."""
    known, found = read_imatrix(path), {}
    able = [job.planned for job in jobs if job.planned.dtype in WEIGHABLE and not job.as_stored]
    for tensor in able:
        values = known.get(tensor.name)
        if values is None:
            continue
        matrices = tensor.shape[0] if len(tensor.shape) > 2 else 1
        if values.size == matrices * tensor.shape[-1]:
            found[tensor.name] = values.reshape(matrices, -1)
        elif not tensor.name.startswith("token_embd"):
            said = f"{path}: {values.size} weights for '{tensor.name}', which has {matrices * tensor.shape[-1]} columns"
            raise UsageError(said, "make the importance matrix of this very model")
    if able and not found:
        raise UsageError(
            f"{path}: none of its {len(known)} names is a tensor here ('{next(iter(known))[:80]}')", _IMATRIX
        )
    left = [tensor.name for tensor in able if tensor.name not in found]
    if left:
        notes.append(f"{len(left)} of {len(able)} matrices are not in the importance matrix ('{left[0]}' …)")
    return found


def _check_important(mixture: Mixture, imatrix: str | Path | None, jobs: Sequence[Job], weights: Importance) -> None:
    """Raise UsageError for a tensor whose block type is of no use without an importance matrix, and that has none."""
    planned = [job.planned for job in jobs if not job.as_stored and job.planned.name not in weights]
    left = [tensor for tensor in planned if mixture.needs_importance(tensor.name, tensor.dtype)]
    if not left:
        return
    name, dtype = left[0].name, left[0].dtype
    if imatrix is None:
        said = f"--quantize {mixture.name.lower()}: '{name}' becomes {dtype}, which needs an importance matrix"
        raise UsageError(said, f"give one that llama.cpp's llama-imatrix has made: --imatrix FILE, or {_OTHERS}")
    raise UsageError(f"{imatrix}: it has no weights for '{name}', which {dtype} needs", _OTHERS)


_OTHERS = "choose --quantize q2_k or iq3_s, which need none"
_IMATRIX = "write GGUF's names (--names auto), and make it of this very model"


def _open(path: Path) -> TensorFile:
    opened = open_tensors(path)
    if not opened.entries() and not any(item.lost for item in opened.left_out):
        raise LoadError(f"{path}: it holds no tensors", "name a file of weights")
    return opened


def _check_elements(opened: TensorFile, elements: int) -> None:
    """Raise LoadError where the files declare far more elements than they store: views of one value, equal elements."""
    stored = sum(file.stat().st_size for file in {opened.path, *_files(opened)} if file.is_file())
    said = budget.over(elements, budget.HELD * budget.warranted(stored))
    if said:
        raise LoadError(f"{opened.path}: its tensors have {said[0]}", said[1])


def _files(opened: TensorFile) -> set[Path]:
    """Return the files that hold the tensors: a source may have several, and outputs may get the names of those."""
    return {Path(entry.file) for entry in opened.entries() if entry.file}


def _is_whole(carried: Carried) -> bool:
    """Whether a GGUF file with this metadata has what llama.cpp asks for beside tensors."""
    arch = carried.get("general.architecture")
    return bool(arch and f"{arch.value}.block_count" in carried and "tokenizer.ggml.model" in carried)


def _not_quantized(jobs: Sequence[Job], quantize: str | None) -> list[str]:
    """Note which matrices stay as they are because their rows are not whole blocks."""
    left = [job.planned for job in jobs if quantize and len(job.planned.shape) > 1]
    left = [tensor for tensor in left if tensor.dtype in FLOATS]
    if not left:
        return []
    many = f"{left[0].name}' is" if len(left) == 1 else f"{left[0].name}' and {len(left) - 1} more are"
    return [f"'{many} not quantized: rows that are not whole blocks of {quantize}"]


def _changed(jobs: Sequence[Job]) -> dict[tuple[str, str], int]:
    pairs = ((job.entry.dtype, job.planned.dtype) for job in jobs if not job.part)
    return dict(Counter(pair for pair in pairs if pair[0] != pair[1]).most_common())
