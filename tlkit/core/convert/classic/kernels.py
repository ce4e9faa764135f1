"""Support vector machines in MIL: kernels, products, and the probability of two classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tlkit.core.convert.classic.linear import logistic, product, two
from tlkit.engines.classic.answers import check_sizes, labels_of
from tlkit.engines.classic.kernels import Pairs, Vectors
from tlkit.engines.classic.kernels import classifier as reads
from tlkit.errors import ConversionError
from tlkit.frontends.network.kit.blob import Blob
from tlkit.frontends.network.kit.graph import Graph
from tlkit.frontends.network.kit.weights import array_value

_POWER = 32
_VECTORS = 1 << 12
_RUNS = "it runs with `tlkit run`"


def regressor(g: Graph, x: Blob, model: Any) -> tuple[Blob, bool]:
    """sum(alpha * kernel) - rho."""
    message = model.supportVectorRegressor
    vectors = Vectors(message)
    alpha = np.array(message.coefficients.alpha)
    check_sizes("coefficients", len(alpha), (vectors.count,))
    near = _kernel(g, x, vectors, message.kernel)
    return product(g, near, alpha[None], np.array([-message.rho])), False


def classifier(g: Graph, x: Blob, model: Any) -> tuple[Blob, bool]:
    """The probabilities of two classes. Those of more are found by iterations, which MIL can hardly say."""
    message = model.supportVectorClassifier
    reads(model, {})  # which refuses sizes that contradict each other
    count, vectors = len(labels_of(message)), Vectors(message)
    if not message.probA:
        raise ConversionError("a support vector machine without probabilities, which MIL's classify needs", _RUNS)
    if count != 2:
        raise ConversionError(f"the probabilities of {count} classes of a support vector machine are iterated", _RUNS)
    if vectors.count > _VECTORS:
        raise ConversionError(f"{vectors.count} support vectors would make too large a program", _RUNS)
    pairs = Pairs(message, count, vectors.count)
    constant = pairs.decisions(np.zeros((1, vectors.count)))
    weights = pairs.decisions(np.eye(vectors.count)) - constant
    near = _kernel(g, x, vectors, message.kernel)
    # The first class's probability is 1 / (1 + exp(a * decision + b)).
    slope, offset = message.probA[0], message.probB[0]
    second = logistic(g, product(g, near, slope * weights.T, slope * constant[0] + offset))
    return two(g, g.op("clip", (1,), x=second, alpha=1e-7, beta=1 - 1e-7)), False


def _kernel(g: Graph, x: Blob, vectors: Vectors, message: Any) -> Blob:
    """Return the kernel of the features with each support vector [vectors]."""
    # Broadcast: a damaged file claims any number of features, and they are counted in beside().
    dense = vectors.beside(np.broadcast_to(0.0, (1, x.shape[0] or 0)))[1]
    which = message.WhichOneof("kernel") or "linearKernel"
    chosen, count = getattr(message, which), len(dense)
    if which == "rbfKernel":
        wide = (count, dense.shape[1])
        apart = g.op("sub", wide, x=array_value(dense.astype(np.float32)), y=x)
        far = g.op("reduce_sum_square", (count,), x=apart, axes=[1], keep_dims=False)
        return g.op("exp", (count,), x=g.op("mul", (count,), x=far, y=-float(chosen.gamma)))
    if which == "linearKernel":
        return product(g, x, dense, np.zeros(count))
    inner = product(g, x, chosen.gamma * dense, np.full(count, chosen.c))
    if which == "sigmoidKernel":
        return g.op("tanh", (count,), x=inner)
    if not 0 <= chosen.degree <= _POWER:
        raise ConversionError(f"a kernel of degree {chosen.degree}", _RUNS)
    made = inner
    for _ in range(int(chosen.degree) - 1):
        made = g.op("mul", (count,), x=made, y=inner)
    return made if chosen.degree else g.op("fill_like", (count,), ref_tensor=made, value=1.0)
