"""A fork of a process whose PyTorch had used threads: it predicts, with one thread."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys, signal
import tlkit, numpy as np
path, moment = sys.argv[1:]
x = {"x": np.ones((256, 64), np.float32)}
load = lambda: tlkit.load_model(path)
model = load() if moment != "after" else None
if moment == "used":
    model.predict(x)
import torch
torch.set_num_threads(2)
a = torch.randn(1500, 1500)
(a @ a).relu_().sum()
pid = os.fork()
if not pid:
    signal.alarm(60)
    found = (model or load()).predict(x)["y"]
    torch.set_num_threads(1)
    print(float(found.sum()), flush=True)
    os._exit(0)
_, status = os.waitpid(pid, 0)
print(float((model or load()).predict(x)["y"].sum()), torch.get_num_threads(), status)
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear map large enough that its product is shared among threads."""
    import logging

    import coremltools as ct
    import numpy as np
    from coremltools.converters.mil import Builder as mb

    logging.disable(logging.WARNING)
    rng = np.random.default_rng(0)
    first, last = (rng.standard_normal(size).astype(np.float32) / 64 for size in ((4096, 64), (256, 4096)))

    @mb.program(input_specs=[mb.TensorSpec((256, 64))], opset_version=ct.target.iOS16)
    def net(x):  # type: ignore[no-untyped-def]
        return mb.linear(x=mb.gelu(x=mb.linear(x=x, weight=first)), weight=last, name="y")

    path = tmp_path_factory.mktemp("wide") / "wide.mlpackage"
    ct.convert(net, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS16, skip_model_load=True).save(
        str(path)
    )
    return path


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["loaded", "used", "after"])
def test_a_fork_predicts(wide: Path, moment: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, wide, moment], capture_output=True, text=True, timeout=150)
    (forked,), (parent, threads, status) = (line.split() for line in done.stdout.splitlines())
    assert status == "0", done.stderr
    assert abs(float(forked) - float(parent)) < 1e-3 * abs(float(parent))
    assert threads == "2"
