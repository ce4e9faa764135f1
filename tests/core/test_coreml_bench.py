"""The path of a Mac, from end to end, with ``tlkit.anywhere`` behind coremltools in place of Apple's runtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="Core ML itself is here")


@pytest.mark.slow
def test_four_settings_load_one_compiled_model(tmp_path: Path) -> None:
    """Every interpreter, the children's too, starts with the stand-in in place."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec((1, 4))])
    def double(x: Any) -> Any:
        return mb.add(x=x, y=x, name="y")

    package = tmp_path / "double.mlpackage"
    ct.convert(double, convert_to="mlprogram", skip_model_load=True).save(str(package))
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text("import tlkit.anywhere\ntlkit.anywhere.install()\n")
    command = [sys.executable, "-m", "tlkit", "bench", str(package), "--units", "cpu,ane", "-n", "10", "--warmup", "1"]
    environment = os.environ | {"PYTHONPATH": str(hooks), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [row["unit"] for row in document["rows"]] == ["cpu", "ane"]
    for row in document["rows"]:
        assert (row["status"], row["backend"], len(row["samples_ns"])) == ("measured", "Core ML", 10)
        for cost in ("load_first_ns", "load_warm_ns", "first_inference_ns", "convert_ns"):
            assert row[cost] > 0
        assert "no compute plan" in row["placement_note"] and row["placement"] is None
