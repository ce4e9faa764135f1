"""Name files that tlkit does not read, by their first bytes or their names, with advice on what to do with them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_HEAD = 512
_LEAST = 8  # bytes that a file of any format has
_FETCH = "fetch it again"
_SOURCE = "start from the model that it was made from"
_FOLDER = "name the folder that it is in"
_TREES = "coremltools converts it (coremltools.converters); tlkit reads the .mlmodel"

_MARKS: tuple[tuple[bytes, str, str], ...] = (
    (
        rb"lmgg|fmgg|tjgg|algg",
        "a {ggml} file, from before GGUF",
        "look for the model as GGUF, or start from its source",
    ),
    (rb"(?s).{4}ET\d\d", "an ExecuTorch program (.pte)", "give the PyTorch model that it was exported from"),
    (rb"(?s)(<\?xml.*)?<net\s", "OpenVINO's network (.xml)", "give the ONNX or PyTorch model that it was made from"),
    (rb"(?s)(<\?xml.*)?<PMML", "a PMML document", _SOURCE),
    (
        rb"(?is)\s*(<!doctype\s+html|<html|<\?xml)",
        "a web page saved under a model's name",
        "fetch the file itself: the page may be a login or an error",
    ),
    (
        rb"(?i)\s*(\{\s*\"(error|message|detail)\"|entry not found|not found|access denied|invalid username)",
        "a server's error message saved under a model's name",
        "check the address, and fetch it again",
    ),
    (rb"\x1f\x8b", "a gzip archive", "unpack it: gunzip -k {name}"),
    (rb"BZh\d", "a bzip2 archive", "unpack it: bunzip2 -k {name}"),
    (rb"\xfd7zXZ\0", "an xz archive", "unpack it: unxz -k {name}"),
    (rb"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it: unzstd -k {name}"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it: 7z x {name}"),
    (rb"Rar!\x1a\x07", "a RAR archive", "unpack it: unrar x {name}"),
    (rb"PK\x05\x06", "an empty zip archive", _FETCH),
    (rb"(?s).{4}ORTM", "an ONNX Runtime model (.ort)", "give the .onnx that it was made from"),
    (rb"ftrt|ptrt", "a TensorRT engine", "give the ONNX model that it was built from"),
    (rb"MZqFpD", "a llamafile: a program with a GGUF inside", "unzip it and name the .gguf"),
    (rb"\x7fELF|\xcf\xfa\xed\xfe|\xca\xfe\xba\xbe|MZ", "a program or library, not a model", _SOURCE),
    (rb"\xbe\xba\xfe\xca", "a program for the Neural Engine (.hwx)", _SOURCE),
    (rb"%PDF", "a PDF document", "name a model file"),
    (rb"GIF8|RIFF.{4}WEBP|BM.{4}\0{4}", "an image", "name a model file; an image goes to `tlkit run --input`"),
    (rb"(?s)RIFF.{4}WAVE|ID3|fLaC|OggS", "a sound file", "name a model file"),
    (rb"(?s).{4}ftyp", "a video", "name a model file"),
    (rb"PAR1", "a Parquet table", "name a model file"),
    (rb"SQLite format 3", "an SQLite database", "name a model file"),
    (rb"bplist00", "a property list", "name a model file"),
    (rb"#\s*xet version", "a pointer of Hugging Face's store in place of a file", "fetch it with `hf download`"),
    (rb"7767517\n", "ncnn's network (.param)", "give the ONNX or PyTorch model that it was made from"),
    (rb"\{L.{8}.{0,2}learner|\{\"learner\"", "an XGBoost model", _TREES),
    (rb"tree\nversion=", "a LightGBM model", _SOURCE),
    (rb"svm_type\s", "a model of libsvm", _TREES),
    (rb"(?s)<\s*ir_version\s*:", "ONNX as text", "parse it with onnx.parser and save it with onnx.save"),
    (rb"\s*(name:\s*\"|layers?\s*\{)", "Caffe's network (.prototxt)", "coremltools 4 converts it"),
    (rb"Traceback \(most recent call", "an error that Python printed", "write the file again"),
    (rb"(?s)(\0{512}|\0+\Z)", "a file of zeros: its download was not finished", _FETCH),
)
"""Patterns of a file's first bytes, what such a file is, and what to do; the first that matches counts."""

