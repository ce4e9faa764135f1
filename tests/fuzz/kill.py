"""Stop every command that writes, at random moments and by three signals: nothing is half there, no input is touched.

``make kill`` runs it; ``python -m tests.fuzz.kill --moments 200 --jobs 8 --seed 3 --only edit`` for more or for less.

Each command runs in a fork of this process, which has imported everything already, so that the moments fall into its
work and not into its imports. It writes to a fresh folder, or over an older output with ``--force``. What is found then
is judged by the libraries whose formats they are, not by tlkit:

* ``old`` or ``none``: what was there before, and nothing else. ``new``: the whole output. Anything else is ``partial``.
* After SIGINT and SIGTERM the exit code says which (130 or 143: not new; 0: new), and no other file is left.
* After SIGKILL there may be leftovers, and shards without their index (``cut``): the same command, run again, clears
  them and writes the whole output.
"""

from __future__ import annotations

import argparse
import atexit
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SOURCES = Path(__file__).parents[1] / "core" / "sources.py"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
LONGEST = 120.0
"""Seconds after which a command counts as hanging."""


@dataclass(frozen=True)
class Command:
    """A command that writes: its words, the outputs that it makes (the one that leads to the others first)."""

    words: tuple[str, ...]
    outputs: tuple[str, ...]
    interrupted_writes: bool = False  # bench saves what it has measured when it is interrupted


_MIL = ("convert", "net.mlpackage", "-o")
COMMANDS = {
    "convert": Command(
        ("convert", f"{SOURCES}:Conv", "--input", "image=1x3x8x8", "-o", "o.mlpackage"), ("o.mlpackage",)
    ),
    "remake": Command((*_MIL, "o.mlpackage", "--precision", "f32"), ("o.mlpackage",)),
    "functions": Command((*_MIL, "o.mlpackage", "--function", "b=net.mlpackage"), ("o.mlpackage",)),
    "pt2": Command((*_MIL, "o.pt2"), ("o.pt2",)),
    "onnx": Command((*_MIL, "o.onnx"), ("o.onnx",)),
    "edit": Command(("edit", "net.mlpackage", "--rename", "y=scores", "-o", "o.mlpackage"), ("o.mlpackage",)),
    "safetensors": Command(("convert", "w.safetensors", "--dtype", "f16", "-o", "o.safetensors"), ("o.safetensors",)),
    "shards": Command(
        ("convert", "w.safetensors", "--max-shard-size", "1MB", "-o", "o.safetensors"),
        ("o.safetensors.index.json", *(f"o-{part:05}-of-00012.safetensors" for part in range(1, 13))),
    ),
    "gguf": Command(("convert", "w.safetensors", "--quantize", "q8_0", "-o", "o.gguf"), ("o.gguf",)),
    "splits": Command(
        ("convert", "w.safetensors", "--max-shard-size", "1MB", "-o", "o.gguf"),
        tuple(f"o-{part:05}-of-00012.gguf" for part in range(1, 13)),
    ),
    "pytorch": Command(("convert", "w.safetensors", "-o", "o.pth"), ("o.pth",)),
    "run": Command(
        ("run", "net.mlpackage", "--input", "x=x.npy", "--save-outputs", "o.npz", "--dump", "values"),
        ("values", "o.npz"),
    ),
    "bench": Command(
        ("bench", "net.mlpackage", "-n", "10", "--warmup", "2", "--save", "o.json", "--report", "o.html"),
        ("o.json", "o.html"),
        interrupted_writes=True,
    ),
}


@dataclass
class Score:
    """What was found of one command."""

    kills: int = 0
    states: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def inputs(folder: Path) -> dict[str, str]:
    """Make the inputs of all commands; return each file's digest."""
    from safetensors.numpy import save_file

    from tests.formats import packages

    packages.linear(folder / "net.mlpackage")
    np.save(folder / "x.npy", np.ones((1, 4), np.float32))
    rng = np.random.default_rng(0)
    save_file({f"t{i}": rng.standard_normal((500, 512), np.float32) for i in range(12)}, folder / "w.safetensors")
    return digests(folder)


