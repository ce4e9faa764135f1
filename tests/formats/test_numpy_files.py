""".npy and .npz files: numpy writes them and says what is in them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tlkit.errors import LoadError
from tlkit.formats.numpy_files import NumpyFile

kinds = (
    hnp.boolean_dtypes() | hnp.integer_dtypes(endianness="?") | hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64))
)
arrays = kinds.flatmap(lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_side=4, min_side=0)))


@settings(max_examples=60, derandomize=True, deadline=None)
@given(value=arrays, fortran=st.booleans())
def test_npy_is_read_as_numpy_reads_it(tmp_path_factory: pytest.TempPathFactory, value: Any, fortran: bool) -> None:
    path = tmp_path_factory.mktemp("n") / "some.npy"
    np.save(path, np.asarray(value, order="F") if fortran else value)
    found = NumpyFile(path)
    (entry,) = found.entries()
    assert (entry.name, entry.shape, entry.nbytes) == ("some", value.shape, value.nbytes)
    np.testing.assert_array_equal(found.array(entry), value)
    assert found.array(entry).dtype == value.dtype.newbyteorder("=")


@settings(max_examples=25, derandomize=True, deadline=None)
@given(values=st.dictionaries(st.text("ab.", min_size=1), arrays, min_size=1, max_size=4), small=st.booleans())
def test_npz_is_read_as_numpy_reads_it(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any], small: bool
) -> None:
    path = tmp_path_factory.mktemp("n") / "x.npz"
    values = {f"k{name.replace('..', '.')}": value for name, value in values.items()}
    (np.savez_compressed if small else np.savez)(path, **values)
    found = NumpyFile(path)
    assert {entry.name: entry.shape for entry in found.entries()} == {name: v.shape for name, v in values.items()}
    for entry in found.entries():
        np.testing.assert_array_equal(found.array(entry), values[entry.name])


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text + data


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"
HOSTILE = {
    "short data": (npy(GOOD, bytes(7)), "should have 8 bytes, and 7 follow"),
    "huge": (npy(GOOD.replace("2", str(1 << 61)), bytes(8)), "follow"),
    "very huge": (npy(GOOD.replace("2", f"{1 << 61}, {1 << 61}"), bytes(8)), "follow"),
    "digits": (npy(GOOD.replace("2", "9" * 5000)), "is not numpy's"),
    "code": (npy("{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': ()}"), "is not numpy's"),
    "deep": (npy("(" * 5000), "is not numpy's"),
    "long header": (b"\x93NUMPY\x02\x00" + (1 << 31).to_bytes(4, "little") + b"{", "should have 2,147,483,648 bytes"),
    "version": (npy(GOOD, bytes(8), version=9), "is not a numpy array"),
    "negative": (npy(GOOD.replace("2", "-2"), bytes(8)), "is not numpy's"),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("packed", [False, True])
def test_hostile_headers_are_refused(tmp_path: Path, case: str, packed: bool) -> None:
    data, says = HOSTILE[case]
    path = tmp_path / "x.npz"
    path.write_bytes(data)
    if packed:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", data)
    with pytest.raises(LoadError) as caught:
        NumpyFile(path)
    assert says in caught.value.message and "\n" not in caught.value.message


def test_objects_are_named_and_never_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", odd=np.array([{}], object), text=np.array(["a"]), good=np.ones(1))
    found = NumpyFile(tmp_path / "x.npz")
    assert [entry.name for entry in found.entries()] == ["good"]
    assert [(item.name, item.kind) for item in found.left_out] == [("odd", "other"), ("text", "other")]


def test_numbers_that_are_not_read_are_left_out_with_their_bytes(tmp_path: Path) -> None:
    wide, record = np.ones(2, np.longdouble), np.zeros(3, [("a", "<f4"), ("b", "<i8")])
    np.savez(tmp_path / "x.npz", wide=wide, record=record)
    left = [(item.name, item.bytes, item.kind) for item in NumpyFile(tmp_path / "x.npz").left_out]
    assert left == [("wide", wide.nbytes, "unread"), ("record", 36, "unread")]


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_second_array_in_a_member_is_named_and_does_not_move_the_first(tmp_path: Path, packed: int) -> None:
    first, second = io.BytesIO(), io.BytesIO()
    np.save(first, np.arange(3.0))
    np.save(second, np.ones(7))
    (tmp_path / "x.npy").write_bytes(first.getvalue() + second.getvalue())
    with zipfile.ZipFile(tmp_path / "x.npz", "w", packed) as archive:
        archive.write(tmp_path / "x.npy", "x.npy")
    for path in (tmp_path / "x.npy", tmp_path / "x.npz"):
        found = NumpyFile(path)
        np.testing.assert_array_equal(found.array(found.entries()[0]), np.arange(3.0))
        ((size, kind),) = [(item.bytes, item.kind) for item in found.left_out]
        assert (size, kind) == (len(second.getvalue()), "unread")


def bomb(tmp_path: Path, name: str = "a.npy", size: int = 400 << 20) -> Path:
    path = tmp_path / "x.npz"
    head = npy(GOOD.replace("2", str(size // 4)))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as out:
        out.write(head)
        for _ in range(size >> 20):
            out.write(bytes(1 << 20))
    return path


def test_a_bomb_is_described_and_not_expanded(tmp_path: Path) -> None:
    found = NumpyFile(bomb(tmp_path))
    (entry,) = found.entries()
    assert entry.nbytes == 400 << 20
    with pytest.raises(LoadError, match=r"expands 1,0[0-9][0-9]-fold"):
        found.array(entry)


def test_a_member_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    np.savez_compressed(out, a=np.zeros(1000, np.float32))
    data = bytearray(out.getvalue())
    place = data.rfind(b"PK\x01\x02")
    data[place + 24 : place + 28] = (4000 + 128 + 4).to_bytes(4, "little")
    (tmp_path / "x.npz").write_bytes(bytes(data))
    found = NumpyFile(tmp_path / "x.npz")
    with pytest.raises(LoadError, match="not what its directory says"):
        found.array(found.entries()[0])


@pytest.mark.parametrize("name", ["../a.npy", "/a.npy", "a/../../b.npy", "..\\a.npy"])
def test_members_may_not_lead_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(LoadError, match="leads out of it"):
        NumpyFile(bomb(tmp_path, name, 1 << 20))
