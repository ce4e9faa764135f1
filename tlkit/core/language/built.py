"""Which model a package is: told in its description, and certain where its functions are the ones that tlkit builds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tlkit.core.language.model import LanguageModel
from tlkit.core.language.text.tokenizer import TextTokenizer
from tlkit.errors import LoadError, reason
from tlkit.formats.coreml.package import Package
from tlkit.frontends.gguf.decoder import Form
from tlkit.frontends.gguf.families import family_of
from tlkit.frontends.gguf.kit.hyperparameters import read_hyperparameters
from tlkit.frontends.gguf.kit.packaged import differs, packaged_source
from tlkit.mil.types import DType

_LISTED = 1 << 12  # values of a list in the description: one for each layer


def origin(model: LanguageModel) -> dict[str, Any]:
    """Return what a model can be built of again, beside its weights: metadata, the names of the weights, and values
    that only constants are made of."""
    metadata: dict[str, Any] = {}
    for key, value in model.metadata.items():
        if key.startswith("tokenizer."):
            continue
        if isinstance(value, bool | int | float | str):
            metadata[key] = value
        elif isinstance(value, Sequence) and len(value) <= _LISTED:
            items = list(value)
            metadata |= {key: items} if all(isinstance(item, int | float | bool) for item in items) else {}
    divisors = {name: tensor for name, tensor in model.source.tensors.items() if name.startswith("rope_f")}
    values = {name: [float(item) for item in tensor.array()] for name, tensor in divisors.items()}
    return {"metadata": metadata, "tensors": [n for n in model.source.tensors if n not in divisors], "values": values}


def built_model(
    path: Path, package: Package, said: Mapping[str, Any], sizes: Mapping[str, int], making: Callable[[], TextTokenizer]
) -> tuple[LanguageModel | None, str]:
    """Return the model that a package is, or why that cannot be said.

    ``said`` is its description, ``sizes`` are its functions' numbers of tokens, ``making`` returns its tokenizer.
    """
    if said["precision"] != "f32" or said.get("returns", "logits") != "logits":
        return None, "this package computes in f16, or returns no logits"
    if not _sound(said):
        return None, "this package does not say what it was made from: convert it again"
    program, context = package.program, int(said["context"])
    assert program is not None  # as open_language_package made sure
    files = [file for file in (package.file, *package.file.parent.rglob("*")) if file.is_file()]
    try:
        source = packaged_source(path, program.function("main"), said, files)
        family = family_of(str(said.get("architecture")), str(path))
        model = LanguageModel(path, source, read_hyperparameters(source.metadata), family, making)
        for name, stored in program.functions.items():
            form = Form(sizes[name], context, context, stored=DType.FP16, compressed=True, nested=True)
            part = differs(model.function(form), stored)
            if part is not None:
                return None, f"this package's function {name} is another one from {part} on"
    except (LoadError, KeyError) as error:
        return None, f"this package is another one: {reason(error)}"
    return model, ""


def _sound(said: Mapping[str, Any]) -> bool:
    """Whether a description tells what the package was made from."""
    metadata, tensors, values = (said.get(name) for name in ("metadata", "tensors", "values"))
    return (
        isinstance(metadata, dict)
        and isinstance(tensors, list)
        and all(isinstance(name, str) for name in tensors)
        and isinstance(values, dict)
        and all(isinstance(row, list) and all(isinstance(item, float) for item in row) for row in values.values())
    )
