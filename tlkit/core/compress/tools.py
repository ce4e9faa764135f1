"""The one place that calls coremltools.optimize: which weights a package has, and writing it with other ones."""

from __future__ import annotations

import re
import shutil
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.core.compress.choices import Packing, WeightChoice
from tlkit.core.convert.tools.load import load_tools
from tlkit.errors import ConversionError, reason
from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.write import write_package
from tlkit.host.quiet import quiet
from tlkit.host.scratch import temporary_files
from tlkit.mil.passes.base import run_passes
from tlkit.mil.passes.lean import Lean

THRESHOLD = 2048
"""Elements from which a weight is worth compressing in any case: coremltools' own default."""
LEAST, _LEFT = 128, 0.01
"""Where nothing is said, smaller matrices and kernels are compressed too, down to LEAST elements, until those that
stay are no more than _LEFT of all weights' bytes: in a small model they are much of it."""
_SMALL_ONES = ("conv", "conv_transpose", "linear", "matmul", "gather")
"""What takes them: a vector has a row for each element, and gains nothing."""

_ADDED = {"prune": "sparsified", "quantize": "quantized", "palettize": "palettized"}
"""What coremltools adds to the name of a weight."""


@dataclass(frozen=True, slots=True)
class WeightUse:
    """A weight that can be compressed: its name, elements, bytes, and the operations that take it, with their types."""

    name: str
    elements: int
    nbytes: int
    operations: tuple[tuple[str, str], ...]
    rank: int = 2

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that a pattern may call it by."""
        return (self.name, *(part for pair in self.operations for part in pair))


@contextmanager
def opened(package: Path) -> Iterator[tuple[Any, Any, Any]]:
    """Yield coremltools' model of ``package``, which it may rewrite, coremltools and its optimize.coreml."""
    with temporary_files("tlkit-compress-"), quiet():
        ct = load_tools()
        import coremltools.optimize.coreml as tools

        yield ct.models.MLModel(str(package), skip_model_load=True), ct, tools


def weight_uses(model: Any, tools: Any, threshold: int | None = None) -> tuple[WeightUse, ...]:
    """Return the weights of at least ``threshold`` elements, in the program's order; those that are worth it where it
    is None."""
    found = tools.get_weights_metadata(model, weight_threshold=LEAST if threshold is None else threshold)
    uses = [
        WeightUse(name, int(item.val.size), int(item.val.nbytes), _takers(item), int(item.val.ndim))
        for name, item in found.items()
    ]
    return tuple(uses) if threshold is not None else _worth_it(uses)


def _takers(item: Any) -> tuple[tuple[str, str], ...]:
    return tuple((operation.name, operation.op_type) for operation in item.child_ops)


def _worth_it(uses: Sequence[WeightUse]) -> tuple[WeightUse, ...]:
    may = [use for use in uses if use.rank > 1 and all(kind in _SMALL_ONES for _, kind in use.operations)]
    small = sorted((use for use in may if use.elements < THRESHOLD), key=lambda use: use.elements)
    left, most = 0, _LEFT * sum(use.nbytes for use in uses)
    stay = set()
    for use in small:
        left += use.nbytes
        if left <= most:
            stay.add(use.name)
    taken = {use.name for use in small} - stay
    return tuple(use for use in uses if use.elements >= THRESHOLD or use.name in taken)


def packed(model: Any, tools: Any, choices: Mapping[str, WeightChoice]) -> tuple[Any, dict[str, WeightChoice]]:
    """Return coremltools' model with each weight as ``choices`` says, and how each is stored.

    Where a weight cannot be cut into blocks, groups or vectors of the size asked for, it is stored without them.
    Raises ConversionError where coremltools fails.
    """
    model, pruned = _done(model, tools, "prune", _parts(choices, "prune"), False)
    made: dict[str, Packing] = {}
    for kind in ("quantize", "palettize"):
        for joint in (False, True):
            wanted = {name: part for name, part in _parts(choices, kind).items() if (name in pruned) is joint}
            model, stored = _done(model, tools, kind, wanted, joint)
            plain = {name: part.plain for name, part in wanted.items() if name not in stored and part.plain != part}
            model, others = _done(model, tools, kind, plain, joint)
            made |= stored | others
    return model, {name: WeightChoice(pruned.get(name), made.get(name)) for name in choices}


def save(model: Any, path: Path) -> None:
    """Write coremltools' ``model`` at ``path``, with what expands its weights as short as it can be."""
    whole = path.with_name(f"{path.stem}.whole.mlpackage")
    model.save(str(whole))
    package = open_package(whole)
    assert package.program is not None
    write_package(path, package.model, run_passes(package.program, [Lean()]).program)
    shutil.rmtree(whole)


def _parts(choices: Mapping[str, WeightChoice], kind: str) -> dict[str, Packing]:
    parts = {name: choice.prune if kind == "prune" else choice.pack for name, choice in choices.items()}
    return {name: part for name, part in parts.items() if part is not None and part.kind == kind}


def _done(
    model: Any, tools: Any, kind: str, wanted: Mapping[str, Packing], joint: bool
) -> tuple[Any, dict[str, Packing]]:
    """Return the model after a step, and what of ``wanted`` it did: coremltools leaves out what does not fit."""
    if not wanted:
        return model, {}
    model = _step(model, tools, kind, wanted, joint)
    found = _stored(model.get_spec(), wanted, _ADDED[kind])
    return model, {name: part for name, part in wanted.items() if name in found}


def _stored(spec: Any, names: Container[str], added: str) -> set[str]:
    """Return which of ``names`` an operation expands that bears ``added`` behind the weight's name."""
    blocks = [
        block for function in spec.mlProgram.functions.values() for block in function.block_specializations.values()
    ]
    found = set()
    while blocks:
        block = blocks.pop()
        for operation in block.operations:
            blocks.extend(operation.blocks)
            if operation.type.startswith("constexpr"):
                whole = operation.outputs[-1].name
                ends = (place.start() for place in re.finditer(f"_(?:{'|'.join(_ADDED.values())})", whole))
                base = next((whole[:end] for end in ends if whole[:end] in names), None)
                if base is not None and f"_{added}" in whole[len(base) :]:
                    found.add(base)
    return found


@contextmanager
def _exact_percentiles() -> Iterator[None]:
    """Have numpy find percentiles of f16 numbers in f32: in f16, as coremltools asks for them, it loses the place among
    more than 65,504, and a large weight is left without zeros."""
    plain = np.percentile

    def wide(values: Any, *given: Any, **more: Any) -> Any:
        half = getattr(values, "dtype", None) == np.float16
        return plain(values.astype(np.float32) if half else values, *given, **more)

    np.percentile = wide  # type: ignore[assignment]
    try:
        yield
    finally:
        np.percentile = plain


def _step(model: Any, tools: Any, kind: str, wanted: Mapping[str, Packing], joint: bool) -> Any:
    config = tools.OptimizationConfig()
    made = {packing: packing.config(tools, joint) for packing in wanted.values()}
    for name, packing in wanted.items():
        # A pruned weight is its values that are left, of another name: they are found by the operation that they go to.
        config.set_op_name(f"{name}_{_ADDED['prune']}" if joint else name, made[packing])
    call = {
        "prune": tools.prune_weights,
        "quantize": tools.linear_quantize_weights,
        "palettize": tools.palettize_weights,
    }
    more = {"joint_compression": True} if joint else {}
    try:
        with _exact_percentiles():
            return call[kind](model, config, **more)
    except Exception as error:
        said = f"coremltools cannot {kind} it: {reason(error)}"
        raise ConversionError(said, "leave the weight out with --skip, or choose another block or group") from error
