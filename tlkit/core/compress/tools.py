"""The one place that calls coremltools.optimize: which weights a package has, and writing it with other ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.core.compress.choices import Packing, WeightChoice
from tlkit.core.convert.tools.load import load_tools
from tlkit.errors import ConversionError, reason
from tlkit.host.quiet import quiet
from tlkit.host.scratch import temporary_files

THRESHOLD = 2048
"""Elements from which a weight is worth compressing: coremltools' own default."""


@dataclass(frozen=True, slots=True)
class WeightUse:
    """A weight that can be compressed: its name, elements, bytes, and the operations that take it, with their types."""

    name: str
    elements: int
    nbytes: int
    operations: tuple[tuple[str, str], ...]

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


def weight_uses(model: Any, tools: Any, threshold: int = THRESHOLD) -> tuple[WeightUse, ...]:
    """Return the weights of at least ``threshold`` elements, in the program's order."""
    found = tools.get_weights_metadata(model, weight_threshold=threshold)
    return tuple(
        WeightUse(name, int(item.val.size), int(item.val.nbytes), tuple((op.name, op.op_type) for op in item.child_ops))
        for name, item in found.items()
    )


def packed(model: Any, tools: Any, choices: Mapping[str, WeightChoice], threshold: int = THRESHOLD) -> Any:
    """Return coremltools' model with each weight as ``choices`` says; ConversionError where it fails."""
    steps: tuple[tuple[str, Callable[[WeightChoice], Packing | None]], ...] = (
        ("prune", lambda choice: choice.prune),
        ("quantize", lambda choice: choice.pack if choice.pack and choice.pack.kind == "quantize" else None),
        ("palettize", lambda choice: choice.pack if choice.pack and choice.pack.kind == "palettize" else None),
    )
    pruned: set[str] = set()
    for kind, part in steps:
        for joint in (False, True):
            wanted = {
                name: packing
                for name, choice in choices.items()
                if (packing := part(choice)) is not None and (name in pruned) is joint
            }
            if wanted:
                model = _step(model, tools, kind, wanted, joint, threshold)
        if kind == "prune":
            pruned = {name for name, choice in choices.items() if choice.prune is not None}
    return model


def _step(model: Any, tools: Any, kind: str, wanted: Mapping[str, Packing], joint: bool, threshold: int) -> Any:
    config = tools.OptimizationConfig()
    made = {packing: packing.config(tools, threshold) for packing in wanted.values()}
    for name, packing in wanted.items():
        config.set_op_name(name, made[packing])
    call = {
        "prune": tools.prune_weights,
        "quantize": tools.linear_quantize_weights,
        "palettize": tools.palettize_weights,
    }
    more = {"joint_compression": True} if joint else {}
    try:
        return call[kind](model, config, **more)
    except Exception as error:
        said = f"coremltools cannot {kind} it: {reason(error)}"
        raise ConversionError(said, "leave the weight out with --skip, or choose another block or group") from error
