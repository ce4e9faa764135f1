"""Classic models and pipelines as compilers write them: folders with a ``coremldata.bin``."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any


def number(model: Any) -> int:
    """The number of the field that a model is in."""
    return int(model.DESCRIPTOR.fields_by_name[model.WhichOneof("Type")].number)


def head(kind: int, variant: str, version: int, *, old: bool = False) -> bytes:
    """What every ``coremldata.bin`` begins with; compilers of 2017 write the specification's version first."""
    text = struct.pack("<4Q", 1, 0, 0, len(variant)) + variant.encode()
    spec = struct.pack("<4Q", version, 0, 0, 0)
    return struct.pack("<I", kind) + (spec + text if old else text + spec)


def compiled(model: Any, folder: Path, *, old: bool = False) -> Path:
    """Write ``model`` as compilers write small kinds, and pipelines of them."""
    folder.mkdir(parents=True)
    kind, version = number(model), model.specificationVersion
    which = model.WhichOneof("Type")
    if not which.startswith("pipeline"):
        (folder / "coremldata.bin").write_bytes(head(kind, "spec", version, old=old) + model.SerializeToString())
        return folder
    stages = getattr(model, which)
    stages = (stages if which == "pipeline" else stages.pipeline).models
    variant = "generic" + "".join(f".model{place}v1.0.0spec" for place in range(len(stages)))
    body = model.description.SerializeToString()
    tail = struct.pack("<2Q", len(stages), kind)
    (folder / "coremldata.bin").write_bytes(
        head(kind, variant, version, old=old) + struct.pack("<Q", len(body)) + body + tail
    )
    for place, stage in enumerate(stages):
        compiled(stage, folder / f"model{place}", old=old)
    return folder
