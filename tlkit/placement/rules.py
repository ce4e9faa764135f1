"""The rules that keep an operation off the Neural Engine or the GPU, by its type, element types and sizes.

Each rule's text, remedy and source are in ``data/rules.toml``; what an M4 supports is in ``data/ops.csv``.
"""

from __future__ import annotations

from collections.abc import Iterator

from tlkit.mil.types import DType, TensorType
from tlkit.mil.work import Step
from tlkit.placement.facts import op_units

CONTROL = frozenset(("cond", "while_loop", "make_list"))
STATE = frozenset(("read_state", "write_state", "coreml_update_state"))


def is_control(step: Step) -> bool:
    """Whether the operation chooses, loops, or works on a list."""
    return step.type in CONTROL or step.type.startswith("list_")


def against_gpu(step: Step) -> str:
    """Return the id of the rule that keeps the operation off the GPU, or an empty string."""
    if is_control(step):
        return "ANE-control-flow"
    units = op_units().get(step.type)
    if step.type == "cast" and _one_number(step):
        return "GPU-op"
    if units is None or "gpu" in units:
        return ""
    return "GPU-only-not" if "ane" in units else "GPU-op"


def against_ane(step: Step, largest: int) -> tuple[str, ...]:
    """Return the ids of the rules that keep the operation off the Neural Engine; ``largest`` is the unit's largest
    dimension."""
    return tuple(dict.fromkeys(_against(step, largest)))


def _against(step: Step, largest: int) -> Iterator[str]:
    units = op_units().get(step.type)
    if not largest:
        yield "ANE-none"
        return
    if is_control(step):
        yield "ANE-control-flow"
    elif step.type in STATE:
        yield "ANE-state"
    elif step.type == "custom_layer":
        yield "custom-layer"
        return
    elif units is None:
        yield "unknown-op"
    elif "ane" not in units:
        yield "ANE-op"
    yield from _types(step)
    yield from _sizes(step, largest)


def _one_number(step: Step) -> bool:
    """Whether a number in a vector is narrowed to 16 bits, as coremltools has sizes that are inputs narrowed."""
    return [(item.kind.dtype, item.shape) for item in step.read] == [(DType.INT32, (1,))] and _narrows(step)


def _narrows(step: Step) -> bool:
    return any(item.kind.dtype in (DType.INT16, DType.UINT16) for item in step.results)


def _takes_integers(step: Step) -> bool:
    """Whether the operation is one of the few that list the Neural Engine although they read or make integers."""
    if step.type == "cast":
        read = step.read[0].kind.dtype if step.read else DType.FP16
        made = {item.kind.dtype for item in step.results}
        # Bytes are what quantized values are made of. What has no size before the program runs was listed, too.
        return (read.is_float and made <= _BYTES) or _counted(step)
    if step.type in ("squeeze", "expand_dims"):
        return all(item.kind.dtype in _SHORTS for item in (*step.read, *step.results))
    return step.type in ("quantize", "dequantize", "gather_along_axis", "gather_nd", "topk")


def _counted(step: Step) -> bool:
    """Whether integers whose number only the run tells become floats."""
    made = all(item.kind.dtype.is_float for item in step.results)
    return step.type == "cast" and made and all(item.open and item.kind.dtype is DType.INT32 for item in step.read)


def _types(step: Step) -> Iterator[str]:
    kinds = {item.kind.dtype for item in (*step.read, *step.results)}
    # Most operations are all in f16: the quickest thing to find out.
    if kinds == _HALF:
        return
    if step.type == "gather" and any(not item.fixed for item in step.operands.get("indices", ())):
        yield "ANE-int-index"
    elif not _INTEGERS.isdisjoint(kinds) and not _takes_integers(step):
        yield "ANE-int"
    if step.type == "topk" and any(item.kind.dtype in _INTEGERS for item in step.read):
        yield "ANE-int"
    # The casts around an f16 body may run there.
    if step.type not in ("cast", "dequantize") and (DType.FP32 in kinds or DType.FP64 in kinds):
        yield "f32-compute"


_HALF = {DType.FP16}
_BYTES = frozenset((DType.INT8, DType.UINT8))
_SHORTS = frozenset((DType.INT16, DType.UINT16))
_INTEGERS = frozenset(kind for kind in DType if not kind.is_float and kind not in (DType.BOOL, DType.STRING))


def _unsized(kind: TensorType) -> bool:
    return kind.dtype is not DType.STRING and (kind.shape is None or None in kind.shape)


_SIZED = ("conv", "max_pool", "matmul", "slice_by_size", "slice_by_index")
"""Operations with limits of their own."""


def _sizes(step: Step, largest: int) -> Iterator[str]:
    kinds = [item.kind for item in (*step.read, *step.results)]
    shapes = [kind.shape for kind in kinds if kind.shape]
    sizes = [size for shape in shapes for size in shape]
    if any(map(_unsized, kinds)) and not _counted(step):
        yield "ANE-range-shape"
    if max(map(len, shapes), default=0) > 5:
        yield "ANE-rank"
    if max([size or 0 for size in sizes], default=0) > largest:
        yield "ANE-dim"
    if step.type not in _SIZED:
        return
    weight = step.operand("weight")
    if step.type == "conv" and weight is not None and len(weight.shape) > 2:
        if (weight.shape[-1] or 0) > 15:
            yield "ANE-kernel-width"
        if len(weight.shape) > 3 and (weight.shape[-2] or 0) > 31:
            yield "ANE-kernel-height"
    if step.type == "max_pool" and (step.setting("kernel_sizes") or [0])[-1] > 8:
        yield "ANE-pool-width"
    if step.type == "matmul" and (inner := step.operand("x")) is not None and inner.shape:
        axis = -2 if step.setting("transpose_x") and len(inner.shape) > 1 else -1
        if (inner.shape[axis] or 0) > 32768:
            yield "ANE-inner-dim"
    begin = step.operand("begin")
    if step.type in ("slice_by_size", "slice_by_index") and begin is not None and not begin.fixed:
        yield "ANE-dynamic-begin"
