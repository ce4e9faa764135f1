"""Saved runs: a measurement's JSON document, written whole or not at all, and read back as the same dataclasses.

A saved run is untrusted: every field is checked against its type, and LoadError is raised where it does not fit.

A ``.db`` file keeps many: ``bench --save runs.db`` appends to one SQLite table, ``runs``, with ``started`` (UTC, ISO
8601), ``models`` (as asked, one a line) and ``document`` (that of a ``.json``). SQLite itself sees to it that a run is
there whole or not at all, and that several processes may append.
"""

from __future__ import annotations

import json
import math
import sqlite3
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tlkit.core.bench.bench import BenchResult
from tlkit.errors import LoadError, UsageError, WriteError, reason
from tlkit.host.staging import Goal, staged_set

SCHEMA_VERSION = 3
"""The version of a run's own part of the document."""

_HINT = "give a file that `tlkit bench --save` wrote"
_LARGEST = 1 << 30  # bytes
SUFFIXES = (".db", ".sqlite", ".sqlite3")
"""How a file is named that runs are appended to."""
_HEAD = b"SQLite format 3\0"
_MADE = "CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, started TEXT NOT NULL, models TEXT NOT NULL, \
document TEXT NOT NULL)"
_WAIT = 30.0  # seconds that another process may hold the file
_MOST = 1 << 64  # no count, size or time in nanoseconds is as large; what is may not even be a float


def save(
    run: tuple[Path, str] | None, page: tuple[Path, str] | None, *, force: bool = False, inputs: Iterable[Path] = ()
) -> None:
    """Write a run's JSON document and its HTML page, or one of them, each a path and a text; both are written, or
    neither.

    Raises UsageError where one exists and ``force`` is not given, or is one of ``inputs``.
    """
    wanted = [(*item, reads) for item, reads in ((run, load_run), (page, partial(_read_text, page))) if item]
    outputs = [Goal(goal, reads) for goal, _, reads in wanted]
    with staged_set(outputs, force=force, inputs=inputs) as paths:
        for path, (_, text, _) in zip(paths, wanted, strict=True):
            path.write_text(text, encoding="utf-8")


def _read_text(page: tuple[Path, str] | None, path: Path) -> None:
    if page is not None and path.read_text(encoding="utf-8") != page[1]:
        raise LoadError(f"{path}: another text than was written")


def load_run(path: Path) -> BenchResult:
    """Read a run that ``--save`` or ``--json`` wrote, of several the last. Raises LoadError for anything else."""
    if is_history(path):
        return load_history(path)[-1]
    try:
        if path.stat().st_size > _LARGEST:
            raise LoadError(f"{path}: too large for a saved run")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LoadError(f"{path}: {reason(error)}", _HINT) from None
    except ValueError:
        raise LoadError(f"{path}: not a saved run: no JSON", _HINT) from None
    return parse_run(str(path), text)


def parse_run(where: str, text: str) -> BenchResult:
    """Return the run of a JSON document, which ``where`` names; LoadError where it is none."""
    try:
        # Python's json takes NaN and Infinity, which JSON does not have; `_scalar` reads them as text.
        document = json.loads(text, parse_constant=_refuse)
    except (ValueError, TypeError, RecursionError):
        raise LoadError(f"{where}: not a saved run: no JSON", _HINT) from None
    try:
        if document.get("run_version") != SCHEMA_VERSION:
            raise ValueError(f"its run_version is {document.get('run_version')}, not {SCHEMA_VERSION}")
        result = structure(document, BenchResult, "run")
        _require_samples(result)
        _require_percentiles(result)
    except (ValueError, TypeError, AttributeError) as error:
        raise LoadError(f"{where}: not a saved run: {reason(error)}", _HINT) from None
    assert isinstance(result, BenchResult)
    return result


def is_history(path: Path) -> bool:
    """Whether the file at ``path`` is an SQLite one, by its content."""
    try:
        with path.open("rb") as file:
            return file.read(len(_HEAD)) == _HEAD
    except OSError:
        return False


def check_history(path: Path) -> None:
    """Raise UsageError where a run cannot be appended at ``path``: another file is there, or no folder for it."""
    if path.exists() and path.stat().st_size and not is_history(path):
        raise UsageError(f"{path}: not a file of runs", "name another, or remove it")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}", "make it first")


def append(path: Path, result: BenchResult, document: str) -> None:
    """Add a run, of which ``document`` is the JSON; WriteError where that fails, and the file is as it was."""
    names = "\n".join(model.asked for model in result.models)
    try:
        with closing(sqlite3.connect(path, timeout=_WAIT)) as file, file:
            file.execute(_MADE)
            file.execute(
                "INSERT INTO runs (started, models, document) VALUES (?, ?, ?)", (result.started, names, document)
            )
    except sqlite3.Error as error:
        raise WriteError(f"{path}: the run could not be added: {reason(error)}", "save it as a .json file") from None


