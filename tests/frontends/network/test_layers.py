"""Layers one by one, beside formulas in numpy and PyTorch's own modules.

Covers tlkit/frontends/network/layers/activation.py, tlkit/frontends/network/layers/arrangement.py,
tlkit/frontends/network/layers/elementwise.py, tlkit/frontends/network/layers/image.py,
tlkit/frontends/network/layers/joining.py, tlkit/frontends/network/layers/linear.py,
tlkit/frontends/network/layers/normalization.py, tlkit/frontends/network/layers/places.py,
tlkit/frontends/network/layers/reduction.py, tlkit/frontends/network/layers/window.py,
tlkit/frontends/network/layers/constant.py,
tlkit/frontends/network/kit/arithmetic.py, tlkit/frontends/network/kit/graph.py,
tlkit/frontends/network/kit/registry.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.frontends.network.nets import layer, one, run
from tlkit.errors import LoadError
from tlkit.frontends.network.control import KINDS
from tlkit.frontends.network.kit.registry import kinds
from tlkit.mil import coreml_proto

RNG = np.random.default_rng(0)


def drawn(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


X = drawn(2, 3, 4, 5)
POSITIVE = np.abs(X) + 0.1
UNIT = np.tanh(X)
T = torch.from_numpy
ERF = np.vectorize(__import__("math").erf)


def borders(top, bottom, left, right):
    edges = [{"startEdgeSize": top, "endEdgeSize": bottom}, {"startEdgeSize": left, "endEdgeSize": right}]
    return {"paddingAmounts": {"borderAmounts": edges}}


def test_every_kind_of_layer_has_a_function():
    fields = coreml_proto.module("NeuralNetwork_pb2").NeuralNetworkLayer.DESCRIPTOR.fields
    there = {field.name for field in fields if field.containing_oneof}
    assert {*kinds(), *KINDS} == there
    assert len(there) == 158


ACTIVATIONS = [
    ("linear", {"alpha": 2.0, "beta": -0.5}, lambda x: 2 * x - 0.5),
    ("ReLU", {}, lambda x: np.maximum(x, 0)),
    ("leakyReLU", {"alpha": 0.3}, lambda x: np.where(x >= 0, x, 0.3 * x)),
    ("thresholdedReLU", {"alpha": 0.4}, lambda x: np.where(x >= 0.4, x, 0)),
    ("tanh", {}, np.tanh),
    ("scaledTanh", {"alpha": 1.5, "beta": 0.6}, lambda x: 1.5 * np.tanh(0.6 * x)),
    ("sigmoid", {}, lambda x: 1 / (1 + np.exp(-x))),
    ("sigmoidHard", {"alpha": 0.3, "beta": 0.4}, lambda x: np.clip(0.3 * x + 0.4, 0, 1)),
    ("ELU", {"alpha": 0.7}, lambda x: np.where(x >= 0, x, 0.7 * (np.exp(x) - 1))),
    ("softsign", {}, lambda x: x / (1 + np.abs(x))),
    ("softplus", {}, lambda x: np.log1p(np.exp(x))),
]


@pytest.mark.parametrize(("kind", "params", "formula"), ACTIVATIONS, ids=[row[0] for row in ACTIVATIONS])
def test_activations(kind, params, formula):
    np.testing.assert_allclose(one(layer("activation", **{kind: params}), x=X), formula(X), rtol=1e-5, atol=1e-6)


def test_activations_with_a_number_for_each_channel():
    alpha, beta = np.array([0.1, 0.2, 0.3], np.float32), np.array([1.0, 2.0, 3.0], np.float32)
    shaped = [value.reshape(1, 3, 1, 1) for value in (alpha, beta)]
    np.testing.assert_allclose(
        one(layer("activation", PReLU={"alpha": alpha}), x=X), np.where(X >= 0, X, shaped[0] * X), rtol=1e-6
    )
    softplus = one(layer("activation", parametricSoftplus={"alpha": alpha, "beta": beta}), x=X)
    np.testing.assert_allclose(softplus, shaped[0] * np.log(1 + np.exp(shaped[1] * X)), rtol=1e-4, atol=1e-6)
    single = one(layer("activation", PReLU={"alpha": alpha[:1]}), x=X)
    np.testing.assert_allclose(single, np.where(X >= 0, X, 0.1 * X), rtol=1e-6)


ONE = [
    *[(name, {}, X, formula) for name, formula in (("ceil", np.ceil), ("floor", np.floor), ("sign", np.sign))],
    *[(name, {}, X, getattr(np, name)) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "exp2")],
    ("round", {}, np.array([-1.5, -0.5, 0.4, 0.5, 1.5, 2.5], np.float32), np.round),
    *[(name, {}, UNIT * 0.9, getattr(np, f"arc{name[1:]}")) for name in ("asin", "acos", "atanh")],
    ("atan", {}, X, np.arctan),
    ("asinh", {}, X * 300, np.arcsinh),
    ("acosh", {}, POSITIVE + 1, np.arccosh),
    ("erf", {}, X, ERF),
    ("gelu", {"mode": 0}, X, lambda x: x * 0.5 * (1 + ERF(x / np.sqrt(2)))),
    ("gelu", {"mode": 1}, X, lambda x: F.gelu(T(x), approximate="tanh").numpy()),
    ("gelu", {"mode": 2}, X, lambda x: x / (1 + np.exp(-1.702 * x))),
    ("clip", {"minVal": -0.4, "maxVal": 0.6}, X, lambda x: np.clip(x, -0.4, 0.6)),
    ("clampedReLU", {"alpha": 0.2, "beta": 0.5}, X, lambda x: np.minimum(np.where(x >= 0, x, 0.2 * x), 0.5)),
    ("logicalNot", {}, np.array([0.0, 1, -2], np.float32), lambda x: (x == 0).astype(np.float32)),
    ("copy", {}, X, lambda x: x),
    ("unary", {"type": 0, "scale": 2.0, "shift": 0.5}, POSITIVE, lambda x: np.sqrt(2 * x + 0.5)),
    ("unary", {"type": 1, "epsilon": 0.25}, POSITIVE, lambda x: 1 / np.sqrt(x + 0.25)),
    ("unary", {"type": 2, "epsilon": 0.25}, POSITIVE, lambda x: 1 / (x + 0.25)),
    ("unary", {"type": 3, "alpha": 3.0}, X, lambda x: x**3),
    ("unary", {"type": 4}, X, np.exp),
    ("unary", {"type": 5}, POSITIVE, np.log),
    ("unary", {"type": 6}, X, np.abs),
    ("unary", {"type": 7, "alpha": 0.2}, X, lambda x: np.maximum(x, 0.2)),
    ("add", {"alpha": 0.75}, X, lambda x: x + 0.75),
    ("multiply", {"alpha": -3.0}, X, lambda x: -3 * x),
    ("greaterThan", {"alpha": 0.2}, X, lambda x: x > 0.2),
    ("lessEqual", {"alpha": 0.2}, X, lambda x: x <= 0.2),
]


@pytest.mark.parametrize(("kind", "params", "x", "formula"), ONE, ids=[f"{row[0]}-{i}" for i, row in enumerate(ONE)])
def test_functions_of_one_value(kind, params, x, formula):
    np.testing.assert_allclose(one(layer(kind, **params), x=x), formula(x), rtol=2e-5, atol=1e-6)


A, B = drawn(3, 1, 5), drawn(4, 5)
TWO = [
    ("addBroadcastable", np.add),
    ("multiplyBroadcastable", np.multiply),
    ("subtractBroadcastable", np.subtract),
    ("divideBroadcastable", np.divide),
    ("floorDivBroadcastable", np.floor_divide),
    ("modBroadcastable", np.mod),
    ("maxBroadcastable", np.maximum),
    ("minBroadcastable", np.minimum),
    ("equal", np.equal),
    ("notEqual", np.not_equal),
    ("lessThan", np.less),
    ("greaterEqual", np.greater_equal),
    ("logicalAnd", np.logical_and),
    ("logicalOr", np.logical_or),
    ("logicalXor", np.logical_xor),
]


@pytest.mark.parametrize(("kind", "formula"), TWO, ids=[row[0] for row in TWO])
def test_functions_of_two_values_that_broadcast(kind, formula):
    a, b = (np.round(value * 2) for value in (A, B)) if kind[:5] in ("equal", "notEq", "logic") else (A, B)
    np.testing.assert_allclose(one(layer(kind, "x z"), x=a, z=b), formula(a, b), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one(layer(kind, "x z"), x=b, z=a), formula(b, a), rtol=1e-5, atol=1e-6)


def test_powers_broadcast():
    made = one(layer("powBroadcastable", "x z"), x=POSITIVE, z=B)
    np.testing.assert_allclose(made, POSITIVE**B, rtol=1e-5)


def test_several_values():
    several = {name: drawn(3, 4, 4) for name in "abc"}
    for kind, formula in (("add", sum), ("max", lambda v: np.maximum.reduce(list(v)))):
        made = run(layer(kind, "a b c"), several)["y"]
        np.testing.assert_allclose(made, formula(several.values()), rtol=1e-6, atol=1e-6)
    made = run(layer("average", "a b c"), several)["y"]
    np.testing.assert_allclose(made, sum(several.values()) / 3, rtol=1e-5, atol=1e-6)


def test_a_scalar_product_and_a_cosine():
    one_, two = drawn(1, 1, 7, 1, 1), drawn(1, 1, 7, 1, 1)
    both = {"x": one_, "z": two}
    dot = float((one_ * two).sum())
    made = run(layer("dot", "x z"), both)["y"]
    assert made.shape == (1, 1, 1, 1, 1)
    assert made.item() == pytest.approx(dot, rel=1e-5)
    cosine = run(layer("dot", "x z", cosineSimilarity=True), both)["y"].item()
    assert cosine == pytest.approx(dot / np.linalg.norm(one_) / np.linalg.norm(two), rel=1e-4)


def test_scales_and_biases_of_every_shape():
    for shape in ((1,), (3,), (1, 4, 5), (3, 4, 5)):
        w, b = drawn(*shape), drawn(*shape)
        seen = [value.reshape(-1, 1, 1) if len(shape) == 1 else value for value in (w, b)]
        scaled = one(layer("scale", scale=w, shapeScale=list(shape), hasBias=True, bias=b, shapeBias=list(shape)), x=X)
        np.testing.assert_allclose(scaled, seen[0] * X + seen[1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one(layer("bias", bias=b, shape=list(shape)), x=X), X + seen[1], rtol=1e-6)


def test_where_broadcasts():
    condition = (B > 0).astype(np.float32)
    made = one(layer("whereBroadcastable", "c x z"), c=condition, x=A, z=B)
    np.testing.assert_array_equal(made, np.where(condition != 0, A, B))


CONVOLUTIONS = [
    ("valid", {"valid": {}}, (0, 0, 0, 0), {}),
    ("borders", {"valid": borders(1, 2, 0, 3)}, (1, 2, 0, 3), {}),
    ("same end", {"same": {}}, (1, 1, 0, 1), {"stride": [2, 1]}),
    ("same start", {"same": {"asymmetryMode": 1}}, (1, 1, 1, 0), {"stride": [2, 1]}),
    ("dilated groups", {"valid": borders(2, 2, 2, 2)}, (2, 2, 2, 2), {"dilationFactor": [2, 2], "nGroups": 2}),
]


@pytest.mark.parametrize(("name", "padding", "pads", "more"), CONVOLUTIONS, ids=[row[0] for row in CONVOLUTIONS])
def test_convolutions(name, padding, pads, more):
    """The pads of 'same' are those of the formula in the specification: (ceil(7 / 2) - 1) * 2 + 3 - 7 = 2 rows."""
    groups = more.get("nGroups", 1)
    x, w, b = drawn(2, 4, 7, 9), drawn(6, 4 // groups, 3, 2), drawn(6)
    given = {"outputChannels": 6, "kernelChannels": 4 // groups, "kernelSize": [3, 2], "weights": w, "bias": b}
    made = one(layer("convolution", hasBias=True, **given, **padding, **more), x=x)
    top, bottom, left, right = pads
    stride, dilation = tuple(more.get("stride", (1, 1))), tuple(more.get("dilationFactor", (1, 1)))
    padded = F.pad(T(x), (left, right, top, bottom))
    wanted = F.conv2d(padded, T(w), T(b), stride, 0, dilation, groups)
    np.testing.assert_allclose(made, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_a_kernel_that_is_not_given_has_three_by_three():
    x, w = drawn(1, 2, 6, 6), drawn(2, 2, 3, 3)
    made = one(layer("convolution", outputChannels=2, kernelChannels=2, weights=w, valid={}), x=x)
    np.testing.assert_allclose(made, F.conv2d(T(x), T(w)).numpy(), rtol=1e-4, atol=1e-5)


def test_weights_that_are_an_input():
    x, w = drawn(1, 2, 6, 6), drawn(5, 2, 2, 3)
    made = one(layer("convolution", "x w", outputChannels=5, kernelChannels=2, kernelSize=[2, 3], valid={}), x=x, w=w)
    np.testing.assert_allclose(made, F.conv2d(T(x), T(w)).numpy(), rtol=1e-4, atol=1e-5)


def test_transposed_convolutions():
    x, w, b = drawn(2, 4, 5, 6), drawn(4, 3, 4, 3), drawn(6)
    given = {"outputChannels": 6, "kernelChannels": 4, "kernelSize": [4, 3], "weights": w, "bias": b, "nGroups": 2}
    given |= {"isDeconvolution": True, "hasBias": True, "stride": [2, 3]}
    full = F.conv_transpose2d(T(x), T(w), T(b), (2, 3), groups=2).numpy()
    np.testing.assert_allclose(one(layer("convolution", valid={}, **given), x=x), full, rtol=1e-4, atol=1e-5)
    cropped = one(layer("convolution", valid=borders(1, 0, 0, 2), **given), x=x)
    np.testing.assert_allclose(cropped, full[:, :, 1:, :-2], rtol=1e-4, atol=1e-5)
    same = one(layer("convolution", same={}, **given), x=x)
    np.testing.assert_allclose(same, full[:, :, 1:-1, :18], rtol=1e-4, atol=1e-5)  # H * stride, one off each end


def test_pools():
    x = drawn(1, 2, 7, 8)
    kernel = {"kernelSize": [3, 2], "stride": [2, 2]}
    most = one(layer("pooling", type=0, valid=borders(1, 1, 0, 0), **kernel), x=x)
    np.testing.assert_allclose(most, F.max_pool2d(T(x), (3, 2), (2, 2), (1, 0)).numpy())
    for exclude in (False, True):
        made = one(layer("pooling", type=1, valid=borders(1, 1, 1, 1), avgPoolExcludePadding=exclude, **kernel), x=x)
        wanted = F.avg_pool2d(T(x), (3, 2), (2, 2), (1, 1), count_include_pad=not exclude)
        np.testing.assert_allclose(made, wanted.numpy(), rtol=1e-5, atol=1e-6)
    root = one(layer("pooling", type=2, valid={}, **kernel), x=x)
    np.testing.assert_allclose(root, F.lp_pool2d(T(x), 2, (3, 2), (2, 2)).numpy(), rtol=1e-5)
    for kind, formula in ((0, np.max), (1, np.mean), (2, lambda v, **how: np.sqrt(np.sum(v * v, **how)))):
        whole = one(layer("pooling", type=kind, globalPooling=True, includeLastPixel={}), x=x)
        np.testing.assert_allclose(whole, formula(x, axis=(2, 3), keepdims=True), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "kernel", "stride", "pad"), [(6, 3, 2, 0), (6, 3, 2, 1), (5, 2, 3, 1), (7, 3, 2, 0)])
def test_a_pool_that_leaves_no_pixel_out_is_caffes(size, kernel, stride, pad):
    """Which is torch's with ceil_mode: no window starts in the padding after."""
    x = drawn(1, 1, size, size)
    given = {"kernelSize": [kernel] * 2, "stride": [stride] * 2, "includeLastPixel": {"paddingAmounts": [pad] * 2}}
    made = one(layer("pooling", type=0, **given), x=x)
    wanted = F.max_pool2d(T(x), kernel, stride, pad, ceil_mode=True).numpy()
    np.testing.assert_array_equal(made, wanted)


