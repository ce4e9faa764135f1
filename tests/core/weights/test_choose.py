"""What is converted of a file, and what is left out: training state, unreadable tensors, prefixes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tlkit.core.weights.weights import convert_weights
from tlkit.errors import IncompleteError, UsageError


def checkpoint(path: Path, prefix: str = "") -> Path:
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {f"{prefix}{name}": value for name, value in net.state_dict().items()}
    torch.save({"state_dict": state, "optimizer_states": [optimizer.state_dict()], "epoch": 1}, path)
    return path


def test_an_optimizers_state_comes_along_only_if_asked_for(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "x.ckpt")
    result = convert_weights(source, tmp_path / "x.safetensors")
    assert sorted(load_file(tmp_path / "x.safetensors")) == ["bias", "weight"]
    assert {item.kind for item in result.left_out} == {"unasked"} and "--all" in " ".join(result.notes)
    everything = convert_weights(source, tmp_path / "y.safetensors", all_tensors=True)
    assert everything.tensors == 2 + len(result.left_out) and not everything.left_out
    assert "state_dict.weight" in load_file(tmp_path / "y.safetensors")


def test_a_file_of_nothing_but_training_state_is_converted(tmp_path: Path) -> None:
    torch.save({"optimizer": {"state": {0: {"m": torch.ones(2)}}, "param_groups": []}}, tmp_path / "x.pt")
    assert convert_weights(tmp_path / "x.pt", tmp_path / "x.safetensors").tensors == 1


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module."])
def test_wrappers_prefixes_are_cut_and_said(tmp_path: Path, prefix: str) -> None:
    result = convert_weights(checkpoint(tmp_path / "x.ckpt", prefix), tmp_path / "x.safetensors")
    assert sorted(load_file(tmp_path / "x.safetensors")) == ["bias", "weight"]
    assert sum("is cut" in note for note in result.notes) == 1 + prefix.count(".")
    convert_weights(tmp_path / "x.ckpt", tmp_path / "y.safetensors", names="keep")
    assert f"state_dict.{prefix}bias" in load_file(tmp_path / "y.safetensors")


def test_a_prefix_that_is_named(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "x.ckpt", "net.")
    convert_weights(source, tmp_path / "x.safetensors", strip_prefix="state_dict.net.")
    assert sorted(load_file(tmp_path / "x.safetensors")) == ["bias", "weight"]
    with pytest.raises(UsageError, match="no tensor's name begins"):
        convert_weights(source, tmp_path / "y.safetensors", strip_prefix="nothing.")


def test_what_cannot_be_read_stops_the_conversion(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), "s": torch.eye(3).to_sparse()}, tmp_path / "x.pt")
    with pytest.raises(IncompleteError, match=r"'s'.*sparse"):
        convert_weights(tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()
    result = convert_weights(tmp_path / "x.pt", tmp_path / "x.safetensors", allow_missing=True)
    assert result.tensors == 1 and [item.name for item in result.left_out] == ["s"]
