"""PyTorch's files: torch.save writes them, torch.load(weights_only=True) says what is in the sound ones.

Covers tlkit/formats/torch/export.py, tlkit/formats/torch/objects.py, tlkit/formats/torch/pickle.py,
tlkit/formats/torch/pickle_machine.py.
"""

from __future__ import annotations

import os
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.tensor_seeds import Small
from tlkit.errors import LoadError
from tlkit.formats.torch.pickle import read_pickle, unexpected
from tlkit.formats.torch.pickle_machine import Call, Dict
from tlkit.formats.torch.read import PyTorchFile

TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8, torch.float8_e4m3fn]
TYPES += [torch.uint16, torch.complex64, torch.float64]
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
states = st.dictionaries(st.text(min_size=1, max_size=9), st.tuples(st.sampled_from(TYPES), shapes), max_size=5)


def expected(value: torch.Tensor) -> Any:
    strange = value.dtype in (torch.bfloat16, torch.float8_e4m3fn)
    return value.detach().to(torch.float32).numpy() if strange else value.detach().numpy()


def check(path: Path, state: dict[str, torch.Tensor], prefix: str = "") -> PyTorchFile:
    found = PyTorchFile(path)
    assert {entry.name for entry in found.entries()} == {f"{prefix}{name}" for name in state}
    for entry in found.entries():
        value = state[entry.name.removeprefix(prefix)]
        assert entry.shape == value.shape
        np.testing.assert_array_equal(found.array(entry), expected(value))
    return found


@settings(max_examples=40, derandomize=True, deadline=None)
@given(wanted=states, zipped=st.booleans(), turn=st.booleans())
def test_state_dicts_are_read_as_torch_reads_them(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, Any], zipped: bool, turn: bool
) -> None:
    path = tmp_path_factory.mktemp("p") / "x.pt"
    state = {
        name: (torch.randint(0, 2, shape) if dtype is torch.bool else torch.randn(shape)).to(dtype)
        for name, (dtype, shape) in wanted.items()
    }
    if turn:
        state = {name: value.T if value.ndim == 2 else value for name, value in state.items()}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    # (torch cannot load its own older layout where that holds one of the newer types)
    found = check(path, torch.load(path, weights_only=True) if zipped else state)
    assert found.kind == "state_dict" and not unexpected(found.imports)


@pytest.mark.parametrize("zipped", [True, False])
def test_views_and_shared_storages(tmp_path: Path, zipped: bool) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    state = {"whole": whole, "row": whole[2], "column": whole[:, 1], "block": whole[1:3, 2:4], "step": whole[::2]}
    state |= {"spread": whole[0, :1].expand(3, 5), "scalar": whole[3, 3], "none": whole[:0]}
    torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = check(tmp_path / "x.pt", state)
    assert len({entry.storage for entry in found.entries()}) == 1
    strides = {entry.name: entry.strides for entry in found.entries()}
    assert strides["whole"] == strides["row"] == () and strides["column"] == (6,) and strides["spread"] == (0, 0)


