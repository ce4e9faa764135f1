"""Advice for the Neural Engine: a sentence for each of its preferences that a model does not meet.

It computes only in f16; it works best with mlprograms; its throughput is planned for one item at a time; and shapes are
fixed when a model is compiled. Whether Core ML will place an op there is another question.
"""

from __future__ import annotations

from tlkit.types import ModelInfo, TensorSpec


def advise(info: ModelInfo) -> tuple[str, ...]:
    """Return one short sentence for each of the four preferences that the model described by ``info`` does not meet."""
    sentences = (_precision(info), _kind(info), _batch(info), _shapes(info))
    return tuple(sentence for sentence in sentences if sentence)


def _precision(info: ModelInfo) -> str:
    f16, f32 = info.compute.get("F16", 0), info.compute.get("F32", 0)
    if f32 <= f16:  # the casts at an f16 program's float32 ports are f32, and eligible all the same
        return ""
    share = f"{f32} of {f16 + f32} float ops"
    return f"computes in f32 ({share}): the Neural Engine takes f16 only"


def _kind(info: ModelInfo) -> str:
    if info.kind == "mlProgram":
        return ""
    return f"is a {info.kind}, not an mlprogram: convert the source model again to get typed f16 compute"


def _batch(info: ModelInfo) -> str:
    # Of a vector the first axis is its length, not a batch.
    batched = [f"{port.name} ({port.shape[0]})" for port in info.inputs if len(port.shape) > 1 and port.shape[0] > 1]
    if not batched:
        return ""
    return f"batch over 1 in {', '.join(batched)}: the Neural Engine does best with batch 1, and apps ask one at a time"


def _shapes(info: ModelInfo) -> str:
    flexible = [port.name for port in info.inputs if _ranges(port)]
    if not flexible:
        return ""
    return f"shape of {', '.join(flexible)} is a range: that keeps it off the Neural Engine; fix it, or list the shapes"


def _ranges(port: TensorSpec) -> bool:
    """Enumerated shapes are usually fine: each is compiled as a fixed one."""
    return port.flexible and not port.listed
