"""What would kill, stop or fill a process does so to a child, and the parent says it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tlkit.errors import LoadError, TlkitError, UsageError
from tlkit.host.allocator import keep_freed
from tlkit.host.rehearse import CrashError, rehearse

MEMORY = 1 << 27


def fine(path: str) -> None:
    Path(path).write_text("done")


def refuses() -> None:
    raise UsageError("what is wrong", "what to do")


def crashes() -> None:
    ctypes.string_at(0)


def leaves() -> None:
    sys.exit(3)


def loops(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    while True:
        time.sleep(0.01)


def fills() -> None:
    bytearray(1 << 29)


def holds_freed() -> None:
    """In a process that has freed 1 GB within its heap, a bounded child cannot fill it."""
    keep_freed()
    blocks = [bytearray(1 << 28) for _ in range(4)]
    kept = [bytearray(1 << 10) for _ in range(1 << 10)]  # behind them, so that the heap cannot shrink
    blocks.clear()
    rehearse(f"{__name__}:fills", [], MEMORY, 60)
    kept.clear()


def tells() -> None:
    os.write(1, b"not for the user")
    os.write(2, b"not for the user")


def do(name: str, *words: str, seconds: float = 60, fresh: bool = False) -> None:
    rehearse(f"{__name__}:{name}", words, MEMORY, seconds, fresh)


@pytest.fixture(params=[False, True], ids=["forked", "fresh"])
def fresh(request: pytest.FixtureRequest) -> bool:
    if not request.param and sys.platform != "linux":
        pytest.skip("forks are for Linux")
    return bool(request.param)


def test_what_goes_well_has_been_done(tmp_path: Path, fresh: bool) -> None:
    do("fine", str(tmp_path / "made"), fresh=fresh)
    assert (tmp_path / "made").read_text() == "done"


def test_an_error_of_ours_is_raised_here(fresh: bool) -> None:
    with pytest.raises(UsageError) as caught:
        do("refuses", fresh=fresh)
    assert (caught.value.message, caught.value.hint) == ("what is wrong", "what to do")


def test_a_crash_is_an_error_that_names_the_signal(fresh: bool) -> None:
    with pytest.raises(CrashError, match="SIGSEGV"):
        do("crashes", fresh=fresh)
    assert issubclass(CrashError, LoadError)


def test_a_child_that_leaves_has_not_done_it(fresh: bool) -> None:
    with pytest.raises(CrashError, match="exit code"):
        do("leaves", fresh=fresh)


def test_a_loop_ends_and_leaves_no_process(tmp_path: Path, fresh: bool) -> None:
    with pytest.raises(CrashError, match="took over") as caught:
        do("loops", str(tmp_path / "pid"), seconds=4 if fresh else 1, fresh=fresh)
    assert "TLKIT_BUDGET" in caught.value.hint
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds private memory")
def test_memory_past_the_bound_is_an_error(fresh: bool) -> None:
    with pytest.raises(TlkitError, match=r"not enough memory|MemoryError"):
        do("fills", fresh=fresh)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds private memory")
def test_what_an_engine_has_freed_is_not_the_child_s() -> None:
    """Kept memory lies in the heap: the system need not be asked for it again."""
    with pytest.raises(TlkitError, match=r"not enough memory|MemoryError"):
        rehearse(f"{__name__}:holds_freed", [], 1 << 31, 60, fresh=True)


def test_it_says_nothing_itself(fresh: bool, capfd: pytest.CaptureFixture[str]) -> None:
    do("tells", fresh=fresh)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")
def test_an_interrupt_takes_the_child_along(tmp_path: Path) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1)
        with pytest.raises(KeyboardInterrupt):
            do("loops", str(tmp_path / "pid"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
