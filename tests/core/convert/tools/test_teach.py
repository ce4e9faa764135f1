"""The ops that tlkit teaches coremltools: each converts and computes as PyTorch does, and is still needed.

Covers tlkit/core/convert/tools/torch_replaced.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core import torch_samples
from tests.core.halved import halved
from tlkit.core.convert.convert import convert

HERE = Path(__file__).parents[2]
ANTIALIASED = ("antialiased resize by", "antialiased bicubic")  # the plain one it converts, and computes otherwise
LACKING = {
    *(
        (name, way)
        for name in torch_samples.SAMPLES
        if name.startswith(("new_ones", "diff", "einsum", "attention", "index_copy", "index_put of rows", *ANTIALIASED))
        for way in ("trace", "export")
    ),
    *((name, way) for name in ("__or__", "__xor__") for way in ("trace", "export")),
    ("__and__", "export"),
    ("where.ScalarOther", "export"),
}
"""What coremltools 9.0 refuses of torch 2.13."""


VARIANTS = {
    *("new_ones of a dynamic size", "new_ones of booleans", "diff of a larger order", "diff of booleans"),
    *("where.Scalar", "where.ScalarSelf", "__or__", "__xor__", "einsum with an ellipsis", "index_copy of rows"),
    *("index_put of a row", "index_put of whole rows", "antialiased resize by a factor", "antialiased bicubic resize"),
}
"""Forms of operations of which another is tested by ``make test``."""


@pytest.mark.parametrize(("name", "way"), halved(torch_samples.SAMPLES, ("trace", "export"), slow=VARIANTS))
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_values(name: str, way: str, tmp_path: Path) -> None:
    module = torch_samples.Sample(name)
    result = convert(module, tmp_path / "m.mlpackage", inputs=["x=2x3"], precision="f32", export=way == "export")
    assert result.ok


@pytest.mark.slow
def test_what_coremltools_alone_refuses() -> None:
    """Where this fails, an entry of tlkit/core/convert/tools/torch_ops.py may have become superfluous."""
    run = subprocess.run(
        [sys.executable, HERE / "torch_samples.py"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    rows = [line.split("\t") for line in run.stdout.splitlines() if line.count("\t") == 2]
    assert {(name, way) for name, way, reason in rows if reason} == LACKING
    assert len(rows) == 2 * len(torch_samples.SAMPLES)
