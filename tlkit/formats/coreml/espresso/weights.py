"""The weights of an Espresso bundle: ``model.espresso.weights``, and what each of its blobs is.

Layout (equal bit for bit to the ``.mlmodel`` in 254 tensors of 19 pairs)::

    u64 count; count x { u64 id; u64 size }; the payloads, back to back, in the table's order

Blobs with even ids are zeros that align those with odd ids to 64 bytes. The file has no types: a layer names a blob
under a key (``blob_weights``, or a role in ``weights``), which tells the type, and its attributes tell the shape. A
blob may be longer than its tensor: compilers until about 2019 wrote zeros behind biases and batch norms.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tlkit.errors import LoadError
from tlkit.formats.base.dtypes import PLAIN
from tlkit.formats.base.ledger import Ledger
from tlkit.formats.coreml.espresso.network import EspressoLayer, Network
from tlkit.formats.files.mapped import Mapped
from tlkit.types import LeftOut

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ALIGNED = 64  # bytes: padding between blobs is shorter
_PADDING = 1 << 20  # bytes that may be zeros behind a tensor; known compilers write 12 per channel
_BLOBS = 1 << 20
_ROLES = {
    "blob_weights": ("weights", "F32"),
    "blob_weights_f16": ("weights", "F16"),
    "blob_biases": ("bias", "F32"),
    "blob_batchnorm_params": ("params", "F32"),
    "constant_blob": ("data", "F32"),
    "w_f16_t": ("w_f16_t", "F16"),
    "W_U8": ("weights", "U8"),
    "W_S8": ("W_S8", "I8"),
    "W_int8": ("W_int8", "I8"),
    "W_t_int8": ("W_t_int8", "I8"),
    **{
        key: (key, "F32")
        for key in ("alpha", "beta", "per_ch_qscale", "per_ch_qbias", "wBeta", "wGamma", "W_x", "W_h", "b")
    },
    **{key: (key, "F32") for key in ("W_x_reverse", "W_h_reverse", "b_reverse")},
}
"""A tensor's name and type by the key under which its layer names it."""

_SCALES = ("per_ch_qscale", "per_ch_qbias")
_GATES = {"W_x": "input_size", "W_h": "hidden_size"}
_UNKNOWN = "the type of its values is not known"


@dataclass(frozen=True)
class EspressoTensor:
    """One tensor of a layer. ``offset`` is None where the weight file is not there (``nbytes`` then says what the
    layer needs); ``shape`` is flat where the layer's attributes do not tell it. Codes (``U8``) with a ``scale`` stand
    for ``code * scale + bias``, both per output channel."""

    layer: EspressoLayer
    role: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    offset: int | None = None
    scale: EspressoTensor | None = None
    bias: EspressoTensor | None = None

    @property
    def name(self) -> str:
        """The tensor's name, as that of the ``.mlmodel`` would be: ``conv1.weights``."""
        return f"{self.layer.name}.{self.role}"

    @property
    def stored(self) -> int:
        """Bytes in the file, those of the scales included."""
        return self.nbytes + sum(part.nbytes for part in (self.scale, self.bias) if part)