def test_volumes():
    x, w = drawn(1, 2, 5, 6, 7), drawn(4, 2, 2, 3, 2)
    sizes = {"kernelDepth": 2, "kernelHeight": 3, "kernelWidth": 2, "strideDepth": 1, "strideHeight": 2}
    given = {"outputChannels": 4, "inputChannels": 2, "nGroups": 1, **sizes, "strideWidth": 1}
    pads = {"customPaddingTop": 1, "customPaddingRight": 2}
    made = one(layer("convolution3d", weights=w, paddingType=0, **given, **pads), x=x)
    wanted = F.conv3d(F.pad(T(x), (0, 2, 1, 0)), T(w), stride=(1, 2, 1))
    np.testing.assert_allclose(made, wanted.numpy(), rtol=1e-4, atol=1e-5)
    pooled = one(layer("pooling3d", type=1, paddingType=1, **sizes, strideWidth=1), x=x)
    np.testing.assert_allclose(pooled, F.avg_pool3d(T(x), (2, 3, 2), (1, 2, 1)).numpy(), rtol=1e-5, atol=1e-6)
    whole = one(layer("globalPooling3d", type=0), x=x)
    np.testing.assert_array_equal(whole, x.max((2, 3, 4), keepdims=True))


def test_a_matrix_times_the_last_axis_or_what_channels_first_makes_of_images():
    w, b = drawn(4, 60), drawn(4)
    given = {"inputChannels": 60, "outputChannels": 4, "weights": w, "bias": b, "hasBias": True}
    made = one(layer("innerProduct", **given), x=X)
    np.testing.assert_allclose(made, (X.reshape(2, 60) @ w.T + b).reshape(2, 4, 1, 1), rtol=1e-4, atol=1e-4)
    flat = one(layer("innerProduct", **given), x=X.reshape(2, 60))
    np.testing.assert_allclose(flat, X.reshape(2, 60) @ w.T + b, rtol=1e-4, atol=1e-4)


