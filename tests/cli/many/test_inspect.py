"""`tlkit inspect FOLDER` with options that look into models is what the command says of each model by itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.cli.commands import Shell
from tests.formats import packages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")


def test_each_model_of_a_folder(tlkit: Shell, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    packages.linear(zoo / "a.mlpackage")
    save_file({"w": np.arange(6, dtype=np.float32)}, zoo / "b.safetensors")
    (zoo / "damaged.mlpackage").mkdir()
    ran = tlkit("inspect", zoo, "--stats", "--jobs", "2", "--json")
    rows = {Path(row["path"]).name: row for row in map(json.loads, ran.out.splitlines())}
    assert ran.code == 4 and sorted(rows) == ["a.mlpackage", "b.safetensors", "damaged.mlpackage"]
    for name in ("a.mlpackage", "b.safetensors"):
        assert rows[name]["inspection"] == tlkit("inspect", zoo / name, "--stats", "--json").json()
    assert rows["damaged.mlpackage"]["status"] == "failed" and "damaged" in rows["damaged.mlpackage"]["error"]
    assert len(tlkit("inspect", zoo, "--json").json()["models"]) == 3  # a list, as ever
    refused = tlkit("inspect", zoo, "--graph", tmp_path / "g.html")
    assert refused.code == 2 and "is about one model" in refused.err
    refused = tlkit("inspect", zoo / "a.mlpackage", "--jobs", "2")
    assert refused.code == 2 and "goes with a folder of models" in refused.err
