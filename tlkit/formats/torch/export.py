"""``.pt2`` archives of ``torch.export``: their table of weights, inputs and outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tlkit.formats.files.mapped import Mapped, parse_json
from tlkit.formats.files.zip import Zip
from tlkit.formats.torch.assemble import Assembly, Storage
from tlkit.formats.torch.objects import View
from tlkit.types import LeftOut

# torch.export's own numbers (torch._export.serde.schema.ScalarType)
_TYPES = {
    1: "U8",
    2: "I8",
    3: "I16",
    4: "I32",
    5: "I64",
    6: "F16",
    7: "F32",
    8: "F64",
    9: "C32",
    10: "C64",
    11: "C128",
    12: "BOOL",
    13: "BF16",
    28: "U16",
    29: "F8_E4M3",
    30: "F8_E5M2",
    31: "F8_E4M3FNUZ",
    32: "F8_E5M2FNUZ",
    33: "F8_E8M0",
    34: "U32",
    35: "U64",
}
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")


def read_weights(archive: Zip, file: Mapped, made: Assembly) -> None:
    """Add the archive's tensors; those that tlkit cannot read are reported as left out."""
    names = {name.partition("/")[2]: name for name in archive.names}
    for folder in ("data/weights/", "data/constants/"):
        for key in (name for name in names if name.startswith(folder) and not name.endswith((".json", "/"))):
            member = names[key]
            made.store(key, Storage(archive.size(member), archive.offset(member), member), member)
    tables = [config for config in _CONFIGS if config in names]
    for config in tables:
        content = parse_json(archive.read(names[config]), f"{file.path}: {config}")
        table = content.get("config") if isinstance(content, dict) else None
        for name, item in table.items() if isinstance(table, dict) else ():
            _take(str(name), item, config.rpartition("/")[0], made)
    if not tables:
        _older(archive, made)


def _take(name: str, item: Any, folder: str, made: Assembly) -> None:
    key = f"{folder}/{_get(item, 'path_name')}"
    view = stored_view(name, item)
    if view is None or key not in made.storages:
        reason = "its data are not in the archive" if view else "it is pickled, or of a type that tlkit does not read"
        made.leave_out(LeftOut(name, reason, made.ledger.size(key)), [key])
    elif name not in made.entries:
        made.entries[name] = made.entry(name, replace(view, storage=key, room=made.storages[key].nbytes))


def _older(archive: Zip, made: Assembly) -> None:
    """Read archives of PyTorch 2.0 to 2.6, which contain a ``torch.save`` file with their weights."""
    for name in archive.names:
        if name.rpartition("/")[2] in (
            "serialized_state_dict.pt",
            "serialized_constants.pt",
            "serialized_state_dict.json",
        ):
            made.leave_out(LeftOut(name, "weights in the layout of an older torch.export", archive.size(name)), [])


def describe(archive: Zip, file: Mapped) -> dict[str, Any]:
    """Return the program's inputs, outputs and operations, as far as its JSON describes them."""
    names = {name.partition("/")[2]: name for name in archive.names} | {name: name for name in archive.names}
    member = names.get("models/model.json") or names.get("serialized_exported_program.json")
    if member is None:
        return {}
    content = parse_json(archive.read(member, 1 << 26), f"{file.path}: {member}")
    graph = _get(_get(content, "graph_module"), "graph")
    counts: dict[str, int] = {}
    for node in _list(_get(graph, "nodes")):
        target = str(_get(node, "target")).removeprefix("torch.ops.")
        counts[target] = counts.get(target, 0) + 1
    values = _get(graph, "tensor_values")
    signature = _get(_get(content, "graph_module"), "signature")
    inputs = [_get(_get(_get(_get(spec, "user_input"), "arg"), "as_tensor"), "name") for spec in _specs(signature)]
    outputs = [_get(_get(out, "as_tensor"), "name") for out in _list(_get(graph, "outputs"))]
    found = {
        "inputs": [_port(name, values) for name in inputs if isinstance(name, str)],
        "outputs": [_port(name, values) for name in outputs if isinstance(name, str)],
        "operations": counts,
        "torch": str(_get(content, "torch_version") or ""),
    }
    return {key: value for key, value in found.items() if value}


def _specs(signature: Any) -> list[Any]:
    return _list(_get(signature, "input_specs"))


def _port(name: str, values: Any) -> dict[str, Any]:
    meta = _get(values, name)
    return {"name": name, "dtype": _type(meta), "shape": [_dim(size) for size in _list(_get(meta, "sizes"))]}


def _dim(size: Any) -> int | str:
    """Return a number, or the expression of a dynamic dimension."""
    fixed = _get(size, "as_int")
    return fixed if isinstance(fixed, int) else str(_get(_get(size, "as_expr"), "expr_str") or "?")


def _type(meta: Any) -> str:
    number = _get(meta, "dtype")
    return _TYPES.get(number, "") if isinstance(number, int) else ""


def stored_view(name: str, item: Any) -> View | None:
    """Return the view that a weight's record describes; None if it is pickled or malformed."""
    meta = _get(item, "tensor_meta")
    shape = tuple(_dim(size) for size in _list(_get(meta, "sizes")))
    strides = tuple(_dim(size) for size in _list(_get(meta, "strides")))
    offset = _get(_get(meta, "storage_offset"), "as_int")
    numbers = (*shape, *strides, offset)
    sound = all(type(number) is int and 0 <= number < 1 << 63 for number in numbers) and len(shape) == len(strides)
    if _get(item, "use_pickle") is not False or not sound or len(shape) > 64 or not _type(meta):
        return None
    return View(str(_get(item, "path_name")), _type(meta), offset, shape, strides, 0)  # type: ignore[arg-type]


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
