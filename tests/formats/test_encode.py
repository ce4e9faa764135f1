from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants

from tlkit.formats.encode import Losses, encode, is_float

ODD = np.array(
    [
        0.0,
        -0.0,
        1e-45,
        -1e-45,
        2.0**-25,
        2.0**-24,
        6e-8,
        1.0,
        65504.0,
        65519.9,
        65520.0,
        -1e30,
        3.4e38,
        np.inf,
        -np.inf,
    ],
    np.float32,
)


def random_floats(count: int = 10_000) -> np.ndarray:
    """Floats of every exponent: random bits, NaNs left out."""
    bits = np.random.default_rng(0).integers(0, 1 << 32, count, dtype=np.uint32)
    values = bits.view(np.float32)
    return values[~np.isnan(values)]


@pytest.mark.parametrize(("dtype", "torch_type"), [("F16", torch.float16), ("BF16", torch.bfloat16)])
def test_narrowed_values_have_the_bits_that_torch_gives_them(dtype: str, torch_type: torch.dtype) -> None:
    values = np.concatenate([ODD, random_floats()])
    wanted = torch.from_numpy(values).to(torch_type).view(torch.int16).numpy()
    assert encode(values, dtype, Losses()).tobytes() == wanted.tobytes()


@pytest.mark.parametrize(("dtype", "torch_type"), [("F16", torch.float16), ("BF16", torch.bfloat16)])
def test_what_is_lost_is_counted(dtype: str, torch_type: torch.dtype) -> None:
    values = np.concatenate([ODD, random_floats()])
    losses = Losses()
    encode(values, dtype, losses)
    wide, narrow = torch.from_numpy(values), torch.from_numpy(values).to(torch_type)
    assert losses.overflow == int((narrow.isinf() & wide.isfinite()).sum()) > 0
    assert losses.underflow == int(((narrow == 0) & (wide != 0)).sum()) > 0
    assert (losses.not_finite, losses.out_of_range) == (0, 0)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_a_nan_stays_one(dtype: str) -> None:
    nans = np.array([0x7FC00000, 0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    losses = Losses()
    raw = encode(nans, dtype, losses)
    found = torch.from_numpy(np.frombuffer(raw.tobytes(), np.int16).copy())
    assert found.view(torch.float16 if dtype == "F16" else torch.bfloat16).isnan().all()
    assert not losses


def test_doubles_round_once() -> None:
    value = 1 + 2.0**-11 + 2.0**-40  # by way of float32 this is a tie, and rounds to 1
    assert encode(np.array([value]), "F16", Losses()).view(np.float16)[0] == np.float16(1 + 2.0**-10)


def test_integers_that_do_not_fit_are_counted() -> None:
    losses = Losses()
    encode(np.array([1, 1 << 63], np.uint64), "I64", losses)
    assert losses.out_of_range == 1
    losses = Losses()
    assert encode(np.array([True, False]), "I8", losses).tolist() == [1, 0]
    assert not losses


def test_blocks_are_gguf_s_and_what_they_cannot_hold_is_counted() -> None:
    values = np.random.default_rng(1).normal(size=256).astype(np.float32)
    losses = Losses()
    wanted = quants.quantize(values.reshape(1, -1), GGMLQuantizationType.Q4_0)
    assert encode(values, "Q4_0", losses).tobytes() == wanted.tobytes()
    assert not losses
    values[[3, 40]] = np.nan, np.inf
    encode(values, "Q4_0", losses)
    assert losses.not_finite == 2


def test_which_types_are_real_numbers() -> None:
    assert all(map(is_float, ("F32", "BF16", "F8_E4M3", "F4", "Q8_0", "IQ1_S")))
    assert not any(map(is_float, ("I8", "BOOL", "U64", "C64")))
