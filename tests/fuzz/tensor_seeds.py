"""Sound files of weights to damage, written by the libraries whose formats they are."""

from __future__ import annotations

import io
import pickle
import tempfile
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnx
import torch
from safetensors.numpy import save as save_safetensors

MATRIX = np.arange(96, dtype=np.float32).reshape(2, 48)


class Small(torch.nn.Module):
    """A module with a shared weight, a buffer and a tensor that is not contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 4)
        self.tied = torch.nn.Linear(3, 4)
        self.tied.weight = self.first.weight
        self.register_buffer("turned", torch.arange(6.0).reshape(2, 3).T.to(torch.bfloat16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x) + self.tied(x)


@cache
def tensor_files() -> list[bytes]:
    """One file of each kind, as bytes."""
    return [save_safetensors({"a": MATRIX, "b.0.c": np.ones(3, np.float16)}, {"format": "pt"}), *_made()]


def _made() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index, make in enumerate((_gguf, _gguf_big)):
            make(folder / f"{index}.gguf")
            yield (folder / f"{index}.gguf").read_bytes()
    module = Small().eval()
    state = module.state_dict()
    for value, zipped in ((state, True), (state, False), ({"state_dict": state, "epoch": 3}, True)):
        yield _saved(lambda out, v=value, z=zipped: torch.save(v, out, _use_new_zipfile_serialization=z))
    yield _saved(lambda out: torch.jit.save(torch.jit.trace(module, torch.ones(1, 3)), out))
    yield _saved(lambda out: np.save(out, MATRIX))
    yield _saved(lambda out: np.savez(out, a=MATRIX, b=np.asfortranarray(MATRIX)))
    yield _saved(lambda out: np.savez_compressed(out, a=MATRIX))
    yield pickle.dumps({"weights": [1, 2.5, "x"], "more": (None, {3: b"y"})}, protocol=4)
    yield _onnx()


def _saved(write: Any) -> bytes:
    out = io.BytesIO()
    write(out)
    return out.getvalue()


def _gguf(path: Path, endian: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE) -> None:
    writer = gguf.GGUFWriter(path, "llama", endianess=endian)
    writer.add_context_length(64)
    writer.add_array("tokenizer.ggml.tokens", ["<s>", "a", "bé"])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5])
    writer.add_array("nested", [[1, 2], [3]])
    writer.add_tensor("blk.0.attn_q.weight", MATRIX)
    if endian is gguf.GGUFEndian.LITTLE:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor("blk.1.q", gguf.quants.quantize(np.ones((2, 64), np.float32), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_big(path: Path) -> None:
    _gguf(path, gguf.GGUFEndian.BIG)


def _onnx() -> bytes:
    weight = onnx.numpy_helper.from_array(MATRIX, "w")
    listed = onnx.helper.make_tensor("listed", onnx.TensorProto.FLOAT, (2,), [1.0, 2.0])
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", size]) for name, size in _PORTS]
    graph = onnx.helper.make_graph([node], "g", ports[:1], ports[1:], [weight, listed])
    return bytes(onnx.helper.make_model(graph).SerializeToString())


_PORTS = (("x", 2), ("y", 48))


def zipped_package(package: bytes) -> bytes:
    """A zip archive with a Core ML package whose model is ``package``."""
    manifest = b'{"rootModelIdentifier": "m", "itemInfoEntries": {"m": {"path": "com.apple.CoreML/model.mlmodel"}}}'
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net.mlpackage/Manifest.json", manifest)
        archive.writestr("net.mlpackage/Data/com.apple.CoreML/model.mlmodel", package)
    return out.getvalue()
