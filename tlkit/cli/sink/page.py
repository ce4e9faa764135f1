"""An HTML page beside a command's answer: prepared before the work, written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Page:
    """The page at ``path``. Raises what :func:`tlkit.host.staging.prepare` raises; ``inputs`` are what the command
    reads."""

    def __init__(self, path: str, force: bool, inputs: Sequence[Any] = ()) -> None:
        from tlkit.host.goals import files_named
        from tlkit.host.staging import prepare

        self.path, self._force = Path(path), force
        prepare(self.path, force=force, inputs=tuple(files_named(*inputs)))

    def write(self, text: str) -> None:
        """Write the page."""
        from tlkit.host.staging import staged

        def read_again(made: Path) -> None:
            if made.read_text(encoding="utf-8") != text:
                raise ValueError("another text than was written")

        with staged(self.path, read_again, force=self._force) as made:
            made.write_text(text, encoding="utf-8")
