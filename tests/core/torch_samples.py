"""Tiny modules with one troublesome torch op each. Run as a program, says what bare coremltools makes of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

I20 = torch.tensor([2, 0])


def put(x: Tensor, places: list[Tensor | None], values: Tensor) -> Tensor:
    """``x`` with ``values`` at ``places`` of its axes; None stands for a whole axis."""
    put_: Tensor = torch.ops.aten.index_put(x, places, values)
    return put_


def resize(x: Tensor, **how: Any) -> Tensor:
    """An image made of ``x``, resized with antialiasing."""
    image = torch.cat([x, -2 * x, x * x]).repeat(1, 3)[None, None]  # 6 x 9
    return F.interpolate(image, antialias=True, **how)


SAMPLES: dict[str, Callable[[Tensor], Tensor]] = {
    "new_ones": lambda x: x + x.new_ones(2, 3) + x.new_ones((), dtype=torch.int64),
    "new_ones of a dynamic size": lambda x: x * x.new_ones((x.shape[0], 1)),
    "new_ones of booleans": lambda x: x.new_ones((2, 3), dtype=torch.bool) & (x > 0),
    "diff": lambda x: torch.diff(x),
    "diff of a larger order": lambda x: torch.diff(x, n=2, dim=1),
    "diff with both ends": lambda x: torch.diff(x, dim=0, prepend=x[:1] * 2, append=x[1:]),
    "diff of booleans": lambda x: torch.diff(x > 0).float(),
    "where.ScalarOther": lambda x: torch.where(x > 0, x, 1.5),
    "where.ScalarSelf": lambda x: torch.where(x > 0, -1.0, x),
    "where.Scalar": lambda x: torch.where(x > 0, 2.0, -1.0) * x,
    "__and__": lambda x: x * ((x > -1) & (x < 1)),
    "__or__": lambda x: x * ((x < -1) | (x > 1)),
    "__xor__": lambda x: x * ((x < 1) ^ (x > 0)),
    "int of one element": lambda x: x[:, : int(torch.tensor([2]))] * 2,
    "einsum with an ellipsis": lambda x: torch.einsum("...d,...d->...", x[None], x[None] + 1),
    "einsum without an output": lambda x: torch.einsum("ij,...jk", x, torch.stack([x.T, 2 * x.T])),
    "attention of grouped heads": lambda x: F.scaled_dot_product_attention(
        torch.cat([x, x + 1])[:, None], torch.stack([x, -x], 1), torch.stack([x, x.flip(0)], 1), enable_gqa=True
    ),
    "index_copy of a row": lambda x: (x * 1).index_copy_(1, torch.tensor([2]), x[:, :1] * 3),
    "index_copy of rows": lambda x: (x * 1).index_copy_(1, torch.tensor([2, 0]), x[:, :2] * 3),
    "index_put of rows": lambda x: put(x * 1, [None, I20], x[:, 1:] * 3),
    "index_put of rows, one for all": lambda x: put(torch.stack([x, -x]), [None, None, I20], x[0, :2]),
    "index_put of a row": lambda x: put(x * 1, [None, torch.tensor([1])], x[:, :1] * 3),
    "index_put of whole rows": lambda x: put(x * 1, [torch.tensor([1, 0])], x * 3),
    "antialiased resize": lambda x: resize(x, size=[2, 5], mode="bilinear"),
    "antialiased resize by a factor": lambda x: resize(x, scale_factor=0.4, mode="bilinear"),
    "antialiased bicubic resize": lambda x: resize(x, size=[4, 3], mode="bicubic"),
    "float of one element": lambda x: x * float(torch.tensor([[1.5]])),
}
"""By the torch op; each takes a (2, 3) f32 tensor."""


class Sample(nn.Module):
    """One of :data:`SAMPLES`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.compute = SAMPLES[name]

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(x)


def bare(name: str, export: bool) -> str:
    """Return why coremltools alone refuses the sample; empty where it converts it."""
    import coremltools as ct

    x = torch.linspace(-2, 2, 6).reshape(2, 3)
    try:
        if export:
            program = torch.export.export(Sample(name), (x,)).run_decompositions({})
        else:
            program = torch.jit.trace(Sample(name), x, check_trace=False)
        ct.convert(program, inputs=[ct.TensorType(name="x", shape=(2, 3))], skip_model_load=True)
    except Exception as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""


if __name__ == "__main__":
    for sample in SAMPLES:
        for export in (False, True):
            sys.stdout.write(f"{sample}\t{'export' if export else 'trace'}\t{bare(sample, export)}\n")