def test_embeddings_take_columns():
    w, b, ids = drawn(3, 6), drawn(3), np.array([5, 0, 2], np.float32)
    given = {"weights": w, "bias": b, "hasBias": True}
    made = one(layer("embedding", inputDim=6, outputChannels=3, **given), x=ids.reshape(3, 1, 1, 1, 1))
    wanted = w[:, [5, 0, 2]].T + b
    np.testing.assert_allclose(made, wanted.reshape(3, 1, 3, 1, 1), rtol=1e-6)
    nd = one(layer("embeddingND", vocabSize=6, embeddingSize=3, **given), x=ids.reshape(3, 1))
    np.testing.assert_allclose(nd, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "turn"),
    [((2, 1, 3, 4), (5, 4, 2), (False, False)), ((4, 3), (5, 4), (True, True)), ((4,), (4, 3), (False, False))],
)
def test_matrix_products(x, y, turn):
    a, b = drawn(*x), drawn(*y)
    a_seen = a if a.ndim > 1 else a[None]  # a vector's axis of 1 stays
    wanted = np.matmul(a.T if turn[0] else a_seen, b.T if turn[1] else b)
    made = one(layer("batchedMatmul", "x z", transposeA=turn[0], transposeB=turn[1]), x=a, z=b)
    np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-5)


