"""The inputs that both sides of a comparison run on: seeded, given, or a folder of samples."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.core.convert.capture.cases import Case, sample_cases, seeded_cases
from tlkit.core.convert.capture.examples import Values, draw
from tlkit.core.judge.side import HowToOpen, Side
from tlkit.core.judge.sides import PackageSide
from tlkit.core.judge.source import SourceSide
from tlkit.core.model.inputs import Drawn, Note, to_port
from tlkit.core.model.inputs import draw as draw_port
from tlkit.core.model.load import load_model
from tlkit.core.model.values import collect
from tlkit.errors import LoadError, UsageError
from tlkit.mil.program import Function, Operation, Ref, TensorType
from tlkit.types import TensorSpec


def given_cases(
    ports: tuple[TensorSpec, ...],
    sides: Sequence[Side],
    *,
    inputs: Sequence[str] = (),
    shapes: Sequence[str] = (),
    samples: Path | None = None,
    count: int = 3,
    seed: int = 0,
    note: Note = lambda _: None,
) -> tuple[Case, ...]:
    """Return the cases to run: those of ``samples``, one of ``inputs`` (texts ``NAME=VALUE``), or ``count`` seeded.

    Seeded values are those that a PyTorch side takes, found by running it; of packages only, integers that index a
    table are in its range, masks are 0 and 1, other integers 0 and 1; for texts, dictionaries, sequences and single
    integers some of what the model lists.
    """
    if samples is not None:
        if inputs:
            raise UsageError("--input and --samples both say what to run on", "give one of them")
        return sample_cases(samples, ports)
    if inputs:
        values = collect(ports, inputs, shapes, seed, note)
        arrays = [_case_value(port, values[port.name]) for port in ports]
        at = tuple(port.taking(_shape(port, array)) for port, array in zip(ports, arrays, strict=True))
        return (Case(Path(inputs[0].partition("=")[2] or inputs[0]).name, at, tuple(arrays)),)
    ports = _shaped(ports, shapes)
    source = next((side for side in sides if isinstance(side, SourceSide)), None)
    if source is not None and any((port.dtype or "float32").startswith("int") for port in ports):
        cases, notes = seeded_cases(source.placed(ports), source.module, seed, count)
        for text in notes:
            note(text)
        return cases
    ranges: dict[str, int] = {}
    listed: dict[str, Sequence[Any]] = {}
    for side in sides:
        if isinstance(side, PackageSide):
            listed = {**side.model.known.values, **listed}
        if isinstance(side, PackageSide) and side.model.program is not None:
            ranges = {**dict(index_ranges(side.model.function())), **ranges}
    wanted = {port.name: _values(port, ranges) for port in ports if port.kind in _ARRAYS}
    return tuple(
        Case(f"seed {seed + index}", ports, _drawn(ports, wanted, listed, seed + index)) for index in range(count)
    )


_AWAY = 1000
"""How far the seeds of inputs to check on are from those to search on."""


def split_cases(
    model: Path, samples: str | os.PathLike[str] | None, seed: int, counts: tuple[int, int]
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Return inputs of a package to search on, and others to check on: every other sample, or seeded ones.

    ``counts`` says how many of each where they are seeded: where there are no samples, or only one.
    """
    check_folder(None if samples is None else Path(samples))
    loaded = load_model(model, engine="eager", precision="f32")
    side = PackageSide(loaded, HowToOpen())
    if samples is None:
        seen = given_cases(loaded.inputs, [side], count=counts[0], seed=seed)
    else:
        seen = given_cases(loaded.inputs, [side], samples=Path(samples))
        if len(seen) > 1:
            return seen[::2], seen[1::2]
    return seen, given_cases(loaded.inputs, [side], count=counts[1], seed=seed + _AWAY)


