"""Outputs that are complete or not there, whatever ends their writing; covers tlkit/host/stage.py."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.processes import as_a_process, files_no_larger_than
from tlkit.errors import LoadError, UsageError, WriteError
from tlkit.host import staging
from tlkit.host.goals import FILE, Kind
from tlkit.host.interrupt import check, interruptible
from tlkit.host.rename import exchange, rename_new
from tlkit.host.staging import Goal, prepare, staged, staged_set

FOLDER = Kind("a folder", lambda path: None)


def make(path: Path, text: str) -> None:
    path.mkdir()
    (path / "file").write_text(text)


def reads(path: Path) -> None:
    assert path.exists()


def outputs(folder: Path, *names: str) -> list[Goal]:
    return [Goal(folder / name, reads) for name in names]


def write(paths: Sequence[Path], text: str) -> None:
    for path in paths:
        path.write_text(f"{text} {path.name}")


def contents(folder: Path) -> dict[str, str]:
    return {item.name: item.read_text() for item in folder.iterdir()}


def test_a_folder_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    goal = tmp_path / "a.mlpackage"
    with staged(goal, reads, kind=FOLDER) as path:
        make(path, "new")
        assert not goal.exists()
        assert path.name == goal.name
    assert (goal / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.mlpackage"]


def test_a_file_too(tmp_path: Path) -> None:
    with staged(tmp_path / "out.npz", reads) as path:
        path.write_text("x")
    assert (tmp_path / "out.npz").read_text() == "x"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_old_stays_when_the_body_fails(tmp_path: Path, error: type[BaseException]) -> None:
    goal = tmp_path / "a.mlpackage"
    make(goal, "old")
    with pytest.raises(error), staged(goal, reads, kind=FOLDER, force=True) as path:  # noqa: PT012
        make(path, "new")
        raise error
    assert (goal / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.mlpackage"]


@pytest.mark.parametrize("one_step", [True, False])
def test_force_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_step: bool) -> None:
    if not one_step:
        monkeypatch.setattr(staging, "exchange", lambda *names: False)
    goal = tmp_path / "a.mlpackage"
    make(goal, "old")
    goal.chmod(0o555)  # as a copy of a read-only package is
    with staged(goal, reads, kind=FOLDER, force=True) as path:
        make(path, "new")
    assert (goal / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.mlpackage"]


def test_the_old_comes_back_when_the_new_is_not_there(tmp_path: Path) -> None:
    goal = tmp_path / "a.mlpackage"
    make(goal, "old")
    with pytest.raises(WriteError), staged(goal, reads, kind=FOLDER, force=True):
        pass  # the body wrote nothing
    assert (goal / "file").read_text() == "old"


@pytest.mark.parametrize("error", [LoadError("PATH: no such tensor"), ValueError("two\nlines"), MemoryError()])
def test_what_cannot_be_read_again_gets_no_name(tmp_path: Path, error: Exception) -> None:
    goal = tmp_path / "out.npz"
    goal.write_text("old")

    def refuse(path: Path) -> None:
        assert path.read_text() == "new"
        raise error

    with pytest.raises(WriteError, match=r"out\.npz: what was written cannot be read: \S") as told:  # noqa: SIM117
        with staged(goal, refuse, force=True) as path:
            path.write_text("new")
    assert "\n" not in told.value.message
    assert contents(tmp_path) == {"out.npz": "old"}


def test_what_exists_is_refused(tmp_path: Path) -> None:
    goal = tmp_path / "a"
    goal.symlink_to("nowhere")
    with pytest.raises(UsageError, match="exists already"):
        prepare(goal)


def test_what_another_process_wrote_meanwhile_is_refused(tmp_path: Path) -> None:
    goal = tmp_path / "a"
    with pytest.raises(UsageError, match="exists already"), staged(goal, reads) as path:  # noqa: PT012
        path.write_text("mine")
        goal.write_text("theirs")
    assert goal.read_text() == "theirs"


def test_what_another_process_writes_at_the_last_moment_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "check_goal", lambda *args, **options: (tmp_path / "b").write_text("theirs"))
    with pytest.raises(UsageError, match="exists already"):  # noqa: SIM117, PT012
        with staged_set([Goal(tmp_path / "a", reads), Goal(tmp_path / "b", reads)]) as paths:
            (tmp_path / "b").unlink()
            write(paths, "mine")
    assert contents(tmp_path) == {"b": "theirs"}


def test_a_folder_that_went_away_or_a_working_folder_that_changed(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with contextlib.chdir(tmp_path), staged(Path("a"), reads) as path:
        os.chdir("x")
        path.write_text("new")
    assert (tmp_path / "a").read_text() == "new"
    with pytest.raises((WriteError, UsageError)), staged(tmp_path / "x" / "a", reads) as path:  # noqa: PT012
        path.write_text("new")
        (tmp_path / "x").rename(tmp_path / "y")
    assert not list(tmp_path.glob("*/a"))


def test_folders_that_cannot_take_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        prepare(tmp_path / "nope" / "a")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="there is no folder"):
        prepare(tmp_path / "file" / "a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match="not writable"):
        prepare(tmp_path / "a")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, where nobody makes folders")
def test_a_folder_that_refuses() -> None:
    with pytest.raises(WriteError, match="cannot write"), staged(Path("/proc/a"), reads):
        pass


def test_the_longest_name_that_there_can_be(tmp_path: Path) -> None:
    goal = tmp_path / ("é" * 127)  # 254 bytes
    with staged(goal, reads) as path:
        path.write_text("x")
    assert [goal] == list(tmp_path.iterdir())


def test_a_set_gets_its_names_together_the_first_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    rename = staging.rename_new
    monkeypatch.setattr(staging, "rename_new", lambda new, goal: (order.append(goal.name), rename(new, goal)))
    with staged_set(outputs(tmp_path, "index", "1", "2")) as paths:
        assert [path.name for path in paths] == ["index", "1", "2"]
        assert len({path.parent for path in paths}) == 1  # an index finds its shards before it has its name
        write(paths, "new")
    assert contents(tmp_path) == {"index": "new index", "1": "new 1", "2": "new 2"}
    assert order == ["2", "1", "index"]


@pytest.mark.parametrize("old", [(), ("1",), ("index", "1", "2")])
@pytest.mark.parametrize("fails_at", range(3))
def test_a_set_of_which_one_is_refused_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: tuple[str, ...], fails_at: int
) -> None:
    write([tmp_path / name for name in old], "old")
    rename, count = staging.rename_new, iter(range(9))

    def refuse(new: Path, goal: Path) -> None:
        if next(count) == fails_at:
            raise OSError(errno.EIO, "Input/output error")
        rename(new, goal)

    monkeypatch.setattr(staging, "rename_new", refuse)
    with pytest.raises(WriteError, match="Input/output error"):  # noqa: SIM117
        with staged_set(outputs(tmp_path, "index", "1", "2"), force=True) as paths:
            write(paths, "new")
    assert contents(tmp_path) == {name: f"old {name}" for name in old}


def test_outputs_in_several_folders(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(ZeroDivisionError), staged_set(outputs(tmp_path, "a", "x/b")) as paths:  # noqa: PT012
        write(paths, "new")
        raise ZeroDivisionError
    with staged_set(outputs(tmp_path, "a", "x/b")) as paths:
        write(paths, "new")
    assert contents(tmp_path / "x") == {"b": "new b"}
    assert sorted(os.listdir(tmp_path)) == ["a", "x"]


def test_two_threads_that_replace_one_set_do_not_mix(tmp_path: Path) -> None:
    names = ["index", *map(str, range(20))]

    def replace(text: str) -> None:
        for _ in range(8):
            with staged_set(outputs(tmp_path, *names), force=True) as paths:
                write(paths, text)

    threads = [threading.Thread(target=replace, args=(text,)) for text in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = contents(tmp_path)
    assert found.keys() == set(names)
    assert len({text.split()[0] for text in found.values()}) == 1


def test_a_full_disk_leaves_the_old(tmp_path: Path) -> None:
    goal = tmp_path / "a"
    goal.write_text("old")
    with (
        files_no_larger_than(4096),
        pytest.raises(WriteError, match="cannot write: File too large"),
        staged(goal, reads, force=True) as path,
    ):
        path.write_bytes(bytes(10_000))
    assert contents(tmp_path) == {"a": "old"}


def test_a_mode_that_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with staged_set([Goal(tmp_path / "a", reads), Goal(tmp_path / "b", reads, FOLDER)]) as (file, folder):
            file.write_text("x")
            make(folder, "x")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "b", "b/file")] == [0o640, 0o750, 0o640]


def test_an_interrupt_that_a_library_swallows_comes_back() -> None:
    with as_a_process():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with pytest.raises(SystemExit) as caught, interruptible():  # noqa: PT012
            with contextlib.suppress(BaseException):
                signal.raise_signal(signal.SIGTERM)
            check()
        assert caught.value.code == 143
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        check()  # forgotten by then


def killed(folder: Path, moment: int, names: Sequence[str], kind: Kind = FILE, one_step: bool = True) -> bool:
    """Write ``names`` as one set in a fork that is killed at its rename or removal number ``moment``; whether it was.

    What it leaves is what a process leaves that has no chance to clear up.
    """
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            _write_and_die(folder, moment, names, kind, one_step)
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


def _write_and_die(folder: Path, moment: int, names: Sequence[str], kind: Kind, one_step: bool) -> None:
    count = iter(range(99))

    def dying(call: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object, **options: object) -> object:
            if next(count) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)

        return run

    wanted = [Goal(folder / name, reads, kind) for name in names]
    with staged_set(wanted, called=folder / "set", force=True) as paths:
        for path in paths:
            if kind is FILE:
                path.write_text(f"new {path.name}")
            else:
                make(path, "new")
        Path.rename = dying(Path.rename)  # type: ignore[assignment]
        Path.replace = dying(Path.replace)  # type: ignore[assignment]
        staging.rename_new = dying(rename_new)  # type: ignore[assignment]
        staging.exchange = dying(exchange) if one_step else lambda *names: False  # type: ignore[assignment]
        os.unlink = dying(os.unlink)  # type: ignore[assignment]  # shutil.rmtree's own calls, so that it is killed half-way through a stage
        os.rmdir = dying(os.rmdir)  # type: ignore[assignment]


@pytest.mark.parametrize("old", [(), ("1", "2"), ("index", "1", "2")], ids=len)
def test_the_next_run_undoes_what_a_kill_cut_short(tmp_path: Path, old: tuple[str, ...]) -> None:
    names = ["index", "1", "2"]
    states, moment, alive = [], 0, True
    while alive:
        folder = tmp_path / str(moment)
        folder.mkdir()
        write([folder / name for name in old], "old")
        alive = killed(folder, moment, names)
        shown = {name: (folder / name).read_text() for name in names if (folder / name).exists()}
        # Whoever follows the index finds a set that belongs together, or no index.
        assert "index" not in shown or len({text.split()[0] for text in shown.values()}) == 1
        prepare(folder / "set")
        left = contents(folder)
        assert left in ({name: f"{age} {name}" for name in kept} for age, kept in (("old", old), ("new", names)))
        states.append(next(iter(left.values()), "none")[:3])
        moment += 1
    assert moment > 4 + len(old)
    assert states[-1] == "new"
    assert states[0] == ("old" if old else "non")


def test_a_package_is_replaced_in_one_step_that_no_kill_can_cut(tmp_path: Path) -> None:
    found = []
    for moment in range(4):
        folder = tmp_path / str(moment)
        folder.mkdir()
        make(folder / "a", "old")
        killed(folder, moment, ["a"], FOLDER)
        found.append((folder / "a" / "file").read_text())
        prepare(folder / "set")
        assert os.listdir(folder) == ["a"]
    assert (found[0], found[-1]) == ("old", "new")


def test_without_that_step_the_old_package_comes_back(tmp_path: Path) -> None:
    found = []
    for moment in range(5):
        folder = tmp_path / str(moment)
        folder.mkdir()
        make(folder / "a", "old")
        killed(folder, moment, ["a"], FOLDER, one_step=False)
        prepare(folder / "set")
        assert os.listdir(folder) == ["a"]
        found.append((folder / "a" / "file").read_text())
    assert (found[0], found[-1]) == ("old", "new")


def test_a_living_process_keeps_its_stage(tmp_path: Path) -> None:
    goal = tmp_path / "a"
    with staged(goal, reads, force=True) as path:
        path.write_text("first")
        with staged(goal, reads, force=True) as other:  # a second run of the same command, meanwhile
            other.write_text("second")
        assert path.read_text() == "first"
    assert contents(tmp_path) == {"a": "first"}


def test_what_only_looks_like_a_leftover_stays(tmp_path: Path) -> None:
    (tmp_path / ".a.tlkit-mine").mkdir()
    (tmp_path / ".a.tlkit-mine" / "thesis.txt").write_text("mine")
    (tmp_path / ".a.tlkit-elsewhere").mkdir()
    (tmp_path / ".a.tlkit-elsewhere" / "tlkit-stage.json").write_text('{"tlkit": "stage", "host": "x", "name": "a"}')
    (tmp_path / ".a.tlkit-file").write_text("mine")
    (tmp_path / ".a.tlkit-link").symlink_to(tmp_path / ".a.tlkit-mine")
    before = sorted(os.listdir(tmp_path))
    with staged(tmp_path / "a", reads, kind=FILE) as path:
        path.write_text("x")
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "a"])
    assert (tmp_path / ".a.tlkit-mine" / "thesis.txt").read_text() == "mine"