def test_the_matrix_of_a_product_is_stored_column_by_column():
    a, w, b = drawn(2, 3, 4), drawn(4, 5), drawn(5)
    given = {"weightMatrixFirstDimension": 4, "weightMatrixSecondDimension": 5, "hasBias": True, "bias": b}
    made = one(layer("batchedMatmul", weights=w.T.copy(), **given), x=a)
    np.testing.assert_allclose(made, a @ w + b, rtol=1e-5, atol=1e-5)


def test_normalizations():
    gamma, beta, mean, variance = drawn(3), drawn(3), drawn(3), np.abs(drawn(3))
    given = {"channels": 3, "gamma": gamma, "beta": beta, "epsilon": 0.01}
    x = T(X)
    fixed = one(layer("batchnorm", mean=mean, variance=variance, **given), x=X)
    wanted = F.batch_norm(x, T(mean), T(variance), T(gamma), T(beta), eps=0.01)
    np.testing.assert_allclose(fixed, wanted.numpy(), rtol=1e-4, atol=1e-5)
    own = one(layer("batchnorm", computeMeanVar=True, instanceNormalization=True, **given), x=X)
    wanted = F.instance_norm(x, weight=T(gamma), bias=T(beta), eps=0.01)
    np.testing.assert_allclose(own, wanted.numpy(), rtol=1e-4, atol=1e-5)
    batch = one(layer("batchnorm", computeMeanVar=True, **given), x=X)
    wanted = F.batch_norm(x, None, None, T(gamma), T(beta), training=True, eps=0.01)
    np.testing.assert_allclose(batch, wanted.numpy(), rtol=1e-4, atol=1e-5)
    for across, axes in ((True, (1, 2, 3)), (False, (2, 3))):
        made = one(layer("mvn", acrossChannels=across, normalizeVariance=True, epsilon=0.1), x=X)
        centred = X - X.mean(axes, keepdims=True)
        wanted = centred / np.sqrt(X.var(axes, keepdims=True) + 0.1)
        np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-5)
    length = one(layer("l2normalize", epsilon=0.5), x=X)
    np.testing.assert_allclose(length, X / np.sqrt((X**2).sum((1, 2, 3), keepdims=True) + 0.5), rtol=1e-5)
    lrn = one(layer("lrn", alpha=0.3, beta=0.75, localSize=3, k=2.0), x=X)
    np.testing.assert_allclose(lrn, F.local_response_norm(x, 3, 0.3, 0.75, 2.0).numpy(), rtol=1e-5)
    w, b = drawn(4, 5), drawn(4, 5)
    made = one(layer("layerNormalization", normalizedShape=[4, 5], gamma=w, beta=b, eps=0.02), x=X)
    np.testing.assert_allclose(made, F.layer_norm(x, (4, 5), T(w), T(b), 0.02).numpy(), rtol=1e-4, atol=1e-5)


def test_softmax_is_over_the_third_axis_from_the_end():
    np.testing.assert_allclose(one(layer("softmax"), x=X), F.softmax(T(X), 1).numpy(), rtol=1e-5)
    np.testing.assert_allclose(one(layer("softmaxND", axis=-1), x=X), F.softmax(T(X), 3).numpy(), rtol=1e-5)


OLD = [np.sum, np.mean, np.prod, lambda v, **how: np.log(np.sum(v, **how)), lambda v, **how: np.sum(v * v, **how)]
OLD += [lambda v, **how: np.sum(np.abs(v), **how), lambda v, **how: np.sqrt(np.sum(v * v, **how)), np.max, np.min]


@pytest.mark.parametrize("mode", range(9))
@pytest.mark.parametrize(("number", "axes"), list(enumerate([(-3, -2, -1), (-2, -1), (-3,), (-2,), (-1,)])))
def test_old_reductions(mode, number, axes):
    made = one(layer("reduce", mode=mode, axis=number), x=POSITIVE)
    np.testing.assert_allclose(made, OLD[mode](POSITIVE, axis=axes, keepdims=True), rtol=1e-4)


@pytest.mark.parametrize("kind", ["Sum", "Mean", "Prod", "LogSum", "SumSquare", "L1", "L2", "Max", "Min", "LogSumExp"])
def test_reductions(kind):
    formulas = dict(zip(("Sum", "Mean", "Prod", "LogSum", "SumSquare", "L1", "L2", "Max", "Min"), OLD, strict=True))
    formula = formulas.get(kind, lambda v, **how: np.log(np.sum(np.exp(v), **how)))
    for axes in ((1,), (0, -1)):
        for keep in (True, False):
            made = one(layer(f"reduce{kind}", axes=list(axes), keepDims=keep), x=POSITIVE)
            np.testing.assert_allclose(made, formula(POSITIVE, axis=axes, keepdims=keep), rtol=1e-4)
    kept = one(layer(f"reduce{kind}", reduceAll=True, keepDims=True), x=POSITIVE)
    assert kept.shape == (1, 1, 1, 1)
    whole = one(layer(f"reduce{kind}", reduceAll=True), x=POSITIVE)
    assert whole.shape == (1,)
    np.testing.assert_allclose(whole[0], formula(POSITIVE), rtol=1e-4)


