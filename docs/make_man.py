"""Make man pages of docs/cli.md: ``python docs/make_man.py FOLDER``; setup.py does so for the wheel.

A page for tlkit and one for each subcommand. Only the standard library is used: it runs where a wheel is built.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Write the pages into the folder given."""
    for path in write_pages(HERE / "cli.md", Path(sys.argv[1])):
        print(path)


def write_pages(reference: Path, folder: Path) -> list[Path]:
    """Write a man page for each command that the reference has; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    whole, *commands = re.split(r"^## ", reference.read_text(encoding="utf-8"), flags=re.MULTILINE)
    short = dict(re.findall(r"^\* `(\w+)`: (.+)$", whole, re.MULTILINE))
    sections = {"tlkit": (whole.partition("\n")[2], whole.strip().splitlines()[2])}
    for section in commands:
        title, _, body = section.partition("\n")
        name = title.strip("`\n ")
        sections[name] = (body, short.get(name.removeprefix("tlkit "), ""))
    made = []
    others = [name.replace(" ", "-") for name in sections]
    for name, (body, about) in sections.items():
        path = folder / f"{name.replace(' ', '-')}.1"
        also = ", ".join(rf"\fB{_text(other)}\fR(1)" for other in others if other != path.stem)
        text = [
            f'.TH "{path.stem.upper()}" "1" "" "tlkit" "tlkit"',
            ".SH NAME",
            rf"{_text(path.stem)} \- {_text(about)}",
        ]
        text += [*_lines(body), ".SH SEE ALSO", also]
        path.write_text("\n".join(text) + "\n", encoding="utf-8")
        made.append(path)
    return made


_HEADS = {"Usage": "SYNOPSIS", "Arguments": "ARGUMENTS", "Options": "OPTIONS", "Commands": "COMMANDS"}


def _lines(body: str) -> Iterator[str]:
    """Yield the roff of a command's Markdown: paragraphs, headings, lists of options, and blocks of commands."""
    yield ".SH DESCRIPTION"
    verbatim = False
    for line in body.splitlines():
        if line.startswith("```"):
            verbatim = not verbatim
            yield ".EX" if verbatim else ".EE"
        elif verbatim:
            yield _text(line) or r"\&"
        elif head := re.fullmatch(r"\*\*(\w+)\*\*:", line):
            yield f".SH {_HEADS.get(head[1], head[1].upper())}"
        elif item := re.fullmatch(r"\* `([^`]+)`(?:: (.*))?", line):
            yield from (".TP", rf"\fB{_text(item[1])}\fR", _text(item[2] or r""))
        elif line.strip():
            yield _text(line)
        else:
            yield ".PP"


def _text(line: str) -> str:
    """Return a line as roff shows it: no command, no escape, hyphens that can be copied."""
    line = line.replace("\\", r"\e").replace("-", r"\-").replace("`", "")
    return rf"\&{line}" if line[:1] in ("'", ".") else line


if __name__ == "__main__":
    main()
