"""Hostile files, one of each kind: every function writes one into a folder and returns its path.

Big ones are holes in the file system, so that they cost neither disk nor time to make.
"""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

HOSTILE: dict[str, Callable[[Path], Path]] = {}
"""The makers by name."""

_LATER = 1 << 33  # bytes: where a file of holes ends


def hostile(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """Add ``make`` to the table."""
    HOSTILE[make.__name__] = make
    return make


def _file(path: Path, data: bytes, size: int = 0) -> Path:
    with path.open("wb") as file:
        file.write(data)
        if size:
            file.truncate(size)
    return path


# SafeTensors


def _safetensors(folder: Path, header: str | bytes, data: int = 64, length: int | None = None) -> Path:
    text = header.encode() if isinstance(header, str) else header
    size = len(text) if length is None else length
    return _file(folder / "x.safetensors", struct.pack("<Q", size) + text, 8 + len(text) + data)


def _tensor(begin: int, end: int, shape: str = "[4]", dtype: str = "F32") -> str:
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}'


@hostile
def safetensors_header_of_2_to_63_bytes(folder: Path) -> Path:
    return _safetensors(folder, f'{{"a":{_tensor(0, 16)}}}', length=1 << 63)


@hostile
def safetensors_overlapping(folder: Path) -> Path:
    return _safetensors(folder, f'{{"a":{_tensor(0, 16)},"b":{_tensor(8, 24)}}}')


@hostile
def safetensors_out_of_file(folder: Path) -> Path:
    return _safetensors(folder, f'{{"a":{_tensor(1 << 40, (1 << 40) + 16)}}}')


@hostile
def safetensors_key_twice(folder: Path) -> Path:
    return _safetensors(folder, f'{{"a":{_tensor(0, 16)},"a":{_tensor(16, 32)}}}')


@hostile
def safetensors_shape_that_overflows(folder: Path) -> Path:
    return _safetensors(folder, f'{{"a":{_tensor(0, 16, "[4294967296,4294967296,4294967296]")}}}')


@hostile
def safetensors_number_of_a_million_digits(folder: Path) -> Path:
    return _safetensors(folder, f'{{"a":{_tensor(0, 16, "[" + "9" * 1_000_000 + "]")}}}')


@hostile
def safetensors_deep(folder: Path) -> Path:
    return _safetensors(folder, '{"a":' * 5_000_000 + "1" + "}" * 5_000_000)


@hostile
def safetensors_deep_lists(folder: Path) -> Path:
    return _safetensors(folder, '{"a":' + "[" * 40_000_000)


@hostile
def safetensors_header_of_99_megabytes(folder: Path) -> Path:
    items = ",".join(f'"{index}":{_tensor(0, 0, "[0]")}' for index in range(1_600_000))
    return _safetensors(folder, f"{{{items}}}")


@hostile
def safetensors_header_of_holes(folder: Path) -> Path:
    return _file(folder / "x.safetensors", struct.pack("<Q", 99_000_000) + b"{", 100_000_000)


@hostile
def safetensors_header_just_below_the_limit(folder: Path) -> Path:
    items = ",".join(f'"{index}":{_tensor(0, 0, "[0]")}' for index in range(1_090_000))
    assert 60_000_000 < len(items) < 1 << 26
    return _safetensors(folder, f"{{{items}}}")


@hostile
def safetensors_header_of_holes_just_below_the_limit(folder: Path) -> Path:
    return _file(folder / "x.safetensors", struct.pack("<Q", 67_000_000) + b"{", 68_000_000)


@hostile
def safetensors_metadata_of_many_keys(folder: Path) -> Path:
    items = ",".join(f'"{index}":""' for index in range(2_200_000))
    return _safetensors(folder, f'{{"__metadata__":{{{items}}}}}')


@hostile
def safetensors_lists_in_place_of_tensors(folder: Path) -> Path:
    return _safetensors(folder, '{"a":[' + "[]," * 8_000_000 + "[]]}")


@hostile
def safetensors_index_that_leads_out(folder: Path) -> Path:
    text = json.dumps({"weight_map": {"a": "../../../etc/passwd"}})
    return _file(folder / "model.safetensors.index.json", text.encode())


@hostile
def safetensors_index_of_63_megabytes(folder: Path) -> Path:
    items = ",".join(f'"{index}":"{index}.safetensors"' for index in range(2_000_000))
    return _file(folder / "model.safetensors.index.json", f'{{"weight_map":{{{items}}}}}'.encode())