def test_places_of_extremes_and_orders():
    np.testing.assert_array_equal(one(layer("argMax", axis=2, removeDim=True), x=X), X.argmax(2))
    np.testing.assert_array_equal(one(layer("argMin", axis=-1), x=X), X.argmin(-1)[..., None])
    np.testing.assert_array_equal(one(layer("reduce", mode=9, axis=2), x=X), X.argmax(1)[:, None])
    np.testing.assert_array_equal(one(layer("argSort", axis=1, descending=True), x=X), np.argsort(-X, 1))
    made = run(layer("topK", "x", "y i", axis=-1, K=2), {"x": X}, ("y", "i"))
    np.testing.assert_array_equal(made["y"], -np.sort(-X, -1)[..., :2])
    np.testing.assert_array_equal(made["i"], np.argsort(-X, -1)[..., :2])
    least = run(layer("topK", "x k", "y i", axis=1, useBottomK=True), {"x": X, "k": np.array([2.0])}, ("y", "i"))
    np.testing.assert_array_equal(least["y"], np.sort(X, 1)[:, :2])


def test_running_sums():
    np.testing.assert_allclose(one(layer("cumSum", axis=1), x=X), X.cumsum(1), rtol=1e-5, atol=1e-6)
    made = one(layer("cumSum", axis=-1, excludeFinalSum=True, reverse=True), x=X)
    backwards = X[..., ::-1].cumsum(-1)[..., ::-1] - X
    np.testing.assert_allclose(made, backwards, rtol=1e-4, atol=1e-5)


def test_flatten_and_reshape_with_channels_last():
    np.testing.assert_array_equal(one(layer("flatten"), x=X), X.reshape(2, 60, 1, 1))
    last = one(layer("flatten", mode=1), x=X)
    np.testing.assert_array_equal(last, X.transpose(0, 2, 3, 1).reshape(2, 60, 1, 1))
    x = drawn(1, 1, 3, 4, 5)
    made = one(layer("reshape", targetShape=[6, 2, 5], mode=1), x=x)
    wanted = x[0, 0].transpose(1, 2, 0).reshape(2, 5, 6).transpose(2, 0, 1)
    np.testing.assert_array_equal(made, wanted.reshape(1, 1, 6, 2, 5))
    first = one(layer("reshape", targetShape=[5, 4, 3, 1]), x=x)
    np.testing.assert_array_equal(first, x.reshape(5, 1, 4, 3, 1))


def test_permutations_are_of_sequence_channels_height_and_width():
    x = drawn(2, 3, 4, 5, 6)
    made = one(layer("permute", axis=[0, 3, 1, 2]), x=x)
    np.testing.assert_array_equal(made, x.transpose(0, 1, 4, 2, 3))
    sequence = one(layer("permute", axis=[3, 1, 2, 0]), x=x)
    np.testing.assert_array_equal(sequence, x.transpose(4, 1, 2, 3, 0))
    np.testing.assert_array_equal(one(layer("transpose", axes=[3, 0, 2, 1]), x=X), X.transpose(3, 0, 2, 1))


def test_shapes():
    cases = [
        (layer("reshapeStatic", targetShape=[4, -1]), X.reshape(4, 30)),
        (layer("rankPreservingReshape", targetShape=[0, -1, 2, 5]), X.reshape(2, 6, 2, 5)),
        (layer("flattenTo2D", axis=-1), X.reshape(24, 5)),
        (layer("expandDims", axes=[0, -1]), X[None, ..., None]),
        (layer("getShape"), np.array(X.shape)),
        (layer("fillLike", value=2.5), np.full(X.shape, 2.5)),
        (layer("reverse", reverseDim=[True, False, False, True]), X[::-1, :, :, ::-1]),
    ]
    for made, wanted in cases:
        found = one(made, x=X)
        assert found.shape == wanted.shape, made
        np.testing.assert_array_equal(found, wanted)
    thin = drawn(1, 3, 1, 2)
    np.testing.assert_array_equal(one(layer("squeeze", axes=[-2]), x=thin), thin[:, :, 0])
    np.testing.assert_array_equal(one(layer("squeeze", squeezeAll=True), x=thin), thin[0, :, 0])
    assert one(layer("squeeze", squeezeAll=True), x=thin[:, :1, :, :1]).shape == (1,)
    np.testing.assert_array_equal(one(layer("reshapeLike", "x z"), x=X, z=drawn(5, 24)), X.reshape(5, 24))
    dynamic = one(layer("reshapeDynamic", "x z"), x=X, z=np.array([6, 20], np.float32))
    np.testing.assert_array_equal(dynamic, X.reshape(6, 20))


def test_blocks_of_pixels():
    """Core ML's blocks are the slow part of a channel's index; those of a pixel shuffle (torch's) the fast one."""
    x = drawn(1, 8, 2, 3)
    shuffled = one(layer("reorganizeData", mode=2, blockSize=2), x=x)
    np.testing.assert_array_equal(shuffled, F.pixel_shuffle(T(x), 2).numpy())
    depth = x.reshape(1, 2, 2, 2, 2, 3).transpose(0, 3, 4, 1, 5, 2).reshape(1, 2, 4, 6)
    np.testing.assert_array_equal(one(layer("reorganizeData", mode=1, blockSize=2), x=x), depth)
    np.testing.assert_array_equal(one(layer("reorganizeData", mode=0, blockSize=2), x=depth), x)


