"""The process in which a chat template is rendered: a stranger's program, in Jinja's sandbox and within limits.

It reads JSON from stdin (``template``, ``variables``, ``longest``) and writes JSON to stdout: ``text``, or ``error``.
Jinja's sandbox keeps a template from attributes that lead out of it; memory and processor time are the process's own
limits, since a loop, or ``"x" * 10**9``, needs no attribute.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from tlkit.errors import reason

_MEMORY = 1 << 29
_SECONDS = 10


class TrainedText(Extension):
    """``{% generation %}``, which marks what a model is trained to write: here what is between is text like other."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        """Return what is between."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class Variables(Namespace):
    """``namespace()``, without names that lead into Python."""

    def __init__(self, /, *given: Any, **named: Any) -> None:
        said = dict(*given, **named)
        _check_names(said)
        super().__init__(said)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_names([name])
        super().__setitem__(name, value)


def _check_names(names: Iterable[Any]) -> None:
    if any(not isinstance(name, str) or name.startswith("_") for name in names):
        raise SecurityError("a namespace's names are words")


def limit() -> None:
    """Hold this process to its limits, where the system has them."""
    try:
        import resource  # not on Windows
    except ImportError:  # the parent's timeout is left
        return
    for kind, most in ((resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_CPU, _SECONDS)):
        try:
            resource.setrlimit(kind, (most, most))
        except (ValueError, OSError):  # macOS knows no limit of memory
            continue


def rendered(template: str, variables: dict[str, Any], longest: int) -> str:
    """Return a template's text; ValueError where it is longer than ``longest`` characters."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, TrainedText]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now, "namespace": Variables, "dict": _pairs}
    parts, size = [], 0
    for part in environment.from_string(template).generate(**variables):
        size += len(part)
        if size > longest:
            raise ValueError(f"it writes more than {longest} characters")
        parts.append(part)
    return "".join(parts)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _pairs(*given: Any, **named: Any) -> dict[Any, Any]:
    return dict(*given, **named)


def _refuse(message: Any) -> None:
    raise ValueError(str(message))


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def main() -> None:
    """Render what stdin says."""
    given = json.load(sys.stdin)
    limit()
    try:
        answer = {"text": rendered(given["template"], given["variables"], given["longest"])}
    except MemoryError:
        answer = {"error": "it needs too much memory"}
    except Exception as error:  # a stranger's program may raise anything
        answer = {"error": reason(error, named=True)[:500]}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