def digests(place: Path) -> dict[str, str]:
    """Return the digest of each file below ``place``, by its path there."""
    files = [place] if place.is_file() else sorted(item for item in place.rglob("*") if item.is_file())
    return {str(file.relative_to(place.parent)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def whole(path: Path) -> None:
    """Read an output with the library whose format it is; raises where it cannot be read to its end."""
    if path.suffix == ".mlpackage":
        import coremltools as ct

        spec = ct.utils.load_spec(str(path))
        program = spec.mlProgram.functions["main"]
        assert program.ByteSize() > 0
        assert (path / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size > 64
    elif path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        assert load_file(path)
    elif path.name.endswith(".index.json"):
        names = set(json.loads(path.read_text())["weight_map"].values())
        for name in names:
            whole(path.with_name(name))
    elif path.suffix == ".gguf":
        from gguf import GGUFReader

        assert all(tensor.data.nbytes for tensor in GGUFReader(path).tensors)
    elif path.suffix in (".pth", ".pt2"):
        import torch

        assert torch.load(path, weights_only=True) if path.suffix == ".pth" else torch.export.load(path)
    elif path.suffix == ".onnx":
        import onnx

        onnx.checker.check_model(str(path))
    elif path.suffix == ".npz":
        with np.load(path) as arrays:
            assert all(arrays[name].size for name in arrays.files)
    elif path.suffix == ".json":
        assert json.loads(path.read_text())["rows"]
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>")
    else:
        for item in json.loads((path / "index.json").read_text()):
            assert list(np.load(path / item["file"]).shape) == item["shape"]


def start(words: Sequence[str], folder: Path, scratch: Path) -> int:
    """Start ``tlkit WORDS`` in a fork of this process; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setpgid(0, 0)
        _forget_exits()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir(folder)
        os.environ["TMPDIR"], tempfile.tempdir = str(scratch), None
        nowhere = os.open(scratch.with_name(f"{scratch.name}.told"), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        for number in range(3):
            os.dup2(nowhere, number)
        sys.argv = ["tlkit", *words]
        from tlkit.cli.app import main

        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 71
    finally:
        _leave(code)
    raise AssertionError("unreachable")


def _forget_exits() -> None:
    """Take out what this process does when it ends (it removes its folders): the command's own exits come in anew."""
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]


def _leave(code: int) -> None:
    try:
        atexit._run_exitfuncs()
    except BaseException:
        code = code or 72
    os._exit(code)


def wait(pid: int, seconds: float) -> int | None:
    """Return the exit code (below zero: the signal), None where the process goes on for longer than ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


class Trial:
    """One command, run undisturbed first and then stopped again and again."""

    def __init__(self, name: str, base: Path) -> None:
        self.command, self.base = COMMANDS[name], base
        self.made = base / "made"
        self.made.mkdir(parents=True)
        self.given = inputs(self.made)
        taken = []
        for _ in range(3):
            begun = time.monotonic()
            code = wait(start([*self.command.words, "--force"], self.made, self._scratch("first")), LONGEST)
            taken.append(time.monotonic() - begun)
            told = (base / "scratch" / "first.told").read_text()
            assert code == 0, f"{name} undisturbed: exit code {code}: {told}"
        self.seconds = min(taken)
        self.names = set(os.listdir(self.made))
        self.sizes = {name: set(digests(self.made / name)) for name in self.command.outputs}
        assert self.names == {"net.mlpackage", "w.safetensors", "x.npy", *self.command.outputs}, self.names
        for output in self.command.outputs:
            whole(self.made / output)

    def _scratch(self, name: str) -> Path:
        folder = self.base / "scratch" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def stop(self, number: signal.Signals, share: float, replacing: bool) -> tuple[str, list[str]]:
        """Stop the command after ``share`` of its time; return what is there then, and what is wrong with that."""
        folder, scratch = self.base / "case", self._scratch("case")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.made, folder)
        if not replacing:
            for output in self.command.outputs:
                _remove(folder / output)
        before = {name: digests(folder / name) for name in self.command.outputs if (folder / name).exists()}
        inodes = {name: (folder / name).stat().st_ino for name in before}
        words = [*self.command.words, *(["--force"] if replacing else [])]
        pid = start(words, folder, scratch)
        time.sleep(self.seconds * share)
        os.kill(pid, number)
        code = wait(pid, LONGEST)
        _end(pid, code)
        faults = [] if code is not None else ["hangs"]
        state = self._state(folder, before, inodes)
        faults += self._judge(folder, scratch, number, code, state)
        if number == signal.SIGKILL and not faults:
            faults += self._again(folder, words, state)
        return state, faults

    def _state(self, folder: Path, before: dict[str, dict[str, str]], inodes: dict[str, int]) -> str:
        """Say what of the outputs is there."""
        there = [name for name in self.command.outputs if os.path.lexists(folder / name)]
        if not there and not before:
            return "none"
        old = [name for name in there if inodes.get(name) == (folder / name).stat().st_ino]
        if before and len(old) == len(before) == len(there):
            return "old" if all(digests(folder / name) == before[name] for name in old) else "partial"
        if len(there) == len(self.command.outputs) and not old:
            try:
                for name in there:
                    whole(folder / name)
                    assert set(digests(folder / name)) == self.sizes[name]
            except Exception:
                return "partial"
            return "new"
        # Without the first, which leads to the others, nobody takes what is there for a whole.
        return "partial" if self.command.outputs[0] in there else "cut"

    def _judge(self, folder: Path, scratch: Path, number: int, code: int | None, state: str) -> list[str]:
        faults = []
        kept = {name: digest for item in ("net.mlpackage", "w.safetensors", "x.npy") for name, digest in
                digests(folder / item).items()}  # fmt: skip
        if any(kept.get(name) != digest for name, digest in self.given.items() if name in kept) or not kept:
            faults.append("an input changed")
        if any(not (folder / item).exists() for item in ("net.mlpackage", "w.safetensors", "x.npy")):
            faults.append("an input is lost")
        if state == "partial" or (state == "cut" and number != signal.SIGKILL):
            faults.append(f"{state} output")
        if number == signal.SIGKILL:
            return faults
        extra = set(os.listdir(folder)) - self.names
        faults += [f"left behind: {name}" for name in (*extra, *os.listdir(scratch))]
        right = {"new": (0,), "old": (128 + number, -number), "none": (128 + number, -number)}.get(state, ())
        if self.command.interrupted_writes:
            right = (*right, 128 + number)
        if code not in right:
            faults.append(f"exit code {code}, and the output is {state}")
        return faults

    def _again(self, folder: Path, words: list[str], state: str) -> list[str]:
        """Run the killed command again: it clears what was left, and writes the whole output."""
        if set(os.listdir(folder)) <= self.names and state != "cut":
            return []
        again = words if state != "new" or "--force" in words else [*words, "--force"]
        code = wait(start(again, folder, self._scratch("again")), LONGEST)
        left = set(os.listdir(folder)) ^ self.names
        found = [f"after another run: {name}" for name in sorted(left)]
        return found + ([] if code == 0 else [f"another run: exit code {code}"])


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _end(pid: int, code: int | None) -> None:
    """Let nothing of the command go on: neither itself, should it hang, nor children of a killed one."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        return
    if code is None:
        os.waitpid(pid, 0)


def prepare() -> None:
    """Import what the commands need, so that their forks need not."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import coremltools  # noqa: F401
    import gguf  # noqa: F401
    import onnx  # noqa: F401
    import torch

    torch.set_num_threads(1)
    import torch._dynamo
    import torch.export
    import torch.onnx

    import tlkit.cli.bench
    import tlkit.cli.convert
    import tlkit.cli.edit
    import tlkit.cli.run
    import tlkit.core.bench.bench
    import tlkit.core.convert.convert
    import tlkit.core.convert.export
    import tlkit.core.convert.functions
    import tlkit.core.edit.edit
    import tlkit.core.run.run
    import tlkit.core.weights.weights  # noqa: F401


def trial(job: tuple[str, int, int]) -> tuple[str, Score]:
    """Stop the command ``name`` at ``moments`` moments drawn from ``seed``."""
    name, moments, seed = job
    rng, score = random.Random(f"{name}{seed}"), Score()
    with tempfile.TemporaryDirectory(prefix="tlkit-kill-", ignore_cleanup_errors=True) as folder:
        stopped = Trial(name, Path(folder))
        for moment in range(moments):
            # every third moment falls into the last tenth, where outputs get their names
            share = rng.uniform(0.9, 1.02) if moment % 3 == 2 else rng.uniform(0, 1)
            number, replacing = SIGNALS[(moment // 3) % 3], bool(moment // 9 % 2)
            state, faults = stopped.stop(number, share, replacing)
            score.kills += 1
            score.states[state] += 1
            where = f"{name}, {'replacing' if replacing else 'new'}, {number.name} at {share:.3f}"
            score.faults += [f"{where}: {fault}" for fault in faults]
    return name, score


def table(scores: dict[str, Score]) -> str:
    """Return the table for people, a row a command."""
    states = ("none", "old", "new", "cut", "partial")
    kinds: dict[str, Callable[[str], bool]] = {
        "lost inputs": lambda fault: "input" in fault,
        "left behind": lambda fault: "left behind" in fault or "after another run" in fault,
        "wrong exit": lambda fault: "exit code" in fault or "hangs" in fault,
    }
    lines = [f"{'command':12} {'kills':>6} " + " ".join(f"{item:>11}" for item in (*states, *kinds))]
    for name, score in scores.items():
        counts = [score.states[state] for state in states]
        counts += [sum(map(kind, score.faults)) for kind in kinds.values()]
        lines.append(f"{name:12} {score.kills:6} " + " ".join(f"{count:11}" for count in counts))
    return "\n".join(lines)


def main() -> None:
    """Run the commands that are asked for; exit 1 where one was found at fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--moments", type=int, default=200, help="for each command")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=COMMANDS, default=list(COMMANDS))
    options = parser.parse_args()
    prepare()
    scores = {name: Score() for name in options.only}
    size = -(-options.moments // max(1, options.jobs // 2))
    jobs = [
        (name, min(size, options.moments - begin), options.seed + begin)
        for begin in range(0, options.moments, size)
        for name in options.only
    ]
    with multiprocessing.get_context("fork").Pool(options.jobs, maxtasksperchild=1) as pool:
        for name, found in pool.imap_unordered(trial, jobs):
            scores[name].kills += found.kills
            scores[name].states += found.states
            scores[name].faults += found.faults
            print(f"{name}: {found.kills} kills, {len(found.faults)} faults", file=sys.stderr, flush=True)
    print(table(scores))
    faults = [fault for score in scores.values() for fault in score.faults]
    print("\n".join(faults[:50]))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
