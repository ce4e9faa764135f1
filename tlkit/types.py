"""Frozen descriptions of models, their ports and compute units: the types that every room of tlkit shares.

Imports only the standard library, so that ``inspect`` starts fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Literal

from tlkit.errors import UsageError
from tlkit.words import Told, count_text, jsonable

Kind = Literal["tensor", "image", "state", "int64", "double", "string", "dictionary", "sequence"]
Layout = Literal["RGB", "BGR", "GRAYSCALE", "GRAYSCALE_FLOAT16"]
Shape = tuple[int, ...]
Range = tuple[int, int | None]
"""The lowest and the highest length of an axis, None where it has no end."""

LARGEST = 2**31 - 1
"""The largest dimension that Core ML knows."""


class Unit(StrEnum):
    """A compute-unit setting, in Core ML's terms (``MLComputeUnits``): what may be used, not what will be."""

    ALL = "all"
    CPU = "cpu"
    GPU = "gpu"
    ANE = "ane"

    @classmethod
    def parse(cls, text: str) -> Unit:
        """Return the unit that ``text`` names: ``ane`` is also ``ne``, ``npu`` and Core ML's ``cpu_and_ne``."""
        name = text.strip().lower().replace("-", "_")
        try:
            return cls(_UNIT_ALIASES.get(name, name))
        except ValueError:
            raise UsageError(f"unknown unit '{text}'", f"units are {', '.join(cls)}") from None


_UNIT_ALIASES = {
    "ne": "ane",
    "npu": "ane",
    "cpu_and_ne": "ane",
    "cpu_and_gpu": "gpu",
    "cpu_only": "cpu",
}


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """The pixels that an image port takes; ``sizes`` holds (width, height) pairs where several are allowed, and the
    ranges are (lowest, highest or None for unbounded)."""

    layout: Layout
    width: int
    height: int
    sizes: tuple[tuple[int, int], ...] = ()
    width_range: Range | None = None
    height_range: Range | None = None