def test_reversed_sequences():
    x, many = drawn(4, 2, 3), np.array([2, 4], np.float32)
    made = one(layer("reverseSeq", "x n", batchAxis=1, sequenceAxis=0), x=x, n=many)
    wanted = x.copy()
    wanted[:2, 0], wanted[:, 1] = x[:2, 0][::-1], x[:, 1][::-1]
    np.testing.assert_array_equal(made, wanted)


def test_joining_and_dividing():
    a, b = drawn(1, 1, 2, 3, 3), drawn(1, 1, 4, 3, 3)
    np.testing.assert_array_equal(one(layer("concat", "a b"), a=a, b=b), np.concatenate([a, b], 2))
    steps = one(layer("concat", "a c", sequenceConcat=True), a=a, c=a + 1)
    np.testing.assert_array_equal(steps, np.concatenate([a, a + 1], 0))
    nd = one(layer("concatND", "a c", axis=-1, interleave=True), a=a, c=a + 1)
    np.testing.assert_array_equal(nd[..., ::2], a)
    np.testing.assert_array_equal(nd[..., 1::2], a + 1)
    np.testing.assert_array_equal(one(layer("stack", "a c", axis=1), a=X, c=X + 1), np.stack([X, X + 1], 1))
    parts = run(layer("split", "b", "p q"), {"b": b}, ("p", "q"))
    np.testing.assert_array_equal(parts["q"], b[:, :, 2:])
    parts = run(layer("splitND", "x", "p q", axis=-1, splitSizes=[1, 4]), {"x": X}, ("p", "q"))
    np.testing.assert_array_equal(parts["q"], X[..., 1:])
    np.testing.assert_array_equal(one(layer("sequenceRepeat", "a", nRepetitions=3), a=a), np.tile(a, (3, 1, 1, 1, 1)))


def test_slices():
    np.testing.assert_array_equal(one(layer("slice", axis=2, startIndex=1, endIndex=-1, stride=2), x=X), X[..., 1:-1:2])
    np.testing.assert_array_equal(one(layer("slice", axis=0, startIndex=1, endIndex=3), x=X), X[:, 1:3])
    masks = {"beginMasks": [True, False, False, False], "endMasks": [True, False, True, False]}
    static = {"beginIds": [0, -2, 1, 3], "endIds": [0, 3, 0, 4], "strides": [1, 1, 2, 1]}
    made = one(layer("sliceStatic", squeezeMasks=[False, False, False, True], **static, **masks), x=X)
    np.testing.assert_array_equal(made, X[:, -2:3, 1::2, 3])
    begin = np.array([0, 1, 1, 0], np.float32)
    given = {"endIds": [2, 3, 4, 5], "strides": [1, 1, 1, 2], "endMasks": [False] * 4, "beginMasks": [False] * 4}
    dynamic = one(layer("sliceDynamic", "x b", squeezeMasks=[False] * 4, **given), x=X, b=begin)
    np.testing.assert_array_equal(dynamic, X[:, 1:, 1:, ::2])
    part = one(layer("sliceBySize", "x b", axis=2, size=2), x=X, b=np.array([1], np.float32))
    np.testing.assert_array_equal(part, X[:, :, 1:3])


def test_crops_and_borders():
    amounts = {"borderAmounts": borders(1, 0, 2, 1)["paddingAmounts"]["borderAmounts"]}
    np.testing.assert_array_equal(one(layer("crop", cropAmounts=amounts), x=X), X[:, :, 1:, 2:-1])
    np.testing.assert_array_equal(one(layer("crop", "x z", offset=[1, 2]), x=X, z=drawn(2, 1, 2, 3)), X[:, :, 1:3, 2:5])
    for kind, mode in (("constant", "constant"), ("reflection", "reflect"), ("replication", "edge")):
        given = {"constant": {"value": 1.5}} if kind == "constant" else {kind: {}}
        made = one(layer("padding", **given, **borders(1, 2, 3, 0)), x=X)
        more = {"constant_values": 1.5} if kind == "constant" else {}
        np.testing.assert_array_equal(made, np.pad(X, ((0, 0), (0, 0), (1, 2), (3, 0)), mode, **more))
    made = one(layer("constantPad", value=0.5, padAmounts=[1, 0, 0, 2]), x=B)
    np.testing.assert_array_equal(made, np.pad(B, ((1, 0), (0, 2)), constant_values=0.5))
    up_to = one(layer("constantPad", padAmounts=[6, 0, 0, 9], padToGivenOutputSizeMode=True), x=B)
    np.testing.assert_array_equal(up_to, np.pad(B, ((2, 0), (0, 4))))


def test_repetitions():
    np.testing.assert_array_equal(one(layer("tile", reps=[1, 2, 1, 3]), x=X), np.tile(X, (1, 2, 1, 3)))
    made = one(layer("broadcastToStatic", targetShape=[2, 3, 4, 5]), x=A)
    np.testing.assert_array_equal(made, np.broadcast_to(A, (2, 3, 4, 5)))
    made = one(layer("broadcastToDynamic", "x s"), x=B[:1], s=np.array([3, 4, 5], np.float32))
    np.testing.assert_array_equal(made, np.broadcast_to(B[:1], (3, 4, 5)))
    np.testing.assert_array_equal(one(layer("broadcastToLike", "x z"), x=B, z=X), np.broadcast_to(B, X.shape))
    windows = one(layer("slidingWindows", axis=1, windowSize=2, step=1), x=B)
    np.testing.assert_array_equal(windows, np.stack([B[:, i : i + 2] for i in range(4)], 1))


