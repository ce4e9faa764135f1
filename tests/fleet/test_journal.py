"""A journal keeps what was done, whatever happens to whoever writes it and to the file."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlkit.errors import LoadError, UsageError
from tlkit.fleet.job import JobOutcome
from tlkit.fleet.journal import Journal, of_kind, outcome_facts, read


def filled(path: Path, count: int) -> None:
    journal = Journal(path, {"plan": "p"})
    for at in range(count):
        journal.write("start", job=f"j{at}", node="n")
        journal.write(
            "done", job=f"j{at}", node="n", **outcome_facts(JobOutcome(at % 2, 0.5, {"at": at, "text": "ä\n"}))
        )
    journal.close()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    filled(tmp_path / "j", 3)
    past = read(tmp_path / "j")
    assert past.head["plan"] == "p"
    assert past.done == {f"j{at}": JobOutcome(at % 2, 0.5, {"at": at, "text": "ä\n"}) for at in range(3)}
    assert past.started == {"j0", "j1", "j2"} and past.twice == past.damaged == 0


def test_it_is_continued(tmp_path: Path) -> None:
    filled(tmp_path / "j", 2)
    journal = Journal(tmp_path / "j", {"plan": "another"})
    assert set(journal.past.done) == {"j0", "j1"} and journal.past.head["plan"] == "p"
    journal.write("lost", job="j2", blamed=True)
    journal.write("lost", job="j2", blamed=False)
    journal.write("aside", job="j2", why="it kills")
    journal.close()
    past = read(tmp_path / "j")
    assert (past.deaths, past.aside) == ({"j2": 1}, {"j2": "it kills"})


def test_cut_anywhere_it_tells_a_beginning_of_what_happened(tmp_path: Path) -> None:
    path = tmp_path / "j"
    filled(path, 4)
    whole, known = path.read_bytes(), 0
    first = whole.index(b"\n") + 1
    for size in range(first, len(whole) + 1):
        path.write_bytes(whole[:size])
        past = read(path)
        assert list(past.done) == [f"j{at}" for at in range(len(past.done))]
        assert len(past.done) >= known and past.damaged == 0
        known = len(past.done)
    assert known == 4


def test_a_cut_line_is_cleared_away_before_the_next_is_written(tmp_path: Path) -> None:
    path = tmp_path / "j"
    filled(path, 2)
    path.write_bytes(path.read_bytes()[:-5])
    journal = Journal(path, {})
    assert set(journal.past.done) == {"j0"}
    journal.write("done", job="j1", **outcome_facts(JobOutcome(0, 1.0)))
    journal.close()
    past = read(path)
    assert set(past.done) == {"j0", "j1"} and past.damaged == 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 8))
def test_damage_is_never_believed(tmp_path_factory: pytest.TempPathFactory, seed: int, changes: int) -> None:
    path = tmp_path_factory.mktemp("j") / "j"
    filled(path, 6)
    rng, data = random.Random(seed), bytearray(path.read_bytes())
    for _ in range(changes):
        data[rng.randrange(data.index(b"\n") + 1, len(data))] = rng.randrange(256)
    path.write_bytes(data)
    past = read(path)
    for key, outcome in past.done.items():
        at = int(key[1:])
        assert outcome == JobOutcome(at % 2, 0.5, {"at": at, "text": "ä\n"})


@pytest.mark.parametrize("content", [b"thesis", b"thesis\n", b"00000000 {}\n", b"\x00" * 99, b"[1]\n" * 9])
def test_another_file_is_neither_read_nor_changed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thesis.txt"
    path.write_bytes(content)
    for begin in (lambda: Journal(path, {}), lambda: read(path)):
        with pytest.raises(LoadError, match=r"no.* journal of tlkit"):
            begin()
    assert path.read_bytes() == content


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", {})
    with pytest.raises(UsageError, match="another tlkit writes"):
        Journal(tmp_path / "j", {})
    journal.close()
    Journal(tmp_path / "j", {}).close()


def test_a_killed_writer_loses_nothing_that_it_wrote(tmp_path: Path) -> None:
    path, (reader, writer) = tmp_path / "j", os.pipe()
    pid = os.fork()
    if not pid:
        journal = Journal(path, {})
        for at in range(50):
            journal.write("done", job=f"j{at}", **outcome_facts(JobOutcome(0, 0.0)))
        os.write(writer, b"x")
        signal.pause()
    os.read(reader, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(list(of_kind(path, "done"))) == 50


def test_an_unknown_version_is_left_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", {"version": 9})
    journal.close()
    with pytest.raises(LoadError, match="version 9"):
        read(tmp_path / "j")
