"""A Core ML model's message, taken apart for editing, and the changed model written beside the original's weights.

The functions here change messages that the caller has copied; the files of the model that was opened stay as they are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError
from tlkit.formats.coreml.package import Package, inside
from tlkit.mil.opsets import system_of, version_of

PORTS = ("input", "output", "state")
"""The lists of ports that a description has."""

FLOAT16, GRAYSCALE_FLOAT16 = 65552, 40  # ArrayFeatureType.ArrayDataType and ImageFeatureType.ColorSpace
"""As FeatureTypes.proto numbers them."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One set of ports: the message that lists them and the MIL function behind them (None for other kinds).

    ``name`` is the function's where there are several, else empty.
    """

    name: str
    description: Any
    function: Any | None

    def port(self, kind: str, name: str) -> Any | None:
        """Return the ``FeatureDescription`` of one port (``kind`` is one of :data:`PORTS`), or None."""
        return next((feature for feature in getattr(self.description, kind) if feature.name == name), None)

    def names(self, *kinds: str) -> tuple[str, ...]:
        """Return the names of the ports of ``kinds`` (all of them if none is named), in order."""
        return tuple(feature.name for kind in kinds or PORTS for feature in getattr(self.description, kind))

    def blocks(self) -> tuple[Any, ...]:
        """Return the function's bodies, one for each opset it is specialised to."""
        return tuple(self.function.block_specializations.values()) if self.function is not None else ()


def interfaces(model: Any) -> tuple[Interface, ...]:
    """Return the ports of each function of ``model``; of one without functions, its ports."""
    functions = model.mlProgram.functions if model.WhichOneof("Type") == "mlProgram" else {}
    if model.description.functions:
        return tuple(Interface(item.name, item, functions.get(item.name)) for item in model.description.functions)
    name = "main" if "main" in functions or len(functions) != 1 else next(iter(functions))
    return (Interface("", model.description, functions.get(name)),)


def every_block(block: Any) -> Iterator[Any]:
    """Yield ``block`` and the blocks nested in it."""
    yield block
    for operation in block.operations:
        for inner in operation.blocks:
            yield from every_block(inner)


def defined(interface: Interface) -> set[str]:
    """Return every value name that the function defines, in nested blocks too."""
    names = {item.name for item in interface.function.inputs} if interface.function is not None else set()
    for body in interface.blocks():
        for block in every_block(body):
            names |= {item.name for item in block.inputs}
            names |= {item.name for operation in block.operations for item in operation.outputs}
    return names


def oldest_version(model: Any) -> tuple[int, str]:
    """Return the lowest specification version that ``model`` may have, and what it has that asks for it."""
    asks = [(6, "an mlprogram") if model.WhichOneof("Type") == "mlProgram" else (1, "any model")]
    if model.description.functions:
        asks.append((9, "several functions"))
    for interface in interfaces(model):
        asks += [_port_asks(feature) for kind in PORTS for feature in getattr(interface.description, kind)]
        if interface.function is not None:
            opset = interface.function.opset
            asks.append((version_of(opset), f"operations of {system_of(opset)}"))
    return max(asks, key=lambda item: item[0])


def _port_asks(feature: Any) -> tuple[int, str]:
    kind = feature.type.WhichOneof("Type")
    if kind == "stateType":
        return 9, f"the state '{feature.name}'"
    if kind == "multiArrayType" and feature.type.multiArrayType.dataType == FLOAT16:
        return 7, f"the f16 port '{feature.name}'"
    if kind == "imageType" and feature.type.imageType.colorSpace == GRAYSCALE_FLOAT16:
        return 7, f"the f16 image '{feature.name}'"
    return 1, "any model"


def write_beside(package: Package, model: Any, path: Path) -> None:
    """Write ``model`` to ``path`` as ``package`` is on disk: alone, or with everything else that the folder holds.

    Weights and other files are hard-linked where the file system can, so that a copy of a large model costs nothing;
    tlkit never writes into a file that exists.
    """
    data = model.SerializeToString()
    if not package.root.is_dir():
        path.write_bytes(data)
        return
    for folder, _, names in os.walk(package.root):
        place = path / Path(folder).relative_to(package.root)
        place.mkdir()
        for name in names:
            source = Path(folder, name)
            if source != package.file:
                _link(inside(package.root, Path(folder), name), place / name)
    (path / package.file.relative_to(package.root)).write_bytes(data)


def _link(source: Path, goal: Path) -> None:
    real = source.resolve()
    if not real.is_file():
        raise LoadError(f"{source}: not a regular file", "the package is damaged: fetch it again")
    with suppress(OSError):  # another file system, or one without links
        os.link(real, goal)
        return
    shutil.copyfile(real, goal)
