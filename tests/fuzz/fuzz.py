"""Damage files at random and read, run, edit and convert them: only errors of ours may come of it, soon and cheaply.

    python -m tests.fuzz.fuzz --jobs 16 --seconds 540 --seed 7 --out build/fuzz/table.txt

Every worker is a process that is forked from one with everything loaded. It takes sound inputs of each target in turn,
damages them, and keeps those that reach lines of tlkit that no input reached before, to damage them further. Whoever
reads longer than 10 s is killed and the input tried a second time by the next worker. Faults are kept in --faults with
their inputs; ``--replay FILE`` reads one again, here, with its traceback.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"  # before torch is imported: threads do not survive a fork
os.environ.pop("TLKIT_DEBUG", None)
sys.dont_write_bytecode = True  # a write outside is a fault, and one that is refused leaves half a file

from tests.fuzz.board import COLUMNS, Board  # noqa: E402
from tests.fuzz.coverage import Lines  # noqa: E402
from tests.fuzz.faults import Fault, Faults  # noqa: E402
from tests.fuzz.target import Target  # noqa: E402
from tests.fuzz.worker import Reader, Task, work  # noqa: E402

HANG = 10.0
"""Seconds that reading an input may take."""

_BAD = COLUMNS[COLUMNS.index("raw") :]


def prepared(table: Sequence[Target], names: Sequence[str]) -> list[Target]:
    """Return the targets called ``names`` (all for none) with their sound inputs, made in another process."""
    unknown = set(names) - {target.name for target in table}
    if unknown:
        sys.exit(f"no target {', '.join(unknown)}: they are {', '.join(target.name for target in table)}")
    chosen = [target for target in table if not names or target.name in names]
    made = _elsewhere(lambda: pickle.dumps({target.name: list(target.make()) for target in chosen}))
    seeds: dict[str, Sequence[bytes]] = pickle.loads(made)
    return [replace(target, seeds=seeds[target.name]) for target in chosen]


def _elsewhere(call: Callable[[], bytes]) -> bytes:
    """Return what ``call`` returns, called in a forked process: torch's threads and caches stay there."""
    with tempfile.NamedTemporaryFile() as answer:
        child = os.fork()
        if not child:
            try:
                Path(answer.name).write_bytes(call())
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
        if os.waitpid(child, 0)[1]:
            sys.exit("the sound inputs could not be made")
        return answer.read()


class Pool:
    """The workers, and the watch over them."""

    def __init__(self, targets: Sequence[Target], jobs: int, seed: int, folder: Path, most: int, hang: float) -> None:
        self.targets, self.jobs, self.seed, self.folder, self.most = targets, jobs, seed, folder, most
        self.hang = hang
        self.lines = Lines()
        self.board = Board(jobs, len(targets), self.lines.total)
        self.faults = Faults(folder / "faults")
        self._workers: dict[int, int] = {}
        self._killed: set[int] = set()
        self._born = 0

    def run(self, seconds: float) -> None:
        """Let the workers fuzz for so long."""
        end = time.monotonic() + seconds
        for index in range(self.jobs):
            self._fork(index, end)
        said = time.monotonic()
        try:
            while self._workers:
                time.sleep(0.2)
                self._reap(end)
                for pid, index in list(self._workers.items()):
                    self._watch(pid, index)
                if time.monotonic() - said > 60:
                    said = time.monotonic()
                    total = sum(self.board.totals(at)[0]["inputs"] for at in range(len(self.targets)))
                    print(f"{total} inputs, {len(self.faults.found())} kinds of fault", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            for pid in self._workers:
                os.kill(pid, signal.SIGKILL)

    def _fork(self, index: int, end: float, again: tuple[int, bytes] | None = None) -> None:
        self._born += 1
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            self._workers[pid] = index
            return
        status = 1
        try:
            seed = f"{self.seed}/{index}/{self._born}"
            task = Task(index, seed, end, self.most, warm=self._born <= self.jobs, again=again)
            work(task, self.targets, self.board, self.lines, self.folder)
            status = 0
        except BaseException:
            import traceback

            (self.folder / f"broken-{index}").write_text(traceback.format_exc())
        finally:
            os._exit(status)

    def _reap(self, end: float) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            index = self._workers.pop(pid)
            broken = self.folder / f"broken-{index}"
            if broken.exists():  # the fuzzer itself failed: say so, rather than count it as a model's fault
                sys.exit(broken.read_text())
            again = self._ended(pid, index, os.waitstatus_to_exitcode(status), end)
            if status and time.monotonic() < end:
                self._fork(index, end, again)

    def _ended(self, pid: int, index: int, code: int, end: float) -> tuple[int, bytes] | None:
        """Judge the input that a worker held when it ended; return it if the next one is to try it a second time."""
        held = self.board.held(index)
        self.board.drop(index)
        if held is None:
            return None
        _, target, case, again = held
        if pid not in self._killed:
            self._blame(index, target, "crash", f"ended with {code}", case)
        elif again or time.monotonic() > end:
            self._blame(index, target, "hang", f"over {self.hang:g} s{self._stack(index)}", case)
        else:
            return target, case
        return None

    def _blame(self, index: int, target: int, column: str, what: str, case: bytes) -> None:
        self.board.count(index, target, "inputs")
        self.board.count(index, target, column)
        self.board.spend(index, target, self.hang if column == "hang" else 0.1)  # and a process's start
        self.faults.keep(Fault(self.targets[target].name, column, what), case)

    def _watch(self, pid: int, index: int) -> None:
        held = self.board.held(index)
        if held is None or time.monotonic() - held[0] < self.hang or pid in self._killed:
            return
        self._killed.add(pid)
        os.kill(pid, signal.SIGUSR1)  # writes where it is
        time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)

    def _stack(self, index: int) -> str:
        path = self.folder / f"stack-{index}"
        lines = [line for line in path.read_text().splitlines() if "/tlkit/" in line] if path.exists() else []
        return f": {lines[0].strip()[-120:]}" if lines else ""


