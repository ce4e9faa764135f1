"""Records on disk: what was written is read, what is damaged never was, and only one process writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlkit.core.journal.records import RecordFile, parse_record, read_records, record_line
from tlkit.errors import LoadError, UsageError

HINT = "name another file"


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
    file = RecordFile(path, HINT)
    for number in range(3):
        file.append({"number": number})
    with pytest.raises(UsageError, match="another tlkit writes"):
        RecordFile(path, HINT)
    file.close()
    data = path.read_bytes()
    second = data.index(b"\n") + 12
    path.write_bytes(data[:second] + b"#" + data[second + 1 :] + b"12345678 {")
    file = RecordFile(path, HINT)
    assert [record["number"] for record in file.records] == [0, 2] and file.damaged == 1
    file.append({"number": 3})
    file.close()
    assert [record["number"] for record in read_records(path, HINT)[0]] == [0, 2, 3]


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("some text\nof somebody's\n")
    with pytest.raises(LoadError, match="not a journal"):
        RecordFile(tmp_path / "text", HINT)
    assert (tmp_path / "text").read_text() == "some text\nof somebody's\n"