def test_taking_from_places_and_putting_there():
    at = np.array([[2, 0], [1, -1]], np.float32)
    np.testing.assert_array_equal(one(layer("gather", "x i", axis=1), x=X, i=at), X[:, at.astype(int)])
    rows = np.array([[1, 2], [0, 0]], np.float32)
    np.testing.assert_array_equal(one(layer("gatherND", "x i"), x=X, i=rows), X[[1, 0], [2, 0]])
    along = np.array([[1], [3]], np.float32)
    wanted = np.take_along_axis(B[:2], along.astype(int), 1)
    np.testing.assert_array_equal(one(layer("gatherAlongAxis", "x i", axis=1), x=B[:2], i=along), wanted)
    updates = drawn(2, 5)
    for mode, ufunc in ((1, np.add), (3, np.multiply), (5, np.maximum)):
        made = one(layer("scatter", "x i u", axis=0, mode=mode), x=B, i=np.array([3, 1], np.float32), u=updates)
        wanted = B.copy()
        ufunc.at(wanted, [3, 1], updates)
        np.testing.assert_allclose(made, wanted, rtol=1e-6)
    put = one(layer("scatterND", "x i u"), x=B, i=np.array([[0, 4], [3, 1]], np.float32), u=np.array([7.0, 8.0]))
    wanted = B.copy()
    wanted[[0, 3], [4, 1]] = 7, 8
    np.testing.assert_array_equal(put, wanted)
    where = one(layer("scatterAlongAxis", "x i u", axis=1), x=B, i=np.array([[1], [0], [4], [2]]), u=np.ones((4, 1)))
    wanted = B.copy()
    np.put_along_axis(wanted, np.array([[1], [0], [4], [2]]), 1, 1)
    np.testing.assert_array_equal(where, wanted)


def test_vectors_of_one_number_and_places_of_others():
    ids = np.array([1, 0, 2], np.float32)
    made = one(layer("oneHot", oneHotVectorSize=4, axis=-1, onValue=2.0, offValue=-1.0), x=ids)
    np.testing.assert_array_equal(made, np.where(np.eye(4)[[1, 0, 2]] == 1, 2, -1))
    sparse = np.where(B > 0.5, B, 0)
    np.testing.assert_array_equal(one(layer("whereNonZero"), x=sparse), np.argwhere(sparse))


@pytest.mark.parametrize("k", [-2, -1, 0, 1, 3])
def test_triangles(k):
    np.testing.assert_array_equal(one(layer("lowerTriangular", k=k), x=X), np.tril(X, k))
    np.testing.assert_array_equal(one(layer("upperTriangular", k=k), x=X), np.triu(X, k))


def test_bands():
    i, j = np.indices((4, 5))
    made = one(layer("matrixBandPart", numLower=1, numUpper=2), x=X)
    np.testing.assert_array_equal(made, np.where((i - j <= 1) & (j - i <= 2), X, 0))


def test_upsampling_on_each_grid():
    """DEFAULT's numbers are those that coremltools' own test has of Core ML."""
    x = np.array([1.0, 2, 3], np.float32).reshape(1, 1, 1, 3)
    made = one(layer("upsample", scalingFactor=[2, 3], mode=1), x=x)
    row = [1, 4 / 3, 5 / 3, 2, 7 / 3, 8 / 3, 3, 3, 3]
    np.testing.assert_allclose(made, np.array([row, row]).reshape(1, 1, 2, 9), rtol=1e-6)
    for mode, align in ((1, True), (2, False)):
        made = one(layer("upsample", scalingFactor=[2, 3], mode=1, linearUpsampleMode=mode), x=X)
        wanted = F.interpolate(T(X), (8, 15), mode="bilinear", align_corners=align)
        np.testing.assert_allclose(made, wanted.numpy(), rtol=1e-4, atol=1e-5)
    near = one(layer("upsample", scalingFactor=[2, 3]), x=X)
    np.testing.assert_array_equal(near, X.repeat(2, 2).repeat(3, 3))


@pytest.mark.parametrize("mode", range(4))
def test_resizing_on_each_grid(mode):
    """The specification's formulas: strict align, align (the middle where there is one point), upsample, RoI align."""
    for count in (1, 7):
        size = 5
        at = {
            0: np.arange(count) * (size - 1) / max(count - 1, 1),
            1: np.arange(count) * (size - 1) / max(count - 1, 1) + (0 if count > 1 else (size - 1) / 2),
            2: np.arange(count) * size / count,
            3: (np.arange(count) + 0.5) * (size - 1) / count,
        }[mode].clip(0, size - 1)
        x = drawn(1, 1, 1, size)
        wanted = np.interp(at, np.arange(size), x[0, 0, 0])
        made = one(layer("resizeBilinear", targetSize=[1, count], mode={"samplingMethod": mode}), x=x)
        np.testing.assert_allclose(made[0, 0, 0], wanted, rtol=1e-4, atol=1e-5)


def test_boxes_cut_out():
    image = np.arange(16, dtype=np.float32).reshape(1, 1, 1, 4, 4)
    box = np.array([0, 1, 1, 2, 3], np.float32).reshape(1, 1, 5, 1, 1)  # image 0, rows 1 to 2, columns 1 to 3
    given = {"targetSize": [2, 3], "mode": {"samplingMethod": 0}, "spatialScale": 1.0}
    made = one(layer("cropResize", "x b", **given), x=image, b=box)
    np.testing.assert_allclose(made.reshape(2, 3), [[5, 6, 7], [9, 10, 11]])
    wide = one(layer("cropResize", "x b", boxIndicesMode={"boxMode": 1}, **given), x=image, b=box)
    np.testing.assert_allclose(wide.reshape(2, 3), [[5, 5.5, 6], [13, 13.5, 14]])


def test_boxes_that_overlap_are_dropped_and_the_rest_is_padded():
    boxes = np.array([[[0, 0, 2, 2], [0.1, 0, 2, 2], [5, 5, 1, 1]]], np.float32)
    scores = np.array([[[0.9], [0.8], [0.3]]], np.float32)
    nms = layer("NonMaximumSuppression", "b s", "y t i n", iouThreshold=0.5, scoreThreshold=0.2, maxBoxes=3)
    made = run(nms, {"b": boxes, "s": scores}, ("y", "t", "i", "n"))
    np.testing.assert_array_equal(made["i"], [[0, 2, -1]])
    np.testing.assert_array_equal(made["n"], [2])
    np.testing.assert_array_equal(made["y"], [[[0, 0, 2, 2], [5, 5, 1, 1], [0, 0, 0, 0]]])


