"""PyTorch's older layout by each of pickle's protocols, pickles that follow one another, and numpy's odder arrays."""

from __future__ import annotations

import enum
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tlkit.formats.base import sniff
from tlkit.formats.describe import open_tensors


class Side(enum.Enum):
    LEFT = 1
    RIGHT = 2


STATE = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, -2], dtype=torch.int16)}


def left(path: Path) -> list[tuple[str, int | None, str]]:
    return [(item.name, item.bytes, item.kind) for item in open_tensors(path).left_out]


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])  # by 0 torch cannot read what it wrote
def test_the_older_layout_by_any_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "old.pt"
    torch.save(STATE, path, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    assert sniff.detect(path) is sniff.Format.PYTORCH
    found = open_tensors(path)
    arrays = {entry.name: found.array(entry) for entry in found.entries()}
    assert arrays.keys() == STATE.keys() and not found.left_out
    for name, tensor in STATE.items():
        np.testing.assert_array_equal(arrays[name], tensor.numpy(), strict=True)


@pytest.mark.parametrize("protocol", [0, 1, 2, 5])
def test_arrays_by_any_protocol(tmp_path: Path, protocol: int) -> None:
    wanted: dict[str, Any] = {"w": np.arange(6.0).reshape(2, 3), "b": np.ones(2, np.int8)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(wanted, protocol))
    found = open_tensors(tmp_path / "x.pkl")
    for entry in found.entries():
        np.testing.assert_array_equal(found.array(entry), wanted[entry.name], strict=True)
    assert len(found.entries()) == 2


def test_what_follows_the_first_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    once = path.read_bytes()
    size = len(once)
    path.write_bytes(once + once)
    assert left(path) == [(f"from byte {size:,} on", size, "unread")]
    path.write_bytes(once + b"some notes")
    assert left(path) == [(f"from byte {size:,} on", 10, "unnamed")]
    arrays = pickle.dumps({"a": np.ones(3)})
    path.write_bytes(arrays + arrays)
    assert left(path) == [(f"from byte {len(arrays):,} on", len(arrays), "unread")]


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.ma.masked_array([1.0, 2.0], [0, 1]), "unread"),
        (np.ones(2, np.longdouble), "unread"),
        (np.array(["2020"], "M8[D]"), "other"),
        (np.zeros(3, [("a", "<f4")]), "unread"),
    ],
)
def test_arrays_that_are_not_read_are_named_with_their_bytes(tmp_path: Path, array: Any, kind: str) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": array, "b": np.ones(2)}, 4))
    ((name, nbytes, said),) = left(tmp_path / "x.pkl")
    assert (name, said) == ("a", kind) and nbytes and nbytes >= array.nbytes
    assert [entry.name for entry in open_tensors(tmp_path / "x.pkl").entries()] == ["b"]


def test_an_uninitialized_parameter_is_named(tmp_path: Path) -> None:
    torch.save({"u": torch.nn.UninitializedParameter(), "w": torch.ones(2)}, tmp_path / "x.pt")
    assert left(tmp_path / "x.pt") == [("u", 0, "unread")]


def test_members_of_an_enumeration_are_told_apart_as_keys(tmp_path: Path) -> None:
    torch.save({Side.LEFT: torch.zeros(1), Side.RIGHT: torch.ones(2)}, tmp_path / "x.pt")
    found = open_tensors(tmp_path / "x.pt")
    named = {entry.name.rpartition(".")[2]: entry.shape for entry in found.entries()}
    assert named == {"Side(1)": (1,), "Side(2)": (2,)}
