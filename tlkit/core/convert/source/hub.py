"""A Hugging Face model folder (config.json and safetensors) as a source: its architecture comes from ``transformers``.

Nothing is downloaded, no code of the folder runs and no pickle is opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.errors import LoadError, UnavailableError, reason
from tlkit.formats.files.paths import regular_size
from tlkit.host.quiet import quiet
from tlkit.types import TensorSpec

if TYPE_CHECKING:
    from torch import nn

_TOKENS = 128
_TOKENIZER = 1 << 28  # bytes: the largest vocabularies have some 30 MB


def is_model_folder(path: Path) -> bool:
    """Whether ``path`` is a folder with a ``config.json``."""
    return (path / "config.json").is_file()


def tokenizer_files(path: Path) -> dict[str, str]:
    """Return the texts of a model folder's tokenizer by file name, to go into its package; none where it has none."""
    if not path.is_dir() or not is_model_folder(path) or not (path / "tokenizer.json").is_file():
        return {}
    found = {}
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (path / name).is_file() and regular_size(path / name) <= _TOKENIZER:
            found[name] = (path / name).read_text(encoding="utf-8", errors="replace")
    return found


def load_folder(path: Path, kwargs: Mapping[str, Any] | None = None) -> tuple[nn.Module, tuple[TensorSpec, ...]]:
    """Return the model in the folder at ``path`` and what it takes, at the sizes of its config (text: 1 x 128).

    ``kwargs`` are ``from_pretrained``'s: they override what the config says (``output_hidden_states``) or go to the
    model's class.
    """
    for item in path.iterdir():  # transformers opens them by name, and would wait for ever at a pipe
        if item.exists() and not item.is_dir():
            regular_size(item)
    name = _architecture(path)
    # Before the import, which reads it: transformers would ask the hub for what the folder lacks.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        with quiet():
            import transformers
    except ImportError as error:
        raise UnavailableError(
            f"{path}: a Hugging Face model needs transformers, which is not installed", "pip install 'tlkit[hf]'"
        ) from error
    except Exception as error:
        raise _broken(path, name, error) from error
    if not sorted(path.glob("*.safetensors")):
        raise LoadError(f"{path}: no *.safetensors in it", "save it again with save_pretrained")
    try:
        with quiet():
            kind = getattr(transformers, name, None)  # which imports what the architecture needs
    except Exception as error:
        raise _broken(path, name, error) from error
    if not (isinstance(kind, type) and hasattr(kind, "from_pretrained")):
        hint = "name a Python function that builds it: file.py:callable"
        raise LoadError(f"{path}: transformers {transformers.__version__} has no architecture '{name}'", hint)
    model = _load(path, kind, kwargs or {})
    return model, _ports(path, kind, getattr(model.config, "max_position_embeddings", None))


def _broken(path: Path, name: str, error: Exception) -> UnavailableError:
    """Return the error for an architecture whose import fails, usually because another package does not fit torch."""
    import torch

    said = reason(error)
    parts = [part for part in ("torchvision", "torchaudio") if part in said]
    part = parts[0] if parts else "one of the packages that it imports"
    return UnavailableError(
        f"{path}: transformers cannot import {name} here: {said}",
        f"{part} does not fit torch {torch.__version__}: install the one made for it, or uninstall it",
    )


def _architecture(path: Path) -> str:
    try:
        config = json.loads((path / "config.json").read_bytes())
        return str(config["architectures"][0])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise LoadError(
            f"{path / 'config.json'}: it names no architecture", "save the model again with save_pretrained"
        ) from error


def _load(path: Path, kind: Any, kwargs: Mapping[str, Any]) -> nn.Module:
    import torch

    try:
        with quiet():
            model: nn.Module
            model, info = kind.from_pretrained(
                path,
                **kwargs,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:
        said = reason(error, whole=True)
        raise LoadError(f"{path}: transformers cannot load it: {said}", "check its files") from error
    # transformers fills them at random, and only logs that.
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:4])
        raise LoadError(f"{path}: {len(info['missing_keys'])} weight(s) missing: {missing}", "check its safetensors")
    model.config.use_cache = False  # type: ignore[union-attr]  # a cache is not a tensor
    return model


def _ports(path: Path, kind: Any, longest: Any) -> tuple[TensorSpec, ...]:
    """Return the inputs of a text (of at most ``longest`` tokens), image or audio model; none where its config says
    too little."""
    config = json.loads((path / "config.json").read_bytes())
    main = getattr(kind, "main_input_name", "")
    if main == "input_ids":
        tokens = min(_TOKENS, int(longest or _TOKENS))
        names = ("input_ids", "attention_mask") if not config.get("is_decoder") else ("input_ids",)
        return tuple(TensorSpec(name, "int32", (1, tokens)) for name in names)
    size = config.get("image_size") or config.get("vision_config", {}).get("image_size") or _processor_size(path)
    if main == "pixel_values" and size:
        height, width = size if isinstance(size, list) else (size, size)
        return (TensorSpec(main, "float32", (1, int(config.get("num_channels", 3)), int(height), int(width))),)
    if main == "input_features" and "num_mel_bins" in config:
        # Whisper's second convolution halves the length of the spectrogram.
        return (TensorSpec(main, "float32", (1, int(config["num_mel_bins"]), 2 * int(config["max_source_positions"]))),)
    return ()


def _processor_size(path: Path) -> Any:
    try:
        size = json.loads((path / "preprocessor_config.json").read_bytes())["size"]
        return size if isinstance(size, int) else [size["height"], size["width"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