def test_constants_ranges_and_fillings():
    held = drawn(2, 3)
    made = run([layer("loadConstantND", "", "c", shape=[2, 3], data=held), layer("add", "x c")], {"x": np.ones((2, 3))})
    np.testing.assert_allclose(made["y"], held + 1, rtol=1e-6)
    old = [layer("loadConstant", "", "c", shape=[3, 4, 5], data=X[0]), layer("add", "x c")]
    seen = run(old, {"x": X[1]}, exact=False)["y"]
    np.testing.assert_allclose(seen, (X[0] + X[1])[None, None], rtol=1e-6)
    steps = [layer("rangeStatic", "", "r", startValue=1.0, endValue=4.0, stepSizeValue=0.5), layer("add", "x r")]
    np.testing.assert_allclose(run(steps, {"x": np.zeros(1)})["y"], np.arange(1, 4, 0.5))
    dynamic = one(layer("rangeDynamic", "e s", startValue=0.0, stepSizeValue=2.0), e=np.array([9.0]), s=np.array([1.0]))
    np.testing.assert_allclose(dynamic, np.arange(1, 9, 2))
    full = one(layer("fillDynamic", value=3.0), x=np.array([2, 3], np.float32))
    np.testing.assert_array_equal(full, np.full((2, 3), 3))


def test_random_numbers_have_their_moments_and_repeat_with_a_seed():
    shape = np.array([200, 300], np.float32)
    normal = one(layer("randomNormalDynamic", mean=2.0, stdDev=3.0, seed=7), x=shape)
    assert (normal.mean(), normal.std()) == (pytest.approx(2, abs=0.05), pytest.approx(3, abs=0.05))
    np.testing.assert_array_equal(normal, one(layer("randomNormalDynamic", mean=2.0, stdDev=3.0, seed=7), x=shape))
    uniform = one(layer("randomUniformLike", minVal=-1.0, maxVal=3.0, seed=1), x=np.zeros((100, 400)))
    assert uniform.min() >= -1
    assert uniform.mean() == pytest.approx(1, abs=0.03)
    coins = [layer("randomBernoulliStatic", "", "c", outputShape=[100, 400], prob=0.3, seed=1), layer("add", "x c")]
    assert run(coins, {"x": np.zeros(1)})["y"].mean() == pytest.approx(0.3, abs=0.02)
    odds = np.log(np.array([[0.2, 0.8]], np.float32))
    picks = one(layer("categoricalDistribution", numSamples=20000, isLogits=True, seed=3, temperature=1.0), x=odds)
    assert picks.shape == (1, 20000)
    assert picks.mean() == pytest.approx(0.8, abs=0.02)
    picks = one(layer("categoricalDistribution", numSamples=20000, seed=3, temperature=1.0), x=np.exp(odds))
    assert picks.mean() == pytest.approx(0.8, abs=0.02)


DAMAGED = [
    layer("convolution", outputChannels=2, kernelChannels=2, weights=drawn(3), valid={}),
    layer("convolution", outputChannels=2, kernelChannels=2, kernelSize=[1 << 40, 1], weights=drawn(3), valid={}),
    layer("pooling", kernelSize=[9, 9], valid={}),
    layer("pooling", stride=[0, 1], valid={}),
    layer("reshape", targetShape=[7, 1, 1]),
    layer("reshapeStatic", targetShape=[-1, -1]),
    layer("transpose", axes=[0, 0, 1, 2]),
    layer("transpose", axes=[1 << 40]),
    layer("add", "x missing"),
    layer("splitND", "x", "y z", axis=1, splitSizes=[1, 1]),
    layer("softmaxND", axis=9),
    layer("splitND", "x", "y z", axis=1, numSplits=1 << 30),
    layer("slidingWindows", axis=1, windowSize=1 << 50),
    layer("tile", reps=[1, 1, 1, 1 << 40]),
    layer("fillStatic", "", targetShape=[1 << 40, 1 << 40]),
    layer("rangeStatic", "", endValue=1e30, stepSizeValue=1e-30),
    layer("rangeStatic", "", endValue=1.0),
    layer("whereBroadcastable", "x"),
    layer("scatter", "x x x", mode=0, axis=17),
]


@pytest.mark.parametrize("damaged", DAMAGED, ids=lambda item: item.WhichOneof("layer"))
def test_a_damaged_layer_is_named(damaged):
    with pytest.raises(LoadError, match=r"^layer '|no layer makes"):
        run(damaged, {"x": X})


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        ("upsample", {"scalingFactor": [2, 2]}, lambda x: x.repeat(2, -2).repeat(2, -1)),
        (
            "padding",
            {"constant": {"value": 3.0}, **borders(1, 0, 0, 2)},
            lambda x: np.pad(x, [(0, 0), (1, 0), (0, 2)], constant_values=3),
        ),
        ("l2normalize", {"epsilon": 1e-9}, lambda x: x / np.sqrt((x * x).sum())),
        ("crop", {"cropAmounts": borders(1, 1, 2, 0)["paddingAmounts"]}, lambda x: x[:, 1:-1, 2:]),
        ("pooling", {"type": 0, "globalPooling": True}, lambda x: x.max((1, 2), keepdims=True)),
        ("permute", {"axis": [0, 2, 3, 1]}, lambda x: x.transpose(1, 2, 0)),
        ("reduce", {"mode": 0, "axis": 0}, lambda x: x.sum(keepdims=True)),
        (
            "activation",
            {"PReLU": {"alpha": np.array([0.1, 0.2, 0.3])}},
            lambda x: np.where(x > 0, x, x * np.array([[[0.1]], [[0.2]], [[0.3]]])),
        ),
        (
            "batchnorm",
            {
                "channels": 3,
                "gamma": np.array([1.0, 2, 3]),
                "beta": np.zeros(3),
                "mean": np.ones(3),
                "variance": np.ones(3),
                "epsilon": 0.0,
            },
            lambda x: (x - 1) * np.array([[[1.0]], [[2]], [[3]]]),
        ),
    ],
)
def test_layers_of_images_take_any_batch_and_none(kind, fields, expected):
    image = X[0]
    wanted = expected(image)
    for batch in ((), (1,), (1, 1), (1, 1, 1)):
        found = one(layer(kind, **fields), x=image.reshape(*batch, *image.shape))
        assert found.shape == (*batch, *wanted.shape)
        np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-6)
