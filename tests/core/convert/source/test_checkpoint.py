"""Arguments for the callable, and weights from a file: all of them and no others."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tlkit.core.convert.convert import convert
from tlkit.core.convert.source.source import load_source
from tlkit.core.model.load import load_model
from tlkit.errors import LoadError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
CODE = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self, width=4, depth=1):
        super().__init__(*(nn.Linear(width, width) for _ in range(depth)))
made = Net()
"""


@pytest.fixture
def net(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(CODE)
    return f"{tmp_path / 'net.py'}:Net"


def weights(depth: int = 2, width: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    shapes = {
        f"{i}.{name}": size for i in range(depth) for name, size in (("weight", (width, width)), ("bias", (width,)))
    }
    return {name: torch.randn(size, generator=generator) for name, size in shapes.items()}


def save(path: Path, stored: dict[str, torch.Tensor]) -> None:
    if path.suffix == ".gguf":
        writer = gguf.GGUFWriter(path, "net")
        for name, value in stored.items():
            writer.add_tensor(name, value.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    elif path.suffix == ".pth":
        torch.save(stored, path)
    else:
        save_file(stored, path)


@pytest.mark.parametrize("kind", ["safetensors", "pth", "gguf"])
def test_a_package_has_the_checkpoints_weights(net: str, tmp_path: Path, kind: str) -> None:
    path, stored = tmp_path / f"w.{kind}", weights()
    save(path, stored)
    kwargs = {"width": 6, "depth": 2}
    result = convert(net, tmp_path / "m.mlpackage", inputs=["x=1x6"], kwargs=kwargs, checkpoint=path, precision="f32")
    assert result.ok
    x = np.linspace(-1, 1, 6, dtype=np.float32)[None]
    expected = torch.from_numpy(x)
    for i in range(2):
        expected = expected @ stored[f"{i}.weight"].T + stored[f"{i}.bias"]
    (found,) = load_model(result.path).predict({"x": x}).values()
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("stored", "reason", "hint"),
    [
        (weights(1), "2 missing: 1.bias, 1.weight", "the same names"),
        (weights(3), "2 unexpected: 2.bias, 2.weight", "the same names"),
        (
            {f"net.{name}": value for name, value in weights().items()} | {"0.weight": torch.ones(6, 6)},
            "3 missing.*4 unexpected",
            "the same names",
        ),
        (weights(2, 5), "4 weight.s. of another shape: 0.weight 5x5 for 6x6", "check --kwargs"),
    ],
)
def test_what_does_not_fit(net: str, tmp_path: Path, stored: dict[str, torch.Tensor], reason: str, hint: str) -> None:
    for kind in ("safetensors", "gguf"):
        save(tmp_path / f"w.{kind}", stored)
        with pytest.raises(LoadError, match=reason) as caught:
            load_source(net, {"width": 6, "depth": 2}, tmp_path / f"w.{kind}")
        assert hint in caught.value.hint


@pytest.mark.parametrize("prefix", ["module.", "state_dict.model."])
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_a_prefix_that_all_names_share_is_cut_and_said(net: str, tmp_path: Path, prefix: str, kind: str) -> None:
    stored = weights()
    save(tmp_path / f"w.{kind}", {f"{prefix}{name}": value for name, value in stored.items()})
    loaded = load_source(net, {"width": 6, "depth": 2}, tmp_path / f"w.{kind}")
    for name, value in loaded.module.state_dict().items():
        assert torch.equal(value, stored[name])
    assert loaded.notes == (f"the prefix '{prefix}' is cut from all names of the checkpoint",)


def test_a_prefix_that_is_asked_for_leaves_the_rest_out(net: str, tmp_path: Path) -> None:
    """Two models in one file, as training with a moving average leaves it."""
    model, average = weights(), {name: value + 1 for name, value in weights().items()}
    torch.save(
        {"model": model, "ema": average, "optimizer": {"state": {0: torch.ones(3)}, "param_groups": []}},
        tmp_path / "w.pth",
    )
    loaded = load_source(net, {"width": 6, "depth": 2}, tmp_path / "w.pth", strip_prefix="ema.")
    for name, value in loaded.module.state_dict().items():
        assert torch.equal(value, average[name])
    assert len(loaded.notes) == 2 and "4 tensors whose names do not begin with 'ema.'" in loaded.notes[1]


def test_a_checkpoint_is_never_unpickled(net: str, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "was_here"),)

    (tmp_path / "w.pth").write_bytes(pickle.dumps({"0.weight": Evil()}))
    with pytest.raises(LoadError):
        load_source(net, None, tmp_path / "w.pth")
    assert not (tmp_path / "was_here").exists()


def test_arguments_that_nothing_takes(net: str) -> None:
    with pytest.raises(LoadError, match="unexpected keyword argument 'size'"):
        load_source(net, {"size": 3})
    with pytest.raises(UsageError, match="takes no --kwargs"):
        load_source(net.replace(":Net", ":made"), {"width": 3})
    with pytest.raises(UsageError, match="takes no --kwargs"):
        load_source("resnet50", {"depth": 3})
    with pytest.raises(LoadError, match="no such file"):
        load_source(net, None, "nowhere.safetensors")
