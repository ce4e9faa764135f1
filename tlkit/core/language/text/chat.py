"""Conversations as text, by the model's own chat template."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tlkit.errors import LoadError, UsageError

_LONGEST = 1 << 20  # characters of a rendered conversation
_TEMPLATE = 1 << 18
_SECONDS = 15

Message = Mapping[str, str]
"""``role`` (system, user, assistant) and ``content``."""


def template_of(metadata: Mapping[str, Any], where: str) -> str:
    """Return the model's chat template; UsageError where it has none, LoadError where it is too long to be one."""
    found = metadata.get("tokenizer.chat_template")
    if not isinstance(found, str) or not found:
        raise UsageError(f"{where}: it has no chat template", "it only continues text: leave --chat out")
    if len(found) > _TEMPLATE:
        raise LoadError(f"{where}: its chat template has {len(found):,} characters", "the file is damaged")
    return found


def conversation(template: str, messages: Sequence[Message], specials: Mapping[str, str], where: str) -> str:
    """Return the text of ``messages`` up to where the model answers; ``specials`` are ``bos_token`` and ``eos_token``.

    The template is rendered in a process of its own (:mod:`~tlkit.core.language.text.rendering`). LoadError where it
    fails, does not end, or writes too much.
    """
    # Templates ask whether tools are none, which what is not there is not.
    nothing = {"tools": None, "documents": None}
    variables = {"messages": list(messages), "add_generation_prompt": True, **nothing, **specials}
    given = json.dumps({"template": template, "variables": variables, "longest": _LONGEST})
    command = [sys.executable, "-P", "-m", "tlkit.core.language.text.rendering"]
    said, hint = "", "leave --chat out, or write the turns into --prompt by hand"
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=_SECONDS, check=False)
        answer = json.loads(done.stdout) if done.returncode == 0 and done.stdout else {}
        if isinstance(answer.get("text"), str):
            return str(answer["text"])
        said = str(answer.get("error") or "it needs too much memory or time")
    except subprocess.TimeoutExpired:
        said = f"it does not end within {_SECONDS} s"
    except ValueError:
        said = "it cannot be rendered"
    raise LoadError(f"{where}: its chat template fails: {said}", hint)
