"""Which lines of tlkit an input reaches, for a fuzzer that keeps what reaches new ones.

Lines are numbered over all of tlkit's files, and those seen are marked in a map that all workers share: one byte per
line and target. From Python 3.12 on, ``sys.monitoring`` reports each line once and then nothing, which costs next to
nothing; before, ``sys.settrace`` watches one input in :data:`SAMPLE`, and only code with lines not yet seen.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import tlkit

ROOT = Path(tlkit.__file__).parent
SAMPLE = 4
"""Before Python 3.12: one input in this many is watched."""

_TOOL = 4  # a number that sys.monitoring leaves to whoever wants it


class Lines:
    """The number of each line: ``base[file] + line``; ``total`` is how many there are."""

    def __init__(self) -> None:
        self.base: dict[str, int] = {}
        self.total = 0
        for path in sorted(ROOT.rglob("*.py")):
            self.base[str(path)] = self.total
            self.total += len(path.read_bytes().splitlines()) + 2

    def name(self, number: int) -> str:
        """Return ``file:line`` for a number."""
        path, base = max(((path, base) for path, base in self.base.items() if base <= number), key=lambda item: item[1])
        return f"{Path(path).relative_to(ROOT)}:{number - base}"


class Coverage:
    """Marks the lines that run in ``seen`` (one byte per line), and counts the new ones."""

    def __init__(self, lines: Lines, seen: memoryview) -> None:
        self._base, self._total = lines.base, lines.total
        self._all = seen
        self._seen = seen[: self._total]
        self._new = 0
        self._turn = 0
        self._full: set[CodeType] = set()
        self._monitored = sys.version_info >= (3, 12)
        if self._monitored:
            self._monitor()

    def target(self, index: int) -> None:
        """From now on lines are those of the target ``index``."""
        self._seen = self._all[index * self._total : (index + 1) * self._total]
        self._full.clear()
        if self._monitored:
            sys.monitoring.restart_events()  # type: ignore[attr-defined, unused-ignore]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what the body runs."""
        self._turn += 1
        if self._monitored or self._turn % SAMPLE:
            yield
            return
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(None)

    def new(self) -> int:
        """Return how many lines were new since this was last asked."""
        found, self._new = self._new, 0
        return found

    def _mark(self, code: CodeType, line: int) -> None:
        number = self._base[code.co_filename] + line
        if not self._seen[number]:
            self._seen[number] = 1
            self._new += 1

    def _monitor(self) -> None:
        monitoring = sys.monitoring  # type: ignore[attr-defined, unused-ignore]

        def line(code: CodeType, number: int) -> Any:
            if code.co_filename in self._base:
                self._mark(code, number)
            return monitoring.DISABLE

        monitoring.use_tool_id(_TOOL, "fuzz")
        monitoring.register_callback(_TOOL, monitoring.events.LINE, line)
        monitoring.set_events(_TOOL, monitoring.events.LINE)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        base = self._base.get(code.co_filename)
        if base is None or code in self._full:
            return None
        numbers = {line for _, _, line in code.co_lines() if line is not None}
        if all(self._seen[base + line] for line in numbers):
            self._full.add(code)
            return None
        self._mark(code, frame.f_lineno)
        return self._line

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self._mark(frame.f_code, frame.f_lineno)
        return self._line
