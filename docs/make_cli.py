"""Write docs/cli.md from the command line's own help: ``python docs/make_cli.py [OUTPUT]``, or ``make docs``.

Typer's documented ``utils docs`` makes the page; here the examples in it become code blocks.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

from tlkit.cli.app import build
from tlkit.host.staging import staged

HERE = Path(__file__).parent

app = build()
"""The whole command line, where Typer finds it in this file."""


def main() -> None:
    """Write the page to the path given, or to cli.md beside this file."""
    goal = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "cli.md"
    typer = [sys.executable, "-m", "typer", __file__, "utils", "docs", "--name", "tlkit"]
    made = subprocess.run([*typer, "--title", "The command line"], check=True, capture_output=True, text=True).stdout
    page = fence_examples(made)
    with staged(goal, partial(_read_again, page), force=True) as path:
        path.write_text(page)


def _read_again(page: str, path: Path) -> None:
    if path.read_text() != page:
        raise ValueError("another text than was written")


def fence_examples(page: str) -> str:
    """Make code blocks of the paragraphs that help shows as they are written, marked with a backspace."""
    return re.sub(r"\x08\n((?:.+\n)+)", lambda found: f"```console\n{_prompt(found[1])}```\n", page).rstrip() + "\n"


def _prompt(examples: str) -> str:
    """Put ``$`` before each command; what an example does, set off by blanks, becomes a comment."""
    commented = re.sub(r"^(tlkit .*?\S) {2,}(\S)", r"\1  # \2", examples, flags=re.MULTILINE)
    return re.sub(r"^tlkit ", "$ tlkit ", commented, flags=re.MULTILINE)


if __name__ == "__main__":
    main()
