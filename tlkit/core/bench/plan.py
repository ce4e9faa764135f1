"""Plan the rows to measure: models × units × batches × shapes × threads, each with its inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.core.bench.rows import BenchInput, Setting
from tlkit.core.bench.subject import store_inputs
from tlkit.errors import UsageError
from tlkit.ports.shapes import allows
from tlkit.types import TensorSpec, Unit

if TYPE_CHECKING:
    from tlkit.core.model.known import Known

Shapes = Mapping[str, Sequence[tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to measure: a file (``path``), or a PyTorch source (``source``, and ``path`` is its text).

    ``known`` is what can be drawn for its inputs beyond what their ports say.
    """

    name: str
    path: str
    source: bool
    inputs: tuple[TensorSpec, ...]
    compiled: str = ""
    known: Known | None = None


@dataclass(frozen=True, slots=True)
class Sweep:
    """The parameters to vary; empty means the model's own. The lists in ``shapes`` are varied in step."""

    units: Sequence[Unit]
    batches: Sequence[int] = ()
    threads: Sequence[int | None] = (None,)
    shapes: Shapes | None = None

    def variants(self) -> list[dict[str, tuple[int, ...]]]:
        """Return the shapes by input name for each step of the sweep."""
        shapes = self.shapes or {}
        steps = max((len(found) for found in shapes.values()), default=1)
        if any(len(found) not in (1, steps) for found in shapes.values()):
            raise UsageError(
                "--shape: inputs with different numbers of shapes", "give each the same number, or a single one"
            )
        return [{name: found[step % len(found)] for name, found in shapes.items()} for step in range(steps)]


def settings(
    subjects: Sequence[Subject],
    sweep: Sweep,
    given: Mapping[str, Any],
    seed: int,
    common: Mapping[str, Any],
    folder: Path,
) -> list[Setting]:
    """Return a setting for each row, its inputs drawn from ``seed`` or ``given`` and stored in ``folder``."""
    found: list[Setting] = []
    variants = sweep.variants()
    for subject, step, batch in product(subjects, range(len(variants)), sweep.batches or (None,)):
        notes, arrays, items = _inputs(subject, variants[step], batch, given, seed)
        # One file for each set of inputs, however many settings read it.
        file = folder / f"inputs{len(found)}.npz"
        store_inputs(arrays, file)
        base: dict[str, Any] = {"path": subject.path, "arrays": str(file), "compiled": subject.compiled}
        base |= {"drawn": not given, **common}
        for threads, unit in product(sweep.threads, sweep.units):
            # Only what varies is in the name.
            parts = [
                subject.name if len(subjects) > 1 else "",
                str(unit),
                f"batch={batch}" if len(sweep.batches) > 1 else "",
                _shape_label(variants[step]) if len(variants) > 1 else "",
                f"threads={threads}" if len(sweep.threads) > 1 else "",
            ]
            factory = "tlkit.core.bench.subject:" + ("make_source" if subject.source else "make")
            label = "/".join(part for part in parts if part)
            found.append(
                Setting(unit, factory, base | {"unit": unit}, label, subject.name, items, threads, tuple(notes))
            )
    return found


def names(texts: Sequence[str]) -> list[str]:
    """Return a short name for each model: the file's stem, or the whole text where stems are alike."""
    short = [text if ":" in text and not Path(text).exists() else Path(text).stem or text for text in texts]
    return [text if short.count(name) > 1 else name for text, name in zip(texts, short, strict=True)]


def is_source(text: str) -> bool:
    """Whether ``text`` names PyTorch code (``file.py:callable``, ``package.module:callable``) or a TorchScript file."""
    path = Path(text)
    return (":" in text and not path.exists()) or (path.is_file() and path.suffix in (".pt", ".pth", ".torchscript"))


def source_ports(text: str, packages: Sequence[Subject], shapes: Shapes) -> tuple[TensorSpec, ...]:
    """Return the inputs of a PyTorch source, which does not declare them: those of the package beside it, or
    --shape."""
    if packages:
        return tuple(_plain(spec) for spec in packages[0].inputs)
    if not shapes:
        raise UsageError(
            f"{text}: the shapes of its inputs are not known",
            "measure it beside its package, or give them in order: --shape NAME=1,3,224,224",
        )
    return tuple(TensorSpec(name, "float32", ()) for name in shapes)


def _plain(spec: TensorSpec) -> TensorSpec:
    # As written, a module computes in f32.
    dtype = "float32" if spec.dtype.startswith("float") else spec.dtype
    return TensorSpec(spec.name, dtype, spec.shape, optional=spec.optional)


def _inputs(
    subject: Subject, shapes: Mapping[str, tuple[int, ...]], batch: int | None, given: Mapping[str, Any], seed: int
) -> tuple[list[BenchInput], dict[str, Any], int]:
    """Return the inputs' descriptions, their arrays, and the number of items (the batch)."""
    import numpy as np

    from tlkit.core.model.inputs import port_named

    for name in (*given, *shapes):
        port_named(subject.inputs, name, subject.path)
    rng = np.random.default_rng(seed)
    notes: list[BenchInput] = []
    arrays: dict[str, Any] = {}
    batched = False
    for spec, asked in _asked(subject.inputs, given):
        usual = subject.known.shapes.get(spec.name) if subject.known else None
        shape = shapes.get(spec.name, usual or spec.shape)
        if batch is not None and _takes(spec, subject.source, wider := (batch, *shape[1:])):
            shape, batched = wider, True
        value, source = _value(spec, asked, shape, rng, subject, repeat=batch is not None)
        notes.append(BenchInput(spec.name, spec.dtype, np.shape(value), source))
        arrays[spec.name] = value
    if batch is not None and not batched:
        raise UsageError(
            f"{subject.path}: no input takes a batch of {batch}",
            "`tlkit inspect` shows what its inputs take; convert it with a flexible first dimension to allow batches",
        )
    return notes, arrays, batch if batch is not None else 1


def _asked(specs: Sequence[TensorSpec], given: Mapping[str, Any]) -> Iterator[tuple[TensorSpec, Any]]:
    from tlkit.core.model.inputs import Drawn

    for spec in specs:
        asked = given.get(spec.name, None if spec.optional else Drawn("random"))
        if asked is not None:
            yield spec, asked


def _takes(spec: TensorSpec, source: bool, shape: tuple[int, ...]) -> bool:
    return bool(spec.shape) and (source or allows(spec, shape))


def _value(
    spec: TensorSpec, asked: Any, shape: tuple[int, ...], rng: Any, subject: Subject, repeat: bool
) -> tuple[Any, str]:
    """Return a value for one input; ``repeat``: a given one is repeated until it fills the batch."""
    import numpy as np

    from tlkit.core.model.inputs import Drawn, draw, to_port

    if subject.source:  # a module takes any shape; whether it fits is seen when it runs
        spec = replace(spec, shape=shape)
    if isinstance(asked, Drawn):
        listed = subject.known.values.get(spec.name, ()) if subject.known else ()
        return draw(spec, asked.kind, rng, shape, stored=None, known=listed), asked.kind
    value = to_port(replace(spec, ranges=(), enumerated=()) if subject.source else spec, asked)
    if repeat and np.shape(value)[1:] == tuple(shape[1:]):
        value = np.concatenate([value] * math.ceil(shape[0] / value.shape[0]))[: shape[0]]
    return value, "given"


def _shape_label(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ",".join(f"{name}={'x'.join(map(str, shape))}" for name, shape in shapes.items())
