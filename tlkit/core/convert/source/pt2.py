"""Is a ``.pt2`` data alone? ``torch.export.load`` unpickles, evaluates and imports what an archive tells it to.

Everything of that kind is looked at here first, without torch's loader; what is more than numbers, names of torch's
ops and arithmetic on sizes is refused.
"""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError, reason

_LARGEST = 1 << 30  # bytes of JSON
_TARGET = re.compile(r"torch\.ops\.\w+\.\w+\.\w+|_operator\.\w+|math\.\w+|torch\.sym_\w+|torch\._sym_sqrt")
_ATTRIBUTES = {"size", "stride", "storage_offset", "shape", "dim"}
_CALLS = [
    "Symbol",
    "Integer",
    "Float",
    "Rational",
    "Add",
    "Mul",
    "Pow",
    "Max",
    "Min",
    "Mod",
    "PythonMod",
    "FloorDiv",
    "CleanDiv",
    "CeilDiv",
    "IntTrueDiv",
    "FloatTrueDiv",
    "PowByNatural",
    "FloatPow",
    "ToFloat",
    "TruncToInt",
    "CeilToInt",
    "FloorToInt",
    "Where",
    "Identity",
    "LShift",
    "RShift",
    "Abs",
    "Eq",
    "Ne",
    "Lt",
    "Le",
    "Gt",
    "Ge",
    "Equality",
    "Unequality",
    "StrictLessThan",
    "LessThan",
    "StrictGreaterThan",
    "GreaterThan",
    "And",
    "Or",
    "Not",
    "floor",
    "ceiling",
]
_NODES = (
    ast.Expression,
    ast.Constant,
    ast.Name,
    ast.Load,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
    ast.keyword,
    ast.Subscript,
)


def check_archive(path: Path) -> None:
    """Raise :class:`LoadError` if loading the archive at ``path`` could run code of it, or if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            if broken:
                raise LoadError(f"{path}: damaged: {broken} does not match its checksum", _AGAIN)
            for name in archive.namelist():
                _check_entry(path, archive, name)
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, RecursionError) as error:
        raise LoadError(f"{path}: not a whole archive of torch.export: {reason(error)}", _AGAIN) from error


_AGAIN = "save it again with torch.export.save"


def _check_entry(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    inner = name.partition("/")[2]
    if inner.startswith("data/aotinductor/") or inner.endswith((".so", ".dylib", ".dll")):
        raise _refused(path, name, "compiled code")
    if "custom_obj" in inner or "serialized_" in inner:
        raise _refused(path, name, "pickled objects")
    if inner.startswith("data/sample_inputs/"):
        _check_samples(path, archive, name)
    if inner.endswith(".json"):
        if archive.getinfo(name).file_size > _LARGEST:
            raise _refused(path, name, "too much JSON")
        for key, value in _values(json.loads(archive.read(name))):
            reason = _danger(key, value)
            if reason:
                raise _refused(path, name, reason)


def _check_samples(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    import torch

    try:
        with archive.open(name) as file:
            torch.load(file, weights_only=True)
    except Exception as error:
        raise _refused(path, name, "example inputs that only unpickling could read") from error


def _values(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key and value of nested JSON objects; a list's items under its key."""
    stack = [("", value)]
    while stack:
        key, value = stack.pop()
        if isinstance(value, dict):
            stack.extend(value.items())
        elif isinstance(value, list):
            stack.extend((key, item) for item in value)
        else:
            yield key, value


def _danger(key: str, value: Any) -> str:
    if key == "use_pickle" and value:
        return "pickled tensors"
    if key == "target" and isinstance(value, str) and not _TARGET.fullmatch(value):
        return f"a call of '{value[:40]}'"
    if key in ("expr_str", "guards_code") and isinstance(value, str) and not _is_arithmetic(value):
        return f"the expression '{value[:40]}'"
    return ""


def _is_arithmetic(text: str) -> bool:
    try:
        return all(map(_harmless, ast.walk(ast.parse(text.strip(), mode="eval"))))
    except (SyntaxError, ValueError, MemoryError):
        return False


def _harmless(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        named = isinstance(node.func, ast.Name) and node.func.id in _CALLS
        return named or (isinstance(node.func, ast.Attribute) and node.func.attr in _ATTRIBUTES)
    if isinstance(node, ast.Attribute):
        return node.attr in _ATTRIBUTES
    if isinstance(node, ast.Constant):  # sympy evaluates a symbol's name no further, but names need no more than this
        return not isinstance(node.value, str) or node.value.replace(".", "_").isidentifier()
    return isinstance(node, _NODES)


def _refused(path: Path, name: str, what: str) -> LoadError:
    return LoadError(f"{path}: {name} holds {what}, which loading it would run", "convert the module it was made of")
