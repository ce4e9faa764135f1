"""One process of the fuzzer: makes inputs, reads them, and judges what came of each."""

from __future__ import annotations

import faulthandler
import gc
import hashlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.fuzz.board import LARGEST, Board
from tests.fuzz.coverage import Coverage, Lines
from tests.fuzz.faults import Fault, Faults, described
from tests.fuzz.guard import Guard, Memory
from tests.fuzz.target import Target
from tlkit.errors import TlkitError

SLICE = 2.0
"""Seconds that a worker stays with one target, at most."""

MEMORY = 200_000_000
"""Bytes of memory that any input may cost; a larger one ten times its own size."""

_LIMIT = 1 << 30  # bytes of private memory past which the process gets a MemoryError: the machine is not to suffer
_FRESH = 0.15  # the share of inputs made of a sound one, not of one that the fuzzer found


@dataclass(frozen=True)
class Verdict:
    """How the reading of one input ended: a column of the board, and for a bad end what happened."""

    column: str
    what: str = ""
    trace: str = ""


class Reader:
    """Reads single inputs under guard. ``root`` is an empty folder of its own."""

    def __init__(self, root: Path, coverage: Coverage | None = None) -> None:
        self.guard = Guard(root)
        self.memory = Memory()
        self.coverage = coverage

    def judge(self, target: Target, case: bytes, begin: Callable[[], None] = lambda: None) -> Verdict:
        """Read one input; one that seems to cost much memory is read a second time, since libraries load themselves.

        ``begin`` is called before each reading.
        """
        begin()
        verdict = self._once(target, case)
        if verdict.column != "memory":
            return verdict
        begin()
        return self._once(target, case)

    def _once(self, target: Target, case: bytes) -> Verdict:
        guard = self.guard
        for folder in (guard.case, guard.out, guard.tmp):
            _empty(folder)
        target.write(case, guard.case)
        given = guard.stamp()
        self.memory.start()
        verdict = self._read(target, case)
        grown = self.memory.grown()
        escaped = guard.escaped(given)
        if escaped:
            return Verdict("outside", escaped[0].replace(str(guard.root), "…"))
        if verdict.column in ("read", "refused") and grown > max(MEMORY, 10 * len(case)):
            return Verdict("memory", f"{verdict.column} with {grown >> 20} MiB above {len(case)} bytes of input")
        return verdict

    def _read(self, target: Target, case: bytes) -> Verdict:
        rng = random.Random(case)
        try:
            with self.guard.watching():
                if self.coverage is None:
                    target.read(self.guard.case, self.guard.out, rng)
                else:
                    with self.coverage.watching():
                        target.read(self.guard.case, self.guard.out, rng)
        except TlkitError as error:
            return _refused(error)
        except MemoryError as error:
            return Verdict("memory", *described(error))
        except BaseException as error:
            return Verdict("raw", *described(error))
        return Verdict("read")


def _refused(error: TlkitError) -> Verdict:
    """An error of ours is a good end if it is one line of reason and one of advice, and no memory ran out before it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            return Verdict("memory", *described(cause))
        cause = cause.__cause__ or cause.__context__
    for text in (error.message, error.hint):
        if len(text.splitlines()) > 1 or len(text) > 2000:
            return Verdict("raw", f"not one line: {text[:60]!r} {described(error)[0]}")
    if not error.message.strip():
        return Verdict("raw", f"an empty message: {described(error)[0]}")
    return Verdict("refused")


def _empty(folder: Path) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


class Corpus:
    """A target's inputs worth damaging: its sound ones, and those that reached new lines in any worker."""

    def __init__(self, target: Target, folder: Path) -> None:
        self._folder = folder / target.name
        self._folder.mkdir(parents=True, exist_ok=True)
        self.sound = target.seeds
        self.found: list[bytes] = []
        self._known: set[str] = set()

    def refresh(self) -> None:
        """Take in what other workers have found."""
        for entry in os.scandir(self._folder):
            if entry.name not in self._known and not entry.name.startswith("."):
                self._known.add(entry.name)
                self.found.append(Path(entry.path).read_bytes())

    def add(self, case: bytes) -> None:
        """Keep an input, for the others too."""
        name = hashlib.sha256(case).hexdigest()[:16]
        if name in self._known:
            return
        self._known.add(name)
        self.found.append(case)
        part = self._folder / f".{os.getpid()}"
        part.write_bytes(case)
        part.rename(self._folder / name)

    def pick(self, rng: random.Random) -> bytes:
        """Return an input to damage."""
        if self.found and rng.random() > _FRESH:
            return rng.choice(self.found[-64:] if rng.random() < 0.5 else self.found)
        return rng.choice(self.sound)


@dataclass(frozen=True)
class Task:
    """What a worker is to do: its number, its random seed, until when (``time.monotonic``), and how many inputs all
    workers read together. ``warm`` is to read sound inputs first, which one of them may not survive; ``again`` is an
    input, with its target's number, that the worker before this one read for too long."""

    index: int
    seed: str
    end: float
    most: int
    warm: bool
    again: tuple[int, bytes] | None = None


def work(task: Task, targets: Sequence[Target], board: Board, lines: Lines, folder: Path) -> None:
    """Fuzz, as ``task`` says."""
    index, end = task.index, task.end
    _settle(folder / f"stack-{index}")
    coverage = Coverage(lines, board.seen)
    root = folder / f"worker-{index}-{os.getpid()}"
    root.mkdir()
    reader, faults = Reader(root, coverage), Faults(folder / "faults")
    corpora = [Corpus(target, folder / "corpus") for target in targets]
    rng = random.Random(task.seed)
    again = [task.again] if task.again else []
    if task.warm:  # unwatched: what libraries load and build the first time is not an input's
        for at, target in enumerate(targets):
            case = target.seeds[0]
            _unwatched(reader, target, case, partial(board.take, index, at, case, again=True))
        board.drop(index)
    gc.freeze()
    turn = min(SLICE, (end - time.monotonic()) / (3 * sum(target.share for target in targets)))
    while time.monotonic() < end and sum(board.totals(at)[0]["inputs"] for at in range(len(targets))) < task.most:
        at = again[0][0] if again else min(range(len(targets)), key=lambda i: board.spent(index, i) / targets[i].share)
        coverage.target(at)
        corpora[at].refresh()
        reader.memory.limit(
            _LIMIT
        )  # each time: OpenVINO keeps a thread, whose stack counts, for each model it compiled
        until = min(end, time.monotonic() + turn)
        while time.monotonic() < until:
            second = bool(again)
            case = again.pop()[1] if second else targets[at].damage(corpora[at].pick(rng), corpora[at].sound, rng)
            if len(case) > LARGEST:
                continue
            start = time.monotonic()
            verdict = reader.judge(targets[at], case, partial(board.take, index, at, case, second))
            board.spend(index, at, time.monotonic() - start)
            board.drop(index)
            board.count(index, at, "inputs")
            board.count(index, at, verdict.column)
            if verdict.what:
                faults.keep(Fault(targets[at].name, verdict.column, verdict.what, verdict.trace), case)
            elif coverage.new():
                corpora[at].add(case)
    shutil.rmtree(root, ignore_errors=True)


def _unwatched(reader: Reader, target: Target, case: bytes, begin: Callable[[], None]) -> None:
    coverage, reader.coverage = reader.coverage, None
    reader.judge(target, case, begin)
    reader.coverage = coverage


def _settle(stack: Path) -> None:
    """Say nothing, leave nothing behind but a stack when asked, and never wait for a keyboard."""
    import warnings

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    faulthandler.register(signal.SIGUSR1, file=stack.open("w"), all_threads=False)
