"""The sink, each method in each mode, on plain streams and on terminals.

Covers tlkit/cli/sink/card.py, tlkit/cli/sink/console.py, tlkit/cli/sink/figures.py, tlkit/cli/sink/fitting.py,
tlkit/cli/sink/named_table.py,
tlkit/cli/sink/stream.py.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tlkit.cli.sink import output
from tlkit.cli.sink.card import card
from tlkit.cli.sink.named_table import NamedTable
from tlkit.cli.sink.output import Sink, jsonable
from tlkit.errors import LoadError
from tlkit.types import Unit


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TLKIT_DEBUG", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def make(terminal: bool = False, **options: object) -> tuple[Sink, io.StringIO, io.StringIO]:
    stream = Terminal if terminal else io.StringIO
    out, err = stream(), stream()
    return Sink(stdout=out, stderr=err, **options), out, err  # type: ignore[arg-type]


def table(*cells: str) -> Table:
    grid = Table("left", "right")
    grid.add_row(*cells)
    return grid


def test_text_answer_goes_to_stdout_alone() -> None:
    sink, out, err = make()
    sink.answer({"a": 1}, "one line\nand another")
    assert out.getvalue() == "one line\nand another\n"
    assert err.getvalue() == ""


def test_text_answer_builds_its_renderable_late_and_only_in_text_mode() -> None:
    sink, out, _ = make()
    sink.answer({}, lambda: table("x", "y"))
    assert "left" in out.getvalue() and "x" in out.getvalue()
    sink, out, _ = make(json=True)
    sink.answer({}, lambda: pytest.fail("built in JSON mode"))
    assert json.loads(out.getvalue()) == {"schema_version": 1}


def test_json_answer_is_one_document_with_its_version_first() -> None:
    sink, out, err = make(json=True)
    sink.answer({"third": 1 / 3, "path": Path("a/b"), "unit": Unit.ANE}, "never shown")
    assert out.getvalue().startswith('{"schema_version": 1, ')
    assert out.getvalue().count("\n") == 1
    assert json.loads(out.getvalue()) == {"schema_version": 1, "third": 1 / 3, "path": "a/b", "unit": "ane"}
    assert err.getvalue() == ""


@pytest.mark.parametrize("as_json", [False, True])
def test_second_answer_is_refused(as_json: bool) -> None:
    sink, _, _ = make(json=as_json)
    sink.answer({}, "")
    with pytest.raises(RuntimeError):
        sink.answer({}, "")


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("method", "line"), [("note", "note: said\n"), ("warn", "warning: said\n"), ("debug", "debug: said\n")]
)
def test_messages_go_to_stderr_in_both_modes(method: str, line: str, as_json: bool) -> None:
    sink, out, err = make(json=as_json, verbose=1)
    getattr(sink, method)("said")
    assert (out.getvalue(), err.getvalue()) == ("", line)


def test_quiet_keeps_warnings_and_errors_only() -> None:
    sink, _, err = make(quiet=True)
    sink.note("a")
    sink.debug("b")
    sink.warn("c")
    sink.error(LoadError("d"))
    assert err.getvalue() == "warning: c\ntlkit: error: d\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_error_is_a_line_and_a_hint(as_json: bool) -> None:
    sink, out, err = make(json=as_json)
    sink.error(LoadError("m.mlmodel: cut\nshort", "fetch it again"))
    assert out.getvalue() == ""
    assert err.getvalue() == "tlkit: error: m.mlmodel: cut short\n  fetch it again\n"


def test_unexpected_error_is_called_internal_and_tells_how_to_see_more() -> None:
    sink, _, err = make()
    sink.error(KeyError("x"))
    first, second = err.getvalue().splitlines()
    assert first == "tlkit: error: internal error: KeyError: 'x'"
    assert "TLKIT_DEBUG=1" in second


def test_traceback_comes_with_vv_and_with_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    sink, _, err = make(verbose=1)
    sink.error(LoadError("x"))
    assert "Traceback" not in err.getvalue() and "LoadError" not in err.getvalue()
    sink, _, err = make(verbose=2)
    sink.error(LoadError("x"))
    assert "tlkit.errors.LoadError: x" in err.getvalue()
    monkeypatch.setenv("TLKIT_DEBUG", "1")
    sink, _, err = make()
    sink.error(LoadError("x"))
    assert "tlkit.errors.LoadError: x" in err.getvalue()


@pytest.mark.parametrize("as_json", [False, True])
def test_progress_is_silent_away_from_a_terminal(as_json: bool) -> None:
    sink, out, err = make(json=as_json)
    with sink.progress("working", total=2) as progress:
        progress.advance()
        progress.update(2, 2)
        progress.describe("still")
    assert out.getvalue() + err.getvalue() == ""


@pytest.mark.parametrize("as_json", [False, True])
def test_progress_shows_on_a_terminal_unless_quiet(as_json: bool) -> None:
    sink, out, err = make(terminal=True, json=as_json)
    with sink.progress("working") as progress:
        progress.update(1, 2)
        progress.describe("still \x1b]0;here")
    assert "still" in err.getvalue() and "\x1b]0;" not in err.getvalue()
    assert out.getvalue() == ""
    sink, _, err = make(terminal=True, json=as_json, quiet=True)
    with sink.progress("working"):
        pass
    assert err.getvalue() == ""


def test_colours_on_a_terminal_only_and_never_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    red = Text("x", style="red")
    sink, out, _ = make(terminal=True)
    sink.answer({}, red)
    assert "\x1b[" in out.getvalue()
    sink, out, _ = make()
    sink.answer({}, red)
    assert out.getvalue() == "x\n"
    monkeypatch.setenv("NO_COLOR", "1")
    sink, out, _ = make(terminal=True)
    sink.answer({}, red)
    assert out.getvalue() == "x\n"


def test_colours_in_a_pipe_where_they_are_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    sink, out, _ = make()
    sink.answer({}, Text("x", style="red"))
    assert out.getvalue() == "\x1b[31mx\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    sink, out, _ = make()
    sink.answer({}, Text("x", style="red"))
    assert out.getvalue() == "x\n"


def piped(what: RenderableType) -> list[str]:
    sink, out, _ = make()
    sink.answer({}, what)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("columns", [None, 60, 120])
def test_lines_in_a_pipe_fold_between_words_at_80_columns(monkeypatch: pytest.MonkeyPatch, columns: int | None) -> None:
    if columns:
        monkeypatch.setenv("COLUMNS", str(columns))
    lines = piped(table(" ".join(f"word{number}" for number in range(60)), "end"))
    assert max(map(len, lines)) <= (columns or 80)
    assert re.findall(r"\bword\d+\b", "\n".join(lines)) == [f"word{number}" for number in range(60)]


@pytest.mark.parametrize("length", [30, 79, 130, 450, 850])
def test_a_key_in_a_pipe_is_never_broken_and_its_row_one_line(length: int) -> None:
    key = "k" * length
    lines = piped(table(key, "a sentence of several words " * 4))
    assert sum(key in line for line in lines) == 1


def _wide_table() -> NamedTable:
    names = NamedTable()
    for heading in ("name", "a", "b", "c", "some text"):
        names.add_column(heading, no_wrap=heading in "abc", overflow="fold")
    names.add_row("model.layers.0.self_attention.query_projection.weight", *("1234567890123",) * 3, "two words")
    names.add_row("short", "7", "", "9", "a sentence of several words, " * 3)
    return names


def test_a_name_goes_above_its_row_in_a_pipe() -> None:
    lines = piped(_wide_table())
    assert max(map(len, lines)) <= 80
    above = lines.index("model.layers.0.self_attention.query_projection.weight")
    assert lines[above + 1].count("1234567890123") == 3


@pytest.mark.parametrize("columns", [24, 40, 50, 60, 80, 120])
@pytest.mark.parametrize("terminal", [True, False])
def test_no_figure_is_cut_and_no_word_is_broken(monkeypatch: pytest.MonkeyPatch, columns: int, terminal: bool) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    sink, out, _ = make(terminal=terminal)
    sink.answer({}, _wide_table())
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()
    if terminal or columns >= 60:
        assert max(map(len, lines)) <= columns
    text = " ".join(" ".join(lines).split())
    assert text.count("1234567890123") == 3 and re.search(r"\b7\b", text) and re.search(r"\b9\b", text)
    assert text.count("sentence") == text.count("several") == 3


def test_a_long_label_of_a_card_is_whole_and_beside_its_value() -> None:
    label = "com.example.a_key_that_is_longer_than_labels_are"
    lines = piped(card([("short", "1"), (label, "[bold]two[/]"), ("other", "3")], 20))
    assert lines == ["short  1", "other  3", f"{label}  two"]


@pytest.mark.parametrize("show", ["[bold]a[/] :smile: \x1b[31mb\rc", None])
def test_text_from_files_is_neither_markup_nor_control(show: str | None) -> None:
    hostile = "[bold]a[/] :smile: \x1b[31mb\rc"
    sink, out, _ = make(terminal=True)
    sink.answer({}, show or table(hostile, "x"))
    assert "[bold]a[/] :smile: \ufffd[31mb" in out.getvalue() and "\r" not in out.getvalue()
    sink, _, err = make(terminal=True)
    sink.warn(hostile)
    assert "[bold]a[/] :smile: \ufffd[31mb c" in err.getvalue()


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    values: tuple[float, ...]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (np.float32("-inf"), "-Infinity"),
        (np.float64(0.1), 0.1),
        (np.array([[1, 2]], np.int32), [[1, 2]]),
        (np.array([np.nan, 0.5], np.float16), ["NaN", 0.5]),
        (np.bool_(True), True),
        (Sample("s", (1.0, float("nan"))), {"name": "s", "values": [1.0, "NaN"]}),
        ([0.5, float("inf")], [0.5, "Infinity"]),
        ((0.5, -1e300), [0.5, -1e300]),
        ({Unit.CPU: None, 3: True}, {"cpu": None, "3": True}),
        ("\udcff", "\\udcff"),
    ],
)
def test_jsonable(value: object, expected: object) -> None:
    result = jsonable(value)
    assert result == expected and type(result) is type(expected)
    json.dumps(result, allow_nan=False)


def test_jsonable_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError):
        jsonable({"x": object()})


def test_start_makes_the_current_sink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_current", None)
    assert output.current().json is False
    sink = output.start(json=True)
    assert output.current() is sink


@pytest.mark.parametrize("as_json", [False, True])
def test_reader_that_leaves_is_no_error(as_json: bool) -> None:
    code = (
        "from tlkit.cli.sink.output import Sink; from rich.table import Table; import sys\n"
        "t = Table('a')\nfor i in range(20000): t.add_row(str(i))\n"
        f"s = Sink(json={as_json}); s.answer({{'a': list(range(100000))}}, t); sys.exit(7)"
    )
    read, write = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    os.read(read, 10)
    os.close(read)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (7, "")


UNSAFE = [chr(code) for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"]
UNSAFE += [
    *"\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\ufff9\U000e0041"
]


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_in_a_name_reaches_a_terminal(terminal: bool) -> None:
    name = "a" + "b".join(UNSAFE)
    for show in (name, Text(name)):
        sink, out, err = make(terminal=terminal)
        sink.answer({}, show)
        sink.note(name)
        sink.error(LoadError(name, name))
        styles = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue() + err.getvalue())  # rich's own
        assert not set(styles) & set(UNSAFE)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_name_is_never_two_rows(terminal: bool) -> None:
    """What follows a row may have several lines; what begins it, and a node of a tree, has one."""
    table, tree = NamedTable(), Tree(Text("root\nforged"))
    table.add_column("name")
    table.add_column("why")
    table.add_row("a\nforged  1 GB", "first\nsecond")
    table.add_row(Text("b\x85forged", "bold"), "third")
    tree.add("leaf\rforged\tx")
    stream = Terminal() if terminal else io.StringIO()
    Sink(stdout=stream).answer({}, lambda: Group(table, tree))
    rows = [line.strip(" \u2500\u2514") for line in stream.getvalue().splitlines()]
    assert not [row for row in rows if row.startswith("forged")]
    assert [row for row in rows if row.startswith("second")], "an explanation keeps its lines"


def test_json_escapes_what_a_terminal_obeys_and_reads_as_before() -> None:
    name = "a" + "b".join(UNSAFE) + "é\U0001f600\n\t"
    sink, out, _ = make(json=True)
    sink.answer({"name": name, name: 1}, "")
    assert not set(out.getvalue()) & set(UNSAFE) and "é\U0001f600" in out.getvalue()
    document = json.loads(out.getvalue())
    assert document["name"] == name and document[name] == 1


def test_half_a_surrogate_pair_is_spelt_out() -> None:
    for as_json in (False, True):
        sink, out, err = make(json=as_json)
        sink.answer({"name": "\udcff.bin"}, "\udcff.bin")
        sink.note("\udcff.bin")
        (out.getvalue() + err.getvalue()).encode()
        assert "\\udcff.bin" in out.getvalue() and "\\udcff.bin" in err.getvalue()
