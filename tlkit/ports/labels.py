"""A classifier's labels, from a text file or as given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tlkit.errors import LoadError, UsageError, reason


def class_labels(classes: str | Path | Sequence[str] | None) -> tuple[str, ...]:
    """Return the class labels: the non-blank lines of a text file, or as given. UsageError if there are none or
    twins."""
    if classes is None:
        return ()
    where = str(classes) if isinstance(classes, str | Path) else "classes"
    labels = _read_labels(Path(classes)) if isinstance(classes, str | Path) else tuple(classes)
    if not labels:
        raise UsageError(f"{where}: no class labels in it", "write one label per line, in the order of the scores")
    twice = next((label for label, count in Counter(labels).items() if count > 1), None)
    if twice is not None:
        lines = " and ".join(str(index) for index, label in enumerate(labels, 1) if label == twice)
        raise UsageError(f"{where}: the label '{twice}' is there twice ({lines})", "a classifier needs distinct labels")
    return labels


def _read_labels(path: Path) -> tuple[str, ...]:
    try:
        # utf-8-sig: Windows' editors begin a file with a byte order mark.
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise LoadError(f"{path}: {reason(error)}", "--classes takes a text file with one label per line") from error
    except UnicodeDecodeError as error:
        raise LoadError(
            f"{path}: not a UTF-8 text file", "--classes takes a text file with one label per line"
        ) from error
    return tuple(line.strip() for line in lines if line.strip())
