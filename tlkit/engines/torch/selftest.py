"""Whether inductor keeps f16's rounding on this machine: known values through a small compiled graph, once per process.

``emulate_precision_casts`` asks for it. The code that inductor generates for a CPU heeds that in PyTorch 2.13, and
removed the casts all the same in 2.11, where the results were those of f32.
"""

from __future__ import annotations

import functools
import re

import torch

from tlkit.mil import ops

_HEEDED = (2, 13)  # the tests hold it for this release, so that it need not be compiled for
_FACTOR = 1.0009765625
_VALUES = (1.00048828125, 1.00146484375, -2049.0, 2051.0, 0.1, 7.9997611, 65503.9, 70000.0, 6.1e-5, 2.98e-8, 333.333,
           3.14159274, 1024.5, -1025.5, 1e-3, 12345.678) * 64  # fmt: skip


def is_known_to_keep_rounding() -> bool:
    """Whether this release of PyTorch is one whose compiler was seen to keep f16's rounding on a CPU."""
    found = re.match(r"(\d+)\.(\d+)", torch.__version__)
    return found is not None and (int(found[1]), int(found[2])) >= _HEEDED


@functools.cache
def keeps_rounding() -> bool:
    """Whether a product, a sum and a difference, compiled with inductor's settings as they are now, round each time."""
    values = torch.tensor(_VALUES, dtype=torch.float32)
    return torch.allclose(torch.compile(_rounds)(values), _rounds(values), rtol=0, atol=0, equal_nan=True)


def _rounds(values: torch.Tensor) -> torch.Tensor:
    first = ops.round_f16(values)
    product = ops.round_f16(first * _FACTOR)
    result: torch.Tensor = ops.round_f16(ops.round_f16(product + first) - product)
    return result
