"""Which kernels convolutions take on processors with AVX2 and no AVX-512.

OpenVINO 2026 takes the ones whose channels lie last (``brgconv_avx2``). On an AMD EPYC the older ones, for blocks of 8
channels, need 0.85 of their time on MobileNetV2 and 0.9 on ResNet-50. Elsewhere that may be otherwise, so both are
tried.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from tlkit.engines.openvino.library import openvino
from tlkit.engines.trial import trial

_LAST = "brgconv_avx2"
_PRODUCTS = ("Convolution", "GroupConvolution", "FullyConnected", "MatMul", "MHA")
_SHORT = 1e-3
"""Seconds of an inference that no trial is worth."""
_CLEARLY = 0.97
"""Kernels that OpenVINO would not take have to need less than this share of the time."""


def faster(compiled: Any, again: Callable[[], Any]) -> Any:
    """Return ``compiled``, or what ``again`` compiles with kernels for blocks if that is faster."""
    if not _mostly_convolves(compiled):
        return compiled
    first = _call(compiled)
    if _seconds(first) < _SHORT:
        return compiled
    try:
        other = again()
    except RuntimeError:  # an OpenVINO that does not know them
        return compiled
    taken = trial({"first": first, "other": _call(other)})
    return other if taken["other"] < _CLEARLY * taken["first"] else compiled


def _mostly_convolves(compiled: Any) -> bool:
    """Whether half of the operations that take time are convolutions with channels last."""
    told = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kernels = [info["primitiveType"].value for info in told if info["layerType"].value in _PRODUCTS]
    last = [kernel for kernel in kernels if kernel.startswith(_LAST)]
    return 2 * len(last) > len(kernels)


def _call(compiled: Any) -> Callable[[], object]:
    """Return a call that infers once, on zeros."""
    request = compiled.create_infer_request()
    for place, port in enumerate(compiled.inputs):
        request.set_input_tensor(place, openvino.Tensor(np.zeros(tuple(port.shape), port.element_type.to_dtype())))
    return lambda: request.infer(share_outputs=True)


def _seconds(call: Callable[[], object]) -> float:
    """Return what the second of two calls takes: the first prepares things."""
    call()
    start = perf_counter()
    call()
    return perf_counter() - start
