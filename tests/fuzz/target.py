"""What is fuzzed: sound inputs, how they are damaged, and what reads them."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Read(Protocol):
    """Reads the input in ``case`` (a folder); may write below ``out`` alone; ``rng`` depends on the input alone."""

    def __call__(self, case: Path, out: Path, rng: random.Random) -> None: ...


Damage = Callable[[bytes, Sequence[bytes], random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """One thing to fuzz. ``make`` makes the sound inputs (in a process that may use threads), ``seeds`` holds them.

    ``share`` is its share of the time, against 1 for the others.
    """

    name: str
    make: Callable[[], Sequence[bytes]]
    damage: Damage
    write: Callable[[bytes, Path], None]
    read: Read
    share: float = 1.0
    seeds: Sequence[bytes] = ()


def as_file(name: str) -> Callable[[bytes, Path], None]:
    """Return what writes an input as the file ``name``."""

    def write(case: bytes, folder: Path) -> None:
        (folder / name).write_bytes(case)

    return write


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return several files as one input; a name that ends in ``@`` is a symbolic link to what its bytes say."""
    out = bytearray()
    for name, data in files.items():
        out += struct.pack("<HI", len(name.encode()), len(data)) + name.encode() + data
    return bytes(out)


def unpack(case: bytes) -> dict[str, bytes]:
    """Return the files of :func:`pack`."""
    files, at = {}, 0
    while at < len(case):
        name, data = struct.unpack_from("<HI", case, at)
        at += 6
        files[case[at : at + name].decode()] = case[at + name : at + name + data]
        at += name + data
    return files


def as_files(case: bytes, folder: Path) -> None:
    """Write an input of several files."""
    for name, data in unpack(case).items():
        path = folder / name.removesuffix("@")
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("@"):
            path.symlink_to(data.decode())
        else:
            path.write_bytes(data)


def in_files(damages: Mapping[str, Damage], other: Damage) -> Damage:
    """Return a damage for inputs of several files: to one or two of them, by the ending of their names."""

    def damage(case: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
        files = unpack(case)
        donors = [unpack(item) for item in others]
        plain = [name for name in files if not name.endswith("@")]
        for name in rng.sample(plain, min(len(plain), rng.choice((1, 1, 1, 2)))):
            ending = name.rpartition(".")[2]
            alike = [data for donor in donors for key, data in donor.items() if key.rpartition(".")[2] == ending]
            files[name] = damages.get(ending, other)(files[name], alike or [files[name]], rng)
        if len(files) > 1 and rng.random() < 0.02:
            del files[rng.choice(list(files))]
        return pack(files)

    return damage