def _drawn(
    ports: tuple[TensorSpec, ...], wanted: Mapping[str, Values], listed: Mapping[str, Sequence[Any]], seed: int
) -> tuple[Any, ...]:
    arrays = iter(draw(tuple(port for port in ports if port.name in wanted), wanted, seed))
    rng = np.random.default_rng(seed)
    return tuple(
        next(arrays) if port.name in wanted else draw_port(port, "random", rng, known=listed.get(port.name, ()))
        for port in ports
    )


def source_ports(ports: tuple[TensorSpec, ...], text: str) -> tuple[TensorSpec, ...]:
    """Return ``ports``; UsageError where there are none, since neither side says what it takes."""
    if not ports:
        raise UsageError(f"{text}: what does it take?", "say it with --port NAME=1x3x224x224, or :i32 after integers")
    return ports


def _shaped(ports: tuple[TensorSpec, ...], shapes: Sequence[str]) -> tuple[TensorSpec, ...]:
    if not shapes:
        return ports
    asked = {text.partition("=")[0] for text in shapes}
    drawn = [f"{port.name}=zeros" for port in ports if port.name in asked]
    values = collect(ports, drawn, shapes, 0, lambda _: None)
    return tuple(port.taking(values[port.name].shape) if port.name in asked else port for port in ports)


def _case_value(port: TensorSpec, value: Any) -> Any:
    array = to_port(port, Drawn("random") if value is None else value)
    return array[0].astype(np.uint8) if port.image is not None else array


def _shape(port: TensorSpec, array: Any) -> tuple[int, ...]:
    if not isinstance(array, np.ndarray):
        return port.shape
    return array.shape if port.image is None else (1, *array.shape)


_ARRAYS = ("tensor", "image")


def _values(port: TensorSpec, ranges: Mapping[str, int]) -> Values:
    if port.image is not None:
        return Values("pixels")
    if not (port.dtype or "float32").startswith("int"):
        return Values("mask" if "mask" in port.name.lower() else "normal")
    if port.name in ranges:
        return Values("whole", 0, ranges[port.name] - 1)
    return Values("mask" if "mask" in port.name.lower() else "whole", 0, 1)


_MOVES = ("cast", "expand_dims", "reshape", "squeeze", "identity", "transpose", "slice_by_index", "slice_by_size")


def index_ranges(function: Function) -> Iterator[tuple[str, int]]:
    """Yield the inputs whose values index constant tables, and how many rows the smallest of those has."""
    known = {item.name: item.name for item in function.inputs}
    sizes = {item.name: item.type.shape for item in function.inputs if isinstance(item.type, TensorType)}
    found: dict[str, int] = {}
    for operation in function.block.operations:
        sizes |= {item.name: item.type.shape for item in operation.outputs if isinstance(item.type, TensorType)}
        for indices in _refs(operation, "indices"):
            rows = _rows(operation, sizes)
            if operation.type == "gather" and indices in known and rows:
                found[known[indices]] = min(rows, found.get(known[indices], rows))
        source = next(iter(_refs(operation, "x")), "")
        if operation.type in _MOVES and source in known:
            known |= {item.name: known[source] for item in operation.outputs}
        elif operation.type in ("select", "add"):  # how coremltools lets negative indices count from the end
            origins = {known[name] for key in operation.inputs for name in _refs(operation, key) if name in known}
            if len(origins) == 1:
                known |= {item.name: next(iter(origins)) for item in operation.outputs}
    yield from found.items()


def _refs(operation: Operation, key: str) -> list[str]:
    return [item.name for item in operation.inputs.get(key, ()) if isinstance(item, Ref)]


def _rows(operation: Operation, sizes: Mapping[str, Any]) -> int:
    """Return the length of the axis that a gather looks into, 0 where it is not known; the first, if none is said."""
    shape = next((sizes.get(name) for name in _refs(operation, "x")), None)
    return int(shape[0] or 0) if shape else 0


def check_folder(samples: Path | None) -> None:
    """Raise LoadError where the folder of samples does not exist: before a model is loaded."""
    if samples is not None and not samples.is_dir():
        raise LoadError(f"{samples}: no such folder", "give a folder of images, or of .npz files")
