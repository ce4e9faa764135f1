"""The commands that the documents show, and whether a command prints what its page says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NUMBER = r"(?<![A-Za-z_\d])[-+<>]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
_END = r"(?![A-Za-z_\d])"
_UNIT = r"(?:%|x(?!\w)|(?:ns|µs|us|ms|s|B|kB|MB|GB|dB|k|M)\b)"


@dataclass(frozen=True)
class Shown:
    """A command of a page: where it is, its words as a shell reads them, what it is piped to, and what it printed."""

    page: str
    line: int
    command: str
    printed: str

    @property
    def words(self) -> list[str]:
        return shlex.split(re.split(r" [|>] ", self.command)[0], comments=True)[1:]

    @property
    def filter(self) -> list[str]:
        _, _, rest = self.command.partition(" | ")
        return shlex.split(rest, comments=True)


def shown(root: Path, page: str) -> Iterator[Shown]:
    """Yield the tlkit commands of ``page``, in order; a line that ends in a backslash goes on."""
    text = (root / page).read_text()
    for block in re.finditer(r"```(?:console|sh)\n(.*?)```", text, flags=re.DOTALL):
        start = text[: block.start()].count("\n") + 2
        lines = block[1].split("\n")
        index = 0
        while index < len(lines):
            first, command = index, lines[index]
            while command.endswith("\\"):
                index += 1
                command = command[:-1] + lines[index]
            index += 1
            printed = []
            while index < len(lines) and not lines[index].startswith("$ "):
                printed.append(lines[index])
                index += 1
            if command.startswith("$ tlkit "):
                yield Shown(page, start + first, command.removeprefix("$ "), "\n".join(printed).strip())


def masked(text: str) -> str:
    """Return ``text`` as words with single blanks: figures are ``#``, with their units (shapes and names stay).

    Lines of tables and bars are gone, and so is where lines were folded.
    """
    text = " ".join(re.sub(r"[─-╿▀-▟]+", " ", text).split())
    text = re.sub(r"\d+\.\d+\.\d+(?:\+\w+)?", "#", text)  # versions
    text = re.sub(r"\b[0-9a-f]{16,}\b", "#", text)  # hashes
    text = re.sub(rf"{_NUMBER}(?: ?{_UNIT}|{_END})", "#", text)
    return " ".join(text.split())


def agrees(expected: str, printed: str) -> str:
    """Return what of ``expected`` is not in ``printed``, in this order; empty where all is. ``...`` stands for
    anything, on a line by itself or at the end of one; the rest has to follow at once."""
    found, position = masked(printed), 0
    parts = [masked(part) for part in re.split(r"\.\.\.(?=\n|$)", expected)]
    for number, part in enumerate(parts):
        if not part:
            continue
        where = found.find(part, position)
        if where < 0 or (number == 0 and where != 0):
            return part
        position = where + len(part)
    if parts[-1] and position != len(found):
        return f"it goes on: {found[position:]}"
    return ""
