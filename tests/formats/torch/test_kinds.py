"""Every kind of tensor that a checkpoint can hold: read as torch.load reads it, or named as left out.

Covers tlkit/formats/torch/assemble.py, tlkit/formats/torch/recognise.py, tlkit/formats/torch/walk.py,
tlkit/formats/torch/values.py and tlkit/formats/torch/objects.py.
"""

from __future__ import annotations

import collections
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.formats.generated import generated, needs_faults
from tlkit.errors import IncompleteError
from tlkit.formats.torch.read import PyTorchFile


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every tensor and array that loading gave, by the path of keys."""
    if isinstance(value, torch.Tensor | np.ndarray):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, f"{path}.{key if isinstance(key, str) else repr(key)}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from flat(item, f"{path}.{index}" if path else str(index))


def values(tensor: Any) -> np.ndarray[Any, Any]:
    if isinstance(tensor, np.ndarray):
        return tensor
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if hasattr(tensor, "full_tensor"):
        tensor = tensor.full_tensor()
    tensor = torch.Tensor.resolve_conj(torch.Tensor.resolve_neg(tensor.as_subclass(torch.Tensor)))
    small = tensor.dtype.is_floating_point and tensor.dtype not in (torch.float16, torch.float32, torch.float64)
    if tensor.dtype is torch.complex32:
        return tensor.to(torch.complex64).numpy()
    return (tensor.to(torch.float32) if small else tensor).numpy()


def check(path: Path, state: Any) -> PyTorchFile:
    """Compare each tensor of a file with what ``state`` has at its path."""
    found = PyTorchFile(path)
    wanted = dict(flat(state))
    assert {entry.name for entry in found.entries()} == set(wanted)
    for entry in found.entries():
        want = values(wanted[entry.name])
        assert entry.shape == want.shape, entry.name
        np.testing.assert_array_equal(found.array(entry), want, err_msg=entry.name)
    return found


def account(path: Path) -> None:
    """Every byte of an archive's storages is given, or named: counted from the archive's own directory."""
    found = PyTorchFile(path)
    sizes = {
        info.filename.partition("/data/")[2]: info.file_size
        for info in zipfile.ZipFile(path).infolist()
        if "/data/" in info.filename
    }
    covered: dict[str, set[int]] = {key: set() for key in sizes}
    for name, view in found._made.views.items():
        width = next((entry.nbytes for entry in found.entries() if entry.name == name), 0) // max(view.span, 1)
        if view.storage in covered and width:
            covered[view.storage] |= set(range(view.offset * width, (view.offset + view.span) * width))
    given = sum(map(len, covered.values()))
    named = sum(item.bytes or 0 for item in found.left_out)
    extra = sum(view_bytes(found, name) for name in found._made.computed)
    assert given + named + extra >= sum(sizes.values())


def view_bytes(found: PyTorchFile, name: str) -> int:
    """The bytes of scales and zero points of a quantized tensor."""
    held = found._made.computed[name][0]
    parts = (getattr(held, "scale", None), getattr(held, "zero", None))
    return sum(found._made.storages[part.storage].nbytes for part in parts if hasattr(part, "storage"))


COMPLEX = torch.tensor([[1 + 2j, 3 - 4j], [5j, -6 + 0j]])


@pytest.mark.parametrize("zipped", [True, False])
def test_conjugate_and_negative_views_have_their_signs(tmp_path: Path, zipped: bool) -> None:
    state = {
        "conj": COMPLEX.conj(),
        "turned": COMPLEX.conj().T,
        "imag": COMPLEX.clone().conj().imag,
        "neg": torch._neg_view(torch.tensor([1.0, -3.0])),
        "plain": COMPLEX,
    }
    torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = check(tmp_path / "x.pt", torch.load(tmp_path / "x.pt"))
    assert not any(item.lost for item in found.left_out)


def test_quantized_tensors_are_dequantized_as_torch_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = torch.randn(3, 4)
    scales = torch.tensor([0.1, 0.02, 0.3], dtype=torch.float64)
    state = {
        kind: torch.quantize_per_tensor(plain, 0.037, 3, getattr(torch, kind)) for kind in ("qint8", "quint8", "qint32")
    }
    state["channels"] = torch.quantize_per_channel(plain, scales, torch.tensor([0, 5, 2]), 0, torch.quint8)
    state["columns"] = torch.quantize_per_channel(
        plain, torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([1, 2, 3, 4]), 1, torch.qint8
    )
    state["floats"] = torch.quantize_per_channel(plain, scales.float(), torch.tensor([0.5, 1.5, 2.5]), 0, torch.quint8)
    torch.save(state, tmp_path / "x.pt")
    found = check(tmp_path / "x.pt", torch.load(tmp_path / "x.pt"))
    assert {entry.dtype for entry in found.entries()} == {"QINT8", "QUINT8", "QINT32"}
    assert all(found.is_compressed(entry) and found.decoded_type(entry) == "F32" for entry in found.entries())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [6, 40_000])
def test_numpy_arrays_are_tensors_too(tmp_path: Path, protocol: int, size: int) -> None:
    base = np.arange(size, dtype=np.float64).reshape(2, -1)
    state = {
        "plain": base,
        "fortran": np.asfortranarray(base),
        "big": base.astype(">f4"),
        "bytes": (np.arange(size) % 256).astype(np.uint8),
        "none": np.zeros((0, 3), np.float32),
        "scalar": np.array(2.5),
        "mask": base > 3,
        "tensor": torch.ones(2),
    }
    torch.save(state, tmp_path / "x.pt", pickle_protocol=protocol)
    check(tmp_path / "x.pt", state)
    del state["tensor"]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(state, protocol=protocol))
    check(tmp_path / "x.pkl", state)


def test_arrays_of_objects_and_text_are_named(tmp_path: Path) -> None:
    state = {"text": np.array(["a", "bc"]), "objects": np.array([1, "a"], object), "record": np.zeros(2, "i4,f4")}
    torch.save({**state, "held": np.array([torch.ones(2), None], object)}, tmp_path / "x.pt")
    found = PyTorchFile(tmp_path / "x.pt")
    assert {item.name: item.kind for item in found.left_out} == {"text": "other", "record": "unread"}
    assert [entry.shape for entry in found.entries()] == [(2,)]


@pytest.mark.parametrize("zipped", [True, False])
def test_what_cannot_be_a_plain_tensor_is_left_out_by_name(tmp_path: Path, zipped: bool) -> None:
    state: dict[str, Any] = {"coo": torch.eye(4).to_sparse(), "csr": torch.eye(4).to_sparse_csr()}
    state |= {"meta": torch.empty(3, 3, device="meta"), "bits": torch.zeros(4, dtype=torch.uint8).view(torch.bits8)}
    if zipped:
        state["nested"] = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    torch.save({**state, "dense": torch.ones(3)}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = PyTorchFile(tmp_path / "x.pt")
    assert [entry.name for entry in found.entries()] == ["dense"]
    assert [item.name for item in found.left_out] == list(state) and all(item.lost for item in found.left_out)
    if zipped:
        account(tmp_path / "x.pt")


class Wrapper(torch.Tensor):
    """A tensor that has no storage of its own: what it holds, only its class can put together."""

    @staticmethod
    def __new__(cls, low: torch.Tensor) -> Any:
        found = torch.Tensor._make_wrapper_subclass(cls, low.shape, dtype=torch.float32)  # type: ignore[attr-defined]
        found.low = low
        return found

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return Wrapper(args[0].low)
        raise NotImplementedError(func)


class Plain(torch.Tensor):
    """A tensor with a name of its own and attributes."""


@pytest.mark.parametrize("zipped", [True, False])
def test_subclasses_and_wrappers(tmp_path: Path, zipped: bool) -> None:
    named = torch.arange(3.0).as_subclass(Plain)
    named.scale = torch.full((1,), 7.0)  # type: ignore[attr-defined]
    state = {
        "wrapped": Wrapper(torch.arange(6, dtype=torch.int8)),
        "parameter": torch.nn.Parameter(Wrapper(torch.ones(2))),
        "named": named,
        "plain": torch.nn.Parameter(torch.ones(1)),
        "buffer": torch.nn.Buffer(torch.ones(4)),
    }
    torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = PyTorchFile(tmp_path / "x.pt")
    assert [entry.name for entry in found.entries()] == ["named", "named.scale", "plain", "buffer"]
    np.testing.assert_array_equal(found.array(found.entries()[1]), [7.0])
    assert [item.name for item in found.left_out] == ["wrapped", "parameter"]
    assert [item.bytes for item in found.left_out] == [6, 8]
    assert all("Wrapper: only the library that wrote it" in item.reason for item in found.left_out)


def test_storages_saved_by_themselves_are_vectors(tmp_path: Path) -> None:
    tensor = torch.arange(4.0)
    torch.save({"typed": tensor.storage(), "bytes": torch.ones(2).untyped_storage()}, tmp_path / "x.pt")
    found = PyTorchFile(tmp_path / "x.pt")
    assert [(entry.name, entry.dtype, entry.shape) for entry in found.entries()] == [
        ("typed", "F32", (4,)),
        ("bytes", "U8", (8,)),
    ]


def test_a_container_under_two_names_has_its_tensors_under_both(tmp_path: Path) -> None:
    state = {"w": torch.ones(2)}
    torch.save({"model": state, "ema": state, "list": [state, state]}, tmp_path / "x.pt")
    found = check(tmp_path / "x.pt", torch.load(tmp_path / "x.pt"))
    assert len(found.entries()) == 4 and len({entry.storage for entry in found.entries()}) == 1


def test_keys_that_are_not_text(tmp_path: Path) -> None:
    state = {
        (0, "a"): torch.ones(1),
        1.5: torch.zeros(2),
        None: torch.ones(3),
        True: torch.ones(4),
        b"x": torch.ones(5),
    }
    state |= {-7: torch.ones(6), (3,): torch.ones(7)}
    torch.save(state, tmp_path / "x.pt")
    found = PyTorchFile(tmp_path / "x.pt")
    assert {entry.name: entry.shape[0] for entry in found.entries()} == {
        repr(key): value.shape[0] for key, value in state.items()
    }


def test_paths_that_meet_keep_the_literal_key_and_are_said(tmp_path: Path) -> None:
    torch.save({"a": {"b": torch.ones(1)}, "a.b": torch.zeros(2), "a.b#2": torch.zeros(3)}, tmp_path / "x.pt")
    found = PyTorchFile(tmp_path / "x.pt")
    assert {entry.name: entry.shape for entry in found.entries()} == {"a.b": (2,), "a.b#2": (3,), "a.b#3": (1,)}
    assert "2 tensors are called 'a.b'" in found.notes[0] and "'a.b#3'" in found.notes[0]


def test_tensors_in_objects_tuples_and_sets(tmp_path: Path) -> None:
    Point = collections.namedtuple("Point", ["x", "y"])
    globals()["Point"] = Point
    Point.__module__ = __name__
    holder = Holder()
    torch.save(
        {"pair": Point(torch.ones(1), torch.ones(2)), "holder": holder, "deque": collections.deque([torch.ones(3)])},
        tmp_path / "x.pt",
    )
    found = PyTorchFile(tmp_path / "x.pt")
    assert sorted(entry.shape[0] for entry in found.entries()) == [1, 2, 3, 4, 5]
    assert not found.left_out


class Holder:
    """An object with slots and a dictionary."""

    __slots__ = ("__dict__", "slot")

    def __init__(self) -> None:
        self.slot = torch.ones(4)
        self.free = torch.ones(5)


class Attribute(torch.nn.Module):
    """A module that keeps a tensor beside its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.anchors = torch.arange(3.0)


