"""The lowerings by family, as in ``mil/ops``; importing this registers them all."""

from tlkit.engines.onnx.lower.ops import (
    activation,
    conv,
    elementwise,
    gather,
    image,
    linear,
    normalization,
    pool,
    recurrent,
    reduction,
    state,
    tensor,
    transformation,
)

__all__ = [
    "activation",
    "conv",
    "elementwise",
    "gather",
    "image",
    "linear",
    "normalization",
    "pool",
    "recurrent",
    "reduction",
    "state",
    "tensor",
    "transformation",
]
