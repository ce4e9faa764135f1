"""Tell what a path holds by its content; the extension counts only where damage leaves nothing else.

Of a file of any size, only the first bytes, a zip's directory or the headers of a protobuf's fields are read.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from tlkit.errors import LoadError, reason
from tlkit.formats.base.shard_names import ending_of


class Format(StrEnum):
    """A format that tlkit recognises; the value is its name for users."""

    MLPACKAGE = "Core ML package"
    MLMODEL = "Core ML model"
    MLMODELC = "compiled Core ML model"
    MIL_TEXT = "MIL text"
    LFS_POINTER = "git-lfs pointer"
    SAFETENSORS = "SafeTensors"
    GGUF = "GGUF"
    TORCHSCRIPT = "TorchScript"
    TORCH_EXPORT = "PyTorch exported program"
    PYTORCH = "PyTorch checkpoint"
    PICKLE = "Python pickle"
    ONNX = "ONNX"
    TFLITE = "TensorFlow Lite"
    SAVED_MODEL = "TensorFlow SavedModel"
    HDF5 = "HDF5 (Keras)"
    KERAS = "Keras"
    NUMPY = "numpy array"
    IMAGE = "image"
    ZIP = "zip archive"
    ZIPPED_MLPACKAGE = "zipped Core ML package"
    AIMODEL = "Core AI model"


HELD = ("source.mlpackage", "source.mlmodel")
"""What a "compiled model" made by ``tlkit.anywhere`` holds: the model itself."""

HELD_FILES = ("source.mlpackage/Manifest.json", "source.mlmodel")

COREML = (Format.MLPACKAGE, Format.MLMODEL, Format.MLMODELC, Format.MIL_TEXT, Format.ZIPPED_MLPACKAGE)
LFS_MAGIC = b"version https://git-lfs"
"""The first bytes of a git-lfs pointer, a file that stands for one that was not fetched."""

_UNKNOWN = "not a model file that tlkit knows"
_READ = "tlkit reads .mlpackage, .mlmodel, .mlmodelc and .mil"
_WEIGHTS = "tlkit reads Core ML, SafeTensors, GGUF, PyTorch, ONNX and numpy files"
_ZIPPED = (".pt", ".pth", ".bin", ".ckpt", ".pt2", ".ptl", ".npz", ".safetensors")
_INDEX = r"\.(safetensors|bin)\.index(\.[\w-]+)?\.json$"
LEGACY_TORCH = re.compile(
    rb"(?s)(\x80[\x02-\x05](\x95.{8})?)?(\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19|L119547037146038801333356L\n)\."
)
"""A pickle, by any protocol, of the number 0x1950a86a20f9469cfc6c, with which torch before 1.6 begins its files."""

_PICKLES = (".pkl", ".pickle", ".p", ".pt", ".pth", ".bin", ".ckpt")
_OLD_PICKLE = rb"\((dp?|lp?|tp?)0?\n|c[\w.]+\n\w+\n|[}\])]q\x00"  # protocols 0 and 1 have no mark
_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (LFS_MAGIC, Format.LFS_POINTER),
    (b"GGUF", Format.GGUF),
    (b"\x89HDF\r\n", Format.HDF5),
    (b"\x93NUMPY", Format.NUMPY),
    (b"\x89PNG\r\n", Format.IMAGE),
    (b"\xff\xd8\xff", Format.IMAGE),
    (b"program(", Format.MIL_TEXT),
)


def detect(path: str | os.PathLike[str]) -> Format:
    """Return the format of the file or folder at ``path``; LoadError where it is missing or of unknown format."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _folder(path)
        if not stat.S_ISREG(mode):
            raise LoadError(f"{path}: neither a file nor a folder", "name a model file or package")
        with path.open("rb") as file:
            found = _file(file, path)
    except OSError as error:
        raise LoadError(f"{path}: {reason(error)}", "check the path") from None
    if found is None and path.suffix.lower() == ".aimodel":
        return Format.AIMODEL
    if found is None:
        from tlkit.formats.base.strangers import stranger  # late: for files that are not models

        known = stranger(path)
        raise LoadError(*((f"{path}: {known[0]}", known[1]) if known else (f"{path}: {_UNKNOWN}", _WEIGHTS)))
    return found


def expect_coreml(path: str | os.PathLike[str]) -> Format:
    """Return the format of a Core ML model; for anything else, LoadError says what it is."""
    found = detect(path)
    if found in COREML:
        return found
    if found is Format.LFS_POINTER:
        raise LoadError(f"{path}: {lfs_text(path)}", "run `git lfs pull` in its repository")
    raise LoadError(f"{path}: {found}, a format that is not read yet", _READ)


def is_pointer(path: str | os.PathLike[str]) -> bool:
    """Whether the file ``path`` is a git-lfs pointer."""
    with Path(path).open("rb") as file:
        return file.read(len(LFS_MAGIC)) == LFS_MAGIC


def lfs_text(path: str | os.PathLike[str]) -> str:
    """Return a text saying that ``path`` is a git-lfs pointer, with the size of the file that it stands for."""
    with Path(path).open("rb") as file:
        size = re.search(rb"^size (\d{1,15})$", file.read(1024), re.MULTILINE)
    wanted = f"the {int(size[1]):,} bytes" if size else "the file"
    return f"a git-lfs pointer in place of {wanted} it stands for"


