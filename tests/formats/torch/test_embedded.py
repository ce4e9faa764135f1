"""Tensors that were pickled without torch.save, against pickle itself."""

from __future__ import annotations

import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tlkit.errors import LoadError, TlkitError
from tlkit.formats.describe import open_tensors

SHARED = torch.arange(200_000, dtype=torch.float32)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_tensors_of_a_plain_pickle_dump(protocol: int, tmp_path: Path) -> None:
    held = {
        "a.weight": torch.arange(12.0).reshape(3, 4).T,
        "inner": {"b": torch.ones(3, dtype=torch.bfloat16) * 3, "flags": torch.tensor([True, False])},
        "same": torch.arange(12.0),
        "also": torch.arange(12.0),  # the very same bytes, in another storage
        "large": SHARED[5:150_000],
        "list": [torch.tensor(7), 5],
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(held, protocol=protocol))
    file = open_tensors(tmp_path / "a.pkl")
    wanted = {**{key: held[key] for key in ("a.weight", "same", "also", "large")}, "list.0": torch.tensor(7)}
    inner: Any = held["inner"]
    wanted |= {f"inner.{key}": value for key, value in inner.items()}
    assert {entry.name for entry in file.entries()} == set(wanted)
    for entry in file.entries():
        assert np.array_equal(file.array(entry), wanted[entry.name].to(torch.float64).numpy()), entry.name
    given = sum(entry.nbytes for entry in file.entries())
    assert given + sum(item.bytes or 0 for item in file.left_out) == sum(
        value.untyped_storage().nbytes() for value in wanted.values()
    )


def test_the_oldest_protocols_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": torch.ones(2)}, protocol=2))
    with pytest.raises(LoadError, match="written as text, as pickle's protocols up to 2 do"):
        open_tensors(tmp_path / "a.pkl")


def test_a_module_pickled_whole(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 3)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(module))
    file = open_tensors(tmp_path / "a.pkl")
    assert {entry.name: entry.shape for entry in file.entries()} == {"weight": (3, 2), "bias": (3,)}
    assert all(np.array_equal(file.array(e), module.state_dict()[e.name].numpy()) for e in file.entries())


WHOLE = pickle.dumps({"a": torch.arange(6.0)})


@given(place=st.integers(0, len(WHOLE) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_is_an_error_or_a_value(tmp_path_factory: pytest.TempPathFactory, place: int, byte: int) -> None:
    path = tmp_path_factory.mktemp("changed") / "a.pkl"
    path.write_bytes(WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :])
    with suppress(TlkitError):
        file = open_tensors(path)
        for entry in file.entries():
            assert file.array(entry).shape == entry.shape
