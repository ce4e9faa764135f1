"""Torch's devices as compute-unit settings, and calls that wait for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx

from tlkit.errors import NO_MEMORY, ExecutionError, UnavailableError, reason
from tlkit.mil.ops.kit import narrow
from tlkit.types import Unit


def device_for(unit: Unit) -> torch.device:
    """Return the torch device of a compute-unit setting; UnavailableError where there is none."""
    if unit is Unit.ANE:
        raise UnavailableError(
            "the Neural Engine is not here: it is reached through Core ML, on a Mac with Apple silicon",
            "use --units cpu; `tlkit inspect --placement` predicts what it would run",
        )
    if unit is Unit.CPU:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    if unit is Unit.ALL:
        return torch.device("cpu")
    raise UnavailableError("no GPU that PyTorch can use is here", "use --units cpu")


@contextmanager
def enough_memory(device: torch.device) -> Iterator[None]:
    """Turn what PyTorch raises in the body where ``device`` has too little memory into an ExecutionError."""
    try:
        yield
    except RuntimeError as error:
        gpu_libraries = device.type != "cpu" and reason(error).startswith(NO_MEMORY)
        if not (isinstance(error, torch.OutOfMemoryError) or gpu_libraries):
            raise
        hint = "give smaller inputs, free some of it, or use --units cpu"
        title = "GPU" if device.type != "cpu" else "machine"
        raise ExecutionError(f"the {title} has no room for this model: {reason(error)}", hint) from error


def waiting_call(forward: Callable[..., Any], operands: Sequence[Any], device: torch.device) -> Callable[[], Any]:
    """Return a call that runs ``forward`` once on ``operands`` and waits for the device; on CUDA a DeviceCall."""
    if device.type == "cuda":
        return DeviceCall(forward, operands)
    wait = synchronizer(device)

    def call() -> Any:
        with torch.inference_mode():
            outputs = forward(*operands)
            wait()
        return outputs

    return call


class DeviceCall:
    """One inference on a CUDA device between two of its events; the call returns when the second has passed."""

    def __init__(self, forward: Callable[..., Any], operands: Sequence[Any]) -> None:
        self._forward, self._operands = forward, operands
        self._start = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)

    def __call__(self) -> Any:
        """Run once and wait."""
        with torch.inference_mode():
            self._start.record()
            outputs = self._forward(*self._operands)
            self._end.record()
            self._end.synchronize()
        return outputs

    @property
    def device_ns(self) -> int:
        """The last call's duration by the device's clock, in nanoseconds (resolution: half a microsecond)."""
        # elapsed_time is in milliseconds.
        return int(self._start.elapsed_time(self._end) * 1e6)


def synchronizer(device: torch.device) -> Callable[[], None]:
    """Return a call that returns once ``device`` has finished all its work."""
    if device.type == "cuda":
        return torch.cuda.synchronize
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None


def described(device: torch.device, how: str) -> dict[str, Any]:
    """Return what a measurement says of PyTorch on ``device``, run as ``how`` says."""
    return {
        "backend": f"PyTorch {torch.__version__}, {how}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "kind": "cpu" if device.type == "cpu" else "gpu",
    }


def place_weights(module: fx.GraphModule, device: torch.device, *, packed: bool = True) -> None:
    """Move the weights to ``device``; ``packed`` gives 2-d convolutions channels-last weights, faster in oneDNN and
    cuDNN."""
    module.to(device)
    if not packed or device.type not in ("cpu", "cuda"):
        return
    for node in module.graph.nodes:
        operation = node.meta.get("mil")
        if operation is None or operation.type != "conv":
            continue
        weight = node.kwargs["weight"]
        if isinstance(weight, fx.Node) and weight.op == "get_attr":
            tensor = getattr(module, str(weight.target))
            mark = narrow.mark_of(tensor)
            if mark is not None:
                mark.channels_last = tensor.ndim == 4
            elif tensor.ndim == 4:
                setattr(module, str(weight.target), tensor.contiguous(memory_format=torch.channels_last))
