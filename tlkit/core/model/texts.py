"""Text for a model that takes ids of tokens, encoded by the ``tokenizer.json`` in its package or beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.core.language.text.vocabularies import stored_tokenizer
from tlkit.errors import UnavailableError, UsageError
from tlkit.formats.coreml.write import beside_model
from tlkit.ports.shapes import allows, shapes_text
from tlkit.types import TensorSpec

PREFIX = "text:"
TOKENIZER = "tokenizer.json"
_MASKS = ("attention_mask", "mask", "input_mask")
_KINDS = ("token_type_ids", "segment_ids", "token_types")


@dataclass(frozen=True, slots=True)
class Text:
    """A text whose ids an input is given."""

    text: str


def tokenizer_of(model: Path) -> Path | None:
    """Return the tokenizer that a package carries, or that lies beside the model's file; None where there is none."""
    places = (beside_model(model, TOKENIZER), model.parent / TOKENIZER)
    return next((place for place in places if place.is_file()), None)


def with_texts(ports: Sequence[TensorSpec], values: Mapping[str, Any], tokenizer: Path | None) -> dict[str, Any]:
    """Return ``values`` with ids in the place of each :class:`Text`, of a length that its input takes.

    What an encoder takes beside ids is made too where it was not given: a mask of ones over the text (zeros over what
    was added to reach the length), and zeros as the kinds of tokens. UsageError for an input that takes no ids or not
    as many; UnavailableError where there is no tokenizer or the library is not installed.
    """
    made: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Text):
            port = next(spec for spec in ports if spec.name == name)
            made |= _encoded(port, ports, value.text, tokenizer)
    return {**made, **{name: value for name, value in values.items() if not isinstance(value, Text)}}


def _encoded(port: TensorSpec, ports: Sequence[TensorSpec], text: str, tokenizer: Path | None) -> dict[str, Any]:
    if tokenizer is None:
        said = f"input '{port.name}' is given a text, and the model carries no {TOKENIZER}"
        raise UnavailableError(said, f"lay the {TOKENIZER} of its source beside it, or give ids: {port.name}=ids.npy")
    if port.kind != "tensor" or port.image is not None or len(port.shape) > 2:
        said = f"input '{port.name}' takes no ids of tokens ({shapes_text(port) or port.kind})"
        raise UsageError(said, "give the text to the input of ids")
    ids, padding = _ids(tokenizer, text)
    length = len(ids)
    fitting = _length(port, length)
    whole = np.array([*ids, *[padding] * (fitting - length)])
    values = {port.name: whole}
    for other in ports:
        if other.name in _MASKS:
            values[other.name] = (np.arange(fitting) < length).astype(int)
        elif other.name in _KINDS:
            values[other.name] = np.zeros(fitting, int)
    rank = len(port.shape) or 2
    return {name: value.reshape((1,) * (rank - 1) + (fitting,)) for name, value in values.items()}


def _length(port: TensorSpec, count: int) -> int:
    """Return the least length from ``count`` on that the port takes."""
    rank = len(port.shape) or 2
    ends = [shape[-1] for shape in (port.shape, *port.listed) if shape] + [low for low, _ in port.spans[-1:]]
    for length in sorted({count, *(end for end in ends if end >= count)}):
        if allows(port, (1,) * (rank - 1) + (length,)):
            return length
    said = f"input '{port.name}': the text has {count} tokens, which do not fit {shapes_text(port)}"
    raise UsageError(said, "give it a shorter text")


def _ids(file: Path, text: str) -> tuple[list[int], int]:
    """Return the ids of ``text`` with those at its ends, and the id that fills up."""
    found = stored_tokenizer(file)
    padding = (found.padding or {}).get("pad_id", 0)
    found.no_truncation()
    found.no_padding()
    ids = list(found.encode(text).ids)
    if not ids:
        raise UsageError("the text has no tokens", "give it some words")
    return ids, int(padding)
