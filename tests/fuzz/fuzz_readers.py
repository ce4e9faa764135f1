"""Damage sound files at random and read them: a TlkitError may come of it, nothing else, and soon.

``make fuzz`` runs it for a minute; ``python -m tests.fuzz.fuzz_readers --seconds 600 --seed 7 --only text`` for longer.
A case that does something else is kept in build/fuzz and named; ``--replay FILE`` reads it again.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz import seeds
from tests.fuzz.mutate import damage_bytes, damage_text
from tests.fuzz.tensor_seeds import tensor_files, zipped_package
from tlkit.core.inspect.inspection import examine, file_metadata
from tlkit.core.inspect.stats import tensor_stats
from tlkit.core.inspect.which import which_format
from tlkit.errors import TlkitError
from tlkit.formats.coreml.describe import describe
from tlkit.mil.blob import BlobFile
from tlkit.mil.program import BlobRef, TensorType, Value
from tlkit.mil.text.api import format_program, parse_program
from tlkit.mil.types import DType

CASE_SECONDS = 20
"""No case is large enough to take this long on any machine."""

MEMORY = 6 << 30
"""Address space of the whole run, in bytes: far more than the cases need, far less than a 2**62 would."""


@dataclass(frozen=True)
class Target:
    """What is damaged, and what reads it: ``read`` gets the case and an empty folder."""

    seeds: Callable[[], list[Any]]
    damage: Callable[[Any, list[Any], random.Random], Any]
    read: Callable[[Any, Path], None]


def read_text(text: str, folder: Path) -> None:
    """Read MIL text; what can be read must survive printing."""
    program = parse_program(text, lambda name: None)
    again = parse_program(format_program(program), lambda name: None)
    if again != program:
        raise AssertionError("printing and reading again gives another program")


def read_protobuf(data: bytes, folder: Path) -> None:
    """Read a model file, describe it and print its program."""
    from tlkit.formats.coreml.package import open_package

    path = seeds.write(folder, "model.mlmodel", data)
    describe(path)
    program = open_package(path).program
    if program is not None:
        format_program(program)


def read_weights(data: bytes, folder: Path) -> None:
    """Read every record a weight file could have, as every type."""
    file = BlobFile(seeds.write(folder, "weight.bin", data))
    for offset in range(0, min(len(file), 4096) + 64, 64):
        for dtype in DType:
            try:
                Value(TensorType(dtype, (2,)), BlobRef("w", offset, file)).numpy()
            except TlkitError:
                continue


def read_description(data: bytes, folder: Path) -> None:
    """Describe a compiled model by its ``coremldata.bin``."""
    seeds.write(folder, "coremldata.bin", data)
    describe(folder)


def read_tensors(data: bytes, folder: Path) -> None:
    """Inspect a file of weights all the ways there are, values included, if they are few."""
    path = seeds.write(folder, "model.bin", data)
    found = examine(path)
    assert found.groups is not None and which_format(found.info) and file_metadata(found.opened) is not None
    entries = found.source.entries()
    assert len({entry.name for entry in entries}) == len(entries), "a name twice"
    for entry in entries:
        if entry.elements < 1 << 16:
            try:
                tensor_stats(found.source, entry)
            except TlkitError:
                continue  # a type without values


TARGETS = {
    "text": Target(seeds.texts, damage_text, read_text),
    "protobuf": Target(seeds.protobufs, damage_bytes, read_protobuf),
    "weights": Target(seeds.weights, damage_bytes, read_weights),
    "description": Target(seeds.descriptions, damage_bytes, read_description),
    "tensors": Target(lambda: [*tensor_files(), zipped_package(seeds.protobufs()[0])], damage_bytes, read_tensors),
}


def check(name: str, case: Any) -> str:
    """Read one case; return what came of it: ``read`` or ``refused``. Anything else raises."""
    with tempfile.TemporaryDirectory(prefix="tlkit-fuzz-") as folder, _limited():
        try:
            TARGETS[name].read(case, Path(folder))
        except TlkitError as error:
            if "\n" in error.message or len(error.message) > 2000:
                raise AssertionError(f"not a one-line message: {error.message[:200]!r}") from error
            return "refused"
    return "read"


def cases(name: str, rng: random.Random) -> Iterator[Any]:
    """Yield damaged seeds for ever."""
    target = TARGETS[name]
    sound = target.seeds()
    while True:
        yield target.damage(rng.choice(sound), sound, rng)


@contextmanager
def _limited() -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise AssertionError(f"a case took more than {CASE_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(CASE_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(names: list[str], seconds: float, seed: int) -> int:
    """Fuzz the targets in turn for ``seconds`` altogether; return the exit code."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    rng = random.Random(seed)
    streams = {name: cases(name, rng) for name in names}
    counted: Counter[tuple[str, str]] = Counter()
    end = time.monotonic() + seconds
    failed = False
    while time.monotonic() < end and not failed:
        for name, stream in streams.items():
            case = next(stream)
            try:
                counted[name, check(name, case)] += 1
            except Exception:
                traceback.print_exc()
                print(f"{name}: kept as {_keep(name, case)} (seed {seed})", file=sys.stderr)
                failed = True
    for name in names:
        print(f"{name:<12} {counted[name, 'refused']:>7} refused {counted[name, 'read']:>7} read")
    return int(failed)


def _keep(name: str, case: Any) -> Path:
    data = case.encode("utf-8", "surrogatepass") if isinstance(case, str) else case
    path = Path("build/fuzz") / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def main() -> int:
    """Read the command line and fuzz, or replay one kept case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None, help="random if not given; printed with a failure")
    parser.add_argument("--only", choices=TARGETS, action="append")
    parser.add_argument("--replay", type=Path)
    arguments = parser.parse_args()
    if arguments.replay:
        name = arguments.replay.name.partition("-")[0]
        data = arguments.replay.read_bytes()
        print(check(name, data.decode("utf-8", "surrogatepass") if name == "text" else data))
        return 0
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**32)
    return run(arguments.only or list(TARGETS), arguments.seconds, seed)


if __name__ == "__main__":
    sys.exit(main())
