"""Carry a weights file's metadata from one format to another, and edit it.

GGUF's values have types and may be lists; SafeTensors' are text. So that nothing is lost on the way through
SafeTensors, values that are not text are written as JSON there, and one more entry (``tlkit.gguf_types``) records their
types. PyTorch's state_dicts cannot hold metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from tlkit.errors import UsageError
from tlkit.formats.base.dtypes import QUANTIZED
from tlkit.formats.base.tensors import TensorFile
from tlkit.formats.gguf.header import GGUFArray
from tlkit.formats.gguf.write import SCALARS, Typed

_TYPES = "tlkit.gguf_types"
_FRAMEWORKS = ("pt", "tf", "flax", "mlx")  # what transformers knows; it refuses a file that says none of them
_GENERAL = ("author", "description", "license", "version", "name")
_FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "BF16": 32}
_FILE_TYPES |= {"TQ1_0": 36, "TQ2_0": 37, "MXFP4": 38}  # llama.cpp's enum llama_ftype

Carried = dict[str, Typed]


def read_metadata(source: TensorFile) -> Carried:
    """Return the metadata of ``source``, without what concerns its own storage (how it is split)."""
    carried = source.carried()
    if source.format == "SafeTensors":
        return _restored({key: value for key, (_, value) in carried.items()})
    return {key: Typed(kind, value) for key, (kind, value) in carried.items()}


def _restored(text: dict[str, str]) -> Carried:
    """Restore the types of values that came from GGUF through SafeTensors."""
    try:
        types = json.loads(text.pop(_TYPES, "{}"))
    except ValueError:
        types = {}
    found = {}
    for key, value in text.items():
        kind = types.get(key) if isinstance(types, dict) else None
        try:
            found[key] = Typed(kind, json.loads(value)) if _is_type(kind) else Typed("str", value)
        except ValueError:
            found[key] = Typed("str", value)
    return found


def _is_type(kind: Any) -> TypeGuard[str]:
    if not isinstance(kind, str):
        return False
    inner = kind
    while inner.startswith("arr[") and inner.endswith("]"):
        inner = inner[4:-1]
    # A text is stored as it is; only arrays of texts are JSON.
    return inner in SCALARS or (inner == "str" and inner != kind)


def edit_metadata(carried: Carried, edits: Mapping[str, str] | Sequence[str]) -> Carried:
    """Return ``carried`` with each ``KEY=VALUE`` set and each ``KEY=`` taken out; ``KEY:TYPE=VALUE`` gives a GGUF type.

    Without a type an entry keeps the one it has; a new one is a number or true/false where it reads as one, unless its
    key is one of ``general.``'s, which are text.
    """
    found = dict(carried)
    pairs = list(edits.items()) if isinstance(edits, Mapping) else [_pair(edit) for edit in edits]
    for key, value in pairs:
        # A key may hold colons: only what names a type after the last one counts as a type.
        name, _, kind = key.rpartition(":")
        if not name or not (_is_type(kind) or kind == "str"):
            name, kind = key, carried[key].type if key in carried else _guess(key, value)
        if value:
            found[name] = Typed(kind, _parse(value, kind, name))
        else:
            found.pop(name, None)
    return found


def _pair(edit: str) -> tuple[str, str]:
    key, equals, value = edit.partition("=")
    if not key or not equals:
        raise UsageError(f"'{edit}' is not metadata", "write --metadata KEY=VALUE, or KEY= to take an entry out")
    return key, value


def _guess(key: str, value: str) -> str:
    # These are texts, but for three.
    if key.startswith("general.") or "." not in key:
        return "u32" if key in ("general.alignment", "general.file_type", "general.quantization_version") else "str"
    if value in ("true", "false"):
        return "bool"
    # A whole number becomes u32 where it fits, as most of llama.cpp's keys are.
    for kind, convert in (("i64", int), ("f32", float)):
        try:
            number = convert(value)
        except ValueError:
            continue
        return "u32" if kind == "i64" and 0 <= number < 1 << 32 else kind
    return "str"


def _parse(value: str, kind: str, key: str) -> Any:
    try:
        if kind == "str":
            return value
        if kind == "bool":
            return {"true": True, "false": False}[value.lower()]
        if kind.startswith("arr"):
            found = json.loads(value)
            if not isinstance(found, list):
                raise ValueError
            return found
        return float(value) if kind in ("f32", "f64") else int(value)
    except (ValueError, KeyError):
        raise UsageError(
            f"{key}: '{value[:100]}' is not a {kind}", f"give it another type: --metadata {key}:str=..."
        ) from None


def for_safetensors(carried: Carried) -> dict[str, str]:
    """Return the text by key that a SafeTensors file holds."""
    types = {key: typed.type for key, typed in carried.items() if typed.type != "str"}
    found = {key: typed.value if typed.type == "str" else _json(typed.value) for key, typed in carried.items()}
    found |= {"format": found["format"] if found.get("format") in _FRAMEWORKS else "pt"}
    return {**found, _TYPES: json.dumps(types)} if types else found


def _json(value: Any) -> str:
    def plain(item: Any) -> Any:
        return [plain(inner) for inner in item] if isinstance(item, GGUFArray) else item

    text = json.dumps(plain(value), ensure_ascii=False)
    # Bytes of a token that are no UTF-8 are surrogates here, which only JSON's escapes can carry.
    return text if text.isascii() or _is_utf8(text) else json.dumps(plain(value))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def for_gguf(carried: Carried, arch: str, types: Sequence[str], changed: bool, recipe: int | None = None) -> Carried:
    """Return GGUF's metadata: the architecture first, plain names under ``general.``, the file type as it now is.

    ``types`` are those of the tensors written, most frequent first; ``changed`` says whether any type changed;
    ``recipe`` is the file type that they were quantized by.
    """
    found = {f"general.{key}" if key in _GENERAL else key: typed for key, typed in carried.items() if key != "format"}
    if arch and "general.architecture" not in found:
        found["general.architecture"] = Typed("str", arch)
    # The recipe that the file names is not what it was made by any more.
    if changed and "general.file_type" in found:
        del found["general.file_type"]
        if types and types[0] in _FILE_TYPES:
            found["general.file_type"] = Typed("u32", _FILE_TYPES[types[0]])
    if recipe is not None:
        found["general.file_type"] = Typed("u32", recipe)
    if "general.file_type" in found and any(name in QUANTIZED for name in types):
        # ggml's GGML_QNT_VERSION.
        found.setdefault("general.quantization_version", Typed("u32", 2))
    _check_alignment(found)
    return dict(sorted(found.items(), key=lambda item: item[0] != "general.architecture"))


def _check_alignment(found: Carried) -> None:
    alignment = found["general.alignment"].value if "general.alignment" in found else 32
    if not isinstance(alignment, int) or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise UsageError(
            f"general.alignment: {alignment} is not an alignment", "it is a power of two from 8 on, usually 32"
        )
