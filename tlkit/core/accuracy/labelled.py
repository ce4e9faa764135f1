"""Labelled samples: a folder whose folders are named by class, or a table of path (or the inputs) and label."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlkit.errors import LoadError, UnavailableError, UsageError, reason
from tlkit.ports.images import SUFFIXES as IMAGES

ARRAYS = (".npy", ".npz", ".safetensors")
_PATHS = ("path", "file", "filename", "file_name", "image", "sample")
_LABELS = ("label", "class", "target", "category", "y")
_TABLES = (".csv", ".tsv", ".parquet")
_FORMS = "give a folder with a folder for each class, or a .csv of path and label"


@dataclass(frozen=True, slots=True)
class Labelled:
    """One sample: what it is called, its label as a text, and its ``file``, or its inputs' values as texts by name."""

    name: str
    label: str
    file: Path | None = None
    values: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class LabelledSamples:
    """All samples of a folder or table, in order, and how many files of other kinds were passed over."""

    where: str
    items: tuple[Labelled, ...]
    passed_over: int = 0


def labelled_samples(where: str | os.PathLike[str], inputs: Sequence[str] = ()) -> LabelledSamples:
    """Return the samples that ``where`` holds.

    Of a folder the images, ``.npy``, ``.npz`` and ``.safetensors`` in its folders, each named by the class of what is
    in it. Of a ``.csv``, ``.tsv`` or ``.parquet`` its rows: a column called label (class, target, category, y) and one
    called path (file, filename, image, sample), relative to the table's own folder, or, where there is none, a column
    for each of the model's ``inputs``. A table of two columns without such names is path and label.

    Raises LoadError where there is nothing of the kind, UsageError for a row without a file or a label.
    """
    path = Path(where)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise LoadError(f"{path}: no such folder or file", _FORMS)
    if path.suffix.lower() not in _TABLES:
        raise UsageError(f"{path}: neither a folder nor a table of labels", _FORMS)
    return LabelledSamples(str(path), tuple(_table(path, inputs)))


def _folder(path: Path) -> LabelledSamples:
    found, others = [], 0
    for folder in sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith(".")):
        for file in sorted(folder.rglob("*")):
            if not file.is_file() or any(part.startswith(".") for part in file.relative_to(path).parts):
                continue
            if file.suffix.lower() in (*IMAGES, *ARRAYS):
                found.append(Labelled(str(file.relative_to(path)), folder.name, file))
            else:
                others += 1
    if not found:
        raise LoadError(f"{path}: no samples in folders named by class", _FORMS)
    return LabelledSamples(str(path), tuple(found), others)


def _table(path: Path, inputs: Sequence[str]) -> Iterator[Labelled]:
    head, *rows = _parquet(path) if path.suffix.lower() == ".parquet" else _text(path)
    names = [name.strip().lower() for name in head]
    label = next((names.index(name) for name in _LABELS if name in names), None)
    file = next((names.index(name) for name in _PATHS if name in names), None)
    exact = [name.strip() for name in head]
    columns = {name: exact.index(name) for name in inputs if name in exact}
    first = 2
    if label is None and file is None and not columns and len(head) == 2:
        rows, file, label, first = [head, *rows], 0, 1, 1
    # A column that is called as an input is one: a network's input may be called "image", too, and hold paths.
    if file in columns.values() and len(columns) == 1 and len(inputs) == 1:
        columns = {}
    if label is None or (file is None and not columns):
        wanted = "label" if label is None else f"path, nor the inputs {', '.join(inputs)}"
        raise UsageError(f"{path}: no column '{wanted}' among {', '.join(exact)}", "name its columns path and label")
    if not rows:
        raise LoadError(f"{path}: no samples in it", "add a row for each sample")
    for number, row in enumerate(rows, first):
        where = f"{path}, row {number}"
        if len(row) != len(head):
            raise UsageError(f"{where}: {len(row)} columns, where the first row has {len(head)}", "mend the table")
        if not row[label].strip():
            raise UsageError(f"{where}: no label", "give each sample its label")
        if columns and file is None:
            values = {name: row[column].strip() for name, column in columns.items()}
            yield Labelled(f"row {number}", row[label].strip(), values=values)
            continue
        assert file is not None
        sample = path.parent / row[file].strip()
        if not row[file].strip() or not sample.is_file():
            raise LoadError(f"{where}: no such file: {sample}", "paths are relative to the table's own folder")
        yield Labelled(row[file].strip(), row[label].strip(), sample)


def _text(path: Path) -> list[list[str]]:
    try:
        # utf-8-sig: spreadsheets begin a file with a byte order mark.
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError(f"{path}: {reason(error)}", "save it as CSV in UTF-8") from error
    first = text.partition("\n")[0]
    separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    try:
        rows = [row for row in csv.reader(text.splitlines(), delimiter=separator, strict=True) if row]
    except csv.Error as error:
        raise LoadError(f"{path}: not CSV: {reason(error)}", "quote texts that hold the separator") from error
    if not rows:
        raise LoadError(f"{path}: it is empty", _FORMS)
    return rows


def _parquet(path: Path) -> list[list[str]]:
    try:
        from pyarrow import parquet  # an extra, and large
    except ImportError:
        raise UnavailableError("pyarrow is not installed, which reads .parquet", "pip install 'tlkit[data]'") from None
    try:
        columns = parquet.read_table(path).to_pydict()
    except Exception as error:  # what pyarrow raises has no class in common
        raise LoadError(f"{path}: not a Parquet file: {reason(error)}", _FORMS) from error
    texts = [["" if value is None else str(value) for value in column] for column in columns.values()]
    return [list(columns), *map(list, zip(*texts, strict=True))]