def tabulated(pool: Pool) -> tuple[str, bool]:
    """Return the table of what was found, and whether every column that must be is 0."""
    heads = ("target", "inputs", "read", "refused", "coverage", *_BAD, "slowest", "per input")
    rows, total = [], dict.fromkeys(COLUMNS, 0)
    worst = covered = 0.0
    size = pool.lines.total
    union = bytearray(size)
    for at, target in enumerate(pool.targets):
        counts, slowest, spent = pool.board.totals(at)
        seen = pool.board.seen[at * size : (at + 1) * size]
        union = bytearray(a | b for a, b in zip(union, seen, strict=True))
        rows.append(_row(target.name, counts, sum(seen), slowest, spent))
        total = {key: total[key] + counts[key] for key in total}
        worst, covered = max(worst, slowest), covered + spent
    rows.append(_row("all", total, sum(union), worst, covered))
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = [
        row[0].ljust(widths[0]) + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in (heads, *rows)
    ]
    return "\n".join(lines), not any(total[name] for name in _BAD)


def _row(name: str, counts: dict[str, int], lines: int, slowest: float, spent: float) -> tuple[str, ...]:
    numbers = [str(counts[key]) for key in ("inputs", "read", "refused")]
    each = f"{1000 * spent / max(counts['inputs'], 1):.2f} ms"
    return (name, *numbers, str(lines), *(str(counts[key]) for key in _BAD), f"{slowest:.2f} s", each)


def replay(table: Sequence[Target], paths: Sequence[Path]) -> int:
    """Read kept inputs here; return 1 if one of them still comes to a bad end."""
    reader, bad = None, 0
    cases = [(path.name, path.read_bytes()) for path in paths]
    with tempfile.TemporaryDirectory(prefix="tlkit-fuzz-") as folder:
        reader = Reader(Path(folder).resolve() / "w")
        for name, case in cases:
            target = max((t for t in table if name.startswith(f"{t.name}-")), key=lambda t: len(t.name))
            verdict = reader.judge(target, case)
            print(f"{name}: {verdict.column} {verdict.what}\n{verdict.trace}".rstrip())
            bad += verdict.column in _BAD
        os.chdir("/")
    return int(bad > 0)


def _report(pool: Pool, arguments: argparse.Namespace, seconds: float) -> int:
    text, sound = tabulated(pool)
    version = ".".join(map(str, sys.version_info[:3]))
    head = f"seed {pool.seed}, {pool.jobs} jobs, {seconds:.0f} s, Python {version}"
    found = pool.faults.found()
    faults = "\n".join(f"{fault.target} {fault.kind}: {fault.what}  [{case}]" for fault, case in found)
    whole = f"{head}\n\n{text}\n" + (f"\n{len(found)} kinds of fault:\n{faults}\n" if found else "\n0 faults\n")
    print(whole)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(whole)
    if found and arguments.faults:
        shutil.copytree(pool.faults.folder, arguments.faults, dirs_exist_ok=True)
    return 0 if sound else 1


def _work_folder(wanted: Path | None) -> Path:
    shared = Path("/dev/shm")
    place = wanted or (shared if os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 1 << 30 else None)
    return Path(tempfile.mkdtemp(prefix="tlkit-fuzz-", dir=place)).resolve()


def main() -> int:
    """Read the command line and fuzz, or replay one kept input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="worker processes")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--inputs", type=int, default=1 << 62, help="stop after so many inputs")
    parser.add_argument("--seed", type=int, default=None, help="random if not given; printed with the table")
    parser.add_argument("--only", action="append", default=[], help="a target; may be given several times")
    parser.add_argument("--out", type=Path, help="write the table here too")
    parser.add_argument("--faults", type=Path, default=Path("build/fuzz"), help="keep faults' inputs here")
    parser.add_argument("--work", type=Path, help="where inputs are written; memory, where there is a /dev/shm")
    parser.add_argument("--replay", type=Path, nargs="+", help="read kept inputs again")
    parser.add_argument("--hang", type=float, default=HANG, help="seconds that reading an input may take [10]")
    parser.add_argument("--table", default="tests.fuzz.targets", help="the module whose TARGETS are fuzzed")
    arguments = parser.parse_args()
    table: Sequence[Target] = importlib.import_module(arguments.table).TARGETS
    if arguments.replay:
        return replay(table, arguments.replay)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**32)
    targets = prepared(table, arguments.only)
    folder = _work_folder(arguments.work)
    start = time.monotonic()
    try:
        pool = Pool(targets, arguments.jobs, seed, folder, arguments.inputs, arguments.hang)
        pool.run(arguments.seconds)
        return _report(pool, arguments, time.monotonic() - start)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
