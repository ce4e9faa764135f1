"""What a model file can be used for, and the command that converts it to the other kind of file."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tlkit.types import ModelInfo


def which_format(info: ModelInfo) -> tuple[str, str]:
    """Return what the file can be used for, in a sentence, and a ``tlkit convert`` command, empty where none
    applies."""
    kind = info.metadata.format
    if kind == "CoreML":
        return _coreml(info)
    if kind == "GGUF":
        if not info.parameters:
            return "a vocabulary without weights: llama.cpp tests tokenizers with it", ""
        if not (info.details.get("tokenizer", {}).get("model") and info.details.get("layers")):
            if info.details.get("architecture") == "clip":
                return "for llama.cpp, beside the language model that it shows pictures or sound to", ""
            return "weights only: it lacks hyperparameters or a tokenizer, and will not load in llama.cpp:", _to(
                info, ".safetensors"
            )
        return "for running with llama.cpp and the like, on any machine; to train further, or read it in PyTorch:", _to(
            info, ".safetensors"
        )
    if kind == "SafeTensors":
        return _safetensors(info)
    if kind == "PyTorch":
        return _pytorch(info)
    if kind == "ONNX":
        return "for running off Apple devices (ONNX Runtime); for Apple devices convert the PyTorch model behind it", ""
    return "for passing arrays around; `tlkit run --input NAME=FILE` takes it", ""


def _safetensors(info: ModelInfo) -> tuple[str, str]:
    where = "for training and sharing (PyTorch, MLX, Hugging Face); weights by themselves run nowhere"
    if info.details.get("llama_cpp"):
        return f"{where}. As GGUF, for llama.cpp and the like (converting says what speaks against it):", _to(
            info, ".gguf"
        )
    if "ForCausalLM" in str(info.details.get("architecture", "")):
        return f"{where}. As GGUF, of weights only, which will not load in llama.cpp:", _to(info, ".gguf")
    goal = shlex.quote(f"{_stem(info)}.mlpackage")
    return f"{where}. For Apple devices, the module that loads them:", f"tlkit convert model.py:Net -o {goal}"


def _coreml(info: ModelInfo) -> tuple[str, str]:
    if info.details.get("weights_missing"):
        return "nothing until its weights are here: see the warning", ""
    if info.kind == "mlProgram":
        where = "for running on Apple devices, and anywhere with `tlkit run`"
    elif info.kind.startswith("neuralNetwork"):
        where = f"for running on Apple devices ({info.kind}: the Neural Engine works best with mlprograms)"
    else:
        where = "for running on Apple devices"
    if not info.parameters:
        return where, ""
    return f"{where}; its weights for PyTorch:", _to(info, ".safetensors")


def _pytorch(info: ModelInfo) -> tuple[str, str]:
    if info.kind == "TorchScript":
        # The first argument's name in `(x: Tensor, ...)`.
        name = re.match(r"\((\w+):", str(info.details.get("forward", "")))
        port = f"--input {name[1] if name else 'x'}=DIMS"
        return "for running with PyTorch, without its Python source; for Apple devices:", _to(info, ".mlpackage", port)
    if info.kind == "exported program":
        return "for running and compiling with PyTorch; for Apple devices:", _to(info, ".mlpackage")
    if not info.parameters:
        return "a pickle without tensors: only the Python code that wrote it knows its purpose", ""
    if info.details.get("unexpected_imports"):
        return "for training, by whoever trusts it: loading it runs the code it names. Only the weights:", _to(
            info, ".safetensors"
        )
    return "for training with PyTorch; to share it, or open it without a pickle:", _to(info, ".safetensors")


def _to(info: ModelInfo, suffix: str, *options: str) -> str:
    words = ["tlkit", "convert", shlex.quote(info.path), *options, "-o", shlex.quote(f"{_stem(info)}{suffix}")]
    return " ".join(words)


def _stem(info: ModelInfo) -> str:
    path = Path(info.path)
    stem = path.name if path.is_dir() and path.suffix != ".mlpackage" else path.name.removesuffix(path.suffix)
    return stem.removesuffix(".safetensors.index") or "model"
