"""``.pt2`` archives: what they take comes with them, and none of what they hold is run.

Covers tlkit/core/convert/source/pt2.py, tlkit/core/convert/source/opened.py.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tlkit.core.convert.convert import convert
from tlkit.core.model.load import load_model
from tlkit.errors import LoadError, UsageError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)

    def forward(self, image: Tensor, weight: Tensor) -> dict[str, Tensor]:
        hidden = self.layer(image)
        return {"scores": hidden.softmax(-1), "weighted": hidden * weight}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    batch = torch.export.Dim("batch", min=1, max=16)
    shapes = {"image": {0: batch}, "weight": None}
    program = torch.export.export(Net(), (torch.randn(2, 4),), {"weight": torch.randn(3)}, dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


def test_names_shapes_and_ranges_come_with_it(saved: Path, tmp_path: Path) -> None:
    result = convert(saved, tmp_path / "m.mlpackage", precision="f32")
    assert result.ok
    image, weight = result.info.inputs
    assert (image.name, image.ranges) == ("image", ((1, 16), (4, 4)))
    assert (weight.name, weight.shape, weight.ranges) == ("weight", (3,), ())
    assert [port.name for port in result.info.outputs] == ["scores", "weighted"]
    x, w = np.random.default_rng(3).standard_normal((5, 4), np.float32), np.array([1, 2, 3], np.float32)
    found = load_model(result.path).predict({"image": x, "weight": w})
    with torch.no_grad():
        expected = Net()(torch.from_numpy(x), torch.from_numpy(w))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value.numpy(), atol=1e-5)


def test_inputs_of_the_users_own(saved: Path, tmp_path: Path) -> None:
    result = convert(saved, tmp_path / "m.mlpackage", inputs=["weight=3", "image=1x4"], output_names=["p", "q"])
    assert result.ok
    assert {port.name: port.shape for port in result.info.inputs} == {"image": (1, 4), "weight": (3,)}
    assert [port.name for port in result.info.outputs] == ["p", "q"]
    with pytest.raises(UsageError, match="exported program of 2"):
        convert(saved, tmp_path / "n.mlpackage", inputs=["image=1x4"])


def rewritten(source: Path, goal: Path, change: Callable[[str, bytes], bytes]) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(goal, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return goal


def replaced(name_end: str, old: str, new: str) -> Callable[[str, bytes], bytes]:
    def change(name: str, data: bytes) -> bytes:
        if not name.endswith(name_end):
            return data
        assert old.encode() in data
        return data.replace(old.encode(), new.encode(), 1)

    return change


@pytest.mark.parametrize(
    ("what", "reason"),
    [("expression", "expression"), ("target", "a call of"), ("tensor", "pickled")],
)
def test_nothing_of_it_is_run(saved: Path, tmp_path: Path, what: str, reason: str) -> None:
    mark = tmp_path / "was_here"
    bomb = f"__import__('os').mkdir('{mark}')"
    model = json.loads(zipfile.ZipFile(saved).read("net/models/model.json"))
    target = model["graph_module"]["graph"]["nodes"][0]["target"]
    symbol = next(iter(model["range_constraints"]))
    changes = {
        "expression": replaced("model.json", f"Symbol('{symbol}', positive=True, integer=True)", bomb),
        "target": replaced("model.json", target, "torch.hub.load"),
        "tensor": replaced("weights_config.json", '"use_pickle": false', '"use_pickle": true'),
    }
    evil = rewritten(saved, tmp_path / "net.pt2", changes[what])
    with pytest.raises(LoadError, match=reason):
        convert(evil, tmp_path / "m.mlpackage")
    assert not mark.exists()
    assert not (tmp_path / "m.mlpackage").exists()


def test_damage_is_told(saved: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pt2"
    shutil.copy(saved, cut)
    os.truncate(cut, cut.stat().st_size // 2)
    with pytest.raises(LoadError, match="directory of members is missing"):
        convert(cut, tmp_path / "m.mlpackage")