_NAMES: tuple[tuple[str, str, str], ...] = (
    (r"coremldata\.bin|model\.espresso\.\w+|metadata\.json|analytics", "a part of a compiled model", _FOLDER),
    (r"Manifest\.json", "the list of a Core ML package's contents", _FOLDER),
    (r"weight\.bin", "the weights of a Core ML model", "name the .mlpackage or .mlmodelc that they are in"),
    (r".*\.onnx[._]data", "the weights of an ONNX model", "name the .onnx file beside it"),
    (r"(generation_|preprocessor_|tokenizer_|adapter_)?config\.json", "a model's configuration", _FOLDER),
    (r"tokenizer\.(json|model)|vocab\.(json|txt)|merges\.txt", "a tokenizer", _FOLDER),
    (r".*\.(index|meta|data-\d+-of-\d+)", "a part of a TensorFlow checkpoint", "save its weights as .npz"),
    (r".*\.pb", "a TensorFlow graph", "coremltools converts it; tlkit reads what it makes"),
    (r".*\.msgpack", "weights of Flax", "save them as SafeTensors"),
    (r".*\.(pdmodel|pdiparams|pdparams)", "a Paddle model", "convert it to ONNX with paddle2onnx"),
    (r".*\.mnn", "an MNN model", _SOURCE),
    (r".*\.py", "Python source", "a model in it is converted by `tlkit convert {name}:CLASS`"),
    (r".*\.(md|txt|ya?ml|toml|csv)", "text, not a model", "name a model file"),
    (r".*\.(crdownload|part|download|partial|incomplete)", "a download that was not finished", _FETCH),
)
"""Patterns of names, for files whose first bytes tell nothing."""

_INSIDE: tuple[tuple[str, str, str], ...] = (
    (r"MAR-INF/.*", "an archive for TorchServe", "unzip it and name the model inside"),
    (r"(.*/)?\.data/extern_modules", "an archive of torch.package", "load it where its code is, and save a state_dict"),
    (r"Payload/.*", "an app", "unzip it and name the .mlmodelc inside"),
    (r"\[Content_Types\]\.xml", "a document of an office program", "name a model file"),
    (r"(.*\.mlmodelc/.*|coremldata\.bin)", "a compiled Core ML model in a zip archive", "unzip it and name the folder"),
    (r".*\.mlmodel", "a Core ML model in a zip archive", "unzip it and name the .mlmodel"),
    (r".*\.(safetensors|gguf|onnx|pth?|bin)", "a zip archive with a model inside", "unzip it and name what is inside"),
)
"""Patterns of a zip archive's members."""


def stranger(path: Path) -> tuple[str, str] | None:
    """Return what a file is that tlkit does not read, and advice; None where that is unknown too."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[257:262] == b"ustar":
        inner = head[:100].split(b"\0")[0].decode("utf-8", "replace")
        if inner in ("sys_info", "pickle", "storages", "tensors"):
            return "a PyTorch checkpoint from before 0.1.10, a tar archive", "load and save it again with PyTorch"
        return f"a tar archive that begins with '{inner[:60]}'", f"unpack it: tar xf {path.name}"
    for pattern, what, advice in _MARKS:
        if re.match(pattern, head):
            ggml = head[:4][::-1].decode("latin-1")
            return what.format(ggml=ggml), advice.format(name=path.name)
    found = _named(_NAMES, (path.name,))
    if not found and re.match(rb"\s*[{\[]\s*[\"{\[]", head):
        found = "JSON text, not a model", "name a model file"
    return found or ((f"cut short: it has {len(head)} bytes", _FETCH) if len(head) < _LEAST else None)


def zip_stranger(path: Path) -> tuple[str, str] | None:
    """Return what a zip archive that is not a model file holds, and advice; None where that is unknown."""
    import zipfile  # late: few files are zips that are not models

    from tlkit.formats.files.zip import directory  # late, for the same reason

    try:
        with path.open("rb") as file:
            members, _ = directory(file)
        return _named(_INSIDE, [member.filename for member in members[:1000]])
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return None


def _named(table: Iterable[tuple[str, str, str]], names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first row of ``table`` whose pattern one of ``names`` matches."""
    listed = list(names)
    for pattern, what, advice in table:
        for name in listed:
            if re.fullmatch(pattern, name, re.IGNORECASE | re.DOTALL):
                return what, advice.replace("{name}", name)
    return None


def unzipped_checkpoint(folder: Path) -> Path | None:
    """Return the folder, in ``folder`` or itself, that an unzipped PyTorch checkpoint left; None where there is
    none."""
    for root in (folder, *sorted(item for item in folder.iterdir() if item.is_dir())[:8]):
        if (root / "data.pkl").is_file() and (root / "data").is_dir():
            return root
    return None
