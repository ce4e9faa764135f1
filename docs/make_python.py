"""Write docs/python.md from the docstrings of what ``import tlkit`` hands out: ``docs/make_python.py [GOAL]``."""

from __future__ import annotations

import inspect
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import tlkit
from tlkit.host.staging import staged

HERE = Path(__file__).parent
_HEAD = """# Python

The commands as functions, with the same names and defaults, and what they return. Importing tlkit is cheap: each name
brings its module on first use. Errors are `TlkitError`s with `message`, `hint` and the `exit_code` of the command line.
"""


def main() -> None:
    """Write the page to the path given, or to python.md beside this file."""
    goal, text = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "python.md", page()
    with staged(goal, partial(_read_again, text), force=True) as path:
        path.write_text(text)


def _read_again(text: str, path: Path) -> None:
    if path.read_text() != text:
        raise ValueError("another text than was written")


def page() -> str:
    """Return the whole page: functions first, then classes, then errors."""
    found = {name: getattr(tlkit, name) for name in tlkit.__all__}
    functions = {name: item for name, item in found.items() if inspect.isfunction(item)}
    errors = {name: item for name, item in found.items() if inspect.isclass(item) and issubclass(item, Exception)}
    classes = {name: item for name, item in found.items() if name not in functions and name not in errors}
    parts = [_HEAD]
    for heading, items in (("Functions", functions), ("Results and descriptions", classes), ("Errors", errors)):
        parts += [f"## {heading}\n", *(_entry(name, item) for name, item in items.items())]
    return "\n".join(parts)


def _entry(name: str, item: Any) -> str:
    lines = [f"### `{name}`\n"]
    if inspect.isfunction(item):
        lines.append(f"```python\n{_signature(name, item)}\n```\n")
    lines.append(_prose(inspect.getdoc(item) or ""))
    if inspect.isclass(item) and not issubclass(item, Exception):
        lines += [f"- `{each}`: {_first(member)}" for each, member in _members(item)]
    return "\n".join(lines) + "\n"


def _signature(name: str, function: Any) -> str:
    """Write a call with a line for each parameter, annotations as they are in the source."""
    taken = inspect.signature(function).parameters.values()
    starred = any(each.kind is each.KEYWORD_ONLY for each in taken)
    words: list[str] = []
    for each in taken:
        if starred and each.kind is each.KEYWORD_ONLY:
            words.append("*")
            starred = False
        shown = f"{each.name}: {each.annotation}" if each.annotation is not each.empty else each.name
        plain = each.default is None or isinstance(each.default, bool | int | float | str | tuple)
        default = "" if each.default is each.empty else f" = {each.default!r}" if plain else " = ..."
        words.append(shown + default)
    whole = inspect.signature(function).return_annotation
    return f"{name}(\n" + "".join(f"    {word},\n" for word in words) + f") -> {whole}"


def _prose(text: str) -> str:
    """Return a docstring as Markdown: its roles and double backticks are code."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`") + "\n"


def _first(member: Any) -> str:
    return _prose(inspect.getdoc(member) or "").strip().split("\n\n")[0].replace("\n", " ")


def _members(kind: type) -> list[tuple[str, Any]]:
    """Return the public methods and properties that have a docstring of their own, a base's in the same room first."""
    room = _room(kind)
    own = {name: item for base in reversed(kind.__mro__) if _room(base) == room for name, item in vars(base).items()}
    public = [(name, item) for name, item in own.items() if not name.startswith("_")]
    return [(name, item) for name, item in public if (callable(item) or isinstance(item, property)) and item.__doc__]


def _room(kind: type) -> str:
    return kind.__module__.rpartition(".")[0]


if __name__ == "__main__":
    main()
