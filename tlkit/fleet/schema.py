"""The shape of a plan, as JSON Schema (draft 2020-12): for editors, and for the check when one is read."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

_TEXT = {"type": "string", "minLength": 1}
_VALUE = {"type": ["string", "integer", "number", "boolean"]}
_TIME = {"type": ["string", "number"], "description": 'seconds, or text such as "10 min" or "2 h"'}
_SIZE = {"type": ["string", "integer"], "description": 'bytes, or text such as "4 GB"'}
VERBS = ("inspect", "convert", "run", "bench", "edit", "compare")

PLAN: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A plan of tlkit fleet",
    "type": "object",
    "additionalProperties": False,
    "required": ["model", "job"],
    "properties": {
        "model": {
            "type": "array",
            "minItems": 1,
            "description": "what the jobs take: files, folders, patterns of them, or sources of `tlkit convert`",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "path": {**_TEXT, "description": "a model file, a folder of them, or a pattern: zoo/*.mlpackage"},
                    "source": {**_TEXT, "description": "what `tlkit convert` takes: net.py:Net, a Hugging Face folder"},
                    "name": {**_TEXT, "description": "its name in the report; by default that of the file"},
                },
            },
        },
        "job": {
            "type": "array",
            "minItems": 1,
            "description": "what is done with each model, once for each combination of the matrix",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["verb"],
                "properties": {
                    "verb": {"enum": list(VERBS)},
                    "models": {
                        "type": "array",
                        "items": _TEXT,
                        "description": "patterns of models' names; by default all",
                    },
                    "arguments": {
                        "type": "array",
                        "items": _TEXT,
                        "description": 'words after the verb; by default ["{model}"]',
                    },
                    "options": {
                        "type": "object",
                        "additionalProperties": {**_VALUE, "type": [*_VALUE["type"], "array"]},
                        "description": "options of the verb: iterations = 100 is --iterations 100; true is a flag",
                    },
                    "matrix": {
                        "type": "object",
                        "additionalProperties": {"type": "array", "minItems": 1, "items": _VALUE},
                        "description": "options with several values each: a job for each combination",
                    },
                    "output": {**_TEXT, "description": "the path for -o; {name} and the matrix' keys may stand in it"},
                    "timeout": _TIME,
                    "memory": {**_SIZE, "description": "how much memory a job needs on its node"},
                },
            },
        },
        "limits": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "jobs": {"type": "integer", "minimum": 1, "description": "jobs at a time on this machine"},
                "timeout": _TIME,
                "memory": _SIZE,
            },
        },
    },
}

_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
_CALLED = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a table",
}


def check(value: Any, schema: Mapping[str, Any] = PLAN, where: str = "") -> str:
    """Return what is wrong with ``value``, one sentence, and empty where nothing is.

    Knows the keywords that :data:`PLAN` uses.
    """
    if "enum" in schema:
        if value in schema["enum"]:
            return ""
        return f"{where}: {value!r:.60} is not one of {', '.join(schema['enum'])}"
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if not any(_is_a(value, kind) for kind in kinds):
        return f"{where or 'the plan'}: {value!r:.60} is not {' or '.join(map(_CALLED.__getitem__, kinds))}"
    if isinstance(value, dict):
        return _check_object(value, schema, where)
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            return f"{where}: there is nothing in it"
        each = schema.get("items")
        return _first(check(item, each, f"{where}[{at}]") for at, item in enumerate(value)) if each else ""
    if isinstance(value, str) and len(value) < schema.get("minLength", 0):
        return f"{where}: it is empty"
    if "minimum" in schema and value < schema["minimum"]:
        return f"{where}: {value} is less than {schema['minimum']}"
    return ""


def _check_object(value: Mapping[str, Any], schema: Mapping[str, Any], where: str) -> str:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    at = f"{where}." if where else ""
    for name in value:
        if name not in known and others is False:
            near = difflib.get_close_matches(name, known, 1)
            return f"{at}{name}: there is no such key" + (f"; {near[0]!r} is one" if near else f": {', '.join(known)}")
    for name in schema.get("required", ()):
        if name not in value:
            return f"{where or 'the plan'}: '{name}' is missing"
    for name, item in value.items():
        wrong = check(item, known.get(name, others), f"{at}{name}")
        if wrong:
            return wrong
    return ""


def _first(found: Any) -> str:
    return next((wrong for wrong in found if wrong), "")


def _is_a(value: Any, kind: str) -> bool:
    return isinstance(value, _KINDS[kind]) and not (isinstance(value, bool) and kind in ("integer", "number"))
