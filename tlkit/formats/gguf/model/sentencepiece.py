"""``tokenizer.model``: SentencePiece's protobuf (``sentencepiece_model.proto``), read for its pieces and its habits."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from tlkit.errors import LoadError, reason
from tlkit.formats.files.mapped import DAMAGED, read_whole
from tlkit.formats.files.wire import WireError, fields

_LIMIT = 1 << 26  # bytes: ten times the largest known
_UNIGRAM = 1  # TrainerSpec.ModelType
_NORMAL = 1  # SentencePiece.Type


@dataclass(frozen=True, slots=True)
class SentencePieces:
    """The pieces in the order of their ids, with scores and types (1 normal, 2 unknown, 3 control, 4 user's, 5 unused,
    6 byte: GGUF's numbers are the same), and how text is prepared for them."""

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[int, ...]
    unigram: bool
    prefix: bool
    squeezes: bool
    charsmap: bytes


def read_pieces(path: Path) -> SentencePieces:
    """Read ``path``; LoadError where it is not SentencePiece's."""
    data = memoryview(read_whole(path, _LIMIT))
    try:
        return _read(data)
    except (WireError, struct.error, UnicodeDecodeError, ValueError) as error:
        raise LoadError(f"{path}: not a SentencePiece model: {reason(error)[:100]}", DAMAGED) from None


def _read(data: memoryview) -> SentencePieces:
    found: list[tuple[str, float, int]] = []
    # The specification's defaults.
    unigram, prefix, squeezes, charsmap = True, True, True, b""
    for number, wire, start, end in fields(data, 0, len(data)):
        if wire != 2:
            continue
        if number == 1:
            found.append(_piece(data, start, end))
        elif number == 2:  # TrainerSpec
            # model_type is field 3.
            kinds = [value for key, kind, value, _ in fields(data, start, end) if (key, kind) == (3, 0)]
            unigram = not kinds or kinds[-1] == _UNIGRAM
        elif number == 3:  # NormalizerSpec
            # 2 is precompiled_charsmap, 3 add_dummy_prefix, 4 remove_extra_whitespaces.
            for key, kind, value, stop in fields(data, start, end):
                if (key, kind) == (2, 2):
                    charsmap = bytes(data[value:stop])
                elif (key, kind) == (3, 0):
                    prefix = bool(value)
                elif (key, kind) == (4, 0):
                    squeezes = bool(value)
    if not found:
        raise ValueError("it has no pieces")
    texts, scores, types = zip(*found, strict=True)
    return SentencePieces(texts, scores, types, unigram, prefix, squeezes, charsmap)


def _piece(data: memoryview, start: int, end: int) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, _NORMAL
    # 1 is the piece, 2 its score, 3 its type.
    for number, wire, value, stop in fields(data, start, end):
        if (number, wire) == (1, 2):
            text = str(data[value:stop], "utf-8")
        elif (number, wire) == (2, 5):
            (score,) = struct.unpack_from("<f", data, value)
        elif (number, wire) == (3, 0):
            kind = value
    return text, score, kind