def test_a_modules_plain_attributes_do_not_vanish(tmp_path: Path) -> None:
    torch.save(Attribute(), tmp_path / "x.pt")
    assert [entry.name for entry in PyTorchFile(tmp_path / "x.pt").entries()] == [
        "layer.weight",
        "layer.bias",
        "anchors",
    ]


def python2(state: dict[str, torch.Tensor], path: Path) -> Path:
    """Write a checkpoint as Python 2 did: the OrderedDict is made from a list of pairs."""

    class Pairs(collections.OrderedDict[str, torch.Tensor]):
        def __reduce__(self) -> Any:
            return collections.OrderedDict, ([[key, value] for key, value in self.items()],)

    torch.save(Pairs(state), path, _use_new_zipfile_serialization=False)
    return path


def test_checkpoints_of_python_2(tmp_path: Path) -> None:
    state = torch.nn.Sequential(torch.nn.Linear(3, 2)).state_dict()
    found = check(python2(dict(state), tmp_path / "x.pth"), dict(state))
    assert list(torch.load(tmp_path / "x.pth")) == [entry.name for entry in found.entries()]


def test_the_constants_of_torchscript(tmp_path: Path) -> None:
    module = torch.jit.freeze(torch.jit.script(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()).eval()))
    module.save(tmp_path / "x.pt")
    found = PyTorchFile(tmp_path / "x.pt")
    shapes = sorted(entry.shape for entry in found.entries())
    assert shapes == [(4,), (4, 3)] and all(entry.name.startswith("CONSTANTS.c") for entry in found.entries())


