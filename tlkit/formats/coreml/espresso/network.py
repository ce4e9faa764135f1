"""The network of an Espresso bundle: ``model.espresso.net`` (layers) and ``.shape`` (the sizes of values), both JSON.

Neither has a published layout. A layer is an object with ``type``, ``name``, ``bottom`` and ``top`` (names of values,
comma-separated) and its kind's attributes; an attribute that is absent has its default. Layers come in the order in
which they run. Nothing here is checked beyond its JSON type: a stranger wrote the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlkit.errors import LoadError
from tlkit.formats.base import sniff
from tlkit.formats.files.mapped import read_json
from tlkit.formats.files.paths import inside

NET = "model.espresso.net"
"""The file that makes a folder an Espresso bundle."""

_SHAPE = "model.espresso.shape"
_WEIGHTS = "model.espresso.weights"  # unless the network's ``storage`` names another

_COMPRESSED = b"pbze"  # LZFSE, as the networks of the system are
_DIMENSIONS = 1 << 31
_FLOAT = 65568  # of a port's values


@dataclass(frozen=True)
class EspressoLayer:
    """One layer: its name (may repeat), its kind, the names of its inputs and outputs, and all its attributes."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def integer(self, key: str, default: int = 0) -> int:
        """Return an attribute that is a whole number from 0 below 2^31; ``default`` where it is anything else."""
        value = self.attributes.get(key, default)
        return value if isinstance(value, int) and 0 <= value < _DIMENSIONS else default


@dataclass(frozen=True, slots=True)
class Extent:
    """The size of a value in the five dimensions that Espresso sees, ``[seq, n, k, h, w]`` (k: channels).

    ``rank`` is the value's own number of dimensions, right-aligned in the five; None in bundles that do not say, where
    all values are seen in five.
    """

    seq: int
    n: int
    k: int
    h: int
    w: int
    rank: int | None

    @property
    def five(self) -> tuple[int, int, int, int, int]:
        """All five sizes, outermost first."""
        return self.seq, self.n, self.k, self.h, self.w


@dataclass(frozen=True)
class Network:
    """A bundle's network. ``weights`` is its weight file, which need not exist; ``version`` is 200 until about 2020,
    300 later; ``transforms`` is the preprocessing of images by input; ``note`` says why there are no layers."""

    weights: Path
    version: int = 0
    layers: tuple[EspressoLayer, ...] = ()
    extents: Mapping[str, Extent] = field(default_factory=dict)
    transforms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    note: str = ""


def read_network(root: Path) -> Network | None:
    """Return the network in the folder ``root``, or None where there is none; LoadError for damaged JSON."""
    net = inside(root, root, NET)
    if not net.is_file():
        return None
    if sniff.is_pointer(net):
        return Network(inside(root, root, _WEIGHTS), note=f"{net}: {sniff.lfs_text(net)}")
    with net.open("rb") as file:
        if file.read(len(_COMPRESSED)) == _COMPRESSED:
            why = "compressed by LZFSE, which tlkit does not read: its layers are not known"
            return Network(inside(root, root, _WEIGHTS), note=f"{net}: {why}")
    content = _object(read_json(net))
    storage, version = content.get("storage"), content.get("format_version")
    return Network(
        inside(root, root, storage if isinstance(storage, str) and storage else _WEIGHTS),
        version if isinstance(version, int) else 0,
        tuple(_layers(content)),
        _extents(root, content),
        {name: value for name, value in _object(content.get("transform_params")).items() if isinstance(value, dict)},
    )


def _layers(content: Mapping[str, Any]) -> Iterator[EspressoLayer]:
    """Yield the network's layers, then those of its subnetworks (bodies of loops and branches)."""
    layers = content.get("layers")
    for item in layers if isinstance(layers, list) else ():
        if isinstance(item, dict):
            inputs, outputs = (_names(item.get(key)) for key in ("bottom", "top"))
            yield EspressoLayer(str(item.get("name", "")), str(item.get("type", "unknown")), inputs, outputs, item)
    for inner in _values(content.get("subnetworks")):
        if isinstance(inner, dict):
            yield from _layers(inner)  # read_json bounds the depth


def _extents(root: Path, content: Mapping[str, Any]) -> dict[str, Extent]:
    """Return the sizes by value: from ``.shape``, or from the copy of it that newer networks hold."""
    file = inside(root, root, _SHAPE)
    found: Any = {}
    if file.is_file():
        try:
            found = read_json(file)
        except LoadError:  # a git-lfs pointer, or compressed as the network may be: the copy serves
            found = {}
    listed = _object(_object(found or content.get("shape")).get("layer_shapes"))
    return {name: _extent(sizes) for name, sizes in listed.items() if isinstance(sizes, dict)}


def _extent(sizes: Mapping[str, Any]) -> Extent:
    known = {key: value for key, value in sizes.items() if isinstance(value, int) and 0 <= value < _DIMENSIONS}
    seq, n, k, h, w = (known.get(key, 1) for key in ("seq", "n", "k", "h", "w"))
    return Extent(seq, n, k, h, w, known.get("_rank"))


def _names(joined: Any) -> tuple[str, ...]:
    return tuple(name for name in joined.split(",") if name) if isinstance(joined, str) else ()


def _object(content: Any) -> Mapping[str, Any]:
    """Return the object ``content``, or the first one of a list; an empty one for anything else."""
    first = content[0] if isinstance(content, list) and content else content
    return first if isinstance(first, dict) else {}


def _values(content: Any) -> list[Any]:
    return list(content.values()) if isinstance(content, dict) else content if isinstance(content, list) else []


def describe_ports(description: Any, network: Network) -> None:
    """Fill a ``ModelDescription`` from a network, for a bundle whose own is missing: inputs are the values that no
    layer makes, outputs those that none reads. A value with a preprocessing is an image."""
    made = dict.fromkeys(name for layer in network.layers for name in layer.outputs)
    read = dict.fromkeys(name for layer in network.layers for name in layer.inputs)
    for name in (name for name in read if name not in made):
        extent = network.extents.get(name)
        port = description.input.add(name=name)
        if extent is not None and name in network.transforms and extent.k in (1, 3):
            image = port.type.imageType
            # FeatureTypes.proto: 10 is GRAYSCALE, 20 RGB.
            image.width, image.height, image.colorSpace = extent.w, extent.h, 10 if extent.k == 1 else 20
            continue
        array = port.type.multiArrayType
        array.dataType = _FLOAT
        if extent is not None:
            five = extent.five
            # Without a rank, a sequence and a batch of 1 are left away.
            array.shape.extend(five[5 - extent.rank :] if extent.rank else five if max(five[:2]) > 1 else five[2:])
    for name in (name for name in made if name not in read):
        description.output.add(name=name).type.multiArrayType.dataType = _FLOAT