# GGUF


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def _record(name: str, dims: tuple[int, ...], kind: int, offset: int) -> bytes:
    return _text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def _gguf(folder: Path, tensors: int, pairs: int, rest: bytes = b"", size: int = 0) -> Path:
    return _file(folder / "x.gguf", b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs) + rest, size)


def _array(kind: int, count: int) -> bytes:
    return _text("a") + struct.pack("<IIQ", 9, kind, count)


@hostile
def gguf_billion_tensors(folder: Path) -> Path:
    return _gguf(folder, 10**9, 0, b"\0" * 100)


@hostile
def gguf_billion_tensors_in_holes(folder: Path) -> Path:
    return _gguf(folder, 10**9, 0, size=1 << 35)


@hostile
def gguf_2_to_63_pairs(folder: Path) -> Path:
    return _gguf(folder, 0, 1 << 63, b"\0" * 100)


@hostile
def gguf_billion_pairs_in_holes(folder: Path) -> Path:
    return _gguf(folder, 0, 10**8, size=_LATER)


@hostile
def gguf_string_past_the_end(folder: Path) -> Path:
    return _gguf(folder, 0, 1, struct.pack("<Q", 1 << 62) + b"key")


@hostile
def gguf_array_past_the_end(folder: Path) -> Path:
    return _gguf(folder, 0, 1, _array(10, 1 << 60))


@hostile
def gguf_billion_strings_in_holes(folder: Path) -> Path:
    return _gguf(folder, 0, 1, _array(8, 10**9), _LATER)


@hostile
def gguf_billion_arrays_in_holes(folder: Path) -> Path:
    return _gguf(folder, 0, 1, _array(9, 10**8), _LATER)


@hostile
def gguf_arrays_in_arrays(folder: Path) -> Path:
    return _gguf(folder, 0, 1, _array(9, 1) + struct.pack("<IQ", 9, 1) * 100_000)


@hostile
def gguf_key_twice(folder: Path) -> Path:
    pair = _text("a") + struct.pack("<II", 4, 1)
    return _gguf(folder, 0, 2, pair * 2)


@hostile
def gguf_name_twice(folder: Path) -> Path:
    return _gguf(folder, 2, 0, _record("a", (4,), 0, 0) + _record("a", (4,), 0, 32), 4096)


@hostile
def gguf_overlapping(folder: Path) -> Path:
    return _gguf(folder, 2, 0, _record("a", (16,), 0, 0) + _record("b", (16,), 0, 32), 4096)


@hostile
def gguf_out_of_file(folder: Path) -> Path:
    return _gguf(folder, 1, 0, _record("a", (1 << 40,), 0, 0), 4096)


@hostile
def gguf_shape_that_overflows(folder: Path) -> Path:
    return _gguf(folder, 1, 0, _record("a", (1 << 63, 1 << 63), 0, 0), 4096)


@hostile
def gguf_alignment_of_nothing(folder: Path) -> Path:
    return _gguf(folder, 0, 1, _text("general.alignment") + struct.pack("<II", 4, 0))


# Pickles, and PyTorch's zip archives


def _zip(path: Path, members: dict[str, bytes], packed: bool = False) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@hostile
def pickle_of_small_opcodes(folder: Path) -> Path:
    return _file(folder / "x.pkl", b"\x80\x04" + b"N" * 50_000_000)


@hostile
def pickle_of_memos(folder: Path) -> Path:
    return _file(folder / "x.pkl", b"\x80\x04" + b"N\x94" * 20_000_000)


@hostile
def pickle_of_marks(folder: Path) -> Path:
    return _file(folder / "x.pkl", b"\x80\x04" + b"(" * 40_000_000)


@hostile
def pickle_of_lists(folder: Path) -> Path:
    return _file(folder / "x.pkl", b"\x80\x04" + b"]" * 40_000_000)


@hostile
def pickle_of_calls(folder: Path) -> Path:
    return _file(folder / "x.pkl", b"\x80\x04cos\nsystem\n" + b")R" * 20_000_000)


@hostile
def pickle_of_imports(folder: Path) -> Path:
    names = b"".join(b"c%0199d\n%0199d\n" % (index, index) for index in range(100_000))
    return _file(folder / "x.pkl", b"\x80\x04" + names)


@hostile
def pickle_of_long_strings(folder: Path) -> Path:
    piece = b"\x8d" + struct.pack("<Q", 1 << 20) + b"a" * (1 << 20)
    return _file(folder / "x.pkl", b"\x80\x04" + piece * 250)


