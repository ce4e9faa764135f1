"""The ways to make the Neural Engine's sums give the same bits: compiled, by Triton, by torch, screened or not.

Covers tlkit/mil/units/compiled.py, tlkit/mil/units/compiled_rounding.py, tlkit/mil/units/compiled_tile.py,
tlkit/mil/units/triton_sums.py.
"""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest
import torch

from tests.mil.programs import function, tensor
from tests.mil.units.test_emulation import call, convolutions, engine
from tlkit.mil.units import fixed
from tlkit.mil.units.fixed import FixedPoint, Kernel
from tlkit.mil.units.rounding import away, by_torch

SHAPES = [(37, 183, 139), (200, 9, 1), (1, 70, 20), (5, 1, 5), (140, 200, 7)]
BEHIND = torch.cuda.is_available()  # the interpreter is for machines without a GPU


def operands(scale: float, shape: tuple[int, int, int], odd: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """f16 values in f32, a quarter of them 0; ``odd``: with NaN, infinities and a subnormal among them."""
    torch.manual_seed(7)
    m, k, n = shape
    a, b, first = torch.randn(3, m, k), torch.randn(3, k, n) * scale, torch.randn(3, n) * scale
    a = torch.where(torch.rand_like(a) < 0.25, 0.0, a)
    if odd:
        a[0, 0, 0], b[1, 0, 0], a[2, 0, 0], b[0, -1, -1] = torch.nan, torch.inf, -torch.inf, 2.0**-24
    return a.half().float(), b.half().float(), first.half().float()


def by(kernel: Kernel | None, given: tuple[torch.Tensor, ...], monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    with monkeypatch.context() as patch:
        patch.setattr(fixed, "_kernel", lambda device: kernel)
        return FixedPoint(screen=False).product(*given)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-3, 0.05, 3.0, 40.0])
def test_compiled_sums_are_torchs_bit_for_bit(
    scale: float, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = pytest.importorskip("tlkit.mil.units.compiled")
    given = operands(scale, shape, odd=scale == 3.0)
    wanted = by(None, given, monkeypatch)
    assert torch.equal(by(compiled.by_numba, given, monkeypatch), wanted) and bool(wanted.abs().max() > 0)
    # A transposed operand lies otherwise in memory, as weights do.
    turned = (given[0], given[1].mT.contiguous().mT, given[2])
    assert torch.equal(by(compiled.by_numba, turned, monkeypatch), wanted)


def spread_out(shape: tuple[int, ...], low: int, high: int, bits: int) -> torch.Tensor:
    """f16 values of all sizes: few bits make many ties and products that are exactly at a limit."""
    size = torch.randint(1 << (bits - 1), 1 << bits, shape) * 2.0 ** torch.randint(low - bits + 1, high, shape)
    sign = torch.randint(0, 2, shape) * 2 - 1
    return torch.where(torch.rand(shape) < 0.1, 0.0, size * sign).half().float()


@pytest.mark.parametrize("shape", [(9, 300, 250), (7, 257, 17), (2, 3, 8)])
@pytest.mark.parametrize(("low", "high", "bits"), [(-24, 1, 2), (-24, 1, 11), (-10, -6, 3), (-20, 9, 11), (-3, 6, 4)])
def test_compiled_sums_of_ties_lost_and_large_products(
    shape: tuple[int, int, int], low: int, high: int, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exponents all over f16's range: ties, products that vanish, subnormals, products of 32 and more, sums at the
    limit, on both sides of the blocks that are summed at a time."""
    compiled = pytest.importorskip("tlkit.mil.units.compiled")
    torch.manual_seed(11)
    m, k, n = shape
    given = (spread_out((2, m, k), low, high, bits), spread_out((2, k, n), low, high, bits), torch.zeros(2, n))
    assert torch.equal(by(compiled.by_numba, given, monkeypatch), by(None, given, monkeypatch))


@pytest.mark.parametrize(("type_", "given", "shape", "weight"), convolutions())
@pytest.mark.parametrize("scale", [0.01, 3.0])
def test_convolutions_without_windows_are_those_with_them(
    type_: str, given: dict[str, object], shape: tuple[int, ...], weight: tuple[int, ...], scale: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pytest.importorskip("numba")
    torch.manual_seed(3)
    arrays = {"x": torch.randn(shape), "w": torch.randn(weight) * scale}
    arrays = {name: array.half().numpy() for name, array in arrays.items()}
    kinds = {name: tensor("fp16", *array.shape) for name, array in arrays.items()}
    program = function(
        kinds, [call(type_, "made", tensor("fp16", *(None,) * len(shape)), x="x", weight="w", **given)], ["made"]
    )
    quick = engine(program, "ane").run(arrays)["made"]
    monkeypatch.setattr(fixed, "has_numba", lambda: False)
    fixed._kernel.cache_clear()
    np.testing.assert_array_equal(quick, engine(program, "ane:exact").run(arrays)["made"])
    fixed._kernel.cache_clear()


@pytest.mark.parametrize(("type_", "given", "shape", "weight"), convolutions())
@pytest.mark.parametrize("scale", [0.02, 1.0])
def test_screened_and_exact_convolutions_agree(
    type_: str, given: dict[str, object], shape: tuple[int, ...], weight: tuple[int, ...], scale: float
) -> None:
    rng = np.random.default_rng(5)
    arrays = {"x": rng.standard_normal(shape), "w": rng.standard_normal(weight) * scale}
    arrays = {name: array.astype(np.float16) for name, array in arrays.items()}
    kinds = {name: tensor("fp16", *array.shape) for name, array in arrays.items()}
    out = tensor("fp16", *(None,) * len(shape))
    program = function(kinds, [call(type_, "made", out, x="x", weight="w", **given)], ["made"])
    screened, exact = (engine(program, name).run(arrays)["made"] for name in ("ane", "ane:exact"))
    np.testing.assert_array_equal(screened, exact)


def test_compiled_rounding_is_torchs() -> None:
    pytest.importorskip("numba")
    rng = np.random.default_rng(2)
    single = torch.from_numpy(rng.integers(0, 2**32, 40_000, dtype=np.uint32).view(np.float32).reshape(200, 200))
    ties = torch.tensor([2049.0, 2049 - 2.0**-20, 65519.99, 65520.0, 2.0**-25, 2.0**-26, -0.0], dtype=torch.float64)
    for x in (single, single.mT, single[:, ::2], single.to(torch.float64) * (1 + 2.0**-40), ties, -ties):
        one, other = away(x), by_torch(x)
        assert torch.equal(one.nan_to_num(nan=7.0), other.nan_to_num(nan=7.0))
        assert torch.equal(one.isnan(), x.isnan()) and torch.equal(one.signbit(), other.signbit())


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not here")
@pytest.mark.skipif(not BEHIND and not os.environ.get("TRITON_INTERPRET"), reason="neither a GPU nor an interpreter")
@pytest.mark.parametrize("scale", [1e-3, 0.05, 3.0, 40.0])
def test_tritons_sums_are_torchs_bit_for_bit(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlkit.mil.units.triton_sums import by_triton

    given = operands(scale, (37, 83, 39), odd=scale == 3.0)
    placed = tuple(item.to("cuda" if BEHIND else "cpu") for item in given)
    assert torch.equal(by(by_triton, placed, monkeypatch).cpu(), by(None, given, monkeypatch))
