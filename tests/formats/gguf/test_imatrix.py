"""Importance matrices: both forms, what they do to a conversion, and files that are none."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlkit import convert_weights
from tlkit.core.weights.data import whole_rows
from tlkit.errors import LoadError, TlkitError, UsageError
from tlkit.formats.gguf.imatrix import read_imatrix
from tlkit.formats.gguf.quants import quantize
from tlkit.formats.gguf.read import GGUFFile

Sums = dict[str, tuple[np.ndarray[Any, Any], list[float]]]


def as_gguf(path: Path, sums: Sums) -> Path:
    """As llama.cpp's imatrix writes it: sums of squares [matrices, columns], counts [matrices, 1]."""
    writer = gguf.GGUFWriter(path, "imatrix")
    writer.add_string("general.type", "imatrix")
    for name, (values, counts) in sums.items():
        writer.add_tensor(f"{name}.in_sum2", values.astype(np.float32))
        writer.add_tensor(f"{name}.counts", np.array(counts, np.float32)[:, None])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def as_dat(entries: dict[str, tuple[int, np.ndarray[Any, Any]]]) -> bytes:
    made = struct.pack("<i", len(entries))
    for name, (calls, values) in entries.items():
        raw = name.encode()
        made += struct.pack("<i", len(raw)) + raw + struct.pack("<ii", calls, values.size)
        made += values.astype("<f4").tobytes()
    return made + struct.pack("<ii", 7, 3) + b"set"


def test_both_forms_are_means(tmp_path: Path) -> None:
    sums = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    found = read_imatrix(as_gguf(tmp_path / "i.gguf", {"blk.0.ffn_up_exps.weight": (sums, [2, 0, 4])}))
    assert list(found) == ["blk.0.ffn_up_exps.weight"]
    assert np.array_equal(found["blk.0.ffn_up_exps.weight"], np.stack([sums[0] / 2, np.ones(4), sums[2] / 4]))
    file = tmp_path / "i.dat"
    file.write_bytes(as_dat({"a.weight": (4, sums[0]), "b.weight": (0, sums[1])}))
    old = read_imatrix(file)
    assert np.array_equal(old["a.weight"], sums[:1] / 4)
    assert np.array_equal(old["b.weight"], sums[1:2])


def model(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """A file of three weights, one of them of experts."""
    draw = np.random.default_rng(5)
    made = {
        "blk.0.ffn_up.weight": draw.standard_normal((6, 512)),
        "blk.0.ffn_up_exps.weight": draw.standard_normal((3, 4, 256)),
        "token_embd.weight": draw.standard_normal((8, 256)),
    }
    writer = gguf.GGUFWriter(path, "llama")
    for name, values in made.items():
        made[name] = values.astype(np.float32)
        writer.add_tensor(name, made[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return made


@pytest.mark.parametrize("kind", ["q4_k", "q5_0:pure"])
def test_conversions_weigh_each_matrix_by_its_own(tmp_path: Path, kind: str) -> None:
    made, draw = model(tmp_path / "m.gguf"), np.random.default_rng(6)
    up, experts = draw.random(512).astype(np.float32), draw.random((3, 256)).astype(np.float32)
    matrix = as_gguf(
        tmp_path / "i.gguf",
        {"blk.0.ffn_up.weight": (up[None], [1]), "blk.0.ffn_up_exps.weight": (experts, [1, 1, 1])},
    )
    result = convert_weights(tmp_path / "m.gguf", tmp_path / "q.gguf", quantize=kind, imatrix=matrix)
    file = GGUFFile(tmp_path / "q.gguf")
    raw = {entry.name: bytes(file.raw(entry)) for entry in file.entries()}
    name = kind.upper().removesuffix(":PURE")
    assert raw["blk.0.ffn_up.weight"] == quantize(made["blk.0.ffn_up.weight"], name, up).tobytes()
    parts = zip(made["blk.0.ffn_up_exps.weight"], experts, strict=True)
    assert raw["blk.0.ffn_up_exps.weight"] == b"".join(quantize(part, name, row).tobytes() for part, row in parts)
    assert raw["token_embd.weight"] == quantize(made["token_embd.weight"], name).tobytes()
    assert any("1 of 3 matrices are not in the importance matrix" in note for note in result.notes)


def test_a_matrix_of_another_model_is_refused(tmp_path: Path) -> None:
    model(tmp_path / "m.gguf")
    wrong = as_gguf(tmp_path / "i.gguf", {"blk.0.ffn_up.weight": (np.ones((1, 256)), [1])})
    other = as_gguf(tmp_path / "o.gguf", {"blk.9.ffn_up.weight": (np.ones((1, 512)), [1])})
    goal = tmp_path / "q.gguf"
    with pytest.raises(UsageError, match=r"256 weights for 'blk\.0\.ffn_up\.weight', which has 512 columns"):
        convert_weights(tmp_path / "m.gguf", goal, quantize="q4_k", imatrix=wrong)
    with pytest.raises(UsageError, match="none of its 1 names"):
        convert_weights(tmp_path / "m.gguf", goal, quantize="q4_k", imatrix=other)
    with pytest.raises(UsageError, match="nothing is quantized"):
        convert_weights(tmp_path / "m.gguf", goal, imatrix=wrong)
    assert not goal.exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (b"", "too short"),
        (b"\0\0\0\0", "count of entries is 0"),
        (struct.pack("<i", 2**31 - 1), "count of entries"),
        (struct.pack("<ii", 1, 2**30), "length of entry 1's name"),
        (struct.pack("<ii", 1, 1) + b"a" + struct.pack("<ii", 1, 2**30), "ends within the values"),
        (struct.pack("<ii", 1, 1) + b"a" + struct.pack("<ii", 1, -4), "entry 1's values is -4"),
        (as_dat({"a": (1, np.array([1.0, np.nan]))}), "not finite"),
        (as_dat({"a": (1, np.array([1.0, -1.0]))}), "negative"),
    ],
)
def test_what_is_none_says_so(tmp_path: Path, damage: bytes, said: str) -> None:
    file = tmp_path / "i.dat"
    file.write_bytes(damage)
    with pytest.raises(LoadError, match=said):
        read_imatrix(file)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_bytes_are_errors_or_matrices(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = tmp_path_factory.mktemp("imatrix") / "i.dat"
    whole = bytearray(as_dat({"a.weight": (2, np.ones(4)), "b.weight": (1, np.ones(2))}))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        found = read_imatrix(file)
    except TlkitError:
        return
    assert all(np.isfinite(values).all() for values in found.values())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 7), st.integers(1, 50))
def test_rows_stay_whole_and_in_order(matrices: int, each: int, width: int, piece: int) -> None:
    values = np.arange(matrices * each * width, dtype=np.float32)
    pieces = (values[start : start + piece] for start in range(0, values.size, piece))
    found = list(whole_rows(pieces, (matrices, each, width), matrices))
    assert np.array_equal(np.concatenate([rows for rows, _ in found]), values)
    for rows, matrix in found:
        assert rows.size % width == 0
        assert set((rows // (each * width)).astype(int)) == {matrix}