def _folder(path: Path) -> Format:
    def has(*names: str) -> bool:
        return any((path / name).is_file() for name in names)

    if has("Manifest.json"):
        return Format.MLPACKAGE
    if has("coremldata.bin", "model.mil", "model.espresso.net", "model0/coremldata.bin", *HELD_FILES):
        return Format.MLMODELC
    if has("saved_model.pb"):
        return Format.SAVED_MODEL
    if path.suffix.lower() == ".aimodel":  # Core AI's folder: what is in it is not published
        return Format.AIMODEL
    ending = ending_of(path)
    if ending == "safetensors" or _holds_safetensors(path, has("config.json")):
        return Format.SAFETENSORS
    if ending == "bin":
        return Format.PYTORCH
    from tlkit.formats.base.strangers import unzipped_checkpoint  # late, for the same reason

    unzipped = unzipped_checkpoint(path)
    if unzipped is not None:
        inside = "" if unzipped == path else f" in {unzipped.name}"
        raise LoadError(
            f"{path}: a PyTorch checkpoint that was unzipped{inside}",
            f"zip it again, uncompressed: cd {unzipped.parent} && zip -0 -r {unzipped.name}.pt {unzipped.name}",
        )
    hint = "the package has lost its Manifest.json: fetch it again" if has("Data") or (path / "Data").is_dir() else ""
    raise LoadError(f"{path}: a folder that is not a model package", hint or "name a model file or a .mlpackage")


def _holds_safetensors(path: Path, configured: bool) -> bool:
    """Whether ``path`` is one model's folder: it has an index, a single file, or files beside a ``config.json``."""
    files = [item for item in path.glob("*.safetensors*") if item.is_file()]
    others = any(
        item.suffix in (".gguf", ".pt", ".pth", ".mlmodel", ".onnx") or item.is_dir() for item in path.iterdir()
    )
    indexed = any(item.name.endswith(".safetensors.index.json") for item in files)
    return bool(files) and (configured or ((indexed or len(files) == 1) and not others))


def _file(file: BinaryIO, path: Path) -> Format | None:
    head = file.read(64)
    size = os.fstat(file.fileno()).st_size
    if not head:
        raise LoadError(f"{path}: the file is empty", "fetch or convert it again")
    for magic, found in _MAGIC:
        if head.startswith(magic):
            return found
    # A FlatBuffer has its identifier behind the root's offset.
    if head[4:8] == b"TFL3":
        return Format.TFLITE
    if head.startswith(b"PK\x03\x04"):
        return _zip(file, path)
    # Before a pickle: a header of 0x380 bytes begins with a pickle's first two.
    if _is_safetensors(head, size):
        return Format.SAFETENSORS
    if LEGACY_TORCH.match(head):
        return Format.PYTORCH
    if re.match(rb"\x80[\x02-\x05]", head) or (path.suffix.lower() in _PICKLES and re.match(_OLD_PICKLE, head)):
        return Format.PICKLE
    if path.suffix.lower() == ".safetensors" and head[8:].lstrip()[:1] == b"{":  # cut short in its header
        return Format.SAFETENSORS
    index = re.search(_INDEX, path.name) if head.lstrip().startswith(b"{") else None
    if index:
        return Format.SAFETENSORS if index[1] == "safetensors" else Format.PYTORCH
    return _protobuf(file, size) or (Format.MLMODEL if path.suffix.lower() == ".mlmodel" else None)


def _is_safetensors(head: bytes, size: int) -> bool:
    # The header's length (u64), of at least `{}`.
    return head[8:].lstrip()[:1] == b"{" and 2 <= struct.unpack_from("<Q", head)[0] <= size - 8


def _zip(file: BinaryIO, path: Path) -> Format:
    import zipfile  # late: no other format needs it

    from tlkit.formats.files.zip import directory  # late, for the same reason

    try:
        names = [info.filename for info in directory(file)[0]]
    except zipfile.BadZipFile:
        if path.suffix.lower() not in _ZIPPED:
            return Format.ZIP
        raise LoadError(
            f"{path}: cut short or damaged: the list of what is in it, at its end, cannot be read", "fetch it again"
        ) from None
    except (OSError, ValueError, NotImplementedError):
        return Format.ZIP
    # torch puts all members into one folder, of any name.
    inner = {name.partition("/")[2] for name in names} | {name for name in names if "/" not in name}
    if "Manifest.json" in names or any(name.endswith(".mlpackage/Manifest.json") for name in names):
        return Format.ZIPPED_MLPACKAGE
    if "constants.pkl" in inner:
        return Format.TORCHSCRIPT
    if "serialized_exported_program.json" in {*names, *inner} or any(name.startswith("models/") for name in inner):
        return Format.TORCH_EXPORT
    if "data.pkl" in inner:
        return Format.PYTORCH
    if "model.weights.h5" in names:
        return Format.KERAS
    return Format.NUMPY if names and all(name.endswith(".npy") for name in names) else Format.ZIP


def _protobuf(file: BinaryIO, size: int) -> Format | None:
    """Distinguish the two protobufs by their top-level fields: Core ML's kinds are 200 and up, ONNX's graph is 7."""
    seen: dict[int, int] = {}
    for number, wire in _fields(file, size):
        # Neither format has other wire types at its top.
        if seen.setdefault(number, wire) != wire or wire not in (0, 2):
            break
        # Field 1 is a number in both: Core ML's specificationVersion, ONNX's ir_version.
        if number >= 200 and seen.get(1) == 0:
            return Format.MLMODEL
        if number == 7 and seen.get(1) == 0:
            return Format.ONNX
    return None


def _fields(file: BinaryIO, size: int, limit: int = 100) -> Iterator[tuple[int, int]]:
    """Yield (number, wire type) of a protobuf's first top-level fields, skipping their content."""
    file.seek(0)
    for _ in range(limit):
        key = _varint(file)
        if key is None:
            return
        yield key >> 3, key & 7
        length = _varint(file)
        if length is None or file.tell() + (length if key & 7 == 2 else 0) > size:
            return
        if key & 7 == 2:
            file.seek(length, os.SEEK_CUR)


def _varint(file: BinaryIO) -> int | None:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    return None
