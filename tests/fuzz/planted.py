"""Targets that do on purpose what the fuzzer is there to find: it must find each, and nothing in the sound one."""

from __future__ import annotations

import ctypes
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.target import Target, as_file
from tlkit.errors import LoadError


def _raises(case: Path, out: Path, rng: random.Random) -> None:
    raise KeyError("planted")


def _two_lines(case: Path, out: Path, rng: random.Random) -> None:
    error = LoadError("planted")
    error.message = "planted\nin two lines"  # past the constructor, which makes one line of any message
    raise error


def _crashes(case: Path, out: Path, rng: random.Random) -> None:
    ctypes.string_at(0)


def _sleeps(case: Path, out: Path, rng: random.Random) -> None:
    time.sleep(60)


def _fills_memory(case: Path, out: Path, rng: random.Random) -> None:
    _ = b"x" * 220_000_000


def _asks_for_too_much(case: Path, out: Path, rng: random.Random) -> None:
    try:
        bytearray(1 << 40)
    except MemoryError as error:
        raise LoadError("planted: a kind word for it") from error


def _writes_by_python(case: Path, out: Path, rng: random.Random) -> None:
    (case.parents[4] / "elsewhere").write_bytes(b"planted")


def _writes_by_c(case: Path, out: Path, rng: random.Random) -> None:
    libc = ctypes.CDLL(None)
    libc.close(libc.open(os.fsencode(case.parents[3] / "canary/bird"), os.O_WRONLY | os.O_TRUNC))


def _changes_input(case: Path, out: Path, rng: random.Random) -> None:
    (case / "x").write_bytes(b"planted, and longer")


def _starts(case: Path, out: Path, rng: random.Random) -> None:
    os.system("true")


def _leaves(case: Path, out: Path, rng: random.Random) -> None:
    (out.parent / "tmp/left").write_bytes(b"planted")


def _sound(case: Path, out: Path, rng: random.Random) -> None:
    (out / "made").write_bytes((case / "x").read_bytes())
    if rng.random() < 0.5:
        raise LoadError("not good")


def _same(case: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    return rng.randbytes(8)


def _seeds() -> list[bytes]:
    return [b"sound"]


EXPECTED = {
    "raises": (_raises, "raw"),
    "two-lines": (_two_lines, "raw"),
    "crashes": (_crashes, "crash"),
    "sleeps": (_sleeps, "hang"),
    "fills-memory": (_fills_memory, "memory"),
    "asks-for-too-much": (_asks_for_too_much, "memory"),
    "writes-by-python": (_writes_by_python, "outside"),
    "writes-by-c": (_writes_by_c, "outside"),
    "changes-input": (_changes_input, "outside"),
    "starts": (_starts, "outside"),
    "leaves": (_leaves, "outside"),
    "sound": (_sound, "read"),
}
"""What each does, and the column of the table where it must be counted."""

TARGETS = tuple(Target(name, _seeds, _same, as_file("x"), read) for name, (read, _) in EXPECTED.items())