class EspressoWeights:
    """The tensors of a network. Batch norms are ``params``, ``[C, 4]`` as stored: gamma, beta, mean and
    sqrt(variance + epsilon) of each channel."""

    def __init__(self, network: Network, present: bool = True) -> None:
        """Open the weight file of ``network``; without ``present``, or where there is none, tensors have no bytes."""
        self.network = network
        self.file = Mapped(network.weights) if present and network.weights.is_file() else None

    def check(self) -> None:
        """Raise LoadError where the weight file contradicts itself."""
        assert self.table is not None

    @cached_property
    def table(self) -> Mapping[int, tuple[int, int]]:
        """The offset and size of each blob in the file by id; LoadError where the file contradicts itself."""
        if self.file is None:
            return {}
        view, size = self.file.view, self.file.size
        # A file that is too short for a count is too short for one blob: the next check refuses it.
        count = struct.unpack_from("<Q", view)[0] if size >= 8 else 1
        if 8 + 16 * count > size or count > _BLOBS:
            raise self.file.broken(f"its table of {count:,} blobs does not fit into {size:,} bytes")
        rows = [struct.unpack_from("<QQ", view, 8 + 16 * number) for number in range(count)]
        found, place = {}, 8 + 16 * count
        for key, length in rows:
            if key in found:
                raise self.file.broken(f"blob {key} is there twice")
            found[key] = (place, length)
            place += length
        if place > size:
            raise self.file.broken(f"its blobs end at {place:,}, past the end ({size:,})")
        return found

    @cached_property
    def blobs(self) -> tuple[EspressoTensor, ...]:
        """The tensors, in the order of the layers; what cannot be read as one is among :attr:`left_out`."""
        found = [blob for blob, _ in self._read if isinstance(blob, EspressoTensor)]
        # By identity: layers may share a name.
        parts = {(id(blob.layer), blob.role): blob for blob in found if blob.role in _SCALES}
        quantized = {id(blob.layer) for blob in found if blob.dtype == "U8"}
        scales = [tuple(parts.get((id(blob.layer), role)) for role in _SCALES) for blob in found]
        return tuple(
            replace(blob, scale=scale, bias=bias) if blob.dtype == "U8" else blob
            for blob, (scale, bias) in zip(found, scales, strict=True)
            if blob.role not in _SCALES or id(blob.layer) not in quantized
        )

    @cached_property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The file's bytes that belong to no tensor, except padding of zeros."""
        if self.file is None:
            return ()
        if self.network.note:
            return (
                LeftOut(
                    self.file.path.name, "what its blobs are is not known: its network is not read", self.file.size
                ),
            )
        ledger, last = Ledger(), 8 + 16 * len(self.table)
        used: dict[int, int] = {}
        for item, number in self._read:
            nbytes = item.nbytes if isinstance(item, EspressoTensor) else self.table.get(number, (0, 0))[1]
            # Several layers may name one blob: what the longest of them takes is used.
            used[number] = max(nbytes, used.get(number, 0))
        for number, (offset, length) in self.table.items():
            last, begin = offset + length, used.get(number, 0)
            ledger.enter(str(number), length, f"{self.network.weights.name}: blob {number}")
            ledger.claim(str(number), 0, begin)
            most = _PADDING if number in used else _ALIGNED
            if length - begin < most and not bytes(self.file.view[offset + begin : last]).strip(b"\0"):
                ledger.claim(str(number), begin)
        ledger.enter("rest", self.file.size - last, f"{self.network.weights.name}: past its blobs")
        unread = tuple(item for item, _ in self._read if isinstance(item, LeftOut))
        return (*unread, *ledger.rest("no layer of the network names these bytes"))

    def raw(self, blob: EspressoTensor) -> memoryview:
        """Return a tensor's bytes, mapped; LoadError where its file is missing."""
        if self.file is None or blob.offset is None:
            raise LoadError(f"{self.network.weights}: the weight file is missing", "fetch or copy the whole folder")
        return self.file.view[blob.offset : blob.offset + blob.nbytes]

    def release(self) -> None:
        """Release the file's mapped pages; they are read again on the next access."""
        if self.file is not None:
            self.file.release(0, self.file.size)

    def array(self, blob: EspressoTensor) -> NDArray[Any]:
        """Return a tensor as stored, in its shape: codes where it is quantized."""
        import numpy as np

        codes = {"F32": "<f4", "F16": "<f2", "U8": "u1", "I8": "i1"}
        return np.frombuffer(self.raw(blob), codes[blob.dtype]).reshape(blob.shape)

    def parts(self, blob: EspressoTensor) -> dict[str, NDArray[Any]]:
        """Return a tensor's parts: ``data``, and ``scale`` and ``bias`` where it is quantized."""
        parts = {"data": blob, "scale": blob.scale, "bias": blob.bias}
        return {role: self.array(part) for role, part in parts.items() if part}

    def values(self, blob: EspressoTensor) -> NDArray[Any]:
        """Return a tensor's values: codes with a scale as float32, ``code * scale + bias`` per output channel."""
        import numpy as np

        parts = self.parts(blob)
        if "scale" not in parts:
            return parts["data"]
        across = (-1, *(1,) * (len(blob.shape) - 1))  # channels x 1 x ...
        wide = parts["data"].astype(np.float32) * parts["scale"].reshape(across)
        return np.asarray(wide + parts["bias"].reshape(across) if "bias" in parts else wide)

    @cached_property
    def _read(self) -> tuple[tuple[EspressoTensor | LeftOut, int], ...]:
        return tuple(
            (self._blob(layer, key, number), number) for layer in self.network.layers for key, number in _named(layer)
        )

    def _blob(self, layer: EspressoLayer, key: str, number: int) -> EspressoTensor | LeftOut:
        """Return the tensor that ``layer`` names by ``key``, or why there is none."""
        role, dtype = _ROLES.get(key, (key, ""))
        shape = _shape(layer, key)
        offset, length = self.table.get(number, (None, 0))
        if self.file is not None and offset is None:
            return LeftOut(f"{layer.name}.{role}", f"the weight file has no blob {number}", kind="missing")
        elements = math.prod(shape) if shape else 0
        # A recurrent layer's matrices may be f16 under the same keys: their length tells.
        if dtype == "F32" and key.startswith(("W_", "b")) and layer.kind == "rnn_arch" and length == 2 * elements:
            dtype = "F16"
        if not dtype or (self.file is None and not shape):
            return LeftOut(f"{layer.name}.{role}", _UNKNOWN, length)
        width = PLAIN[dtype]
        if self.file is not None and not shape:
            shape = (length // width,)
        nbytes = width * math.prod(shape or ())
        if self.file is not None and nbytes > length:
            return LeftOut(f"{layer.name}.{role}", f"shorter than its layer says ({length:,} of {nbytes:,})", length)
        return EspressoTensor(layer, role, dtype, shape or (), nbytes, offset)


def _named(layer: EspressoLayer) -> Iterator[tuple[str, int]]:
    """Yield the keys and ids of the blobs that a layer names."""
    roles = layer.attributes.get("weights")
    keys = [key for key in layer.attributes if key.startswith("blob_") or key.endswith("_blob")]
    pairs = [(key, layer.attributes[key]) for key in keys] + (list(roles.items()) if isinstance(roles, dict) else [])
    yield from ((key, number) for key, number in pairs if type(number) is int)


def _shape(layer: EspressoLayer, key: str) -> tuple[int, ...] | None:
    """Return the shape of a layer's tensor, row-major; None where its attributes do not tell it."""
    get = layer.integer
    weight, groups = key in ("blob_weights", "blob_weights_f16", "W_U8"), get("n_groups", 1) or 1
    found: tuple[int, ...] = ()
    if layer.kind in ("convolution", "deconvolution"):
        # C counts outputs and K inputs; a deconvolution's kernel has its inputs first.
        outer, inner = ("C", "K") if layer.kind == "convolution" else ("K", "C")
        kernel = (get(outer), get(inner) // groups, get("Ny"), get("Nx"))
        found = kernel if weight else (get("C"),) if key in ("blob_biases", "per_ch_qscale", "per_ch_qbias") else ()
    elif layer.kind == "inner_product":
        sizes = get("nC"), get("nB")  # outputs, inputs
        bias = (sizes[0],) if key == "blob_biases" else ()
        found = sizes if weight else sizes[::-1] if key == "w_f16_t" else bias
    elif layer.kind == "batchnorm" and key == "blob_batchnorm_params":
        found = get("C"), 4
    elif layer.kind == "load_constant" and key == "constant_blob":
        sizes5 = [get(name, 1) for name in ("seq", "n", "k", "h", "w")]
        found = tuple(sizes5[5 - get("nd_rank", 5) :] if 0 < get("nd_rank", 5) <= 5 else sizes5)
    elif layer.kind == "rnn_arch":
        found = _recurrent(layer, key.removesuffix("_reverse"))
    return found if found and all(found) else None


def _recurrent(layer: EspressoLayer, key: str) -> tuple[int, ...]:
    """Return the flat size of a recurrent layer's matrix where it is an LSTM's, as its attributes say."""
    hidden = layer.integer("hidden_size")
    if "lstm_forget_bias" not in layer.attributes and "lstm_has_peepholes" not in layer.attributes:
        return ()
    # The four gates, one after another.
    return (4 * hidden * layer.integer(_GATES[key]),) if key in _GATES else ()
