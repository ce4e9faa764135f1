"""Each kind of compiled layer beside the layer of a network that it comes from.

Covers tlkit/frontends/espresso/kit/making.py, tlkit/frontends/espresso/kinds/arrangement.py,
tlkit/frontends/espresso/kinds/dense.py, tlkit/frontends/espresso/kinds/elementwise.py,
tlkit/frontends/espresso/kinds/images.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlkit
from tests.frontends.espresso.bundles import Blobs, write_bundle
from tests.frontends.network.nets import layer, run
from tlkit.errors import LoadError

RNG = np.random.default_rng(5)
X = RNG.standard_normal((1, 1, 4, 7, 6)).astype(np.float32)
FLAT = RNG.standard_normal((2, 3, 4)).astype(np.float32)
Y = RNG.standard_normal((1, 1, 4, 7, 6)).astype(np.float32)


def drawn(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


def compiled(
    folder: Path,
    kind: str,
    arrays: Mapping[str, Any],
    outputs: Mapping[str, Sequence[int]],
    blobs: Blobs | None = None,
    *,
    exact: bool = False,
    **attributes: Any,
) -> dict[str, Any]:
    """Run one compiled layer on arrays; return its outputs."""
    joined = {"bottom": ",".join(arrays), "top": ",".join(outputs), "name": "the layer", "type": kind}
    shapes = {name: np.shape(array) for name, array in arrays.items()} | dict(outputs)
    path = write_bundle(folder / "net.mlmodelc", [joined | attributes], shapes, blobs, exact=exact)
    return tlkit.load_model(path).predict({name: array for name, array in arrays.items() if name != "none"})


WEIGHTS, TURNED, BIAS = drawn(6, 2, 3, 2), drawn(4, 3, 3, 2), drawn(6)
PADS = {"pad_t": 1, "pad_b": 0, "pad_l": 2, "pad_r": 1}
BORDERS = {"borderAmounts": [{"startEdgeSize": 1, "endEdgeSize": 0}, {"startEdgeSize": 2, "endEdgeSize": 1}]}
CONV = {"outputChannels": 6, "kernelChannels": 2, "nGroups": 2, "kernelSize": [3, 2], "hasBias": True}
CONV |= {"weights": WEIGHTS, "bias": BIAS}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("same", [False, True])
def test_a_convolution(tmp_path: Path, same: bool, half: bool) -> None:
    """Its kernel is not square, its groups are two, its bias has zeros behind it."""
    blobs = Blobs()
    stored = WEIGHTS.astype(np.float16) if half else WEIGHTS
    names = {"blob_biases": blobs.add(BIAS, 72), "blob_weights_f16" if half else "blob_weights": blobs.add(stored)}
    steps = {"stride_x": 2, "stride_y": 1, "dilation_y": 2, "K": 4, "C": 6, "Nx": 2, "Ny": 3, "n_groups": 2}
    padding = {"pad_mode": 1} if same else {"pad_mode": 0, **PADS}
    found = compiled(
        tmp_path, "convolution", {"x": X}, {"y": (6, 1, 1)}, blobs, has_biases=1, **names, **steps, **padding
    )
    border = {"same": {}} if same else {"valid": {"paddingAmounts": BORDERS}}
    given = CONV | {"weights": stored.astype(np.float32)}
    wanted = run(layer("convolution", stride=[1, 2], dilationFactor=[2, 1], **given, **border), {"x": X}, exact=False)
    np.testing.assert_allclose(found["y"], wanted["y"], rtol=1e-5, atol=1e-6)


def test_a_convolution_of_codes(tmp_path: Path) -> None:
    """w = code * scale + bias of its channel, rounded to f16."""
    codes, scale, offset = RNG.integers(0, 256, WEIGHTS.shape).astype(np.uint8), drawn(6) / 64, drawn(6)
    blobs = Blobs()
    weights = {"W_U8": blobs.add(codes), "per_ch_qscale": blobs.add(scale), "per_ch_qbias": blobs.add(offset)}
    steps = {"K": 4, "C": 6, "Nx": 2, "Ny": 3, "n_groups": 2}
    found = compiled(tmp_path, "convolution", {"x": X}, {"y": (6, 1, 1)}, blobs, weights=weights, **steps)
    values = (codes * scale[:, None, None, None] + offset[:, None, None, None]).astype(np.float16).astype(np.float32)
    given = {**CONV, "weights": values, "hasBias": False}
    wanted = run(layer("convolution", **given, valid={}), {"x": X}, exact=False)
    np.testing.assert_allclose(found["y"], wanted["y"], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("asked", [False, True])
def test_a_deconvolution(tmp_path: Path, asked: bool) -> None:
    blobs = Blobs()
    names = {"blob_biases": blobs.add(BIAS), "blob_weights": blobs.add(TURNED)}
    steps = {"stride_x": 2, "stride_y": 3, "K": 4, "C": 6, "Nx": 2, "Ny": 3, "n_groups": 2, "has_biases": 1}
    size = {"deconv_out_height": 20, "deconv_out_width": 12, "pad_mode": 1} if asked else {"pad_mode": 0, "pad_t": 1}
    found = compiled(tmp_path, "deconvolution", {"x": X}, {"y": (6, 1, 1)}, blobs, **names, **steps, **size)
    crops = {"borderAmounts": [{"startEdgeSize": 1}, {}]}
    border = {"same": {}, "outputShape": [20, 12]} if asked else {"valid": {"paddingAmounts": crops}}
    given = CONV | {"weights": TURNED, "kernelChannels": 4, "isDeconvolution": True, "stride": [3, 2]}
    wanted = run(layer("convolution", **given, **border), {"x": X}, exact=False)
    np.testing.assert_allclose(found["y"], wanted["y"], rtol=1e-5, atol=1e-6)


def test_what_the_compiler_put_into_a_layer_is_done_after_it(tmp_path: Path) -> None:
    matrix = drawn(5, 168)
    for number, (key, kind) in enumerate({"has_relu": "ReLU", "has_tanh": "tanh"}.items()):
        blobs = Blobs()
        names = {"blob_weights": blobs.add(matrix), "nB": 168, "nC": 5, key: 1}
        found = compiled(tmp_path / str(number), "inner_product", {"x": X}, {"y": (5, 1, 1)}, blobs, **names)
        inner = layer("innerProduct", "x", "t", inputChannels=168, outputChannels=5, weights=matrix)
        wanted = run([inner, layer("activation", "t", "y", **{kind: {}})], {"x": X}, exact=False)
        np.testing.assert_allclose(found["y"], wanted["y"], rtol=1e-5, atol=1e-6)


def test_a_matrix_that_is_stored_turned(tmp_path: Path) -> None:
    matrix, blobs = drawn(5, 4).astype(np.float16), Blobs()
    names = {"weights": {"w_f16_t": blobs.add(matrix.T)}, "nB": 4, "nC": 5}
    found = compiled(tmp_path, "inner_product", {"x": FLAT}, {"y": (2, 3, 5)}, blobs, exact=True, **names)
    np.testing.assert_allclose(found["y"], FLAT @ matrix.astype(np.float32).T, rtol=1e-5, atol=1e-5)


def test_a_matrix_whose_columns_are_looked_up(tmp_path: Path) -> None:
    table, blobs = drawn(3, 9), Blobs()
    names = {"blob_weights": blobs.add(table), "nB": 9, "nC": 3, "is_lookup": 1}
    numbers = np.array([4, 0, 8], np.float32).reshape(3, 1, 1, 1, 1)
    found = compiled(tmp_path, "inner_product", {"x": numbers}, {"y": (3, 1, 3, 1, 1)}, blobs, **names)
    np.testing.assert_array_equal(found["y"].reshape(3, 3), table.T[[4, 0, 8]])


def test_a_batch_norm_holds_deviations_by_channel(tmp_path: Path) -> None:
    """gamma, beta, mean and sqrt(variance + epsilon), one channel after another, with zeros behind."""
    gamma, beta, mean, deviation = drawn(4), drawn(4), drawn(4), np.abs(drawn(4)) + 0.1
    blobs, images = Blobs(), X.reshape(4, 7, 6)
    names = {"blob_batchnorm_params": blobs.add(np.stack([gamma, beta, mean, deviation], 1), 192), "C": 4}
    found = compiled(tmp_path, "batchnorm", {"x": X}, {"y": X.shape}, blobs, **names)
    g, b, m, d = (part[:, None, None] for part in (gamma, beta, mean, deviation))
    np.testing.assert_allclose(found["y"].reshape(4, 7, 6), g * (images - m) / d + b, rtol=1e-5, atol=1e-5)


def test_an_instance_norm_takes_the_inputs_own(tmp_path: Path) -> None:
    gamma, beta, blobs, images = drawn(4), drawn(4), Blobs(), X.reshape(4, 7, 6).astype(np.float64)
    params = np.stack([gamma, beta, np.zeros(4), np.ones(4)], 1)
    names = {"blob_batchnorm_params": blobs.add(params), "C": 4, "training": 1, "training_instancenorm": 1}
    found = compiled(tmp_path, "batchnorm", {"x": X}, {"y": X.shape}, blobs, training_eps=1e-3, **names)
    mean, variance = images.mean((1, 2), keepdims=True), images.var((1, 2), keepdims=True)
    wanted = gamma[:, None, None] * (images - mean) / np.sqrt(variance + 1e-3) + beta[:, None, None]
    np.testing.assert_allclose(found["y"].reshape(4, 7, 6), wanted, rtol=1e-4, atol=1e-5)


POOLS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"avg_or_max": 1, "pad_mode": 2, **PADS}, {"type": 0, "valid": {}}),
    ({"avg_or_max": 0, "pad_mode": 0, **PADS}, {"type": 1, "valid": {"paddingAmounts": BORDERS}}),
    (
        {"avg_or_max": 0, "pad_mode": 0, "average_count_exclude_padding": 1, **PADS},
        {"type": 1, "avgPoolExcludePadding": True, "valid": {"paddingAmounts": BORDERS}},
    ),
    ({"avg_or_max": 2, "pad_mode": 1}, {"type": 2, "same": {}}),
    (
        {"avg_or_max": 1, "pad_mode": 0, "top_shape_style": 2},
        {"type": 0, "includeLastPixel": {"paddingAmounts": [0, 0]}},
    ),
    ({"avg_or_max": 0, "is_global": 1}, {"type": 1, "globalPooling": True, "valid": {}}),
]


@pytest.mark.parametrize(("attributes", "fields"), POOLS)
def test_a_pool(tmp_path: Path, attributes: dict[str, Any], fields: dict[str, Any]) -> None:
    sizes = {"size_x": 2, "size_y": 3, "stride_x": 2, "stride_y": 2}
    found = compiled(tmp_path, "pool", {"x": X}, {"y": (4, 1, 1)}, **sizes, **attributes)
    wanted = run(layer("pooling", kernelSize=[3, 2], stride=[2, 2], **fields), {"x": X}, exact=False)
    np.testing.assert_allclose(found["y"], wanted["y"], rtol=1e-5, atol=1e-6)


def erf(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import torch

    found: np.ndarray[Any, Any] = torch.special.erf(torch.from_numpy(x.astype(np.float64))).numpy()
    return found


def sigmoid(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return 1 / (1 + np.exp(-x))


MODES: list[tuple[dict[str, Any], Callable[[Any], Any]]] = [
    ({"mode": 0}, lambda x: np.maximum(x, 0)),
    ({"mode": 1}, np.tanh),
    ({"mode": 2, "alpha": 0.3}, lambda x: np.where(x > 0, x, 0.3 * x)),
    ({"mode": 3}, sigmoid),
    ({"mode": 5, "alpha": 1.5, "beta": 0.7}, lambda x: 1.5 * np.tanh(0.7 * x)),
    ({"mode": 6, "alpha": 1.5, "beta": 0.7}, lambda x: 1.5 * x + 0.7),
    ({"mode": 7, "alpha": 0.3, "beta": 0.4}, lambda x: np.clip(0.3 * x + 0.4, 0, 1)),
    ({"mode": 8, "alpha": 0.6}, lambda x: np.where(x > 0, x, 0.6 * np.expm1(x))),
    ({"mode": 9, "alpha": 0.5}, lambda x: np.where(x >= 0.5, x, 0)),
    ({"mode": 10}, lambda x: np.log1p(np.exp(x))),
    ({"mode": 12}, lambda x: x / (1 + np.abs(x))),
    ({"mode": 13, "alpha": 0.2}, lambda x: np.maximum(x, 0.2)),
    ({"mode": 16}, lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x))),
    ({"mode": 19}, lambda x: x / 2 * (1 + erf(x / np.sqrt(2)))),
    ({"mode": 20}, erf),
    ({"mode": 21}, lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
    ({"mode": 22}, lambda x: x * sigmoid(1.702 * x)),
    ({"mode": 25}, lambda x: x * sigmoid(x)),
    ({"mode": 26}, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
]


@pytest.mark.parametrize(
    ("attributes", "formula"), MODES, ids=lambda item: str(item.get("mode", "")) if isinstance(item, dict) else ""
)
def test_a_nonlinearity(tmp_path: Path, attributes: dict[str, Any], formula: Callable[[Any], Any]) -> None:
    found = compiled(tmp_path, "activation", {"x": X}, {"y": X.shape}, **attributes)
    np.testing.assert_allclose(found["y"], formula(X.astype(np.float64)), rtol=1e-5, atol=1e-6)


def test_a_slope_for_each_channel(tmp_path: Path) -> None:
    slopes, blobs = drawn(4), Blobs()
    found = compiled(
        tmp_path, "activation", {"x": X}, {"y": X.shape}, blobs, mode=2, weights={"alpha": blobs.add(slopes)}
    )
    np.testing.assert_allclose(found["y"], np.where(X > 0, X, slopes[:, None, None] * X), rtol=1e-6)


TWO: dict[int, Callable[[Any, Any], Any]] = {
    0: np.add,
    1: np.multiply,
    13: lambda x, y: np.abs(x) ** y,
    22: np.minimum,
    23: np.maximum,
    33: np.subtract,
    36: np.mod,
    100: np.equal,
    102: np.divide,
    103: np.less,
    104: np.less_equal,
    105: np.greater,
    106: np.greater_equal,
    107: np.not_equal,
    1021: np.floor_divide,
}


@pytest.mark.parametrize("operation", TWO)
def test_an_operation_on_two_values(tmp_path: Path, operation: int) -> None:
    x = np.abs(X) if operation == 13 else X
    y = np.where(Y > 0, X, Y) if 100 <= operation < 110 and operation != 102 else Y
    found = compiled(tmp_path, "elementwise", {"x": x, "z": y}, {"y": X.shape}, operation=operation, nd_mode=1)
    np.testing.assert_allclose(found["y"], TWO[operation](x, y).astype(np.float32), rtol=1e-4, atol=1e-5)


def test_values_of_other_shapes_are_broadcast(tmp_path: Path) -> None:
    row = drawn(4)
    given = {"x": FLAT, "z": row}
    found = compiled(tmp_path, "elementwise", given, {"y": FLAT.shape}, exact=True, operation=33, nd_mode=1)
    np.testing.assert_array_equal(found["y"], FLAT - row)


ONE: list[tuple[int, dict[str, float], Callable[[Any], Any]]] = [
    (2, {"alpha": 0.5}, lambda x: x + 0.5),
    (3, {"alpha": 0.5}, lambda x: x * 0.5),
    (3, {}, lambda x: x),
    (7, {}, lambda x: x),
    (8, {}, np.square),
    (10, {}, lambda x: 1 / (x + 1e-6)),
    (11, {}, np.sqrt),
    (12, {"eps": 1e-3}, lambda x: 1 / np.sqrt(x + 1e-3)),
    (13, {"alpha": 1.5}, lambda x: x**1.5),
    (24, {}, np.abs),
    (25, {"alpha": 0.4}, lambda x: np.maximum(x, 0.4)),
    (26, {}, np.log),
    (27, {}, np.exp),
    (35, {}, np.exp2),
    (37, {}, np.rint),
    (38, {}, np.sign),
    (114, {}, np.cos),
    (115, {}, np.sin),
    (117, {}, np.floor),
    (118, {}, np.ceil),
    (119, {"alpha": 0.2, "beta": 0.6}, lambda x: np.clip(x, 0.2, 0.6)),
    (121, {}, np.tan),
    (122, {}, np.cosh),
    (123, {}, np.sinh),
    (124, {}, np.tanh),
    (125, {}, np.arccos),
    (126, {}, np.arcsin),
    (127, {}, np.arctan),
    (128, {}, lambda x: np.arccosh(x + 1)),
    (129, {}, np.arcsinh),
    (130, {}, np.arctanh),
    (131, {"alpha": 0.5}, lambda x: x < 0.5),
    (134, {"alpha": 0.5}, lambda x: x >= 0.5),
]


@pytest.mark.parametrize(("operation", "given", "formula"), ONE)
def test_an_operation_on_one_value(
    tmp_path: Path, operation: int, given: dict[str, float], formula: Callable[[Any], Any]
) -> None:
    x = np.random.default_rng(1).uniform(0.05, 0.95, (2, 3, 4)).astype(np.float32)
    shown = x + 1 if operation == 128 else x
    found = compiled(tmp_path, "elementwise", {"x": shown}, {"y": x.shape}, exact=True, operation=operation, **given)
    np.testing.assert_allclose(found["y"], formula(x.astype(np.float64)), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(("code", "axis"), [(0, -1), (1, -2), (2, -3), (4, -5)])
def test_a_softmax_names_its_axis_by_a_code(tmp_path: Path, code: int, axis: int) -> None:
    x = drawn(3, 1, 4, 7, 6)
    powers = np.exp(x.astype(np.float64))
    found = compiled(tmp_path, "softmax", {"x": x}, {"y": x.shape}, C=code)
    np.testing.assert_allclose(found["y"], powers / powers.sum(axis, keepdims=True), rtol=1e-5)


def test_axes_are_exchanged_by_their_codes(tmp_path: Path) -> None:
    """The width becomes the sequence, channels become the width, the sequence channels."""
    x = drawn(3, 1, 4, 7, 6)
    codes = {"axis_w": 2, "axis_h": 1, "axis_k": 4, "axis_n": 3, "axis_seq": 0}
    found = compiled(tmp_path, "transpose", {"x": x}, {"y": (6, 1, 3, 7, 4)}, **codes)
    np.testing.assert_array_equal(found["y"], x.transpose(4, 1, 0, 3, 2))


def test_axes_of_a_values_own_rank_are_exchanged(tmp_path: Path) -> None:
    codes = {"axis_w": 1, "axis_h": 2, "axis_k": 0, "axis_n": 3, "axis_seq": 4}
    found = compiled(tmp_path, "transpose", {"x": FLAT}, {"y": (4, 2, 3)}, exact=True, **codes)
    np.testing.assert_array_equal(found["y"], FLAT.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", [0, 1])
def test_another_shape_of_an_image(tmp_path: Path, mode: int) -> None:
    sizes = {"dst_seq": 1, "dst_n": 1, "dst_k": 6, "dst_h": 4, "dst_w": 7, "mode": mode}
    found = compiled(tmp_path, "reshape", {"x": X}, {"y": (6, 4, 7)}, **sizes)
    wanted = run(layer("reshape", targetShape=[6, 4, 7], mode=mode), {"x": X}, exact=False)
    np.testing.assert_array_equal(found["y"], wanted["y"])


def test_another_shape_of_its_own_rank(tmp_path: Path) -> None:
    sizes = {"dst_nd_rank": 2, "dst_h": 4, "dst_w": 6}
    found = compiled(tmp_path, "reshape", {"x": FLAT}, {"y": (4, 6)}, exact=True, **sizes)
    np.testing.assert_array_equal(found["y"], FLAT.reshape(4, 6))


@pytest.mark.parametrize("mode", [0, 1])
def test_flattening(tmp_path: Path, mode: int) -> None:
    found = compiled(tmp_path, "flatten", {"x": X}, {"y": (168, 1, 1)}, mode=mode)
    wanted = X.reshape(4, 7, 6).transpose(1, 2, 0) if mode else X
    np.testing.assert_array_equal(found["y"].reshape(-1), wanted.reshape(-1))


def test_joining(tmp_path: Path) -> None:
    found = compiled(tmp_path / "k", "concat", {"x": X, "z": Y}, {"y": (8, 7, 6)})
    np.testing.assert_array_equal(found["y"], np.concatenate([X, Y], 2))
    found = compiled(tmp_path / "seq", "concat", {"x": X, "z": Y}, {"y": (2, 1, 4, 7, 6)})
    np.testing.assert_array_equal(found["y"], np.concatenate([X, Y], 0))
    pair = {"x": FLAT, "z": FLAT + 1}
    found = compiled(tmp_path / "nd", "general_concat", pair, {"y": (2, 6, 4)}, exact=True, axis=1)
    np.testing.assert_array_equal(found["y"], np.concatenate([FLAT, FLAT + 1], 1))
    found = compiled(tmp_path / "new", "stack_nd", pair, {"y": (2, 2, 3, 4)}, exact=True, nd_axis=1)
    np.testing.assert_array_equal(found["y"], np.stack([FLAT, FLAT + 1], 1))


@pytest.mark.parametrize("sizes", [(1, 3), (0, 0)])
def test_parting(tmp_path: Path, sizes: tuple[int, int]) -> None:
    """``begin`` are sizes; all 0 where the parts are equal."""
    parts = {"y": (2, 3, sizes[0] or 2), "z": (2, 3, sizes[1] or 2)}
    given = {"nd_axis": 2, "num_splits": 2, "begin_0": sizes[0], "begin_1": sizes[1]}
    found = compiled(tmp_path, "split_nd", {"x": FLAT}, parts, exact=True, **given)
    at = sizes[0] or 2
    np.testing.assert_array_equal(found["y"], FLAT[..., :at])
    np.testing.assert_array_equal(found["z"], FLAT[..., at:])


def test_axes_of_one(tmp_path: Path) -> None:
    axes = {"axes_0": 0, "axes_1": 2, "axes_2": 9, "size_of_axes": 2}
    found = compiled(tmp_path / "in", "expand_dims", {"x": FLAT}, {"y": (1, 2, 1, 3, 4)}, exact=True, **axes)
    assert found["y"].shape == (1, 2, 1, 3, 4)
    found = compiled(tmp_path / "out", "squeeze", {"x": found["y"]}, {"y": (2, 3, 4)}, exact=True, **axes)
    np.testing.assert_array_equal(found["y"], FLAT)


def test_cuts_repeats_and_borders(tmp_path: Path) -> None:
    found = compiled(tmp_path / "1", "slice", {"x": FLAT}, {"y": (2, 3, 2)}, exact=True, axis=2, start=1, end=-1)
    np.testing.assert_array_equal(found["y"], FLAT[..., 1:-1])
    found = compiled(tmp_path / "2", "slice", {"x": FLAT}, {"y": (2, 1, 4)}, exact=True, axis=1, start=2)
    np.testing.assert_array_equal(found["y"], FLAT[:, 2:])
    found = compiled(tmp_path / "3", "tile", {"x": FLAT}, {"y": (2, 6, 4)}, exact=True, dst_h=2, dst_k=1, dst_w=1)
    np.testing.assert_array_equal(found["y"], np.tile(FLAT, (1, 2, 1)))
    found = compiled(tmp_path / "4", "crop", {"x": X}, {"y": (4, 4, 5)}, t=1, b=2, l=0, r=1)
    np.testing.assert_array_equal(found["y"], X[..., 1:-2, :-1])
    for mode, name in enumerate(("constant", "reflect", "edge")):
        given = {"pad_t": 1, "pad_b": 2, "pad_l": 0, "pad_r": 3, "pad_pad_mode": mode, "pad_value": 0.5}
        found = compiled(tmp_path / name, "general_padding", {"x": X}, {"y": (4, 10, 9)}, **given)
        value = {"constant_values": 0.5} if mode == 0 else {}
        wanted = np.pad(X, [(0, 0)] * 3 + [(1, 2), (0, 3)], name, **value)  # type: ignore[call-overload]
        np.testing.assert_array_equal(found["y"], wanted)


@pytest.mark.parametrize("mode", range(3))
def test_sizes_of_images(tmp_path: Path, mode: int) -> None:
    kinds = [{"mode": 0}, {"mode": 1, "align_corners": 1}, {"mode": 1, "is_legacy_mode": 1, "align_corners": 0}]
    fields = [{"mode": 0}, {"mode": 1, "linearUpsampleMode": 1}, {"mode": 1}]
    scales = {"scaling_factor_x": 2, "scaling_factor_y": 3}
    found = compiled(tmp_path, "upsample", {"x": X}, {"y": (4, 21, 12)}, **scales, **kinds[mode])
    wanted = run(layer("upsample", scalingFactor=[3, 2], **fields[mode]), {"x": X}, exact=False)
    np.testing.assert_allclose(found["y"], wanted["y"], rtol=1e-6)


@pytest.mark.parametrize(("given", "mode"), [({}, 0), ({"reverse": 1}, 1), ({"reverse": 1, "pixel_shuffle": 1}, 2)])
def test_blocks_of_pixels(tmp_path: Path, given: dict[str, int], mode: int) -> None:
    x = drawn(1, 1, 4, 6, 8)
    found = compiled(tmp_path, "space_to_depth", {"x": x}, {"y": (1, 1, 1)}, block_size=2, **given)
    wanted = run(layer("reorganizeData", blockSize=2, mode=mode), {"x": x}, exact=False)
    np.testing.assert_array_equal(found["y"], wanted["y"])


REDUCED: dict[int, Callable[..., Any]] = {
    0: np.sum,
    1: np.mean,
    2: np.prod,
    4: lambda x, axis, keepdims: (x**2).sum(axis, keepdims=keepdims),
    5: lambda x, axis, keepdims: np.sqrt((x**2).sum(axis, keepdims=keepdims)),
    8: lambda x, axis, keepdims: np.abs(x).sum(axis, keepdims=keepdims),
    9: np.max,
    10: np.min,
    11: np.argmax,
    12: np.argmin,
}


@pytest.mark.parametrize("mode", REDUCED)
@pytest.mark.parametrize("keep", [False, True])
def test_reductions(tmp_path: Path, mode: int, keep: bool) -> None:
    shape = (2, 1, 4) if keep else (2, 4)
    found = compiled(tmp_path, "reduce", {"x": FLAT}, {"y": shape}, exact=True, mode=mode, nd_mode=1, nd_axis=1)
    np.testing.assert_allclose(found["y"], REDUCED[mode](FLAT, axis=1, keepdims=keep), rtol=1e-5)


def test_choosing(tmp_path: Path) -> None:
    both = {"y": (2, 3, 2), "z": (2, 3, 2)}
    found = compiled(tmp_path / "1", "topk", {"x": FLAT}, both, exact=True, axis=2, num_k=2)
    np.testing.assert_array_equal(found["y"], -np.sort(-FLAT, -1)[..., :2])
    np.testing.assert_array_equal(found["z"], np.argsort(-FLAT, -1)[..., :2])
    found = compiled(tmp_path / "2", "argsort", {"x": FLAT}, {"y": FLAT.shape}, exact=True, axis=2, ascending=1)
    np.testing.assert_array_equal(found["y"], np.argsort(FLAT, -1))
    given = {"x": FLAT, "i": np.array([2, 0], np.float32)}
    found = compiled(tmp_path / "3", "gather_nd", given, {"y": (2, 2, 4)}, exact=True, axis=1, mode=0)
    np.testing.assert_array_equal(found["y"], FLAT[:, [2, 0]])


def test_a_constant_and_a_matrix_product(tmp_path: Path) -> None:
    data, blobs = drawn(4, 5), Blobs()
    constant = {"type": "load_constant", "name": "c", "bottom": "", "top": "c", "constant_blob": blobs.add(data)}
    constant |= {"nd_rank": 2, "h": 4, "w": 5}
    product = {"type": "batch_matmul", "name": "m", "bottom": "x,c", "top": "y"}
    shapes = {"x": (2, 3, 4), "c": (4, 5), "y": (2, 3, 5)}
    path = write_bundle(tmp_path / "net.mlmodelc", [constant, product], shapes, blobs, exact=True)
    np.testing.assert_allclose(tlkit.load_model(path).predict({"x": FLAT})["y"], FLAT @ data, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("elementwise", {"operation": 555}),
        ("activation", {"mode": 99}),
        ("softmax", {"C": 7}),
        ("pool", {"avg_or_max": 5}),
        ("convolution", {"C": 1, "K": 4, "Nx": 1, "Ny": 1}),
        ("transpose", {"axis_w": 2}),
        ("upsample", {"scaling_factor_x": "two"}),
        ("slice", {"axis": 2}),
    ],
)
def test_what_is_not_known_is_named(tmp_path: Path, kind: str, attributes: dict[str, Any]) -> None:
    with pytest.raises(LoadError, match=rf"layer 'the layer' \({kind}\)") as refused:
        compiled(tmp_path, kind, {"x": X}, {"y": X.shape}, **attributes)
    assert refused.value.hint


def test_every_unknown_kind_is_named_at_once(tmp_path: Path) -> None:
    layers = [{"type": kind, "name": kind, "bottom": "x", "top": kind} for kind in ("rnn_arch", "activation", "magic")]
    path = write_bundle(tmp_path / "net.mlmodelc", layers, {"x": X.shape})
    with pytest.raises(LoadError, match=r"does not know: rnn_arch \(the order of the gates .*\), magic\n"):
        tlkit.load_model(path).predict({"x": X})
    write_bundle(tmp_path / "of.mlmodelc", layers[:1], {"x": X.shape})
    with pytest.raises(LoadError) as refused:
        tlkit.load_model(tmp_path / "of.mlmodelc").predict({"x": X})
    assert "run the .mlmodel" in refused.value.hint


def test_running_sums_along_the_axis_of_a_second_input(tmp_path: Path) -> None:
    blobs = Blobs()
    axis = {"type": "load_constant", "name": "a", "bottom": "", "top": "a", "nd_rank": 1, "w": 1}
    axis["constant_blob"] = blobs.add(np.float32([1.0]))
    summed = {"type": "cumsum", "name": "c", "bottom": "x,a", "top": "y", "attributes": {"is_output": 1}}
    shapes = {"x": FLAT.shape, "a": (1,), "y": FLAT.shape}
    path = write_bundle(tmp_path / "net.mlmodelc", [axis, summed], shapes, blobs, exact=True)
    np.testing.assert_allclose(tlkit.load_model(path).predict({"x": FLAT})["y"], FLAT.cumsum(1), rtol=1e-6)
    path = write_bundle(tmp_path / "2.mlmodelc", [axis, summed | {"exclusive": 1}], shapes, blobs, exact=True)
    with pytest.raises(LoadError, match="what exclusive 1 means"):
        tlkit.load_model(path).predict({"x": FLAT})
    with pytest.raises(LoadError, match="says its axis is not published"):
        compiled(tmp_path / "3", "cumsum", {"x": FLAT}, {"y": FLAT.shape}, exact=True)


def test_the_places_of_what_is_not_0(tmp_path: Path) -> None:
    x = np.float32([[0, 2, 0], [1, 0, -3]])
    found = compiled(tmp_path, "nonzero", {"x": x}, {"y": (3, 2)}, exact=True)
    np.testing.assert_array_equal(found["y"], np.argwhere(x))


def test_another_size_as_it_is_where_nothing_else_is_said(tmp_path: Path) -> None:
    """Samples at i / scale, those past the last pixel at it: [1, 2, 3] by 3 is 1, 1.33, 1.67, 2, ... 3, 3, 3."""
    row = np.tile(np.float32([1, 2, 3]), (1, 1, 1, 2, 1))
    given = {"target_size_h": 2, "target_size_w": 9, "grid_sampling_mode": 2, "mode": 1, "spatial_scale": 1}
    found = compiled(tmp_path / "1", "crop_and_resize", {"x": row}, {"y": (1, 1, 1, 2, 9)}, **given)["y"]
    np.testing.assert_allclose(found[0, 0, 0, 1], [1, 4 / 3, 5 / 3, 2, 7 / 3, 8 / 3, 3, 3, 3], rtol=1e-6)
    for key, value in (("grid_sampling_mode", 1), ("mode", 0), ("spatial_scale", 0.5)):
        with pytest.raises(LoadError, match=f"what {key} {value} means"):
            compiled(tmp_path / key, "crop_and_resize", {"x": row}, {"y": (1, 1, 1, 2, 9)}, **(given | {key: value}))
    two = {"x": row, "boxes": np.float32([[0, 0, 1, 1]])}
    with pytest.raises(LoadError, match="takes its boxes is not published"):
        compiled(tmp_path / "2", "crop_and_resize", two, {"y": (1, 1, 1, 2, 9)}, **given)
