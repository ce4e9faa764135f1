"""The one door through which outputs are written: completely, read back, then all renamed into place together.

An interrupt, a full disk or a crash in between leaves what was there before, or nothing. Several outputs of one command
get their names together: those that refer to the others (an index of shards) last; if one cannot get its name, none
does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tlkit.errors import UsageError, WriteError, reason
from tlkit.host.goals import FILE, Kind, check_distinct, check_goal
from tlkit.host.interrupt import check, done, held, interruptible, to_the_end
from tlkit.host.rename import exchange, rename_new
from tlkit.host.stage import Staging, clear_leftovers, taking_turns


@dataclass(frozen=True)
class Goal:
    """One output: its path, what reads it back to check that it is complete (None: the set's first does), its kind."""

    path: Path
    reads: Callable[[Path], object] | None
    kind: Kind = FILE


@dataclass(frozen=True)
class _Placed:
    """An output and the stage in which it is made."""

    output: Goal
    stage: Staging

    @property
    def goal(self) -> Path:
        return self.stage.parent / self.output.path.name

    @property
    def new(self) -> Path:
        return self.stage.new(self.goal.name)

    @property
    def old(self) -> Path:
        return self.stage.old(self.goal.name)


def prepare(goal: Path, *, force: bool = False, kind: Kind = FILE, inputs: Iterable[Path] = ()) -> None:
    """Check before any work that ``goal`` can be written (:func:`check_goal`), and undo what a killed process left."""
    if goal.name not in ("", ".."):
        clear_leftovers(goal.parent.resolve(), goal.name)
    check_goal(goal, force=force, kind=kind, inputs=inputs)


@contextmanager
def staged(
    goal: Path,
    reads: Callable[[Path], object],
    *,
    force: bool = False,
    kind: Kind = FILE,
    inputs: Iterable[Path] = (),
) -> Iterator[Path]:
    """Yield a path to write (a file or folder) that becomes ``goal`` once the body succeeds and ``reads`` accepts it.

    The path has ``goal``'s name and lies in a hidden folder beside it, so that the rename never crosses file systems.
    The previous ``goal`` stays until the new one is complete. An unhandled SIGTERM ends the body as Ctrl-C does, with
    exit code 143. Raises WriteError where the output cannot be written or read back.
    """
    with staged_set([Goal(goal, reads, kind)], force=force, inputs=inputs) as (path,):
        yield path


@contextmanager
def staged_set(
    outputs: Sequence[Goal], *, called: Path | None = None, force: bool = False, inputs: Iterable[Path] = ()
) -> Iterator[list[Path]]:
    """Yield a path to write for each of ``outputs``; all are renamed into place together, the first of them last.

    ``called`` is the name that the user gave to them all, if not the first one's; leftovers are found by it.
    """
    inputs = tuple(inputs)
    for output in outputs:
        prepare(output.path, force=force, kind=output.kind, inputs=inputs)
    check_distinct([output.path for output in outputs])
    stages: dict[Path, Staging] = {}
    with interruptible(), _nested() as inner, _write_errors([called or output.path for output in outputs]):
        try:
            # A signal between making a folder and remembering it would leave the folder behind.
            with held():
                placed = [_place(output, stages, called) for output in outputs]
            yield [item.new for item in placed]
            check()
            for item in placed:
                _read_again(item)
            with held():
                check()
                with taking_turns(list(stages)):
                    for item in placed:  # another process may have written one of them meanwhile
                        check_goal(item.goal, force=force, kind=item.output.kind, inputs=inputs)
                    _publish(placed, list(stages.values()), force)
                # What is made inside another output is not yet the command's result.
                if not inner:
                    done()
        finally:
            to_the_end(partial(_close, stages))


_inside: ContextVar[bool] = ContextVar("inside", default=False)


@contextmanager
def _nested() -> Iterator[bool]:
    """Yield whether this output is made inside another one's body, as packages to be combined are."""
    before = _inside.get()
    _inside.set(True)
    try:
        yield before
    finally:
        _inside.set(before)


def _close(stages: Mapping[Path, Staging]) -> None:
    for stage in stages.values():
        stage.close()


def _place(output: Goal, stages: dict[Path, Staging], called: Path | None) -> _Placed:
    parent = output.path.parent.resolve()
    if parent not in stages:
        stages[parent] = Staging(parent, (called or output.path).name)
    return _Placed(output, stages[parent])


def _read_again(item: _Placed) -> None:
    """Raise WriteError where the output that was written cannot be read."""
    if not os.path.lexists(item.new):
        raise WriteError(f"{item.output.path}: nothing was written", "this is a bug in tlkit: report it")
    if item.output.reads is None:
        return
    try:
        item.output.reads(item.new)
    except Exception as error:  # of whatever library reads this kind of file
        told = reason(error).replace(str(item.new), item.goal.name)
        hint = "nothing was kept; the input may be damaged, or this is a bug in tlkit: report it"
        raise WriteError(f"{item.output.path}: what was written cannot be read: {told}", hint) from error


def _publish(placed: Sequence[_Placed], stages: Sequence[Staging], force: bool) -> None:
    """Rename all outputs into place, or none of them; without ``force``, never over an existing name."""
    for stage in stages:
        stage.note([item.goal.name for item in placed if item.stage is stage])
    # A single output can be exchanged in one step, so that there is always one under its name.
    if force and len(placed) == 1 and _replaced(placed[0]):
        return
    try:
        # The first refers to the others: while it is away nobody mistakes old and new files for a set.
        for item in placed:
            if force and os.path.lexists(item.goal):
                item.goal.rename(item.old)
        for item in reversed(placed):
            rename_new(item.new, item.goal)
    except BaseException as error:
        _take_back(placed)
        if isinstance(error, FileExistsError):
            raise UsageError(
                f"{error.filename} exists already", "another process was first: choose another name"
            ) from None
        raise


def _replaced(item: _Placed) -> bool:
    """Replace an old output in one step; False where there is none, or where the system has no such step."""
    if not os.path.lexists(item.goal):
        return False
    if item.output.kind.foreign is None:
        item.new.replace(item.goal)
        return True
    return exchange(item.new, item.goal)


def _take_back(placed: Sequence[_Placed]) -> None:
    for item in placed:
        # An output that is no longer in the stage has been given its name already.
        if not os.path.lexists(item.new) and os.path.lexists(item.goal):
            item.goal.rename(item.new)
    for item in placed:
        if os.path.lexists(item.old) and not os.path.lexists(item.goal):
            item.old.rename(item.goal)


@contextmanager
def _write_errors(goals: Sequence[Path]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not goals:
            raise
        hint = "nothing was written; free some space or choose another folder"
        raise WriteError(f"{goals[0]}: cannot write: {reason(error)}", hint) from error
