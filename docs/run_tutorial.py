"""Do what the tutorial says, in a new folder: ``python docs/run_tutorial.py FOLDER [PAGE]``.

Blocks with a title become files of that name; of console blocks each ``$ tlkit ...`` is run, in order, by the ``tlkit``
that the shell would find. Stops at the first that fails, with its exit code.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).with_name("tutorial.md")
_BLOCK = re.compile(r'^```(\w+)(?: title="([\w.-]+)")?\n(.*?)^```', re.DOTALL | re.MULTILINE)


def steps(page: str) -> Iterator[tuple[str, str]]:
    """Yield what a page asks for, in order: (name, contents) of files, and ("", command) of commands."""
    for kind, title, body in _BLOCK.findall(page):
        if title:
            yield title, body
        elif kind == "console":
            yield from (("", line[2:]) for line in body.replace("\\\n", "").splitlines() if line.startswith("$ "))


def main() -> int:
    """Run the page's steps in the folder that is named; return the first exit code that is not 0."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in steps(Path(sys.argv[2]).read_text() if len(sys.argv) > 2 else PAGE.read_text()):
        if name:
            (folder / name).write_text(text)
            continue
        print(f"$ {text}", flush=True)
        code = subprocess.run(text, shell=True, cwd=folder).returncode
        if code:
            print(f"exit code {code}: {text}", file=sys.stderr)
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
