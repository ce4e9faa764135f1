"""Open a ``.pt2`` without torch's own loader, which unpickles, evaluates, imports and runs what the archive says.

The archive is read here: only listed members are allowed, weights are bytes and a table, and the program is copied from
what is known to be data (``pt2_program.py``). Only then does torch build the program from these pieces. torch 2.7 and
2.8 keep weights in pickles: those are read by torch's restricted unpickler, after checking every name in them.
Importing this module imports torch.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from tlkit.core.convert.source.pt2_program import clean
from tlkit.errors import LoadError
from tlkit.formats.base.dtypes import PLAIN
from tlkit.formats.files.mapped import Mapped, parse_json
from tlkit.formats.files.zip import Zip
from tlkit.formats.torch.export import stored_view
from tlkit.formats.torch.objects import DTYPES
from tlkit.formats.torch.pickle import read_pickle
from tlkit.host.quiet import quiet

_LARGEST = 1 << 28  # bytes of JSON
_PARTS = 1 << 25  # items in it
# What torch.export.save writes below the archive's folder; older versions wrote _FLAT, without a folder.
_MODERN = re.compile(
    r"models/model\.json|data/(weights|constants)/model\.pt|data/weights/(weight_\d+|model_weights_config\.json)|"
    r"data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt|extra/.*|"
    r"archive_format|archive_version|byteorder|version|\.format_version|\.storage_alignment|"
    r"\.data/(version|serialization_id)"
)
_FLAT = re.compile(
    r"version|serialized_(exported_program\.json|(state_dict|constants|example_inputs)\.pt)|extra_files/.*"
)
# All that a pickle of plain tensors names.
_GLOBALS = re.compile(
    r"torch\._utils\._rebuild_(tensor_v2|tensor_v3|parameter)|torch\.\w*Storage|torch\.storage\.UntypedStorage|"
    r"collections\.OrderedDict|torch\.(bfloat16|float\w*|u?int\d+|bool|complex\d+)"
)
_TYPES = {stored: getattr(torch, name) for name, stored in DTYPES.items() if hasattr(torch, name)}
_AGAIN = "save it again with torch.export.save"
_TRUST = "convert the module it was made of, or open it as torch does, if you know who made it: --trust"


def load_program(path: Path, trust: bool = False) -> ExportedProgram:
    """Return the program saved at ``path``; LoadError if it is damaged, or torch would run code of it.

    ``trust`` uses torch's own loader, which may run it.
    """
    with quiet():
        if trust:
            return torch.export.load(path)
        archive = Zip(Mapped(path))
        archive.check_total(archive.names)
        for name in archive.names:
            for _ in archive.pieces(name):  # each against its checksum
                pass
        # Of two members of one name torch might read the other.
        archive.require_distinct(archive.names)
        return _Pieces(archive).program()


class _Pieces:
    """The members of an archive by their names in it, in lower case, and what they hold."""

    def __init__(self, archive: Zip) -> None:
        self._archive, self._path = archive, archive.file.path
        flat = "serialized_exported_program.json" in archive.names
        self._flat = flat
        self._members: dict[str, str] = {}
        for name in archive.names:
            # miniz, with which torch reads archives, finds members whatever their case.
            inner = (name if flat else name.partition("/")[2]).casefold()
            if not name.endswith("/"):
                self._check_member(name, inner, _FLAT if flat else _MODERN)
                self._members[inner] = name
        if len(self._members) != sum(not name.endswith("/") for name in archive.names):
            raise LoadError(f"{self._path}: it has several folders at its top", _AGAIN)

    def program(self) -> ExportedProgram:
        """Return the program, built by torch from pieces that hold nothing to be run."""
        from torch._export.serde.serialize import SerializedArtifact, deserialize

        member = self._members.get("serialized_exported_program.json" if self._flat else "models/model.json")
        if member is None:
            raise LoadError(f"{self._path}: it holds no program, or not one that is called 'model'", _AGAIN)
        where = f"{self._path}: {member}"
        content = parse_json(self._archive.read(member, _LARGEST), where, _PARTS)
        program = json.dumps(clean(content, where)).encode()
        weights, constants = self._tensors("weights", "state_dict"), self._tensors("constants", "constants")
        # torch takes tensors as well as the bytes that its annotation speaks of; examples are not needed.
        pieces: Any = (program, weights, constants, b"")
        return deserialize(SerializedArtifact(*pieces))

    def _check_member(self, name: str, inner: str, allowed: re.Pattern[str]) -> None:
        if allowed.fullmatch(inner):
            return
        what = "a part that torch.export does not write"
        if inner.startswith("data/aotinductor/") or inner.endswith((".so", ".dylib", ".dll")):
            what = "compiled code"
        elif "custom_obj" in inner or "opaque_obj" in inner:
            what = "pickled objects"
        raise LoadError(f"{self._path}: {name[:100]} holds {what}, which loading it would run", _TRUST)

    def _tensors(self, folder: str, flat: str) -> dict[str, Tensor]:
        pickled = self._members.get(f"serialized_{flat}.pt" if self._flat else f"data/{folder}/model.pt")
        if pickled is not None:
            return _unpickled(f"{self._path}: {pickled}", self._archive.read(pickled, self._archive.size(pickled)))
        config = self._members.get(f"data/{folder}/model_{folder}_config.json")
        if config is None:
            raise LoadError(f"{self._path}: its table of {folder} is missing", _AGAIN)
        content = parse_json(self._archive.read(config, _LARGEST), f"{self._path}: {config}", _PARTS)
        table = content.get("config") if isinstance(content, dict) else None
        storages: dict[str, Tensor] = {}
        return {
            name: self._tensor(folder, name, item, storages)
            for name, item in (table.items() if isinstance(table, dict) else ())
        }

    def _tensor(self, folder: str, name: str, item: Any, storages: dict[str, Tensor]) -> Tensor:
        """Return one weight as a view of its storage, which others share where they did."""
        if not isinstance(item, dict) or item.get("use_pickle") is not False:
            raise LoadError(f"{self._path}: '{name[:100]}' is pickled, which loading it would run", _TRUST)
        view = stored_view(name, item)
        member = self._members.get(f"data/{folder}/{view.storage}") if view else None
        if view is None or member is None or view.dtype not in _TYPES:
            raise LoadError(f"{self._path}: '{name[:100]}' is in a layout that is not read", _AGAIN)
        if view.storage not in storages:
            # Not bytes: torch warns of memory that is read-only.
            data = bytearray(self._archive.read(member, self._archive.size(member)))
            # torch.frombuffer refuses an empty buffer.
            storages[view.storage] = (
                torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
            )
        flat, width = storages[view.storage], PLAIN[view.dtype]
        if replace(view, room=flat.numel()).swells:
            raise LoadError(f"{self._path}: '{name[:100]}' repeats the few bytes of {member} without end", _AGAIN)
        if (view.offset + view.span) * width > flat.numel():
            raise LoadError(f"{self._path}: '{name[:100]}' reads past the end of {member}", _AGAIN)
        # view(dtype) wants a whole number of elements.
        typed = flat[: flat.numel() // width * width].view(_TYPES[view.dtype])
        tensor = typed.as_strided(view.shape, view.strides, view.offset)
        if item.get("is_param") is True:
            return nn.Parameter(tensor, requires_grad=bool(item["tensor_meta"].get("requires_grad")))
        return tensor


def _unpickled(where: str, data: memoryview) -> dict[str, Tensor]:
    """Return the tensors that torch 2.7 or 2.8 pickled, by the unpickler that makes nothing else."""
    refused = LoadError(f"{where} holds pickled objects that are not tensors, which loading it would run", _TRUST)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as inner:
            infos = inner.infolist()
            pickles = [info for info in infos if info.filename.casefold().endswith(".pkl")]
            # torch stores members as they are; compressed ones could swell.
            if len(pickles) != 1 or any(info.compress_type != zipfile.ZIP_STORED for info in infos):
                raise refused
            imports = read_pickle(memoryview(inner.read(pickles[0])), where).imports
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, RuntimeError) as error:
        raise refused from error
    if not all(map(_GLOBALS.fullmatch, imports)):
        raise refused
    found: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # No subclass, whose methods torch would call.
    plain = isinstance(found, dict) and all(type(value) in (Tensor, nn.Parameter) for value in found.values())
    if not plain or not all(isinstance(name, str) for name in found):
        raise refused
    return dict(found)