@dataclass(frozen=True, slots=True)
class Intake:
    """What a model that is converted gets for what the package's input takes.

    Of an image that is ``scale * pixel + bias``, one bias per channel in the layout's order. ``ratios`` is what each
    channel's scale is beside ``scale``, empty where they are equal: Core ML has one scale, so the model multiplies by
    them itself. ``boolean``: the model takes booleans, which no input of a package can be; 0 becomes False.
    ``narrow``: it takes integers of 32 bits, and none of 64.
    """

    scale: float = 1.0
    bias: tuple[float, ...] = (0.0,)
    ratios: tuple[float, ...] = ()
    boolean: bool = False
    narrow: bool = False


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A port of a model: name, element type (numpy's name), default shape and what else it accepts.

    ``ranges`` gives (lowest, highest or None for unbounded) for each axis of a flexible shape; ``enumerated`` lists the
    only shapes allowed. ``shape`` is empty where the model declares none, and for scalars. An image is (1, channels,
    height, width), and the sizes that it takes are in ``image``. ``intake`` is for ports of a package that is to be
    made, and is not part of JSON documents. ``sequences`` says that it also takes what an old
    neural network sees: [sequence, batch, C, H, W], and [sequence, batch, C] where its shape is [C].
    """

    name: str
    dtype: str
    shape: Shape = ()
    kind: Kind = "tensor"
    ranges: tuple[Range, ...] = ()
    enumerated: tuple[Shape, ...] = ()
    image: ImageSpec | None = None
    optional: bool = False
    default: float | None = None
    description: str = ""
    intake: Intake = field(default=Intake(), metadata={"json": False})
    sequences: bool = field(default=False, metadata={"json": False})

    def __str__(self) -> str:
        dims = "x".join(map(str, self.shape))
        return " ".join(part for part in (self.name, self.dtype if self.kind == "tensor" else self.kind, dims) if part)

    @property
    def flexible(self) -> bool:
        """Whether more than one shape is accepted."""
        return bool(self.listed) or any(low != high for low, high in self.spans)

    @property
    def listed(self) -> tuple[Shape, ...]:
        """The only shapes allowed, where they are listed: of an image those of its sizes."""
        if self.image is not None:
            return tuple((*self.shape[:2], height, width) for width, height in self.image.sizes)
        return self.enumerated

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """The lowest and the highest length of each axis, :data:`LARGEST` where it has no end."""
        if self.listed:
            return tuple((min(sizes), max(sizes)) for sizes in zip(*self.listed, strict=True))
        ranges = self.ranges or tuple((size, size) for size in self.shape)
        if self.image is not None:
            sides = (self.image.height_range, self.image.width_range)
            ranges = ranges[:2] + tuple(
                side or (size, size) for side, size in zip(sides, (self.image.height, self.image.width), strict=True)
            )
        return tuple((low, LARGEST if high is None else high) for low, high in ranges)

    def taking(self, shape: Shape, ranges: tuple[Range, ...] = (), enumerated: tuple[Shape, ...] = ()) -> TensorSpec:
        """Return the same port with these shapes; of an image, which has four axes, they become its sizes."""
        if self.image is None:
            return replace(self, shape=shape, ranges=ranges, enumerated=enumerated)
        sizes = tuple((width, height) for _, _, height, width in enumerated)
        tall, wide = ranges[2:] or (None, None)
        # Sizes are (width, height), while shapes end in (height, width).
        image = ImageSpec(self.image.layout, shape[3], shape[2], sizes, wide, tall)
        return replace(self, shape=shape, ranges=(), enumerated=(), image=image)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a model says of itself. ``quantization`` is the storage type of most of its weights (``F16``, ``INT4``)."""

    format: str
    quantization: str
    author: str = ""
    description: str = ""
    license: str = ""
    version: str = ""
    user: Mapping[str, str] = field(default_factory=dict)


LeftOutKind = Literal["unread", "missing", "unasked", "unnamed", "other"]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Data in a file that is not among the tensors read from it: its name there, why, and its bytes (None: unknown).

    ``kind`` is the cause. ``unread``: a tensor that tlkit cannot read; ``missing``: its file is absent; both leave a
    conversion incomplete. ``unasked``: taken only on request (an optimizer's state); ``unnamed``: bytes that belong to
    no tensor; ``other``: data other than tensors (text, Python objects).
    """

    name: str
    reason: str
    bytes: int | None = None
    kind: LeftOutKind = "unread"

    @property
    def lost(self) -> bool:
        """Whether something that should be among the tensors is not."""
        return self.kind in ("unread", "missing")


@dataclass(frozen=True, slots=True, repr=False)
class ModelInfo(Told):
    """The summary that ``tlkit inspect`` prints; every field is plain data, ready for JSON.

    ``weights`` counts elements by type, ``compute`` operations by type, ``operations`` operations by MIL op (or layer
    kind); ``sizes`` gives bytes on disk by part; ``details`` holds what only one format has; ``left_out`` the tensor
    data that no figure here counts.
    """

    path: str
    metadata: Metadata
    kind: str
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    states: tuple[TensorSpec, ...] = ()
    labels: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    spec_version: int | None = None
    opset: str = ""
    parameters: int = 0
    weights: Mapping[str, int] = field(default_factory=dict)
    compute: Mapping[str, int] = field(default_factory=dict)
    operations: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain data: what ``tlkit inspect --json`` prints of it."""
        found: dict[str, Any] = jsonable({field.name: getattr(self, field.name) for field in fields(ModelInfo)})
        return found

    def facts(self) -> list[tuple[str, object]]:
        """Return what matters most, as labels and values."""
        given, made = (", ".join(map(str, ports)) for ports in (self.inputs, self.outputs))
        return [
            ("model", self.path),
            ("format", f"{self.metadata.format} {self.kind}".strip()),
            ("weights", self.metadata.quantization),
            ("parameters", count_text(self.parameters) if self.parameters else ""),
            ("operations", sum(self.operations.values()) or ""),
            ("inputs", given),
            ("states", ", ".join(map(str, self.states))),
            ("outputs", made),
        ]