def load_history(path: Path, since: str | None = None) -> list[BenchResult]:
    """Return the runs of a file, oldest first; of those since a time, a date or so many days ago (``7d``).

    Raises LoadError for a file that is damaged or holds no run since then, UsageError for a time that is none.
    """
    first = None if since is None else _time(since)
    with _opened(path) as file:
        rows = file.execute("SELECT id, started, document FROM runs ORDER BY started, id").fetchall()
    found = [(number, document) for number, started, document in rows if first is None or _started(started) >= first]
    if not found:
        after = "" if since is None else f" since {since}"
        raise LoadError(f"{path}: no run{after} in it ({len(rows)} in all)", "append one with `tlkit bench --save`")
    return [parse_run(f"{path}, run {number}", document) for number, document in found]


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a stranger's file to be read only: nothing that its schema defines is run."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_WAIT)) as file:
            file.execute("PRAGMA trusted_schema = OFF")
            kind = file.execute("SELECT type FROM sqlite_master WHERE name = 'runs'").fetchone()
            if kind != ("table",):
                raise LoadError(f"{path}: no runs of tlkit in it", _HINT)
            yield file
    except sqlite3.Error as error:
        raise LoadError(f"{path}: damaged: {reason(error)}", _HINT) from None


def _started(text: object) -> datetime:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _time(text: str) -> datetime:
    try:
        if text.endswith("d") and text[:-1].isdecimal():
            return datetime.now(UTC) - timedelta(days=int(text[:-1]))
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise UsageError(f"--since {text}: not a time", "write 2026-01-31, 2026-01-31T12:00 or 7d") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _require_samples(result: BenchResult) -> None:
    """Raise ValueError where a row's samples do not agree with its figures and turns."""
    for index, row in enumerate(result.rows):
        where = f"run.rows[{index}]"
        _require(row.summary is None or bool(row.samples_ns), f"{where}.samples_ns", "there")
        wrong = next((place for place, sample in enumerate(row.samples_ns) if sample <= 0), None)
        _require(wrong is None, f"{where}.samples_ns[{wrong}]", "above zero")
        sizes = [size for sizes in row.turns for size in sizes]
        whole = not sizes or (min(sizes) > 0 and sum(sizes) == len(row.samples_ns))
        _require(whole, f"{where}.turns", "its samples, turn by turn")


def _require_percentiles(result: BenchResult) -> None:
    """Raise ValueError where percentiles are invalid, or a row's summary lacks one that the method names."""
    for index, share in enumerate(result.method.percentiles):
        _require(0 <= share <= 100, f"run.method.percentiles[{index}]", "between 0 and 100")
    for index, row in enumerate(result.rows):
        for share in result.method.percentiles if row.summary else ():
            name = f"p{share:g}"
            where = f"run.rows[{index}].summary.percentiles_ns.{name}"
            # p50 is the median, which every summary has.
            _require(row.summary is not None and (share == 50 or name in row.summary.percentiles_ns), where, "there")


def structure(data: Any, kind: Any, where: str) -> Any:
    """Return plain JSON ``data`` as ``kind``: a dataclass, tuple, mapping, literal, union or scalar type.

    Raises ValueError that names the place where it does not fit. Fields that ``kind`` does not know are left out.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(data, kind, where)
    if origin in (Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        # Every union here is of one type and None.
        return structure(data, next(a for a in arguments if a is not type(None)), where)
    if origin is tuple:
        _require(isinstance(data, list), where, "a list")
        return tuple(structure(item, arguments[0], f"{where}[{index}]") for index, item in enumerate(data))
    if origin in (Mapping, dict):
        _require(isinstance(data, dict), where, "an object")
        return {name: structure(value, arguments[1], f"{where}.{name}") for name, value in data.items()}
    if origin is Literal:
        _require(data in arguments, where, " or ".join(map(str, arguments)))
        return data
    return _scalar(data, kind, where)


def _dataclass(data: Any, kind: type, where: str) -> Any:
    _require(isinstance(data, dict), where, "an object")
    hints = get_type_hints(kind)
    values = {}
    for field in fields(kind):
        if field.name in data:
            values[field.name] = structure(data[field.name], hints[field.name], f"{where}.{field.name}")
        else:
            required = field.default is MISSING and field.default_factory is MISSING
            _require(not required, f"{where}.{field.name}", "there")
    return kind(**values)


def _scalar(data: Any, kind: Any, where: str) -> Any:
    if kind is float and data in ("Infinity", "-Infinity", "NaN"):
        return float(data)
    _require(not isinstance(data, int) or abs(data) < _MOST, where, "a number of at most 64 bits")
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    # To Python True is an int.
    _require(isinstance(data, kind) and not (kind is int and isinstance(data, bool)), where, f"of type {kind.__name__}")
    _require(not (isinstance(data, float) and not math.isfinite(data)), where, "finite")
    return data


def _require(holds: bool, where: str, what: str) -> None:
    if not holds:
        raise ValueError(f"{where} is not {what}")


def _refuse(word: str) -> None:
    raise ValueError(word)
