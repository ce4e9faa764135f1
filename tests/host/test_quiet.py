from __future__ import annotations

import logging
import os
import sys
import warnings

import pytest

from tlkit.host.quiet import hushed, quiet, read_bar


def test_nothing_reaches_the_streams_and_nothing_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("some.library")
    logger.propagate = False  # as in a process without pytest: no handler anywhere
    with quiet() as heard:
        sys.stdout.write("from stdout\n")
        sys.stderr.write("from stderr\n")
        logger.warning("from a logger")
        warnings.warn("from a warning", stacklevel=1)
    assert capsys.readouterr() == ("", "")
    assert list(heard.lines) == ["from stdout", "from stderr", "from a logger"]
    sys.stdout.write("after\n")
    assert capsys.readouterr().out == "after\n"


def test_streams_come_back_after_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="x"), quiet():
        raise ValueError("x")
    sys.stdout.write("after\n")
    assert capsys.readouterr().out == "after\n"


def test_a_stream_that_a_library_kept_still_takes_words() -> None:
    with quiet():
        kept = sys.stderr
    kept.write("late\n")
    kept.flush()


def test_bars_are_heard_as_they_are_drawn() -> None:
    from tqdm import tqdm

    bars = []
    with quiet(lambda line: bars.append(read_bar(line))):
        for _ in tqdm(range(4), desc="Running MIL default pipeline", unit=" passes", mininterval=0):
            pass
    assert [bar for bar in bars if bar][:5] == [("Running MIL default pipeline", done, 4) for done in range(5)]


@pytest.mark.parametrize("line", ["", "50% done", "a: b", "x:  10%|###", "|||", "%|"])
def test_other_lines_are_no_bars(line: str) -> None:
    assert read_bar(line) is None


def test_nothing_of_the_process_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before ")
    with hushed():
        os.write(2, b"within ")
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"
