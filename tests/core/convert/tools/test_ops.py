"""The mends by families: each result as PyTorch has it, traced and exported, also at another size than the example.

Covers what the samples of ``torch_families.py`` and ``torch_samples.py`` go through:
covers tlkit/core/convert/capture/writes.py
covers tlkit/core/convert/tools/expand.py
covers tlkit/core/convert/tools/kit/mends.py
covers tlkit/core/convert/tools/kit/reading.py
covers tlkit/core/convert/tools/ops/complexes.py
covers tlkit/core/convert/tools/ops/convolution.py
covers tlkit/core/convert/tools/ops/creation.py
covers tlkit/core/convert/tools/ops/elementwise.py
covers tlkit/core/convert/tools/ops/indexing.py
covers tlkit/core/convert/tools/ops/layout.py
covers tlkit/core/convert/tools/ops/masks.py
covers tlkit/core/convert/tools/ops/padding.py
covers tlkit/core/convert/tools/ops/pooling.py
covers tlkit/core/convert/tools/ops/products.py
covers tlkit/core/convert/tools/ops/recurrent.py
covers tlkit/core/convert/tools/ops/reduction.py
covers tlkit/core/convert/tools/ops/resize.py
covers tlkit/core/convert/tools/ops/sampling.py
covers tlkit/core/convert/tools/ops/transforms.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import tlkit
from tests.core.halved import halved
from tests.core.torch_families import FAMILIES
from tests.core.torch_together import Together, flat, ports
from tlkit.core.convert.convert import convert
from tlkit.core.convert.tools.kit.mends import MENDS

HERE = Path(__file__).parents[2]


def _values(tensors: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
    return {
        f"x{index}": (tensor.float() if tensor.is_floating_point() else tensor.int()).numpy()
        for index, tensor in enumerate(tensors)
    }


@pytest.mark.parametrize(("name", "way"), halved(FAMILIES, ("trace", "export"), slow={"images", "volumes", "complex"}))
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_values(name: str, way: str, tmp_path: Path) -> None:
    family, module = FAMILIES[name], Together(name).eval()
    goal = tmp_path / "m.mlpackage"
    convert(module, goal, inputs=ports(family), precision="f32", export=way == "export", verify=False)
    model = tlkit.load_model(goal)
    for given in (family.inputs, *([family.others] if family.others else [])):
        results = iter(model.predict(_values(given)).values())
        with torch.no_grad():
            expected = module(*given)
        for sample, (_, value) in zip(module.names, expected.items(), strict=True):
            for tensor in flat(value):
                got = next(results)
                assert got.size == tensor.numel(), sample
                np.testing.assert_allclose(
                    got.reshape(tensor.shape).astype(np.float64), tensor.double(), rtol=1e-4, atol=1e-4, err_msg=sample
                )


RIGHT_ANYWAY = {
    "elementwise: clamp of integers as indices",
    "elementwise: quotients of integers",
    "creation: zeros_like with a type",
    "creation: zeros_like as indices",
    "creation: full_like with a type",
    "creation: zeros of integers",
    "creation: ones of integers",
    "creation: meshgrid of integers",
    "reduction: var of everything",
    "reduction: sum of booleans",
    "indexing: index_put at several axes",
    "indexing: index_put where a mask is",
    "indexing: gather of large integers",
    "indexing: negative indices",
    "indexing: halved indices",
    "writes: a column",
    "writes: interleaved",
    "writes: shifted",
    "writes: one after another",
    "writes: copied",
    "pooling: avg_pool of what is there",
    "images: nearest by a fraction",
}
"""What bare coremltools translates right by itself, at one shape and in f32: mends must keep it so."""


@pytest.mark.slow
def test_what_bare_coremltools_gets_wrong() -> None:
    """Where this fails, a mend under tlkit/core/convert/tools/ops may have become superfluous."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.core.torch_together"],
        capture_output=True,
        text=True,
        check=True,
        cwd=HERE.parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    rows = [line.split("\t") for line in run.stdout.splitlines() if line.count("\t") == 3]
    right = {f"{family}: {sample}" for family, sample, _, reason in rows if not reason}
    wrong = {f"{family}: {sample}" for family, sample, _, reason in rows if reason}
    assert not right - wrong - RIGHT_ANYWAY
    assert len(rows) == 2 * sum(len(family.samples) for family in FAMILIES.values())


def test_every_mend_says_why() -> None:
    assert all(entry.why and (entry.translate is None) != (entry.compose is None) for entry in MENDS.values())


class _Experts(torch.nn.Module):
    """Rows in groups, each multiplied by its own matrix; torch exports that in bfloat16 only."""

    def forward(self, x: Tensor, y: Tensor, ends: Tensor) -> Tensor:
        return torch._grouped_mm(x, y, ends.int())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_each_group_of_rows_has_its_matrix(tmp_path: Path) -> None:
    x, y = torch.randn(12, 4), torch.randn(3, 4, 4)
    given = ["x=12x4", "y=3x4x4", "ends=3:i32"]
    module = _Experts()
    convert(module, tmp_path / "m.mlpackage", inputs=given, precision="f32", verify=False)
    model = tlkit.load_model(tmp_path / "m.mlpackage")
    for ends in ([5, 5, 12], [0, 7, 12]):
        found = model.predict({"x": x.numpy(), "y": y.numpy(), "ends": np.int32(ends)})["output"]
        np.testing.assert_allclose(found, module(x, y, torch.tensor(ends)), rtol=1e-4, atol=1e-5)


class _Covariance(torch.nn.Module):
    """What torch.export cannot capture: torch asks for values on the way."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cov(x, correction=0), torch.corrcoef(x)


def test_covariances_by_trace(tmp_path: Path) -> None:
    x = torch.randn(3, 7)
    convert(_Covariance(), tmp_path / "m.mlpackage", inputs=["x=3x7"], precision="f32", verify=False)
    found = tlkit.load_model(tmp_path / "m.mlpackage").predict({"x": x.numpy()}).values()
    for got, expected in zip(found, _Covariance()(x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
