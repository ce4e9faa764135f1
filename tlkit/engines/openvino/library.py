"""The library itself: one core in a process, and what its errors say."""

from __future__ import annotations

from functools import cache
from typing import Any

import openvino

from tlkit.errors import reason


@cache
def core() -> Any:
    """Return OpenVINO's core, which is made once."""
    return openvino.Core()


def last_line(error: BaseException) -> str:
    """Return what an error says in the end: its first lines are places in OpenVINO's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][-300:] if lines else reason(error)
