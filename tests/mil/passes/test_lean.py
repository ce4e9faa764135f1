"""What expands compressed weights, stored shorter: coremltools reads the same weights out of it."""

from __future__ import annotations

from pathlib import Path

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from tlkit.formats.coreml.open import open_package
from tlkit.formats.coreml.write import write_package
from tlkit.mil.passes.base import run_passes
from tlkit.mil.passes.lean import Lean
from tlkit.mil.program import BlobRef, walk
from tlkit.mil.types import DType

CHANNELS = 96


@pytest.fixture(scope="module")
def model() -> ct.models.MLModel:
    """One product with 96 rows, in f16."""
    weight = np.random.default_rng(0).standard_normal((CHANNELS, 40)).astype(np.float16)

    @mb.program(input_specs=[mb.TensorSpec((1, 40), ct.converters.mil.mil.types.fp16)], opset_version=ct.target.iOS16)
    def program(x):  # type: ignore[no-untyped-def]
        return mb.linear(x=x, weight=weight, name="y")

    return ct.convert(program, minimum_deployment_target=ct.target.iOS16, skip_model_load=True)


def quantized(model: ct.models.MLModel, mode: str) -> ct.models.MLModel:
    how = cto.OpLinearQuantizerConfig(mode=mode, weight_threshold=0)
    return cto.linear_quantize_weights(model, cto.OptimizationConfig(global_config=how))


def palettized(model: ct.models.MLModel, bits: int) -> ct.models.MLModel:
    how = cto.OpPalettizerConfig(mode="uniform", nbits=bits, weight_threshold=0)
    return cto.palettize_weights(model, cto.OptimizationConfig(global_config=how))


def weight(path: Path) -> np.ndarray:
    """The weight as coremltools expands it."""
    plain = cto.decompress_weights(ct.models.MLModel(str(path), skip_model_load=True))
    plain.save(str(path.with_name("plain.mlpackage")))
    program = open_package(path.with_name("plain.mlpackage")).program
    assert program is not None
    values = (item.attributes["val"] for item in walk(program.function().block.operations) if item.type == "const")
    (found,) = (value.numpy() for value in values if getattr(value.type, "size", 0) == CHANNELS * 40)
    return np.array(found)


@pytest.mark.parametrize(
    ("mode", "point", "saved"),
    [("linear_symmetric", (), 96 + 64 + 32), ("linear", (CHANNELS,), 0), ("palette", (), 32 + 64 + 32)],
)
def test_the_weights_stay_and_their_file_gets_shorter(
    model: ct.models.MLModel, tmp_path: Path, mode: str, point: tuple[int, ...], saved: int
) -> None:
    made = palettized(model, 4) if mode == "palette" else quantized(model, mode)
    made.save(str(tmp_path / "before.mlpackage"))
    package = open_package(tmp_path / "before.mlpackage")
    assert package.program is not None
    lean = run_passes(package.program, [Lean()]).program
    write_package(tmp_path / "after.mlpackage", package.model, lean)
    assert np.array_equal(weight(tmp_path / "before.mlpackage"), weight(tmp_path / "after.mlpackage"))
    before, after = (next((tmp_path / name).rglob("*.bin")).stat().st_size for name in _NAMES)
    assert before - after >= saved
    found = open_package(tmp_path / "after.mlpackage").program
    assert found is not None
    (expands,) = (item for item in walk(found.function().block.operations) if item.type.startswith("constexpr"))
    if mode == "palette":
        lut = expands.attributes["lut"]
        assert lut.type.dtype is DType.FP16 and not isinstance(lut.data, BlobRef)  # type: ignore[union-attr]
    else:
        assert expands.attributes["zero_point"].type.shape == point  # type: ignore[union-attr]
        assert expands.attributes["scale"].type.shape == (CHANNELS,)  # type: ignore[union-attr]
    assert run_passes(lean, [Lean()]).changes == ()


_NAMES = ("before.mlpackage", "after.mlpackage")
