"""Records on disk: what was written is read, what is damaged never was, and only one process writes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlkit.core.journal.records import RecordFile, parse_record, read_records, record_line
from tlkit.errors import LoadError, UsageError

HINT = "name another file"
NOTHING: list[dict[str, Any]] = []
"""What files without a record have."""


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(max_size=8), st.one_of(st.integers(), st.text(max_size=20), st.none()), max_size=4))
def test_a_line_is_read_as_it_was_written_and_no_other(record: dict[str, object]) -> None:
    line = record_line(record)
    assert parse_record(line) == record
    for place in range(0, len(line) - 1, 3):
        changed = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
        assert parse_record(changed) in (None, record)  # 1e2f4a5b and 1E2F4A5B are one number


def test_a_cut_line_is_cleared_away_and_a_damaged_one_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    file = RecordFile(path, HINT, NOTHING.append)
    for number in range(3):
        file.append({"number": number})
    with pytest.raises(UsageError, match="another tlkit writes"):
        RecordFile(path, HINT, NOTHING.append)
    file.close()
    data = path.read_bytes()
    second = data.index(b"\n") + 12
    path.write_bytes(data[:second] + b"#" + data[second + 1 :] + b"12345678 {")
    found: list[dict[str, Any]] = []
    file = RecordFile(path, HINT, found.append)
    assert [record["number"] for record in found] == [0, 2] and file.damaged == 1 and NOTHING == []
    file.append({"number": 3})
    file.close()
    found.clear()
    assert read_records(path, HINT, found.append) == (1, path.stat().st_size)
    assert [record["number"] for record in found] == [0, 2, 3]


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("some text\nof somebody's\n")
    with pytest.raises(LoadError, match="not a journal"):
        RecordFile(tmp_path / "text", HINT, NOTHING.append)
    assert (tmp_path / "text").read_text() == "some text\nof somebody's\n"


def test_a_record_is_in_memory_at_a_time(tmp_path: Path) -> None:
    line = record_line({"text": "x" * 10_000})
    (tmp_path / "journal").write_bytes(line * 500)
    sizes: list[int] = []
    tracemalloc.start()
    damaged, whole = read_records(tmp_path / "journal", HINT, lambda record: sizes.append(len(record["text"])))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (damaged, whole, sizes) == (0, 500 * len(line), [10_000] * 500) and peak < 50 * len(line)
