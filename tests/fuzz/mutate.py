"""Random damage to bytes and to text, from a seeded generator so that a case can be made again."""

from __future__ import annotations

import random
import re

_BYTES = (0, 1, 7, 10, 16, 0x7F, 0x80, 0xC0, 0xFE, 0xFF)
_WORDS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z_]\w*|[-+]?\d[\w.+-]*|\s+|->|.', re.DOTALL)
_SPARE = (
    *"()[]{}<>,;=?*\"'\\/ \n\0",
    "->",
    "tensor",
    "list<",
    "tuple<",
    "dict<",
    "state<",
    "BLOBFILE(",
    "const",
    "func",
    "specializations",
    "block",
    "nan",
    "nan(0x7e01)",
    "-inf",
    "0x1p+9999",
    "-1",
    str(2**62),
    str(2**64),
    "9" * 500,
    "//",
    '"\\ud800"',
    "fp8e4m3fn",
    "int4",
)


def damage_bytes(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Return ``data`` with one to eight places changed."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.choice((1, 2, 8, 64, 4096)))
        kind = rng.randrange(7)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = rng.choice(_BYTES)
        elif kind == 2:
            out[at : at + 8] = rng.choice(_WORDS).to_bytes(8, "little")
        elif kind == 3:
            del out[at:end]
        elif kind == 4:
            out[at:at] = out[at:end] * rng.randint(1, 4)
        elif kind == 5:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            out[at:at] = other[start : start + rng.randrange(256)]
        elif kind == 6:
            del out[at:]
    return bytes(out)


def damage_text(text: str, others: list[str], rng: random.Random) -> str:
    """Return ``text`` with one to eight of its tokens changed, dropped, repeated or exchanged for another's."""
    tokens = _TOKENS.findall(text)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        if not tokens:
            break
        at = rng.randrange(len(tokens))
        kind = rng.randrange(9)
        if kind == 0:
            del tokens[at : at + rng.choice((1, 2, 10))]
        elif kind == 1:
            tokens[at] = rng.choice(_SPARE)
        elif kind == 2:
            tokens[at:at] = [tokens[at]] * rng.choice((1, 2, 300))
        elif kind == 3:
            other = rng.randrange(len(tokens))
            tokens[at], tokens[other] = tokens[other], tokens[at]
        elif kind == 4:
            donor = _TOKENS.findall(rng.choice(others))
            start = rng.randrange(len(donor) + 1)
            tokens[at:at] = donor[start : start + rng.randrange(40)]
        elif kind == 5:
            del tokens[at:]
        else:
            alike = [token for token in tokens if _class(token) == _class(tokens[at])]
            tokens[at] = rng.choice(alike)
    return "".join(tokens)


def _class(token: str) -> str:
    return "word" if token[0].isalpha() else "number" if token[0].isdigit() else token[0]
