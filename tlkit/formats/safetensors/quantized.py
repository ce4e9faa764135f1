"""Quantized weights in folders whose ``config.json`` describes them: each consists of several stored tensors.

Documented layouts are decoded: fp8 with scales by tensor, row or block; GPTQ and AWQ with 2, 4 and 8 bits; MLX's affine
groups. What another method packed is reported as left out: its integers are not weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tlkit.errors import LoadError
from tlkit.formats.base.tensors import TensorEntry
from tlkit.types import LeftOut

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Read = Callable[[TensorEntry], NDArray[Any]]

_BITS = {"mlx": (2, 3, 4, 5, 6, 8), "gptq": (2, 3, 4, 8), "gptq_v2": (2, 3, 4, 8), "awq": (4,)}
_INTEGERS = ("U8", "I8", "I16", "I32", "U32", "I64")
_FP8 = ("F8_E4M3", "F8_E5M2")
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # where each column of eight lies among the eight codes of a word


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a folder is quantized, according to its config: the method, bits per code, weights per group."""

    method: str
    bits: int = 0
    group: int = 0
    block: tuple[int, ...] = ()
    others: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Bits and group of layers that differ, by their name (MLX)."""

    def of(self, name: str) -> tuple[int, int]:
        """Return the bits per code and the weights per group of the weight ``name``."""
        return self.others.get(name.removesuffix(".weight"), (self.bits, self.group))

    def __str__(self) -> str:
        parts = [self.method, f"{self.bits} bits" if self.bits else "", f"groups of {self.group}" if self.group else ""]
        parts.append(f"blocks of {'x'.join(map(str, self.block))}" if self.block else "")
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Packed:
    """One weight and the stored tensors of which it consists, by role."""

    kind: str
    parts: Mapping[str, TensorEntry]


def scheme(config: Mapping[str, Any]) -> Scheme | None:
    """Return the quantization that ``config.json`` describes; None if it describes none."""
    said = config.get("quantization_config")
    method = ""
    if isinstance(said, Mapping):
        # Older configs of bitsandbytes name no method.
        method = str(said.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in said else ""))[:60]
        method = _variant(method, said)
    if not method and isinstance(config.get("quantization"), Mapping):
        said, method = config["quantization"], "MLX affine"
        if said.get("mode", "affine") != "affine":
            method = f"MLX {str(said['mode'])[:40]}"
    if not isinstance(said, Mapping) or not method:
        return None
    block = said.get("weight_block_size")
    sizes = tuple(size for size in block if type(size) is int and size > 0) if isinstance(block, list) else ()
    bits, group = _number(said.get("bits")), _number(said.get("group_size"))
    others = {
        name: (_number(layer.get("bits")) or bits, _number(layer.get("group_size")) or group)
        for name, layer in said.items()
        if method == "MLX affine" and isinstance(layer, Mapping)
    }
    return Scheme(method, bits, group, sizes if len(sizes) == 2 else (), others)


def _variant(method: str, said: Mapping[str, Any]) -> str:
    """Return the name of a method whose packing the config says to be another than its usual one."""
    packing = {"gptq": "checkpoint_format", "awq": "version"}.get(method)
    other = str(said.get(packing) or "")[:40].lower() if packing else ""
    if other in ("", "gptq", "gemm"):
        return method
    return other if other == "gptq_v2" else f"{method} {other}"


def _number(value: Any) -> int:
    return value if type(value) is int and 0 < value < 1 << 20 else 0


def gather(how: Scheme, found: Mapping[str, TensorEntry]) -> tuple[dict[str, TensorEntry], dict[str, Packed]]:
    """Return the entries, with each packed weight as one entry of its real shape, and the parts of those."""
    packed = {name: item for name, item in _groups(how, found) if item is not None}
    used = {part.name for item in packed.values() for part in item.parts.values()}
    entries: dict[str, TensorEntry] = {}
    for name, entry in found.items():
        owner = next((key for key in _owners(name) if key in packed), None) if name in used else None
        if owner is not None:
            entries.setdefault(owner, _logical(how, owner, packed[owner]))
        elif name not in used:
            entries[name] = entry
    return entries, packed


def unread(how: Scheme, entries: Mapping[str, TensorEntry], packed: Mapping[str, Packed]) -> Iterator[LeftOut]:
    """Yield the tensors packed in a layout that tlkit does not read."""
    for entry in entries.values():
        integers = entry.dtype in _INTEGERS and len(entry.shape) > 1
        # Of bitsandbytes' 4 bits, of its 8 bits, and of other methods.
        companions = any(f"{entry.name}{end}" in entries for end in (".absmax", ".quant_map", ".SCB", "_scale"))
        if entry.name not in packed and (integers or entry.dtype in _FP8 or companions):
            yield LeftOut(entry.name, f"packed by {how.method}, in a layout that tlkit does not read", entry.nbytes)


def _owners(name: str) -> Iterator[str]:
    base = name.rpartition(".")[0]
    yield f"{base}.weight"
    for end in ("_scale_inv", "_scale"):
        yield name.removesuffix(end)


def _groups(how: Scheme, found: Mapping[str, TensorEntry]) -> Iterator[tuple[str, Packed | None]]:
    for name, entry in found.items():
        base, _, last = name.rpartition(".")
        if how.method in ("gptq", "gptq_v2", "awq") and last == "qweight":
            roles = {role: found.get(f"{base}.{role}") for role in ("qweight", "qzeros", "scales", "g_idx")}
            whole = all(roles[role] for role in ("qweight", "qzeros", "scales"))
            yield f"{base}.weight", _sound(how, how.method, roles) if whole else None
        elif how.method == "MLX affine" and entry.dtype == "U32" and last == "weight":
            roles = {"weight": entry, "scales": found.get(f"{base}.scales"), "biases": found.get(f"{base}.biases")}
            yield name, _sound(how, "mlx", roles, name) if all(roles.values()) else None
        elif entry.dtype in _FP8:
            # DeepSeek's name for it (a factor all the same), then the others'.
            scale = found.get(f"{name}_scale_inv") or found.get(f"{name}_scale")
            yield name, _sound(how, "fp8", {"weight": entry, "scale": scale}) if scale else None


def _sound(how: Scheme, kind: str, roles: Mapping[str, TensorEntry | None], name: str = "") -> Packed | None:
    """Return the weight if the shapes of its parts fit together."""
    parts = {role: entry for role, entry in roles.items() if entry is not None}
    shapes = {role: entry.shape for role, entry in parts.items()}
    if kind == "fp8":
        fits = len(shapes["weight"]) == 2 and _spread(shapes["scale"], shapes["weight"], how.block) is not None
        return Packed(kind, parts) if fits else None
    bits, group = how.of(name)
    if bits not in _BITS[kind] or not all(len(shape) == 2 for role, shape in shapes.items() if role != "g_idx"):
        return None
    codes = 32 // bits
    if kind == "mlx":
        (rows, words), (_, groups) = shapes["weight"], shapes["scales"]  # outputs x words, outputs x groups
        # MLX's groups have 64 weights where nothing is said.
        fits = shapes["scales"] == shapes["biases"] == (rows, groups) and groups * (group or 64) * bits == words * 32
    elif kind == "awq":
        (rows, words), (groups, _) = shapes["qweight"], shapes["scales"]  # inputs x words, groups x outputs
        fits = shapes["scales"] == (groups, words * codes) and shapes["qzeros"] == (groups, words)
        fits = fits and groups > 0 and rows % groups == 0
    else:
        (words, columns), (groups, _) = shapes["qweight"], shapes["scales"]  # words x outputs, groups x outputs
        inputs = words * 32 // bits
        fits = shapes["scales"] == (groups, columns) and shapes["qzeros"] == (groups, columns * bits // 32)
        fits = fits and groups > 0 and words * 32 % bits == 0 and columns * bits % 32 == 0
        fits = fits and shapes.get("g_idx", (inputs,)) == (inputs,)
    return Packed(kind, parts) if fits else None


def _logical(how: Scheme, name: str, packed: Packed) -> TensorEntry:
    parts = packed.parts
    bits, _ = how.of(name)
    main = parts.get("qweight") or parts["weight"]
    rows, columns = main.shape
    across, along = (size * 32 // bits if bits else size for size in (columns, rows))
    shape = {"fp8": (rows, columns), "mlx": (rows, across), "awq": (across, rows)}.get(packed.kind, (columns, along))
    dtype = main.dtype if packed.kind == "fp8" else f"INT{bits}"
    return TensorEntry(name, dtype, shape, sum(part.nbytes for part in parts.values()), main.file)


def values(how: Scheme, packed: Packed, read: Read) -> NDArray[np.float32]:
    """Return a weight's values in f32, (outputs, inputs) as PyTorch's linear layers have them."""
    import numpy as np

    parts = {role: read(entry) for role, entry in packed.parts.items()}
    if packed.kind == "fp8":
        scale = _spread(packed.parts["scale"].shape, packed.parts["weight"].shape, how.block)
        assert scale is not None
        spread = parts["scale"].astype(np.float32).reshape(scale[0])
        for axis, (times, size) in enumerate(zip(scale[1], parts["weight"].shape, strict=True)):
            # The last block may hang over the weight's edge: cut off what is beyond.
            spread = spread.repeat(times, axis).take(range(size), axis) if times > 1 else spread
        found: NDArray[np.float32] = parts["weight"].astype(np.float32) * spread
        return found
    scales = parts["scales"].astype(np.float32)
    if packed.kind == "mlx":
        codes = _unpacked(parts["weight"], how.of(packed.parts["weight"].name)[0], 1)
        group = codes.shape[1] // scales.shape[1]
        biases = parts["biases"].astype(np.float32)
        return codes.astype(np.float32) * scales.repeat(group, 1) + biases.repeat(group, 1)
    zeros = _unpacked(parts["qzeros"], how.bits, 1)
    codes = _unpacked(parts["qweight"], how.bits, 1 if packed.kind == "awq" else 0)
    if packed.kind == "awq":
        codes, zeros = (
            array.reshape(len(array), -1, 8)[:, :, _AWQ_ORDER].reshape(array.shape) for array in (codes, zeros)
        )
    if packed.kind == "gptq":  # the first format stores each zero less one
        zeros = zeros + 1
    groups = parts["g_idx"] if "g_idx" in parts else np.arange(len(codes)) // (len(codes) // len(scales))
    if len(groups) and not 0 <= int(groups.min()) <= int(groups.max()) < len(scales):
        raise LoadError(f"{packed.parts['scales'].file}: {packed.parts['qweight'].name}: a group without a scale")
    # Stored as inputs x outputs.
    return np.ascontiguousarray(((codes - zeros[groups]).astype(np.float32) * scales[groups]).T)


def _unpacked(words: NDArray[Any], bits: int, axis: int) -> NDArray[np.int32]:
    """Return the codes in 32-bit words, lowest bits first, along ``axis``."""
    import numpy as np

    plain = np.ascontiguousarray(words).view(np.uint32)
    if 32 % bits:  # codes run on from one word into the next
        return _run_on(plain if axis else np.ascontiguousarray(plain.T), bits, transposed=not axis)
    parts = [(plain >> np.uint32(shift)) & np.uint32((1 << bits) - 1) for shift in range(0, 32, bits)]
    stacked = np.stack(parts, axis=axis + 1)
    shape = list(plain.shape)
    shape[axis] *= len(parts)
    return stacked.reshape(shape).astype(np.int32)


def _run_on(words: NDArray[Any], bits: int, transposed: bool) -> NDArray[np.int32]:
    """Return the codes along the last axis of ``words`` as one stream of bits, lowest first."""
    import numpy as np

    stream = np.unpackbits(words.astype("<u4").view(np.uint8), axis=1, bitorder="little")
    parts = stream.reshape(len(words), -1, bits)
    codes = np.zeros(parts.shape[:2], np.int32)
    for place in range(bits):
        codes |= parts[:, :, place].astype(np.int32) << place
    return np.ascontiguousarray(codes.T) if transposed else codes


def _spread(
    scale: tuple[int, ...], weight: tuple[int, ...], block: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return a scale's shape as a matrix, and how often each row and column repeats; None where it does not fit."""
    if scale in ((), (1,)):
        return (1, 1), (1, 1)
    if scale in ((weight[0],), (weight[0], 1)):
        return (weight[0], 1), (1, 1)
    if len(scale) == 2 and len(block) == 2 and scale == tuple(-(-w // b) for w, b in zip(weight, block, strict=True)):
        return (scale[0], scale[1]), (block[0], block[1])
    return None
