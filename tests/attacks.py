"""Files that would do harm, opened in a child process that may not: memory is bounded, time is bounded, and nothing
outside the folder that is the child's own may appear or change."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parent.parent


@contextmanager
def untouched(*folders: Path) -> Iterator[None]:
    """Fail where anything in ``folders`` is not after the body what it was before."""
    before = {folder: _snapshot(folder) for folder in folders}
    yield
    for folder, found in before.items():
        assert _snapshot(folder) == found, f"{folder} was touched"


def _snapshot(folder: Path) -> dict[str, tuple[int, int, str]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and status.st_size < 1 << 24 else ""
        found[str(path)] = (status.st_mode, status.st_mtime_ns, digest)
    return found


def attempt(
    opener: str, paths: Iterable[Path], home: Path, memory: int = 1 << 29, seconds: int = 120
) -> dict[str, str | None]:
    """Call ``opener`` (``module:function``) on each of ``paths`` in one child whose home and temporary folder is
    ``home``; return each file's error message by its name, None where it was opened.

    Anything but a TlkitError, more than ``memory`` bytes of private memory, or silence for ``seconds`` fails.
    """
    home.mkdir(exist_ok=True)
    with untouched(home):
        ran = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tests.attacks", opener, str(memory), *map(str, paths)],
            capture_output=True,
            text=True,
            timeout=seconds,
            cwd=ROOT,
            env=os.environ | {"HOME": str(home), "TMPDIR": str(home), "TORCHINDUCTOR_CACHE_DIR": str(home)},
        )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, str | None] = json.loads(ran.stdout.splitlines()[-1])
    return found


def weights(path: Path) -> None:
    """Open a model and read each of its weights, as ``inspect --stats`` does."""
    from tlkit.core.model.load import load_model

    for tensor in load_model(path).tensors().values():
        tensor.numpy()


def source(path: Path) -> None:
    """Open a model as ``convert`` does."""
    from tlkit.core.convert.source.source import load_source

    load_source(path)


def program(path: Path) -> None:
    """Open a ``.pt2`` and run it once on inputs like those that it was made with."""
    import torch

    from tlkit.core.convert.source.opened import open_program
    from tlkit.errors import TlkitError

    loaded, ports = open_program(path)
    try:
        loaded.module()(torch.ones(4, 3))
    except TlkitError:
        raise
    except Exception:  # what it computes is not the question here
        assert ports


def _main(opener: str, memory: int, names: list[str]) -> None:
    from tlkit.errors import TlkitError

    module, _, function = opener.partition(":")
    call = getattr(import_module(module), function)
    if module == __name__ or "convert" in module:
        import torch  # noqa: F401  # before the limit: what libraries map is not the file's doing
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    found: dict[str, str | None] = {}
    for name in names:
        try:
            call(Path(name))
            found[Path(name).name] = None
        except TlkitError as error:
            if not error.hint or "\n" in error.message + error.hint:
                raise
            found[Path(name).name] = error.message
    sys.stdout.write(f"{json.dumps(found)}\n")


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
