from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from tlkit.errors import UsageError
from tlkit.host.interrupt import check, interruptible
from tlkit.host.staging import WriteError, check_goal, staged


def make(path: Path, text: str) -> None:
    path.mkdir()
    (path / "file").write_text(text)


def test_a_folder_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    goal = tmp_path / "a.mlpackage"
    with staged(goal) as path:
        make(path, "new")
        assert not goal.exists()
        assert path.name == goal.name
    assert (goal / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.mlpackage"]


def test_a_file_too(tmp_path: Path) -> None:
    with staged(tmp_path / "out.npz") as path:
        path.write_text("x")
    assert (tmp_path / "out.npz").read_text() == "x"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_old_stays_when_the_body_fails(tmp_path: Path, error: type[BaseException]) -> None:
    goal = tmp_path / "a.mlpackage"
    make(goal, "old")
    with pytest.raises(error), staged(goal, force=True) as path:  # noqa: PT012
        make(path, "new")
        raise error
    assert (goal / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.mlpackage"]


def test_force_replaces(tmp_path: Path) -> None:
    goal = tmp_path / "a.mlpackage"
    make(goal, "old")
    with staged(goal, force=True) as path:
        make(path, "new")
    assert (goal / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.mlpackage"]


def test_the_old_comes_back_when_the_new_is_not_there(tmp_path: Path) -> None:
    goal = tmp_path / "a.mlpackage"
    make(goal, "old")
    with pytest.raises(WriteError), staged(goal, force=True):
        pass  # the body wrote nothing
    assert (goal / "file").read_text() == "old"


def test_what_exists_is_refused(tmp_path: Path) -> None:
    goal = tmp_path / "a"
    goal.symlink_to("nowhere")
    with pytest.raises(UsageError, match="exists already"):
        check_goal(goal)


def test_what_another_process_wrote_meanwhile_is_refused(tmp_path: Path) -> None:
    goal = tmp_path / "a"
    with pytest.raises(UsageError, match="exists already"), staged(goal) as path:  # noqa: PT012
        path.write_text("mine")
        goal.write_text("theirs")
    assert goal.read_text() == "theirs"


def test_folders_that_cannot_take_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        check_goal(tmp_path / "nope" / "a")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="there is no folder"):
        check_goal(tmp_path / "file" / "a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match="not writable"):
        check_goal(tmp_path / "a")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, where nobody makes folders")
def test_a_folder_that_refuses() -> None:
    with pytest.raises(WriteError, match="cannot write"), staged(Path("/proc/a")):
        pass


def test_an_interrupt_that_a_library_swallows_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, interruptible():  # noqa: PT012
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)
        check()
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    check()  # forgotten by then
