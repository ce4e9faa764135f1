"""Two files side by side: what is the same, what is not, and by how much.

Covers tlkit/formats/hashes.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.formats import packages
from tlkit.core.compare.difference import difference
from tlkit.core.compare.tensors import FileDifference, TensorDifference, diff_infos, diff_tensors
from tlkit.formats.describe import describe, open_tensors


def files(tmp_path: Path, first: dict[str, Any], second: dict[str, Any]) -> dict[str, TensorDifference]:
    save_file(first, tmp_path / "a.safetensors")
    torch.save(second, tmp_path / "b.pt")
    pair = open_tensors(tmp_path / "a.safetensors"), open_tensors(tmp_path / "b.pt")
    return {found.name: found for found in diff_tensors(*pair)}


def test_each_status(tmp_path: Path) -> None:
    one = torch.arange(6.0)
    first = {name: one.clone() for name in ("same", "half", "other", "shape", "gone")}
    second = {"same": one, "half": one.half(), "other": one + 1, "shape": one.reshape(2, 3), "new": one}
    found = files(tmp_path, first, second)
    assert {name: item.status for name, item in found.items()} == {
        "same": "same",
        "half": "type",
        "other": "differs",
        "shape": "shape",
        "gone": "missing",
        "new": "added",
    }
    assert found["half"].dtypes == ("F32", "F16") and found["other"].max_abs == 1.0
    assert not FileDifference((), tuple(found.values())).same
    assert FileDifference((), (found["same"], found["half"])).same


@pytest.mark.parametrize("turned", [False, True])
def test_names_of_gguf_and_hugging_face_meet(tmp_path: Path, turned: bool) -> None:
    matrix = np.arange(64, dtype=np.float32).reshape(2, 32)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    for name, values in (("blk.3.ffn_down.weight", matrix), ("token_embd.weight", matrix + 1), ("mine", matrix)):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    hub = {"model.layers.3.mlp.down_proj.weight": matrix, "model.embed_tokens.weight": matrix}
    save_file({name: torch.from_numpy(values.copy()) for name, values in hub.items()}, tmp_path / "b.safetensors")
    pair = [open_tensors(tmp_path / "a.gguf"), open_tensors(tmp_path / "b.safetensors")]
    found = {item.name: item.status for item in diff_tensors(*(reversed(pair) if turned else pair))}
    first = list(hub) if turned else ["blk.3.ffn_down.weight", "token_embd.weight"]
    assert found == {first[0]: "same", first[1]: "differs", "mine": "added" if turned else "missing"}


@pytest.mark.parametrize("turned", [False, True])
def test_figures_are_those_of_the_arrays_at_once(tmp_path: Path, turned: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(400, 500, generator=generator)
    b = a + 0.01 * torch.randn(400, 500, generator=generator)
    b[0, 0], b[1, 1], a[2, 2], b[2, 2] = torch.nan, torch.inf, torch.nan, torch.nan
    found = (
        files(tmp_path, {"x": a.T.contiguous()}, {"x": b.T})["x"]
        if turned
        else files(tmp_path, {"x": a}, {"x": b})["x"]
    )
    theirs = difference(a.numpy(), b.numpy())
    assert found.max_abs == pytest.approx(theirs.max_abs) and found.cosine == pytest.approx(theirs.cosine)
    assert (found.not_finite, found.status) == (theirs.not_finite, "differs") == (2, "differs")
    both_nan = torch.isnan(a) & torch.isnan(b)
    assert found.unequal == int(((a != b) & ~both_nan).sum())


def test_zeros_agree_and_nan_in_the_same_place_is_the_same(tmp_path: Path) -> None:
    values = torch.tensor([0.0, torch.nan, torch.inf])
    found = files(tmp_path, {"x": values, "z": torch.zeros(3)}, {"x": values, "z": torch.zeros(3)})
    assert found["x"].status == found["z"].status == "same" and found["z"].cosine == 1.0
    zero = files(tmp_path, {"z": torch.zeros(3)}, {"z": torch.ones(3)})["z"]
    assert zero.cosine == 0.0 and zero.relative == np.inf


def test_descriptions_differ_in_what_they_say(tmp_path: Path) -> None:
    first, second = packages.classifier(tmp_path / "a.mlpackage"), packages.linear(tmp_path / "b.mlpackage")
    facts = {what: (a, b) for what, a, b in diff_infos(describe(first), describe(second))}
    assert "inputs" in facts and facts["labels"] == (tuple(packages.LABELS), ())
    assert diff_infos(describe(first), describe(first)) == ()
    assert not FileDifference(tuple((what, *pair) for what, pair in facts.items()), ()).same