@hostile
def pickle_of_long_numbers(folder: Path) -> Path:
    piece = b"\x8b" + struct.pack("<i", 1 << 20) + b"a" * (1 << 20)
    return _file(folder / "x.pkl", b"\x80\x04" + piece * 250)


@hostile
def pickle_of_digits(folder: Path) -> Path:
    return _file(folder / "x.pkl", b"\x80\x04" + (b"L" + b"9" * 60_000 + b"L\n") * 500)


@hostile
def pickle_of_holes(folder: Path) -> Path:
    return _file(folder / "x.pkl", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62), _LATER)


@hostile
def pickle_doubled_forty_times(folder: Path) -> Path:
    return _file(folder / "x.pkl", b"\x80\x04N" + b"2\x86" * 40 + b"}K\x01K\x02s\x86" + b"0" * 99)


@hostile
def torch_pickle_without_end(folder: Path) -> Path:
    return _zip(folder / "x.pt", {"a/data.pkl": b"\x80\x02" + b"N0" * 20_000_000, "a/version": b"3"})


@hostile
def torch_bomb(folder: Path) -> Path:
    return _zip(folder / "x.pt", {"a/data.pkl": b"\0" * (1 << 28), "a/version": b"3"}, packed=True)


@hostile
def torch_small_bomb_of_opcodes(folder: Path) -> Path:
    return _zip(folder / "x.pt", {"a/data.pkl": b"\x80\x02" + b"N" * (15 << 20), "a/version": b"3"}, packed=True)


@hostile
def torch_storage_missing(folder: Path) -> Path:
    import torch

    torch.save({"a": torch.ones(3)}, folder / "whole.pt")
    with zipfile.ZipFile(folder / "whole.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist() if "/data/" not in name}
    return _zip(folder / "x.pt", members)


@hostile
def torchscript_member_that_leads_out(folder: Path) -> Path:
    return _zip(folder / "x.pt", {"a/constants.pkl": b"\x80\x02).", "a/data.pkl": b"N.", "../../evil.py": b"x"})


@hostile
def zip_of_80_000_members(folder: Path) -> Path:
    return _zip(folder / "x.pt", {"a/data.pkl": b"N."} | {f"a/data/{index}": b"" for index in range(80_000)})


@hostile
def pt2_deep_json(folder: Path) -> Path:
    text = b'{"graph_module":' * 200_000 + b"1" + b"}" * 200_000
    return _zip(folder / "x.pt2", {"a/models/model.json": text, "a/archive_format": b"pt2"})


@hostile
def pt2_json_bomb(folder: Path) -> Path:
    text = b'{"graph_module":[' + b"[]," * 20_000_000 + b"[]]}"
    return _zip(folder / "x.pt2", {"a/models/model.json": text, "a/archive_format": b"pt2"}, packed=True)


@hostile
def pt2_member_that_leads_out(folder: Path) -> Path:
    return _zip(folder / "x.pt2", {"a/models/model.json": b"{}", "a/../../x": b""})


# ONNX


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes((*found, value))


def _field(number: int, data: bytes, length: int | None = None) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data) if length is None else length) + data


_IR = b"\x08\x08"


@hostile
def onnx_graph_past_the_end(folder: Path) -> Path:
    return _file(folder / "x.onnx", _IR + _field(7, _field(1, b"", 1 << 50), 8))


@hostile
def onnx_nodes_without_end(folder: Path) -> Path:
    return _file(folder / "x.onnx", _IR + _field(7, _field(1, b"") * 20_000_000))


@hostile
def onnx_dimensions_without_end(folder: Path) -> Path:
    return _file(folder / "x.onnx", _IR + _field(7, _field(5, _field(1, b"\1" * 40_000_000))))


@hostile
def onnx_deep(folder: Path) -> Path:
    graph = b""
    for _ in range(2000):
        graph = _field(1, _field(5, _field(6, graph)))
    return _file(folder / "x.onnx", _IR + _field(7, graph))


@hostile
def onnx_weights_that_lead_out(folder: Path) -> Path:
    location = _field(13, _field(1, b"location") + _field(2, b"../../../etc/passwd"))
    tensor = b"\x08\x04\x10\x01" + _field(8, b"a") + location + b"\x70\x01"
    return _file(folder / "x.onnx", _IR + _field(7, _field(5, tensor)))


# numpy


