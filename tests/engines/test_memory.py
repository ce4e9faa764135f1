"""The memory that a model takes which has hundreds of megabytes of f16 weights: a process for each engine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.formats import packages

CODE = """
import re, sys
import numpy as np
from tlkit.core.model.load import load_model

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])

import torch, tlkit.engines.auto.engine
if sys.argv[2] == "onnxruntime":  # as if the package were one of a gigabyte
    import tlkit.engines.onnxruntime.runtime
    tlkit.engines.onnxruntime.runtime.LARGE = 1 << 28
before = peak()
model = load_model(sys.argv[1], engine=sys.argv[2], cache=False)
model.predict({"x": np.ones((1, 4096), np.float32)})
print(peak() - before)
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("large")
    yield packages.stack(path / "net.mlpackage", 9, 4096)
    shutil.rmtree(path)  # pytest keeps its own, hundreds of megabytes each time


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("engine", "most"), [("auto", 0.6), ("eager", 0.6), ("openvino", 2.6), ("onnxruntime", 1.7)])
def test_one_run_takes_little_more_than_the_weights(package: Path, engine: str, most: float) -> None:
    """Widened as a whole they take 2.0, with a copy for the compiler beside 4.0 and more."""
    if engine == "openvino":
        pytest.importorskip("openvino")
    size = sum(path.stat().st_size for path in package.rglob("*.bin"))
    assert size > 300e6
    code = [sys.executable, "-c", CODE, str(package), engine]
    taken = int(subprocess.run(code, check=True, capture_output=True, text=True).stdout)
    assert taken <= most * size