def test_views_of_a_storage_are_counted_and_the_rest_is_named(tmp_path: Path) -> None:
    torch.save({"tiny": torch.zeros(1000)[5:9]}, tmp_path / "x.pt")
    (rest,) = PyTorchFile(tmp_path / "x.pt").left_out
    assert (rest.bytes, rest.kind, rest.lost) == (3984, "unnamed", False)


def test_older_files_give_a_storage_as_part_of_another(tmp_path: Path) -> None:
    """Before PyTorch 0.4 a persistent id could name a root storage and a window of it."""
    torch.save({"w": torch.arange(6.0)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "x.pt").read_bytes()
    old = data.index(b"K\x06Ntq")  # the count of elements, no window, and the end of the tuple
    window = b"K\x06(X\x01\x00\x00\x00vK\x02K\x04ttq"
    shaped = data[:old] + window + data[old + 5 :].replace(b"K\x00K\x06\x85", b"K\x00K\x04\x85", 1)
    (tmp_path / "y.pt").write_bytes(shaped)
    found = PyTorchFile(tmp_path / "y.pt")
    np.testing.assert_array_equal(found.array(found.entries()[0]), [2, 3, 4, 5])


@needs_faults
def test_every_generated_file_is_read_as_torch_reads_it_or_named() -> None:
    """Each tensor that torch itself loads is given with its values, or is left out by name."""
    folder = generated("torch")
    seen = 0
    for path in sorted(folder.glob("*.*")):
        try:
            state = torch.load(path, weights_only=False)
        except Exception:
            continue
        if isinstance(state, torch.jit.ScriptModule | torch.nn.Module):
            state = state.state_dict()
        found = PyTorchFile(path)
        named = {item.name for item in found.left_out}
        entries = {entry.name: entry for entry in found.entries()}
        for name, tensor in flat(state):
            name = name or "tensor"
            seen += 1
            if name in entries and path.name != "collide.pt":
                np.testing.assert_array_equal(found.array(entries[name]).reshape(-1), _stored(tensor), err_msg=name)
            else:
                assert name in named or path.name == "collide.pt", f"{path.name}: {name} has vanished"
    assert seen > 200


def _stored(tensor: Any) -> Any:
    if isinstance(tensor, torch.Tensor) and str(tensor.dtype) == "torch.float4_e2m1fn_x2":
        return np.zeros(2 * tensor.numel(), np.float32)
    return values(tensor).reshape(-1)


@needs_faults
@pytest.mark.parametrize("name", ["sparse.pt", "meta.pt", "nested.pt", "bits.pt"])
def test_a_conversion_that_would_lose_a_tensor_is_refused(tmp_path: Path, name: str) -> None:
    from tlkit.core.weights.weights import convert_weights

    goal = tmp_path / "x.safetensors"
    with pytest.raises(IncompleteError, match="would be left out") as caught:
        convert_weights(generated("torch") / name, goal)
    assert caught.value.exit_code == 1 and not goal.exists()
    result = convert_weights(generated("torch") / name, goal, allow_missing=True)
    assert goal.exists() and any(item.lost for item in result.left_out) and "left out" in " ".join(result.notes)