def _npy(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return b"\x93NUMPY\2\0" + struct.pack("<I", len(header) if length is None else length) + header + data


@hostile
def numpy_header_past_the_end(folder: Path) -> Path:
    return _file(folder / "x.npy", _npy(b"{}", length=(1 << 32) - 1))


@hostile
def numpy_shape_past_the_end(folder: Path) -> Path:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 1000000000000), }\n"
    return _file(folder / "x.npy", _npy(header))


@hostile
def numpy_header_that_is_code(folder: Path) -> Path:
    return _file(folder / "x.npy", _npy(b"__import__('os').system('touch ran')"))


@hostile
def npz_member_that_leads_out(folder: Path) -> Path:
    return _zip(folder / "x.npz", {"../a.npy": _npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (), }\n")})


# Core ML


@hostile
def mlmodel_length_past_the_end(folder: Path) -> Path:
    return _file(folder / "x.mlmodel", b"\x08\x04" + _field(500, b"abc", 1 << 40))


@hostile
def mlmodel_pipelines_in_pipelines(folder: Path) -> Path:
    model = b"\x08\x01"
    for _ in range(300):
        model = b"\x08\x01" + _field(202, _field(1, model))
    return _file(folder / "x.mlmodel", model)


@hostile
def mlmodel_of_holes(folder: Path) -> Path:
    return _file(folder / "x.mlmodel", b"\x08\x04", (1 << 31) - 10)


@hostile
def mlmodel_fields_without_end(folder: Path) -> Path:
    return _file(folder / "x.mlmodel", b"\x08\x04" + _field(500, b"") * 20_000_000)


def _package(folder: Path, path: str, name: str = "x.mlpackage") -> Path:
    manifest = {"rootModelIdentifier": "m", "itemInfoEntries": {"m": {"path": path}}}
    root = folder / name
    (root / "Data").mkdir(parents=True)
    (root / "Manifest.json").write_text(json.dumps(manifest))
    return root


@hostile
def mlpackage_manifest_that_leads_out(folder: Path) -> Path:
    (folder / "secret.mlmodel").write_bytes(b"\x08\x04")
    return _package(folder, "../../secret.mlmodel")


@hostile
def mlpackage_link_that_leads_out(folder: Path) -> Path:
    (folder / "secret.mlmodel").write_bytes(b"\x08\x04")
    root = _package(folder, "model.mlmodel")
    (root / "Data/model.mlmodel").symlink_to(folder / "secret.mlmodel")
    return root


@hostile
def mlpackage_deep_manifest(folder: Path) -> Path:
    root = _package(folder, "model.mlmodel")
    (root / "Manifest.json").write_text("[" * 2_000_000)
    return root


@hostile
def mlpackage_manifest_of_holes(folder: Path) -> Path:
    root = _package(folder, "model.mlmodel")
    _file(root / "Manifest.json", b"{", _LATER)
    return root


@hostile
def mlmodelc_deep_json(folder: Path) -> Path:
    root = folder / "x.mlmodelc"
    root.mkdir()
    (root / "coremldata.bin").write_bytes(b"\0" * 100)
    (root / "model.espresso.net").write_text('{"layers":' * 1_000_000)
    return root


@hostile
def mlmodelc_link_that_leads_out(folder: Path) -> Path:
    root = folder / "x.mlmodelc"
    root.mkdir()
    (folder / "secret.mil").write_text("secret")
    (root / "model.mil").symlink_to(folder / "secret.mil")
    return root


@hostile
def mil_deep(folder: Path) -> Path:
    return _file(folder / "x.mil", b"program(1.0)\n{ func main(" + b"tensor<" * 2_000_000)


@hostile
def zipped_package_manifest_that_leads_out(folder: Path) -> Path:
    manifest = {"rootModelIdentifier": "m", "itemInfoEntries": {"m": {"path": "../../../etc/passwd"}}}
    return _zip(folder / "x.zip", {"n.mlpackage/Manifest.json": json.dumps(manifest).encode()})


@hostile
def zipped_package_bomb(folder: Path) -> Path:
    manifest = {"rootModelIdentifier": "m", "itemInfoEntries": {"m": {"path": "model.mlmodel"}}}
    model = b"\x08\x04" + b"\0" * ((1 << 28) + 1)
    members = {"n.mlpackage/Manifest.json": json.dumps(manifest).encode(), "n.mlpackage/Data/model.mlmodel": model}
    return _zip(folder / "x.zip", members, packed=True)


class _Runs:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.path,)


def code_in_a_pickle(folder: Path) -> Path:
    """A pickle that would create ``folder/ran``: described, with what it would import, and not run."""
    return _file(folder / "x.pkl", pickle.dumps(_Runs(folder / "ran")))
