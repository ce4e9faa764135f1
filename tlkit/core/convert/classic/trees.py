"""Tree ensembles in MIL: every tree's node is gathered level by level; see :mod:`tlkit.engines.classic.trees`.

Features are f32 there, and so are thresholds: one that is not an f32 number is rounded down, which no f32 feature tells
from the threshold itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tlkit.core.convert.classic.linear import logistic, referenced, two
from tlkit.engines.classic.answers import labels_of
from tlkit.engines.classic.trees import Ensemble
from tlkit.engines.classic.trees import classifier as reads
from tlkit.errors import ConversionError, LoadError
from tlkit.frontends.network.kit.blob import Blob
from tlkit.frontends.network.kit.graph import Graph, scalar
from tlkit.frontends.network.kit.weights import array_value
from tlkit.mil.types import DType

_DEEPEST = 128
_NODES = 1 << 22
_INT = DType.INT32
_NONE, _SOFTMAX, _LOGISTIC, _REFERENCE = range(4)


def regressor(g: Graph, x: Blob, model: Any) -> tuple[Blob, bool]:
    """The sum of the leaves, through the transform."""
    values = _values(g, x, Ensemble(model.treeEnsembleRegressor.treeEnsemble))
    transform = model.treeEnsembleRegressor.postEvaluationTransform
    if transform == _SOFTMAX:
        return g.op("softmax", values.shape, x=values, axis=0), False
    return (logistic(g, values) if transform == _LOGISTIC else values), False


def classifier(g: Graph, x: Blob, model: Any) -> tuple[Blob, bool]:
    """The probability of each class. Of two by a single tree, the second is the answer at 0.5."""
    message = model.treeEnsembleClassifier
    reads(model, {})  # which refuses sizes that contradict each other
    ensemble = Ensemble(message.treeEnsemble)
    values, transform = _values(g, x, ensemble), message.postEvaluationTransform
    if ensemble.dimensions == 1 and len(labels_of(message)) == 2:
        return two(g, values if transform == _NONE else logistic(g, values)), len(ensemble.roots) == 1
    if transform == _REFERENCE:
        return referenced(g, values), False
    if transform == _SOFTMAX:
        return g.op("softmax", values.shape, x=values, axis=0), False
    return (logistic(g, values) if transform == _LOGISTIC else values), False


def _values(g: Graph, x: Blob, trees: Ensemble) -> Blob:
    """Return the sums of the leaves' values [dimensions]."""
    if trees.depth > _DEEPEST or len(trees.feature) > _NODES:
        said = f"trees {trees.depth} deep, of {len(trees.feature)} nodes"
        raise ConversionError(f"{said}, which would make too large a program", "it runs with `tlkit run`")
    if (x.shape[0] or 0) < trees.least:
        raise LoadError(f"{x.shape[0]} features, where a branch asks for {trees.least}", "the file is damaged")
    if not len(trees.roots):
        return g.tensor(array_value(trees.base.astype(np.float32)), "base")
    nodes, tables = _whole(g, trees.roots, "roots"), _tables(g, trees)
    for _ in range(trees.depth):
        nodes = _below(g, x, nodes, tables)
    leaves = array_value(trees.leaves().astype(np.float32))
    found = g.op("gather", (*nodes.shape, trees.dimensions), x=leaves, indices=nodes, axis=0)
    total = g.op("reduce_sum", (trees.dimensions,), x=found, axes=[0], keep_dims=False)
    if not trees.base.any():
        return total
    return g.op("add", total.shape, x=total, y=array_value(trees.base.astype(np.float32)))


def _tables(g: Graph, trees: Ensemble) -> dict[str, Blob]:
    """Return the trees' arrays as constants; without those of no use to them."""
    tables = {"feature": _whole(g, trees.feature, "feature"), "children": _whole(g, trees.children, "children")}
    tables["threshold"] = g.tensor(array_value(_down(trees)), "threshold")
    for name, flags in (("equal", trees.equal), ("missing", trees.missing)):
        if flags.any():
            tables[name] = _whole(g, flags, name)
    return tables


def _below(g: Graph, x: Blob, nodes: Blob, tables: dict[str, Blob]) -> Blob:
    """Return each tree's next node."""
    many = nodes.shape
    feature = g.op("gather", many, out=_INT, x=tables["feature"], indices=nodes, axis=0)
    value = g.op("gather", many, x=x, indices=feature, axis=0)
    threshold = g.op("gather", many, x=tables["threshold"], indices=nodes, axis=0)
    true = g.op("less_equal", many, out=DType.BOOL, x=value, y=threshold)
    if "equal" in tables:
        same = g.op("equal", many, out=DType.BOOL, x=value, y=threshold)
        true = _where(g, _marked(g, nodes, tables["equal"]), same, true)
    if "missing" in tables:
        gone = g.op("not_equal", many, out=DType.BOOL, x=value, y=value)  # only a NaN is not itself
        true = _where(g, gone, _marked(g, nodes, tables["missing"]), true)
    step = g.op("cast", many, out=_INT, x=g.op("logical_not", many, out=DType.BOOL, x=true), dtype="int32")
    place = g.op("add", many, out=_INT, x=g.op("mul", many, out=_INT, x=nodes, y=2), y=step)
    return g.op("gather", many, out=_INT, x=tables["children"], indices=place, axis=0)


def _marked(g: Graph, nodes: Blob, flags: Blob) -> Blob:
    found = g.op("gather", nodes.shape, out=_INT, x=flags, indices=nodes, axis=0)
    return g.op("equal", nodes.shape, out=DType.BOOL, x=found, y=1)


def _where(g: Graph, flags: Blob, yes: Blob, no: Blob) -> Blob:
    """Return ``yes`` where ``flags``, else ``no``, all of them truths."""
    kept = g.op("logical_not", flags.shape, out=DType.BOOL, x=flags)
    chosen = g.op("logical_and", flags.shape, out=DType.BOOL, x=flags, y=yes)
    other = g.op("logical_and", flags.shape, out=DType.BOOL, x=kept, y=no)
    return g.op("logical_or", flags.shape, out=DType.BOOL, x=chosen, y=other)


def _down(trees: Ensemble) -> Any:
    """Return the thresholds as the largest f32 numbers that are not above them; NaN for one that nothing equals.

    ``x < 0`` is ``x <=`` the number before 0, a denormal, which runtimes that flush denormals take for 0: the smallest
    normal number stands for these. Only a denormal ``x`` could tell the two apart.
    """
    near = trees.thresholds.astype(np.float32)
    above = near.astype(np.float64) > trees.thresholds
    down = np.where(above, np.nextafter(near, np.float32(-np.inf)), near)
    smallest = np.finfo(np.float32).smallest_normal
    down = np.where((down < 0) & (down > -smallest), -smallest, down)
    inexact = trees.equal & (near.astype(np.float64) != trees.thresholds)
    return np.where(inexact, np.float32(np.nan), down)


def _whole(g: Graph, numbers: Any, hint: str) -> Blob:
    return g.tensor(scalar([int(number) for number in numbers]), hint)