def test_big_endian_checkpoints(tmp_path: Path) -> None:
    state = {"a": torch.arange(4.0), "b": torch.ones(2, dtype=torch.bfloat16), "c": torch.tensor([1, 2])}
    torch.serialization.set_default_load_endianness(None)
    path, turned = tmp_path / "x.pt", tmp_path / "y.pt"
    torch.save(state, path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(turned, "w") as goal:
        sizes = iter((4, 2, 8))
        for info in source.infolist():
            data = source.read(info)
            if "/data/" in info.filename:
                data = np.frombuffer(data, f"<u{next(sizes)}").byteswap().tobytes()
            goal.writestr(info.filename, b"big" if info.filename.endswith("byteorder") else data)
    check(turned, torch.load(turned, weights_only=True))
    check(turned, state)


def test_compressed_archives_are_expanded(tmp_path: Path) -> None:
    state = {"a": torch.zeros(1000), "b": torch.arange(4.0)}
    torch.save(state, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as source, zipfile.ZipFile(tmp_path / "y.pt", "w", 8) as goal:
        for info in source.infolist():
            goal.writestr(info.filename, source.read(info))
    check(tmp_path / "y.pt", state)


def test_a_checkpoint_says_what_else_it_holds(tmp_path: Path) -> None:
    module = Small()
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {"state_dict": module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "best": 0.5}
    torch.save(content, tmp_path / "x.ckpt")
    found = PyTorchFile(tmp_path / "x.ckpt")
    assert found.kind == "checkpoint" and found.metadata["epoch"] == 3 and found.metadata["best"] == 0.5
    names = {entry.name for entry in found.entries()}
    assert {f"state_dict.{name}" for name in module.state_dict()} <= names
    assert "optimizer.state.0.exp_avg" in names


def test_a_whole_module_has_its_state_dicts_names(tmp_path: Path) -> None:
    module = Small()
    torch.save(module, tmp_path / "x.pt")
    found = PyTorchFile(tmp_path / "x.pt")
    state = module.state_dict()
    assert found.kind == "module" and found.details["class"].endswith("Small")
    assert [entry.name for entry in found.entries()] == sorted(state, key=list(state).index)
    for entry in found.entries():
        np.testing.assert_array_equal(found.array(entry), expected(state[entry.name]))
    assert unexpected(found.imports) == (found.details["class"],)


class Tied(torch.nn.Module):
    """One layer under two names, in a block that is there twice itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Sequential(torch.nn.Linear(3, 4))
        self.head = self.first[0]
        self.second = self.first


def test_a_module_under_two_names_has_its_tensors_twice_as_in_a_state_dict(tmp_path: Path) -> None:
    torch.save(Tied(), tmp_path / "x.pt")
    found = PyTorchFile(tmp_path / "x.pt")
    assert [entry.name for entry in found.entries()] == list(Tied().state_dict())


def test_torchscript_shows_its_signature(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).eval()
    torch.jit.script(module).save(tmp_path / "x.pt")
    found = check(tmp_path / "x.pt", module.state_dict())
    assert found.kind == "TorchScript" and found.details["forward"] == "(input: Tensor) -> Tensor"
    assert not unexpected(found.imports)


def test_exported_programs_show_ports_and_operations(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()).eval()
    dynamic = ({0: torch.export.Dim("batch", min=2, max=64)},)
    torch.export.save(torch.export.export(module, (torch.ones(4, 3),), dynamic_shapes=dynamic), tmp_path / "x.pt2")
    found = check(tmp_path / "x.pt2", module.state_dict())
    assert found.kind == "exported program" and found.details["operations"]["aten.relu.default"] == 1
    (port,) = found.details["inputs"]
    assert (port["dtype"], port["shape"][1]) == ("F32", 3) and isinstance(port["shape"][0], str)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch " + str(EVIDENCE),)


EVIDENCE = Path("/tmp/tlkit-test-pickle-was-run")


@pytest.mark.parametrize("protocol", range(6))
def test_what_a_pickle_would_run_is_named_and_not_run(tmp_path: Path, protocol: int) -> None:
    data = pickle.dumps({"weights": Evil()}, protocol=protocol)
    found = read_pickle(memoryview(data), "x")
    assert unexpected(found.imports) == (f"{os.system.__module__}.system",) and not EVIDENCE.exists()
    torch.save({"a": torch.ones(1), "b": Evil()}, tmp_path / "x.pt", pickle_protocol=max(protocol, 2))
    opened = PyTorchFile(tmp_path / "x.pt")
    assert unexpected(opened.imports) == (f"{os.system.__module__}.system",)
    np.testing.assert_array_equal(opened.array(opened.entries()[0]), [1.0])
    assert not EVIDENCE.exists()


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "torch.storage._load_from_bytes",
        "torch.hub.load",
        "builtins.eval",
        "torch.nn.modules.module.os.system",
    ],
)
def test_imports_beyond_weights_are_unexpected(name: str) -> None:
    assert unexpected((name, "collections.OrderedDict", "torch.FloatStorage")) == (name,)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


def rebuilt(value: Any) -> Any:
    """Turn stand-ins back into what plain data they stand for."""
    if isinstance(value, Dict):
        return {key: rebuilt(item) for key, item in value.pairs}
    if isinstance(value, Call):  # protocols 0 to 2 write bytes as text and its encoding
        name = str(value.func).partition(".")[2]
        return b"" if name == "bytes" else rebuilt(value.args[0]).encode(value.args[1])
    if isinstance(value, list | tuple):
        return type(value)(map(rebuilt, value))
    return value


@settings(max_examples=80, derandomize=True, deadline=None)
@given(value=plain, protocol=st.integers(0, 5))
def test_plain_data_come_out_as_pickle_loads_them(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol=protocol)
    found = read_pickle(memoryview(data + b"more"), "x")
    assert rebuilt(found.root) == pickle.loads(data) == value
    assert found.end == len(data) == sum(1 for _ in data)
    assert all(name.partition(".")[2] in ("encode", "bytes") for name in found.imports)


HOSTILE = {
    "stack underflow": b"\x80\x020.",
    "memo of nothing": b"\x80\x02h\x05.",
    "global of numbers": b"\x80\x04K\x01K\x02\x93.",
    "setitem on a number": b"\x80\x02K\x01K\x02K\x03s.",
    "a long past the end": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a string past the end": b"\x80\x04\x8d" + (1 << 62).to_bytes(8, "little") + b"x.",
    "no end": b"\x80\x02]",
    "digits": b"I" + b"9" * 10_000 + b"\n.",
    "no mark": b"\x80\x02t.",
    "odd items": b"\x80\x02}(K\x01u.",
    "no opcode": b"\x80\x02\xfe.",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_broken_pickles_are_refused_in_a_line(case: str) -> None:
    with pytest.raises(LoadError, match=r"^x: not a readable pickle") as caught:
        read_pickle(memoryview(HOSTILE[case]), "x")
    assert "\n" not in caught.value.message


def test_a_tuple_in_itself_a_thousand_times_over_is_walked_once(tmp_path: Path) -> None:
    """The billion laughs: 2^60 paths lead to one tensor, and one dictionary holds itself."""
    inner: Any = [torch.ones(1)]
    for _ in range(60):
        inner = [inner, inner]
    loop: dict[str, Any] = {"inner": inner}
    loop["self"] = loop
    torch.save(loop, tmp_path / "x.pt")
    assert len(PyTorchFile(tmp_path / "x.pt").entries()) == 1
    twice: Any = (torch.ones(1),)
    for _ in range(60):
        twice = (twice, twice)
    torch.save(twice, tmp_path / "y.pt")
    assert len(PyTorchFile(tmp_path / "y.pt").entries()) == 1


def test_nesting_has_an_end(tmp_path: Path) -> None:
    deep: Any = torch.ones(1)
    for _ in range(100):
        deep = [deep]
    torch.save(deep, tmp_path / "x.pt")
    with pytest.raises(LoadError, match="nested over"):
        PyTorchFile(tmp_path / "x.pt")


def test_too_many_opcodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlkit.formats.torch.pickle._OPCODES", 10_000)
    with pytest.raises(LoadError, match="over 10,000 opcodes in one pickle"):
        read_pickle(memoryview(b"\x80\x02" + b"N0" * 10_000 + b"."), "x")


def test_blobs_are_stepped_over() -> None:
    data = pickle.dumps([b"\1" * (5 << 20), "x" * (3 << 20), 7], protocol=4)
    blob, text, number = read_pickle(memoryview(data), "x").root
    assert (len(blob), number) == (5 << 20, 7) and text.startswith("x")


def rewritten(path: Path, change: Any) -> Path:
    """Copy an archive; ``change(name, data)`` gives each member's new bytes, None to leave it out."""
    goal = path.with_name("changed.pt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(goal, "w") as out:
        for info in source.infolist():
            data = change(info.filename, source.read(info))
            if data is not None:
                out.writestr(info.filename, data)
    return goal


def test_damaged_storages_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.arange(100.0)}, tmp_path / "x.pt")
    short = rewritten(tmp_path / "x.pt", lambda name, data: data[:300] if name.endswith("data/0") else data)
    with pytest.raises(LoadError, match="'weight' reads past the end of its storage of 300 bytes"):
        PyTorchFile(short)
    gone = rewritten(tmp_path / "x.pt", lambda name, data: None if name.endswith("data/0") else data)
    with pytest.raises(LoadError, match="'weight' is in storage 0, which is missing"):
        PyTorchFile(gone)


def patched(state: Any, old: bytes, new: bytes, tmp_path: Path) -> Path:
    torch.save(state, tmp_path / "x.pt")
    return rewritten(tmp_path / "x.pt", lambda n, data: data.replace(old, new) if n.endswith("data.pkl") else data)


def test_sizes_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    negative = patched({"w": torch.arange(77.0)}, b"K\x00KM\x85", b"K\x00J\xff\xff\xff\xff\x85", tmp_path)
    with pytest.raises(LoadError, match="'w': a shape, stride or offset that is not a size"):
        PyTorchFile(negative)
    far = patched({"w": torch.arange(77.0)}, b"K\x00KM\x85", b"K\x01KM\x85", tmp_path)
    with pytest.raises(LoadError, match="past the end of its storage"):
        PyTorchFile(far)


def test_the_two_layouts_are_told_apart_by_content(tmp_path: Path) -> None:
    for name, zipped in (("zip", True), ("old", False)):
        torch.save(OrderedDict(w=torch.ones(2)), tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert "layout" not in PyTorchFile(tmp_path / "zip").details
    assert "1.6" in PyTorchFile(tmp_path / "old").details["layout"]


def test_a_pickle_of_anything_is_described(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": [1, 2], "b": "c"}))
    found = PyTorchFile(tmp_path / "x.pkl")
    assert (found.kind, found.entries(), found.metadata) == ("pickle", (), {"a": "list of 2", "b": "c"})


def test_every_opcode_is_known() -> None:
    """What the machine does not name pushes what it carries: those are all literals, in pickletools' own words."""
    from tlkit.formats.torch.pickle_machine import _IGNORED, _STEPS

    rest = {op for op in pickletools.opcodes if op.name not in _STEPS and op.name not in _IGNORED}
    assert all(not op.stack_before and len(op.stack_after) == 1 for op in rest)
