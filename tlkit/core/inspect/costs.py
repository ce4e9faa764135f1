"""What the operations of a model cost: multiply-accumulates, weights, and the memory of the values in between.

Of a Core ML program by :mod:`tlkit.mil.work` and :mod:`tlkit.mil.survey.liveness`; of a neural network of before
mlprograms, compiled or not, by the program that tlkit makes of its layers; of ONNX by :mod:`tlkit.formats.onnx_graph`.
FLOPs are two for each multiply-accumulate. Nothing is decoded and nothing is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlkit.errors import CONTRADICTIONS, TlkitError, reason
from tlkit.mil.program import Function

if TYPE_CHECKING:
    from tlkit.formats.coreml.package import Package
    from tlkit.formats.onnx import OnnxFile
    from tlkit.mil.work import Operand

Dims = tuple[int | None, ...]
_UNKNOWN: tuple[type[Exception], ...] = (TlkitError, *CONTRADICTIONS)


@dataclass(frozen=True, slots=True)
class Port:
    """A value that an operation reads or makes; ``shape`` is None where the rank is not known."""

    name: str
    dtype: str
    shape: Dims | None

    @property
    def dims(self) -> str:
        """The shape as it is written: ``1x?x8`` where a dimension is open, ``any`` where the rank is not known."""
        if self.shape is None:
            return "any"
        return "x".join("?" if size is None else str(size) for size in self.shape) or "scalar"


@dataclass(frozen=True, slots=True)
class Cost:
    """One operation. ``weights`` counts the elements of its constant operands of more than 16, ``weight_bytes`` their
    bytes in the program's types; ``macs`` is None where a shape that it needs is not known. ``alive_bytes`` is what the
    values are that exist while it runs, its results among them. ``module`` is empty where nothing records it."""

    function: str
    name: str
    type: str
    module: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    weights: int
    weight_bytes: int
    macs: int | None
    alive_bytes: int | None

    @property
    def flops(self) -> int | None:
        """Two for each multiply-accumulate."""
        return None if self.macs is None else 2 * self.macs


@dataclass(frozen=True, slots=True)
class Activations:
    """The most memory that values take at once, weights not counted: as the program declares them, and as tlkit's
    PyTorch engine carries them (``--precision f16`` and ``f32``). ``at`` is the operation where the first happens."""

    peak_bytes: int
    at: str
    eager_f16_bytes: int | None = None
    eager_f32_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Costs:
    """What a model costs for one inference. ``open`` says that a dimension is open, which counts as 1, so that figures
    are the least; ``notes`` say what could not be counted."""

    macs: int
    flops: int
    activations: Activations | None
    open: bool
    per_op: tuple[Cost, ...]
    notes: tuple[str, ...] = ()

    def matching(self, patterns: Sequence[str]) -> tuple[Cost, ...]:
        """Return the operations of which a name, the type or the module matches one of ``patterns``; all for none.

        Names are the operation's, its outputs' and, from 0 for each type, ``TYPE_N``; a pattern without ``*`` and ``?``
        also means what is inside the module of that path.
        """
        from fnmatch import fnmatchcase

        names = self._names()
        return tuple(
            op
            for op, known in zip(self.per_op, names, strict=True)
            if not patterns
            or any(fnmatchcase(name, pattern) for pattern in patterns for name in (*known, *_above(op.module, pattern)))
        )

    def nearest(self, pattern: str) -> tuple[str, ...]:
        """Return up to three names that are most like ``pattern``, and that :meth:`matching` finds."""
        from difflib import get_close_matches

        return tuple(get_close_matches(pattern, {name for known in self._names() for name in known}, 3, 0.5))

    def _names(self) -> list[list[str]]:
        seen: dict[tuple[str, str], int] = {}
        found = []
        for op in self.per_op:
            count = seen[op.function, op.type] = seen.get((op.function, op.type), -1) + 1
            names = [op.name, *(item.name for item in op.outputs), op.type, f"{op.type}_{count}", op.module]
            found.append([name for name in names if name])
        return found


def _above(module: str, pattern: str) -> tuple[str, ...]:
    """Return ``pattern`` itself where it is the path of a module around ``module``."""
    return (pattern,) if module.startswith(f"{pattern}.") else ()


@dataclass(frozen=True, slots=True)
class ModuleCost:
    """The operations of a module together; ``module`` is a path of at most so many parts, empty for the others."""

    module: str
    operations: int
    types: tuple[tuple[str, int], ...]
    weights: int
    macs: int
    alive_bytes: int


def by_module(ops: Iterable[Cost], depth: int) -> tuple[ModuleCost, ...]:
    """Return ``ops`` grouped by the first ``depth`` parts of their modules, in order of first appearance."""
    from collections import Counter

    groups: dict[str, list[Cost]] = {}
    for op in ops:
        groups.setdefault(".".join(op.module.split(".")[:depth]) if op.module else "", []).append(op)
    return tuple(
        ModuleCost(
            name,
            len(items),
            tuple(Counter(op.type for op in items).most_common()),
            sum(op.weights for op in items),
            sum(op.macs or 0 for op in items),
            max(op.alive_bytes or 0 for op in items),
        )
        for name, items in groups.items()
    )


def package_costs(package: Package, function: str | None = None) -> Costs | None:
    """Return what ``package`` costs: one function or, for None, the default one; all stages of a pipeline together.

    None for a model that is not a program or a network (trees, linear models).
    """
    found, notes = [], []
    for leaf in package.leaves():
        try:
            functions = list(_functions(leaf, function))
            found += [function_costs(item, name) for name, item in functions]
        except _UNKNOWN as error:
            notes.append(f"costs are not known: {reason(error)}")
    return _joined(found, notes) if found or notes else None


def _functions(package: Package, wanted: str | None) -> Iterator[tuple[str, Function]]:
    """Yield the functions of a model that computes."""
    if package.program is not None:
        known = package.program.functions
        name = wanted or package.default_function or ("main" if "main" in known else next(iter(known), ""))
        if name in known:
            yield name, known[name]
    elif hasattr(package.model, package.model.WhichOneof("Type") or "") and _is_network(package):
        from tlkit.frontends.espresso.model import network_of
        from tlkit.frontends.network.network import NeuralNetwork

        yield "main", NeuralNetwork(network_of(package)).function()


def _is_network(package: Package) -> bool:
    return str(package.model.WhichOneof("Type") or "").startswith("neuralNetwork")


def function_costs(function: Function, name: str = "main") -> Costs:
    """Return what one function of a program costs."""
    from tlkit.mil.survey.liveness import EAGER_F16, EAGER_F32, alive, peak
    from tlkit.mil.survey.names import modules
    from tlkit.mil.work import steps

    taken = list(steps(function))
    held = {id(item.operation): item.nbytes for item in alive(function)}
    where = modules([step.operation for step in taken])
    rows = [
        Cost(
            name,
            step.operation.name,
            step.type,
            module,
            tuple(map(_port, step.read)),
            tuple(map(_port, step.results)),
            sum(item.elements for item in step.weights),
            sum(item.nbytes for item in step.weights),
            step.macs,
            held.get(id(step.operation)),
        )
        for step, module in zip(taken, where, strict=True)
    ]
    most = peak(function)
    memory = None
    if most is not None:
        eager = [found.nbytes for carrier in (EAGER_F16, EAGER_F32) if (found := peak(function, carrier))]
        memory = Activations(most.nbytes, most.operation.name, *eager)
    macs = sum(row.macs or 0 for row in rows)
    open_ = any(None in (item.kind.shape or ()) for step in taken for item in (*step.read, *step.results))
    return Costs(macs, 2 * macs, memory, open_, tuple(rows))


def _port(item: Operand) -> Port:
    return Port(item.name, item.kind.dtype.numpy_like, item.kind.shape)


def _joined(found: Sequence[Costs], notes: Sequence[str]) -> Costs:
    if len(found) == 1 and not notes:
        return found[0]
    peaks = [item.activations for item in found if item.activations is not None]
    return Costs(
        sum(item.macs for item in found),
        sum(item.flops for item in found),
        max(peaks, key=lambda item: item.peak_bytes, default=None),
        any(item.open for item in found),
        tuple(row for item in found for row in item.per_op),
        (*notes, *(note for item in found for note in item.notes)),
    )


def onnx_costs(file: OnnxFile) -> Costs:
    """Return what the graph of an ONNX model costs."""
    from tlkit.formats.onnx_graph import NodeGraph
    from tlkit.mil.survey.names import module_of_path

    graph = NodeGraph(file)
    rows, notes = [], []
    for node, held in graph.alive():
        macs = graph.macs(node)
        rows.append(
            Cost(
                "main",
                node.name or (node.outputs[0] if node.outputs else node.type),
                node.type,
                module_of_path(node.name),
                tuple(Port(name, *graph.kind(name)) for name in node.inputs if name and name not in graph.constants),
                tuple(Port(name, *graph.kind(name)) for name in node.outputs if name),
                sum(graph.elements(name) for name in node.inputs if graph.is_weight(name)),
                sum(graph.nbytes(name) or 0 for name in node.inputs if graph.is_weight(name)),
                macs,
                held,
            )
        )
    unknown = sum(row.macs is None for row in rows)
    if unknown:
        notes.append(f"{unknown} operations have shapes that the file does not give: figures are the least")
    macs = sum(row.macs or 0 for row in rows)
    known = [row for row in rows if row.alive_bytes is not None]
    most = max(known, key=lambda row: row.alive_bytes or 0, default=None)
    memory = Activations(most.alive_bytes or 0, most.name) if most and len(known) == len(rows) else None
    return Costs(macs, 2 * macs, memory, graph.open, tuple(rows), tuple(notes))
